//! CLIENT LIST and CLIENT INFO.

use super::batch::Name;
use super::connection::Connection;
use super::front::Front;
use crate::resp::command::Clients;
use crate::resp::reply::Protocol;

/// One connection, as Redis describes it.
fn describe(connection: &Connection, now_ns: u64) -> String {
    let seconds = |since: u64| now_ns.saturating_sub(since) / 1_000_000_000;
    let caller = &connection.caller;
    let queued = caller.transaction.as_ref();
    let queued = queued.map_or(-1, |transaction| transaction.len().cast_signed());
    let local = connection.stream().local_addr();
    let local = local.map_or(String::new(), |address| address.to_string());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "id={} addr={} laddr={local} name={} age={} idle={} flags={} db=0 multi={queued} watch={} \
         qbuf={} omem={} cmd={} user=default resp={} lib-name={} lib-ver={}",
        caller.number,
        connection.peer,
        text(&caller.name),
        seconds(connection.connected_ns),
        seconds(connection.heard_ns),
        if queued >= 0 { "x" } else { "N" },
        caller.watched.len(),
        connection.unparsed(),
        connection.unwritten(),
        if caller.last.is_empty() {
            "NULL"
        } else {
            caller.last
        },
        if caller.protocol == Protocol::Two {
            2
        } else {
            3
        },
        text(&caller.library.0),
        text(&caller.library.1),
    )
}

impl Front {
    /// Lists for commands of a transaction, as long as they have room in its reply.
    pub fn list_for_transaction(&mut self, name: Name, which: &[Clients]) {
        let (mut lists, mut size) = (Vec::new(), 0);
        for which in which {
            if size <= self.shared.output_size_max {
                lists.push(self.list(name, which));
                size += lists.last().map_or(0, String::len);
            }
        }
        let connection = self.find(name);
        if let Some(transaction) = connection.and_then(|it| it.caller.transaction.as_mut()) {
            (transaction.lists, transaction.is_listed) = (lists, true);
        }
    }

    /// A line for each of these connections.
    pub fn list(&self, own: Name, which: &Clients) -> String {
        let now = self.now_ns();
        let is_listed = |connection: &Connection| match which {
            Clients::Own => connection.name == own,
            Clients::All => true,
            Clients::Numbered(numbers) => numbers.contains(&connection.caller.number),
            Clients::None => false,
        };
        let mut text = String::new();
        for connection in self.slots.iter().flatten() {
            if is_listed(connection) {
                text += &describe(connection, now);
                text.push('\n');
            }
        }
        text
    }
}
