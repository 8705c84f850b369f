//! Pages of state, nodes of the tag tree and records of checkpoints, for replicas that fetch them.
//!
//! An answer is put together in one message: what is in memory at once, what is on the disk as it is read. A bounded number
//! of answers is under way, and a bounded number of reads ([`storage::checkpoint::SERVE_READS_MAX`]), so that normal
//! operation hardly notices; a question that finds no room is lost, as any message may be, and is asked again elsewhere.
//!
//! Every replica serves that has opened its file, whatever it is doing: pages are named by their content.

use super::{Effects, Ignored, Peer, Replica};
use crate::constants::{SERVE_ANSWERS_MAX, SYNC_PAGES_MAX};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::buffer::Message;
use storage::checkpoint::{Serve, ServedPage};
use storage::header::{HEADER_SIZE, Page, PageReference, PageRequest, RequestPages, page_capacity};
use storage::layout::PAGE_SIZE;
use storage::superblock::CheckpointRecord;
use zerocopy::{FromBytes, IntoBytes};

/// An answer that is being put together. Pages lie behind room for as many references as were asked for; they move up when
/// the answer leaves with fewer.
#[derive(Debug)]
struct Answer {
    to: u8,
    nonce: u64,
    message: Message,
    /// Asked for, and not looked for yet: from here on.
    next: usize,
    /// Being read.
    reading: usize,
}

/// Answers under way.
#[derive(Debug)]
pub(super) struct Serving {
    answers: [Option<Answer>; SERVE_ANSWERS_MAX],
    /// What each answer was asked for.
    asked: [Vec<PageReference>; SERVE_ANSWERS_MAX],
    /// What each answer has: the reference of the page in each place; tag zero: it is being read, or could not be.
    found: [Vec<PageReference>; SERVE_ANSWERS_MAX],
}

impl Serving {
    pub(super) fn new() -> Self {
        Self {
            answers: std::array::from_fn(|_| None),
            asked: std::array::from_fn(|_| Vec::with_capacity(SYNC_PAGES_MAX)),
            found: std::array::from_fn(|_| Vec::with_capacity(SYNC_PAGES_MAX)),
        }
    }
}

const NOT_READ: PageReference = PageReference {
    tag: 0,
    logical: 0,
    reserved: [0; 12],
};

/// Where page `place` of an answer lies, if it was asked for `asked` pages.
fn page_at(asked: usize, place: usize) -> usize {
    HEADER_SIZE + asked * size_of::<PageReference>() + place * PAGE_SIZE
}

/// Makes an answer of what was found of `asked` pages: the references, then the pages, without gaps. Returns how many.
fn close_up(buffer: &mut [u8], asked: usize, found: &mut Vec<PageReference>) -> usize {
    // What could not be read leaves a gap, which the last page fills.
    let mut place = 0;
    while place < found.len() {
        if found[place] == NOT_READ {
            let last = page_at(asked, found.len() - 1);
            buffer.copy_within(last..last + PAGE_SIZE, page_at(asked, place));
            found.swap_remove(place);
        } else {
            place += 1;
        }
    }
    let count = found.len();
    let from = page_at(asked, 0);
    buffer.copy_within(from..from + count * PAGE_SIZE, page_at(count, 0));
    buffer[HEADER_SIZE..page_at(count, 0)].copy_from_slice(found.as_bytes());
    count
}

impl<M: Machines, R: Rules> Replica<M, R> {
    pub(super) fn on_request_pages(&mut self, from: u8, message: &Message, effects: &mut Effects) {
        let ask = *message.header().typed::<RequestPages>();
        if ask.kind == PageRequest::Pages as u32 {
            self.begin_answer(from, &ask, message.body(), effects);
            return;
        }
        let record = if ask.kind == PageRequest::Named as u32 {
            let named = |record: &CheckpointRecord| record.prepare.op == ask.checkpoint_op;
            self.checkpoint.records().find(named)
        } else {
            self.checkpoint_to_offer()
                .filter(|record| record.prepare.op >= ask.checkpoint_op)
        };
        match record {
            Some(record) => self.send_record(from, &ask, &record, effects),
            None => self.metrics.ignored(Ignored::NotHere),
        }
    }

    /// The newest checkpoint that is here and durable on a replication quorum: whoever jumps to it can do without what was
    /// before, for every quorum has somebody who has it.
    fn checkpoint_to_offer(&self) -> Option<CheckpointRecord> {
        self.checkpoint
            .records()
            .find(|record| self.is_on_quorum(record.prepare.op))
    }

    /// Whether the checkpoint of an op, which is here, is durable on a replication quorum. Op 0's is by definition; it
    /// may have been known before; what cannot have been committed otherwise proves it; and so do the others' own words.
    fn is_on_quorum(&self, op: u64) -> bool {
        let others = self
            .others()
            .filter(|&replica| self.peers[replica as usize].checkpoint_op >= op);
        op <= self.superblock.working().sync.quorum_op
            || self.commit_max > op + self.layout.geometry.checkpoint_lag()
            || 1 + others.count() as u8 >= self.quorums.replication
    }

    fn send_record(
        &mut self,
        to: u8,
        ask: &RequestPages,
        record: &CheckpointRecord,
        effects: &mut Effects,
    ) {
        let size = HEADER_SIZE + size_of::<CheckpointRecord>();
        let Some(mut message) = self.buffer_for(size) else {
            self.metrics.ignored(Ignored::NoBuffer);
            return;
        };
        let mut page: Page = self.header();
        page.frame.size = size as u32;
        page.commit_max = self.commit_max.max(record.prepare.op);
        page.nonce = ask.nonce;
        page.kind = ask.kind;
        message.set_header(&page);
        message.body_mut().copy_from_slice(record.as_bytes());
        effects.send(Peer::Replica(to), message.seal());
    }

    fn begin_answer(
        &mut self,
        from: u8,
        ask: &RequestPages,
        references: &[u8],
        effects: &mut Effects,
    ) {
        let count = ask.count as usize;
        let capacity = page_capacity(self.layout.geometry.message_size_max as usize);
        if count > capacity.min(SYNC_PAGES_MAX) {
            self.metrics.ignored(Ignored::Implausible);
            return;
        }
        let room = self.serving.answers.iter().position(Option::is_none);
        let Some(index) = room else {
            self.metrics.ignored(Ignored::NoRoom);
            return;
        };
        let Some(message) = self.buffer_for(page_at(count, count)) else {
            self.metrics.ignored(Ignored::NoBuffer);
            return;
        };
        let asked = &mut self.serving.asked[index];
        asked.clear();
        asked.extend(
            references
                .chunks_exact(size_of::<PageReference>())
                .map(|bytes| PageReference::read_from_bytes(bytes).expect("its size")),
        );
        self.serving.found[index].clear();
        self.serving.answers[index] = Some(Answer {
            to: from,
            nonce: ask.nonce,
            message,
            next: 0,
            reading: 0,
        });
        self.advance_answer(index, effects);
    }

    /// Looks for what is still to be looked for, until enough is being read; sends the answer when it is complete.
    fn advance_answer(&mut self, index: usize, effects: &mut Effects) {
        let Some(answer) = &mut self.serving.answers[index] else {
            return;
        };
        let asked = &self.serving.asked[index];
        let found = &mut self.serving.found[index];
        while let Some(reference) = asked.get(answer.next) {
            let place = found.len();
            let at = page_at(asked.len(), place);
            let into = &mut answer.message.buffer_mut()[at..at + PAGE_SIZE];
            let token = (index as u64) << 32 | place as u64;
            let pages = self.engine.pages();
            let io = &mut effects.io;
            match self.checkpoint.serve(reference, token, pages, into, io) {
                Serve::Here => found.push(*reference),
                Serve::Reading => {
                    found.push(NOT_READ);
                    answer.reading += 1;
                }
                Serve::Busy => return, // goes on when a read ends
                Serve::NotHere => {}
            }
            answer.next += 1;
        }
        if answer.reading == 0 {
            self.send_answer(index, effects);
        }
    }

    /// A page has been read for an answer.
    pub(super) fn on_page_served(
        &mut self,
        token: u64,
        page: Option<ServedPage>,
        effects: &mut Effects,
    ) {
        let (index, place) = ((token >> 32) as usize, token as u32 as usize);
        let asked = self.serving.asked[index].len();
        let answer = self.serving.answers[index].as_mut();
        let answer = answer.expect("an answer leaves when all its reads have ended");
        answer.reading -= 1;
        if let Some(page) = page {
            let at = page_at(asked, place);
            answer.message.buffer_mut()[at..at + PAGE_SIZE]
                .copy_from_slice(self.checkpoint.served(&page));
            self.serving.found[index][place] = *page.reference();
            self.checkpoint.serve_done(page);
        }
        // Any answer may have waited for this read to end.
        for index in 0..SERVE_ANSWERS_MAX {
            self.advance_answer(index, effects);
        }
    }

    fn send_answer(&mut self, index: usize, effects: &mut Effects) {
        let answer = self.serving.answers[index].take();
        let Answer {
            to,
            nonce,
            mut message,
            ..
        } = answer.expect("asked by the caller");
        let asked = self.serving.asked[index].len();
        let found = &mut self.serving.found[index];
        let count = close_up(message.buffer_mut(), asked, found);
        let mut page: Page = self.header();
        page.frame.size = page_at(count, count) as u32;
        page.commit_max = self.commit_max;
        page.nonce = nonce;
        page.kind = PageRequest::Pages as u32;
        page.count = count as u32;
        message.set_header(&page);
        self.metrics.pages_served += count as u64;
        effects.send(Peer::Replica(to), message.seal());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_no_gaps_whatever_could_not_be_read() {
        for asked in [1, 4, 5] {
            for present in 0..1_u32 << asked {
                let mut buffer = vec![0xee; page_at(asked, asked)];
                let mut found = Vec::new();
                for place in 0..asked {
                    let logical = place as u32;
                    let here = present >> place & 1 == 1;
                    let tag = u128::from(logical) + 1;
                    let reserved = [0; 12];
                    let reference = PageReference {
                        tag,
                        logical,
                        reserved,
                    };
                    found.push(if here { reference } else { NOT_READ });
                    let at = page_at(asked, place);
                    buffer[at..at + PAGE_SIZE].fill(if here { place as u8 } else { 0xdd });
                }
                let count = close_up(&mut buffer, asked, &mut found);
                assert_eq!(count, present.count_ones() as usize);
                let body = &buffer[HEADER_SIZE..page_at(count, count)];
                let (references, pages) = body.split_at(count * size_of::<PageReference>());
                let references = references.chunks_exact(size_of::<PageReference>());
                for (reference, page) in references.zip(pages.chunks_exact(PAGE_SIZE)) {
                    let reference = PageReference::read_from_bytes(reference).expect("its size");
                    assert!(
                        page.iter()
                            .all(|&byte| u32::from(byte) == reference.logical)
                    );
                    assert!(present >> reference.logical & 1 == 1);
                }
            }
        }
    }
}
