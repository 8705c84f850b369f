//! Looks up host names beside the client's thread: a lookup may block for seconds, and the other replicas' answers
//! must not wait for it. The thread exists from the first name on; a client of plain addresses has none.

use super::host::Waker;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};

type Answer = (usize, io::Result<Vec<SocketAddr>>);

#[derive(Debug)]
pub(super) struct Resolver {
    waker: Waker,
    questions: Option<Sender<(usize, String)>>,
    answers: Option<Receiver<Answer>>,
}

impl Resolver {
    pub fn new(waker: Waker) -> Self {
        Self {
            waker,
            questions: None,
            answers: None,
        }
    }

    /// Asks for the addresses of `name`, a `host:port`. The answer wakes the host.
    pub fn ask(&mut self, index: usize, name: &str) -> io::Result<()> {
        if self.questions.is_none() {
            self.start()?;
        }
        let questions = self.questions.as_ref().expect("started above");
        questions
            .send((index, name.to_owned()))
            .map_err(|_| io::Error::other("the resolver has stopped"))
    }

    pub fn next_answer(&mut self) -> Option<Answer> {
        self.answers.as_ref()?.try_recv().ok()
    }

    fn start(&mut self) -> io::Result<()> {
        let (ask, questions) = channel::<(usize, String)>();
        let (answer, answers) = channel();
        let waker = self.waker.clone();
        std::thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || {
                // Ends when the client is dropped, after the lookup that may be under way.
                while let Ok((index, name)) = questions.recv() {
                    let addresses = name.to_socket_addrs().map(Iterator::collect);
                    if answer.send((index, addresses)).is_err() {
                        return;
                    }
                    waker.wake();
                }
            })?;
        self.questions = Some(ask);
        self.answers = Some(answers);
        Ok(())
    }
}
