//! What a connection has set: its protocol, its name, its transaction, the keys it watches.

use super::reply::Protocol;
use super::request::Arguments;

/// Most bytes of the commands of a transaction: what a request of the cluster could not hold needs not be kept.
const QUEUE_SIZE_MAX: usize = 2 << 20;

/// Most commands of a transaction.
const QUEUE_COUNT_MAX: usize = 1 << 14;

/// Most keys that a connection may watch.
pub const WATCHED_MAX: usize = 1024;

/// The state of a connection as its commands see it.
#[derive(Debug, Default)]
pub struct Caller {
    /// Its number, counted from 1.
    pub number: u64,
    /// The version it speaks.
    pub protocol: Protocol,
    /// The name it has given itself.
    pub name: Vec<u8>,
    /// The library that it says it uses, and that one's version.
    pub library: (Vec<u8>, Vec<u8>),
    /// Between MULTI and EXEC.
    pub transaction: Option<Transaction>,
    /// Keys of WATCH, and their versions then.
    pub watched: Vec<(Box<[u8]>, u64)>,
    /// The last command, for CLIENT LIST.
    pub last: &'static str,
}

impl Caller {
    /// The memory that it holds, in bytes, beyond its own size.
    pub fn memory(&self) -> usize {
        let watched: usize = self.watched.iter().map(|(key, _)| key.len() + 32).sum();
        let transaction = self.transaction.as_ref().map_or(0, Transaction::memory);
        let texts = self.name.len() + self.library.0.len() + self.library.1.len();
        watched + transaction + texts
    }

    /// As a new connection, but for its number: RESET.
    pub fn reset(&mut self) {
        *self = Self {
            number: self.number,
            last: self.last,
            ..Self::default()
        };
    }

    /// What commands of a transaction may set.
    pub fn settings(&self) -> Settings {
        Settings {
            protocol: self.protocol,
            name: self.name.clone(),
            library: self.library.clone(),
        }
    }

    /// With these.
    #[must_use]
    pub fn with(mut self, settings: &Settings) -> Self {
        self.set(settings);
        self
    }

    /// Sets it.
    pub fn set(&mut self, settings: &Settings) {
        self.protocol = settings.protocol;
        self.name.clone_from(&settings.name);
        self.library.clone_from(&settings.library);
    }

    /// Ends the transaction and watches nothing: EXEC and DISCARD.
    pub fn end_transaction(&mut self) {
        self.transaction = None;
        self.watched = Vec::new();
    }
}

/// What a connection says of itself, and how it is spoken to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    protocol: Protocol,
    name: Vec<u8>,
    library: (Vec<u8>, Vec<u8>),
}

/// The commands of a transaction that has not been executed yet.
#[derive(Debug, Default)]
pub struct Transaction {
    bytes: Vec<u8>,
    places: Vec<(u32, u32)>,
    /// For each command, the places before it and with it.
    ends: Vec<usize>,
    /// A command was refused: EXEC will be, too.
    pub broken: bool,
    /// There is a command whose items depend on what those before it leave.
    pub is_predicted: bool,
    /// Lists of connections that its commands ask for, in their order, as they are when it is executed.
    pub lists: Vec<String>,
    /// They are there.
    pub is_listed: bool,
}

/// The transaction is longer than can be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

impl Transaction {
    /// Keeps a command.
    ///
    /// # Errors
    /// There are too many.
    pub fn push(&mut self, arguments: &Arguments<'_>) -> Result<(), TooLong> {
        let size: usize = arguments.iter().map(|argument| argument.len() + 8).sum();
        if self.bytes.len() + size > QUEUE_SIZE_MAX || self.ends.len() == QUEUE_COUNT_MAX {
            return Err(TooLong);
        }
        for argument in arguments.iter() {
            let from = self.bytes.len() as u32;
            self.bytes.extend_from_slice(argument);
            self.places.push((from, self.bytes.len() as u32));
        }
        self.ends.push(self.places.len());
        Ok(())
    }

    /// The memory that it holds, in bytes, about.
    pub fn memory(&self) -> usize {
        let lists: usize = self.lists.iter().map(String::len).sum();
        lists + self.bytes.capacity() + 8 * self.places.capacity() + 8 * self.ends.capacity()
    }

    /// Commands.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The commands in order.
    pub fn commands(&self) -> impl Iterator<Item = Arguments<'_>> {
        let from = |index: usize| index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let places = move |(index, &end): (usize, &usize)| &self.places[from(index)..end];
        let commands = self.ends.iter().enumerate().map(places);
        commands.map(|places| Arguments::new(&self.bytes, places))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_keeps_its_commands_and_not_too_many() {
        let mut transaction = Transaction::default();
        let first = Arguments::new(b"geta", &[(0, 3), (3, 4)]);
        let second = Arguments::new(b"ping", &[(0, 4)]);
        assert_eq!(transaction.push(&first), Ok(()));
        assert_eq!(transaction.push(&second), Ok(()));
        let texts = |arguments: Arguments<'_>| arguments.iter().map(<[u8]>::to_vec).collect();
        let commands: Vec<Vec<Vec<u8>>> = transaction.commands().map(texts).collect();
        assert_eq!(
            commands,
            [vec![b"get".to_vec(), b"a".to_vec()], vec![b"ping".to_vec()]]
        );
        let long = vec![0; QUEUE_SIZE_MAX / 2];
        let long = Arguments::new(&long, &[(0, QUEUE_SIZE_MAX as u32 / 2)]);
        assert_eq!(transaction.push(&long), Ok(()));
        assert_eq!(transaction.push(&long), Err(TooLong));
        assert_eq!(transaction.len(), 3);
    }
}
