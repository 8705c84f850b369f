//! A node: takes its lines, gives each to the replica, to the sessions or to nobody, and writes what comes of it.

use crate::data;
use crate::host::{self, Host};
use crate::input::{Input, Next};
use crate::message::{Body, Caller, Code, Message, Outbox, body, error};
use crate::request::Request;
use crate::sessions::{Sessions, Wish};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use std::error::Error;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;
use storage::header::{HEADER_SIZE, ReplicaStatus};
use viewstone::replica::Peer;
use viewstone::server::Identity;

/// From replica to replica.
const TO_REPLICA: &str = "vsr";
/// From the sessions of a node to a replica.
const REQUEST: &str = "vsr_request";
/// Back.
const REPLY: &str = "vsr_reply";

/// Lines that one turn takes.
const LINES_MAX: usize = 512;

/// How a node runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// After how long a request is given up.
    pub deadline: Duration,
    /// Where the data file is; none: nowhere for long.
    pub directory: Option<PathBuf>,
}

/// What Maelstrom says at first.
struct Init {
    caller: Caller,
    name: String,
    names: Vec<String>,
    identity: Identity,
}

/// Runs a node until its input ends.
///
/// # Errors
/// The replica cannot start, or cannot go on.
pub fn run<W: Write>(
    source: impl Read + Send + 'static,
    sink: W,
    options: &Options,
) -> Result<(), Box<dyn Error>> {
    let (input, wake) = Input::start(source)?;
    let mut outbox = Outbox::new(sink);
    let init = loop {
        let Some(line) = input.wait() else {
            return Ok(());
        };
        let init = parse(&line).map(|message| before_init(&message, &mut outbox));
        outbox.flush()?;
        if let Some(init) = init.transpose()?.flatten() {
            break init;
        }
    };
    outbox.set_name(&init.name);
    let (file, identity) = data::open(&init.identity, options.directory.as_deref())?;
    let deadline_ns = options.deadline.as_nanos() as u64;
    let mut node = Node {
        sessions: Sessions::new(
            identity.cluster,
            identity.replica_count,
            deadline_ns,
            data::random()?,
        ),
        host: Host::start(identity, data::random()?, file, wake)?,
        names: init.names,
        outbox,
        status: ReplicaStatus::Opening,
    };
    let answer = body(json!({ "type": "init_ok" }));
    node.outbox.answer(&init.caller, answer)?;
    node.outbox.flush()?;
    while node.turn(&input)? {}
    Ok(())
}

fn parse(line: &[u8]) -> Option<Message> {
    match Message::parse(line) {
        Ok(message) => Some(message),
        Err(error) => {
            let shown = String::from_utf8_lossy(&line[..line.len().min(200)]);
            eprintln!("no message: {error}: {}", shown.trim_end());
            None
        }
    }
}

/// Takes a message while the node does not know who it is.
fn before_init<W: Write>(
    message: &Message,
    outbox: &mut Outbox<W>,
) -> std::io::Result<Option<Init>> {
    let Some(caller) = message.caller() else {
        eprintln!("a message before \"init\" is lost: {:?}", message.kind());
        return Ok(None);
    };
    let answer = match message.kind() {
        "init" => match init(&caller, &message.body) {
            Ok(init) => return Ok(Some(init)),
            Err(text) => error(Code::MalformedRequest, text),
        },
        kind => match plain_answer(kind, &message.body) {
            Some(answer) => answer,
            None => match Request::parse(kind, &message.body) {
                Ok(_) => error(Code::TemporarilyUnavailable, "not initialised yet"),
                Err(answer) => answer,
            },
        },
    };
    outbox.answer(&caller, answer)?;
    Ok(None)
}

fn init(caller: &Caller, body: &Body) -> Result<Init, String> {
    let name = body.get("node_id").and_then(Value::as_str);
    let name = name.ok_or("\"init\" has a \"node_id\"")?.to_owned();
    let names = body.get("node_ids").and_then(Value::as_array);
    let names = names.ok_or("\"init\" has \"node_ids\"")?.iter();
    let names: Option<Vec<String>> = names.map(|it| Some(it.as_str()?.to_owned())).collect();
    let names = names.ok_or("the \"node_ids\" are strings")?;
    Ok(Init {
        identity: data::identity(&name, &names)?,
        caller: caller.clone(),
        name,
        names,
    })
}

/// The answer to what needs no cluster.
fn plain_answer(kind: &str, fields: &Body) -> Option<Body> {
    match kind {
        "echo" => {
            let echo = fields.get("echo").cloned().unwrap_or_default();
            Some(body(json!({ "type": "echo_ok", "echo": echo })))
        }
        "" => Some(error(Code::MalformedRequest, "a body has a \"type\"")),
        _ => None,
    }
}

struct Node<W: Write> {
    names: Vec<String>,
    host: Host,
    sessions: Sessions,
    outbox: Outbox<W>,
    /// What was last said of the replica.
    status: ReplicaStatus,
}

impl<W: Write> Node<W> {
    /// One turn: whatever has come, and what follows from it. False: the input has ended.
    fn turn(&mut self, input: &Input) -> Result<bool, Box<dyn Error>> {
        self.host.begin_turn(self.sessions.due_ns())?;
        for _ in 0..LINES_MAX {
            match input.try_next() {
                Next::Line(line) => self.on_line(&line)?,
                Next::Nothing => break,
                Next::End => {
                    self.outbox.flush()?;
                    return Ok(false);
                }
            }
        }
        self.sessions.advance(self.host.now_ns());
        self.settle()?;
        self.host.end_turn()?;
        self.settle()?;
        self.outbox.flush()?;
        self.log_status();
        Ok(true)
    }

    fn log_status(&mut self) {
        let status = self.host.status();
        if status != self.status {
            eprintln!("the replica's status is {status:?}");
            self.status = status;
        }
    }

    fn on_line(&mut self, line: &[u8]) -> Result<(), Box<dyn Error>> {
        let Some(message) = parse(line) else {
            return Ok(());
        };
        match message.kind() {
            TO_REPLICA | REQUEST | REPLY => return self.on_frame(&message),
            _ => {}
        }
        let Some(caller) = message.caller() else {
            eprintln!("nobody waits for an answer to {:?}", message.kind());
            return Ok(());
        };
        let kind = message.kind();
        let answer = if kind == "init" {
            error(Code::MalformedRequest, "the node is initialised already")
        } else if let Some(answer) = plain_answer(kind, &message.body) {
            answer
        } else {
            match Request::parse(kind, &message.body) {
                Err(answer) => answer,
                Ok(request) => {
                    let now_ns = self.host.now_ns();
                    let wish = self.sessions.begin(now_ns, caller, request);
                    return wish.map_or(Ok(()), |wish| self.carry_out(wish));
                }
            }
        };
        Ok(self.outbox.answer(&caller, answer)?)
    }

    /// A message of the protocol has come from another node.
    fn on_frame(&mut self, message: &Message) -> Result<(), Box<dyn Error>> {
        let source = self.names.iter().position(|it| *it == message.source);
        let frame = message.body.get("frame").and_then(Value::as_str);
        let bytes = frame.and_then(|it| BASE64_STANDARD.decode(it).ok());
        let (Some(source), Some(bytes)) = (source, bytes) else {
            eprintln!("no message of a node: {:?}", message.kind());
            return Ok(());
        };
        let source = source as u8;
        let received = match message.kind() {
            TO_REPLICA => self.host.receive(Peer::Replica(source), bytes)?,
            REQUEST => self.host.receive(host::sessions_of(source), bytes)?,
            _ => self.on_reply(source, &bytes),
        };
        if let Err(refusal) = received {
            eprintln!("refused from {}: {refusal:?}", message.source);
        }
        Ok(())
    }

    fn on_reply(&mut self, source: u8, bytes: &[u8]) -> Result<(), host::Refusal> {
        let (header, _) = host::check(self.host.identity(), bytes)?;
        let now_ns = self.host.now_ns();
        self.sessions
            .receive(now_ns, source, &header, &bytes[HEADER_SIZE..]);
        Ok(())
    }

    /// Hands on what the replica and the sessions want, until they want nothing.
    fn settle(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            if let Some((to, bytes)) = self.host.next_send() {
                self.send(to, &bytes)?;
            } else if let Some(wish) = self.sessions.poll(self.host.now_ns()) {
                self.carry_out(wish)?;
            } else {
                return Ok(());
            }
        }
    }

    fn own_index(&self) -> u8 {
        self.host.identity().replica
    }

    fn send(&mut self, to: Peer, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        let (to, kind) = match to {
            Peer::Replica(replica) => (replica, TO_REPLICA),
            Peer::Client(id) => (id.index as u8, REPLY),
        };
        if to == self.own_index() {
            let replied = self.on_reply(to, bytes);
            return replied.map_err(|refusal| format!("the replica says {refusal:?}").into());
        }
        self.frame(to, kind, bytes)
    }

    fn carry_out(&mut self, wish: Wish) -> Result<(), Box<dyn Error>> {
        match wish {
            Wish::Answer(caller, answer) => Ok(self.outbox.answer(&caller, answer)?),
            Wish::Send(to, bytes) if to == self.own_index() => {
                let received = self.host.receive(host::sessions_of(to), bytes)?;
                received.map_err(|refusal| format!("the sessions say {refusal:?}").into())
            }
            Wish::Send(to, bytes) => self.frame(to, REQUEST, &bytes),
        }
    }

    fn frame(&mut self, to: u8, kind: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        let frame = BASE64_STANDARD.encode(bytes);
        let message = body(json!({ "type": kind, "frame": frame }));
        Ok(self.outbox.send(&self.names[usize::from(to)], &message)?)
    }
}
