//! INCRBYFLOAT and HINCRBYFLOAT. Redis computes with 80 bits, this with the 64 of IEEE 754 and the shortest digits that name the
//! result: the same for what people write down, not for the last digits of what needs more than 15.

use super::{Step, again, results};
use crate::client::{Kind, ReplyRef};
use crate::resp::command::{Failure, WRONG_TYPE};
use crate::resp::reply::Replies;
use crate::state_machine::kv::wire::{
    Action, Condition, Expiry, Item, Operation, SetCondition, SetOptions, Status, TransactionBytes,
    ValueKind,
};

const NOT_A_FLOAT: Failure = Failure::new("ERR value is not a valid float");
const FIELD_NOT_A_FLOAT: Failure = Failure::new("ERR hash value is not a float");
const INFINITE: Failure = Failure::new("ERR value is NaN or Infinity");
const NOT_FINITE: Failure = Failure::new("ERR increment would produce NaN or Infinity");

/// Longest number that is read.
const TEXT_SIZE_MAX: usize = 5 * 1024;

/// Reads the value, adds, and writes the sum if the version is still the same.
#[derive(Debug)]
pub struct Float {
    key: Vec<u8>,
    /// Of a hash; none: the key's own value.
    field: Option<Vec<u8>>,
    increment: f64,
    /// The version that was read, and the sum.
    sum: Option<(u64, Vec<u8>)>,
    tries: u32,
}

/// A number as C reads it: no blanks, and not "nan".
fn parse(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.len() > TEXT_SIZE_MAX {
        return None;
    }
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if let [b'0', b'x' | b'X', digits @ ..] = digits {
        let number = hexadecimal(digits)?;
        return Some(if negative { -number } else { number });
    }
    let number: f64 = text.parse().ok()?;
    // Digits of a number too large are none; the word for infinity is one.
    let is_digits = digits.iter().any(u8::is_ascii_digit);
    let wrong = number.is_nan() || number.is_infinite() && is_digits;
    (!wrong).then_some(number)
}

/// The digits of a hexadecimal number, as C knows them: a fraction and a power of two may follow.
pub fn hexadecimal(digits: &[u8]) -> Option<f64> {
    let at = digits
        .iter()
        .position(|byte| byte.eq_ignore_ascii_case(&b'p'));
    let (digits, power) = digits.split_at(at.unwrap_or(digits.len()));
    let (mut number, mut fraction, mut count, mut unit) = (0.0, false, 0, 1.0);
    for &byte in digits {
        if byte == b'.' && !fraction {
            fraction = true;
            continue;
        }
        let digit = f64::from(char::from(byte).to_digit(16)?);
        count += 1;
        if fraction {
            unit /= 16.0;
            number += digit * unit;
        } else {
            number = number * 16.0 + digit;
        }
    }
    let power = match power {
        [] => 0,
        [_, power @ ..] => std::str::from_utf8(power).ok()?.parse::<i32>().ok()?,
    };
    (count > 0).then(|| number * f64::from(power).exp2())
}

impl Float {
    /// Adds `increment`, if it is a number.
    ///
    /// # Errors
    /// It is none.
    pub fn new(key: &[u8], increment: &[u8]) -> Result<Self, Failure> {
        Ok(Self {
            key: key.to_vec(),
            field: None,
            increment: parse(increment).ok_or(NOT_A_FLOAT)?,
            sum: None,
            tries: 0,
        })
    }

    /// The same to a field of a hash. Infinity is no number there.
    ///
    /// # Errors
    /// It is none.
    pub fn of_field(key: &[u8], field: &[u8], increment: &[u8]) -> Result<Self, Failure> {
        let float = Self::new(key, increment)?;
        if float.increment.is_infinite() {
            return Err(INFINITE);
        }
        Ok(Self {
            field: Some(field.to_vec()),
            ..float
        })
    }

    fn not_a_float(&self) -> Failure {
        match self.field {
            None => NOT_A_FLOAT,
            Some(_) => FIELD_NOT_A_FLOAT,
        }
    }

    /// The sum of this value, or of zero if there is none, and the increment.
    ///
    /// # Errors
    /// The value is no number, or the sum is too large.
    pub fn sum(&self, value: Option<&[u8]>) -> Result<Vec<u8>, Failure> {
        let value = match value {
            Some(value) => parse(value).ok_or_else(|| self.not_a_float())?,
            None => 0.0,
        };
        let sum = value + self.increment;
        if !sum.is_finite() {
            return Err(NOT_FINITE);
        }
        // Not "-0".
        Ok((sum + 0.0).to_string().into_bytes())
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        let key = &self.key;
        let size_max = TEXT_SIZE_MAX as u32;
        match (&self.sum, &self.field) {
            (None, None) => {
                Item::Get { key, size_max }.encode(body);
                (Kind::Read, Operation::Batch)
            }
            (None, Some(field)) => {
                // A field that is not there does not tell the key's version.
                Item::Stat { key }.encode(body);
                let action = Action::Find {
                    kind: ValueKind::Hash,
                    member: field,
                    size_max,
                };
                Item::Collection { key, action }.encode(body);
                (Kind::Read, Operation::Batch)
            }
            (Some((version, value)), None) => {
                let options = SetOptions {
                    condition: SetCondition::Version(*version),
                    expiry: Expiry::Keep,
                    old: false,
                };
                let item = Item::Set {
                    key,
                    value,
                    options,
                };
                item.encode(body);
                (Kind::Write, Operation::Batch)
            }
            (Some((version, value)), Some(field)) => {
                let action = Action::Insert {
                    kind: ValueKind::Hash,
                    member: field,
                    value,
                    if_absent: false,
                };
                let condition = Condition::version(key, *version);
                let item = Item::Collection { key, action };
                let transaction = TransactionBytes::new(&[condition], &[item], &[]);
                body.extend_from_slice(transaction.expect("one item").as_bytes());
                (Kind::Write, Operation::Batch)
            }
        }
    }

    pub(super) fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        if let Some((_, sum)) = self.sum.take() {
            match results(reply, 1)?.next()?.status {
                Status::Done | Status::Succeeded => replies.bulk(&sum),
                Status::Mismatch | Status::Failed => return Some(again(&mut self.tries, replies)),
                Status::OutOfSpace => super::out_of_space(replies),
                _ => return None,
            }
            return Some(Step::Done);
        }
        let count = 1 + usize::from(self.field.is_some());
        let mut results = results(reply, count)?;
        let mut version = None;
        if self.field.is_some() {
            version = Some(results.next()?.version);
        }
        let result = results.next()?;
        let version = version.unwrap_or(result.version);
        let sum = match result.status {
            Status::Value => self.sum(Some(result.value)),
            Status::NotFound => self.sum(None),
            Status::TooLarge => Err(self.not_a_float()),
            Status::WrongType => Err(WRONG_TYPE),
            _ => return None,
        };
        match sum {
            Ok(sum) => {
                self.sum = Some((version, sum));
                Some(Step::Ask)
            }
            Err(failure) => {
                failure.write(replies);
                Some(Step::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_in_redis() {
        for (text, number) in [
            ("1.5", 1.5),
            ("-3", -3.0),
            ("3.0e3", 3000.0),
            (".5", 0.5),
            ("0x10", 16.0),
            ("-0X1.8p1", -3.0),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(number), "{text}");
        }
        for text in ["", "x", " 1", "1 ", "nan", "1,5", "-", "0x", "0xg", "0x1p"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
