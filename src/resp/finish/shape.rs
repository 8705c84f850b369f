//! How byte strings of a collection become a reply: as an array, a set or a map, in either version of the protocol.

use crate::resp::reply::{Protocol, Replies};
use crate::resp::score::told;

/// What the reply is. What it is made of comes as a row of strings, of which one or two belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// An array of them.
    Array,
    /// A set of them; an array in version 2.
    Set,
    /// A map: fields and values by turns; an array of both in version 2.
    Map,
    /// Fields and values by turns, of which it is an array of the values.
    Values,
    /// An array of arrays of two; an array of all in version 2.
    Pairs,
    /// Members and scores by turns: as pairs.
    Scores,
    /// The same, as an array of all.
    FlatScores,
    /// Members and scores by turns, of which it is an array of the members.
    Firsts,
}

impl Shape {
    /// How many strings belong together.
    pub fn width(self) -> usize {
        match self {
            Self::Array | Self::Set => 1,
            Self::Map
            | Self::Values
            | Self::Pairs
            | Self::Scores
            | Self::FlatScores
            | Self::Firsts => 2,
        }
    }

    /// Begins the reply: so many strings follow.
    pub fn begin(self, count: usize, replies: &mut Replies<'_>) {
        match self {
            Self::Array | Self::FlatScores => replies.array(count),
            Self::Set => replies.set(count),
            Self::Map => replies.map(count / 2),
            Self::Values | Self::Firsts => replies.array(count / 2),
            Self::Pairs | Self::Scores if replies.protocol() == Protocol::Three => {
                replies.array(count / 2);
            }
            Self::Pairs | Self::Scores => replies.array(count),
        }
    }

    /// The string at this place among them, from 0.
    pub fn string(self, place: usize, string: &[u8], replies: &mut Replies<'_>) {
        let is_first = place.is_multiple_of(2);
        match self {
            Self::Values if is_first => return,
            Self::Firsts if !is_first => return,
            Self::Scores | Self::FlatScores if !is_first => {
                if let Some(score) = told(string) {
                    return replies.double(score);
                }
            }
            Self::Pairs | Self::Scores if is_first && replies.protocol() == Protocol::Three => {
                replies.array(2);
            }
            _ => {}
        }
        replies.bulk(string);
    }

    /// The whole reply.
    pub fn write<'a>(
        self,
        strings: impl ExactSizeIterator<Item = &'a [u8]>,
        replies: &mut Replies<'_>,
    ) {
        self.begin(strings.len(), replies);
        for (place, string) in strings.enumerate() {
            self.string(place, string, replies);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_machine::kv::wire::Score;

    #[test]
    fn each_shape_is_that_of_redis() {
        let strings: [&[u8]; 2] = [b"f", b"v"];
        for (shape, two, three) in [
            (Shape::Array, "*2 $1 f $1 v ", "*2 $1 f $1 v "),
            (Shape::Set, "*2 $1 f $1 v ", "~2 $1 f $1 v "),
            (Shape::Map, "*2 $1 f $1 v ", "%1 $1 f $1 v "),
            (Shape::Values, "*1 $1 v ", "*1 $1 v "),
            (Shape::Pairs, "*2 $1 f $1 v ", "*1 *2 $1 f $1 v "),
        ] {
            check(shape, strings, two, three);
        }
        let score = Score::new(1.5).expect("a number").to_ordered();
        let told = score.to_le_bytes();
        let strings: [&[u8]; 2] = [b"f", &told];
        for (shape, two, three) in [
            (Shape::Scores, "*2 $1 f $3 1.5 ", "*1 *2 $1 f ,1.5 "),
            (Shape::FlatScores, "*2 $1 f $3 1.5 ", "*2 $1 f ,1.5 "),
            (Shape::Firsts, "*1 $1 f ", "*1 $1 f "),
        ] {
            check(shape, strings, two, three);
        }
    }

    fn check(shape: Shape, strings: [&[u8]; 2], two: &str, three: &str) {
        for (protocol, expected) in [(Protocol::Two, two), (Protocol::Three, three)] {
            let mut out = Vec::new();
            let mut replies = Replies::new(&mut out, protocol);
            shape.write(strings.into_iter(), &mut replies);
            let found = String::from_utf8(out).expect("text").replace("\r\n", " ");
            assert_eq!(found, expected, "{shape:?} {protocol:?}");
        }
    }
}
