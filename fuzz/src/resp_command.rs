//! The commands: whatever their arguments, they write one whole reply, or ask the cluster for what it takes.

use viewstone::resp::caller::Caller;
use viewstone::resp::command::{Context, Then, look_up, queue};
use viewstone::resp::items::ItemList;
use viewstone::resp::shared::Shared;
use viewstone::resp::{Limits, Parsed, Parser, Protocol, Replies, Value};
use viewstone::state_machine::kv::wire::{Items, Operation};

/// Panics on a finding.
pub fn run(data: &[u8]) {
    let mut parser = Parser::new(Limits::DEFAULT);
    let (mut caller, mut shared) = (Caller::default(), Shared::new(1));
    let mut rest = data;
    loop {
        let size = match parser.parse(rest) {
            Ok(Parsed::Request(size)) => size,
            Ok(Parsed::Empty(size)) => {
                parser.finish();
                rest = &rest[size..];
                continue;
            }
            Ok(Parsed::Incomplete) | Err(_) => return,
        };
        let arguments = parser.arguments(rest);
        let mut reply = Vec::new();
        match look_up(&arguments) {
            Err(failure) => failure.write(&mut Replies::new(&mut reply, Protocol::Two)),
            Ok(spec) => {
                let transaction = caller.transaction.as_mut().filter(|_| !spec.is_immediate);
                if let Some(transaction) = transaction {
                    let _ = queue(transaction, spec, &arguments);
                } else {
                    let mut items = ItemList::new();
                    let mut context = Context {
                        spec,
                        caller: &mut caller,
                        replies: Replies::new(&mut reply, Protocol::Two),
                        items: &mut items,
                        shared: &mut shared,
                        in_transaction: false,
                        prediction: None,
                        is_large: false,
                    };
                    match (spec.run)(&mut context, &arguments) {
                        Ok(Then::Items(finish)) => {
                            let decoded = Items::decode(Operation::Batch, items.bytes());
                            let count = decoded
                                .expect("the machine decodes what was encoded")
                                .count();
                            assert_eq!(count, items.count());
                            assert_eq!(count, finish.count());
                        }
                        Ok(Then::Steps(steps)) => {
                            let mut body = Vec::new();
                            let _ = steps.ask(&mut body);
                            assert!(!body.is_empty());
                        }
                        Ok(Then::Replied | Then::Close | Then::Clients(_) | Then::Lists(_)) => {}
                        Err(failure) => failure.write(&mut Replies::new(&mut reply, Protocol::Two)),
                    }
                }
            }
        }
        if !reply.is_empty() {
            let (_, read) = Value::parse(&reply).expect("a reply").expect("a whole one");
            assert_eq!(read, reply.len());
        }
        parser.finish();
        rest = &rest[size..];
    }
}
