//! All histories of a small journal: every order of submissions and completions, a power cut after every step, each
//! sector in flight old or new, and then, apart, each sector of an acknowledged prepare, or its header's, decayed.
//!
//! The laws: what was acknowledged is there after any power cut, and not nacked after any power cut and one decay;
//! what was not acknowledged is never in the way after a power cut. Each law is shown to notice the loss of a rule.

use super::disk::*;
use super::*;
use std::collections::BTreeSet;
use zerocopy::IntoBytes;

#[derive(Clone, Copy)]
struct Scenario {
    ack: JournalAck,
    /// One-sector prepares that are in both rings before the history begins, their last `replaced` of another view.
    before: u64,
    replaced: u64,
    checkpoint_op: u64,
    /// Sectors of the prepares that the history writes.
    script: &'static [usize],
    decay: bool,
    drops: Drops,
}

/// Whether the device may drop one write of each history without saying so, and what is then owed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drops {
    Never,
    /// All that was acknowledged but the dropped prepare, while its redundant header is not on the disk.
    Excluded,
    /// All that was acknowledged.
    Strict,
}

const PLAIN: Scenario = Scenario {
    ack: JournalAck::Single,
    before: 0,
    replaced: 0,
    checkpoint_op: 0,
    script: &[1, 2, 1],
    decay: false,
    drops: Drops::Never,
};

/// The write that the device dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dropped {
    Headers,
    Prepare { slot: usize },
}

#[derive(Default)]
struct Explored {
    states: BTreeSet<u128>,
    histories: usize,
    acks: usize,
}

struct Start {
    layout: Layout,
    disk: Disk,
    superblock: Super,
}

impl Scenario {
    fn start(&self) -> (Start, Vec<SharedMessage>) {
        let layout = layout(8, 1, self.ack);
        let mut host = Host::<Strict>::fresh(layout);
        let mut chain = Chain::new();
        let mut superblock = Super::new(false);
        let mut fork = None;
        for _ in 0..self.before {
            if chain.op == self.before - self.replaced {
                fork = Some((chain.op, chain.parent));
            }
            let prepare = chain.next(1);
            if chain.op <= self.before - self.replaced {
                superblock.headers.push(*prepare.header().typed());
            }
            if chain.op == self.checkpoint_op {
                superblock.checkpoint_op = chain.op;
                superblock.checkpoint_checksum = chain.parent;
            }
            host.append(prepare);
            host.drain();
            let window = chain.op.min(self.checkpoint_op);
            host.journal.set_checkpoint(window);
        }
        host.flush();
        host.drain();
        if let Some((op, parent)) = fork {
            (chain.op, chain.parent, chain.view) = (op, parent, 1);
            superblock.log_view = 1;
        } else {
            superblock.headers.clear();
        }
        let script = self
            .script
            .iter()
            .map(|&sectors| chain.next(sectors))
            .collect();
        let start = Start {
            layout,
            disk: host.disk,
            superblock,
        };
        (start, script)
    }

    /// Goes through all histories; the first broken law ends it.
    fn explore<R: Rules>(&self) -> Result<Explored, String> {
        let (start, script) = self.start();
        let mut explored = Explored::default();
        let mut choices: Vec<(usize, usize)> = Vec::new();
        loop {
            self.history::<R>(&start, &script, &mut choices, &mut explored)?;
            explored.histories += 1;
            while let Some((choice, count)) = choices.pop() {
                if choice + 1 < count {
                    choices.push((choice + 1, count));
                    break;
                }
            }
            if choices.is_empty() {
                return Ok(explored);
            }
        }
    }

    fn history<R: Rules>(
        &self,
        start: &Start,
        script: &[SharedMessage],
        choices: &mut Vec<(usize, usize)>,
        explored: &mut Explored,
    ) -> Result<(), String> {
        let known = choices.len();
        let (mut host, opened) =
            Host::<R>::open(start.layout, start.disk.clone(), &start.superblock);
        opened.map_err(|refusal| refusal.to_string())?;
        host.journal
            .view_durable(start.superblock.log_view, self.before - self.replaced);
        let mut submitted = 0;
        let mut dropped = None;
        for step in 0.. {
            let next = script.get(submitted);
            let appends = next
                .is_some_and(|next| host.journal.can_append(next.header().typed::<Prepare>().op));
            let may_drop = self.drops != Drops::Never && dropped.is_none();
            let completes = usize::from(appends) + host.pending.len();
            let count = completes + if may_drop { host.pending.len() } else { 0 };
            if step >= known {
                self.check_cuts(&host, start, script, dropped, explored)
                    .map_err(|broken| format!("{broken}; after the choices {choices:?}"))?;
            }
            if count == 0 {
                assert_eq!(submitted, script.len());
                explored.acks = explored.acks.max(host.acked.len());
                return Ok(());
            }
            if step == choices.len() {
                choices.push((0, count));
            }
            let choice = choices[step].0;
            assert_eq!(choices[step].1, count, "a history is deterministic");
            if appends && choice == 0 {
                host.append(script[submitted].clone());
                submitted += 1;
            } else if choice < completes {
                host.complete(choice - usize::from(appends));
            } else {
                let index = choice - completes;
                let at = place_of(&host.pending[index]);
                let slot = (0..8).find(|&slot| start.layout.prepare_at(slot) == at);
                dropped = Some(slot.map_or(Dropped::Headers, |slot| Dropped::Prepare { slot }));
                host.complete_but(index, false);
            }
        }
        unreachable!()
    }

    fn check_cuts<R: Rules>(
        &self,
        host: &Host<R>,
        start: &Start,
        script: &[SharedMessage],
        dropped: Option<Dropped>,
        explored: &mut Explored,
    ) -> Result<(), String> {
        for disk in host.cuts() {
            let mut key = crate::checksum::identity(&disk.0);
            for ack in &host.acked {
                key = crate::checksum::identity([key, ack.1].as_bytes());
            }
            key ^= match dropped {
                None => 0,
                Some(Dropped::Headers) => 1,
                Some(Dropped::Prepare { slot }) => 2 + slot as u128,
            };
            if !explored.states.insert(key) {
                continue;
            }
            if let Some(dropped) = dropped {
                self.check_dropped(&disk, host, start, dropped)?;
                continue;
            }
            check_several(&disk, host, start, script)?;
            check_solo(&disk, host, start)?;
            if self.decay {
                check_decay(&disk, host, start)?;
            }
        }
        Ok(())
    }

    fn check_dropped<R: Rules>(
        &self,
        disk: &Disk,
        host: &Host<R>,
        start: &Start,
        dropped: Dropped,
    ) -> Result<(), String> {
        let (after, recovered) =
            Host::<Strict>::open(start.layout, disk.clone(), &start.superblock);
        recovered.map_err(|refusal| format!("refused after a lost write: {refusal}"))?;
        for &(op, checksum) in &host.acked {
            let at = start.layout.slot(op);
            let excluded = self.drops == Drops::Excluded
                && dropped == Dropped::Prepare { slot: at }
                && disk.redundant(at).frame.checksum != checksum;
            let nacked = matches!(after.journal.state(op), State::Absent | State::Torn);
            if nacked && !excluded {
                return Err(format!("acknowledged op {op} is nacked after a lost write"));
            }
        }
        Ok(())
    }
}

fn check_several<R: Rules>(
    disk: &Disk,
    host: &Host<R>,
    start: &Start,
    script: &[SharedMessage],
) -> Result<(), String> {
    let (after, recovered) = Host::<Strict>::open(start.layout, disk.clone(), &start.superblock);
    let recovered = recovered.map_err(|refusal| format!("refused: {refusal}"))?;
    for &(op, checksum) in &host.acked {
        if !after.journal.is_durable(op, checksum) {
            return Err(format!(
                "acknowledged op {op} is {:?}",
                after.journal.state(op)
            ));
        }
    }
    if !recovered.head_certain {
        return Err("the head is uncertain after a power cut".into());
    }
    for prepare in script {
        let op = prepare.header().typed::<Prepare>().op;
        if matches!(after.journal.state(op), State::Lost | State::Unknown) {
            return Err(format!(
                "op {op} is {:?} after a power cut",
                after.journal.state(op)
            ));
        }
    }
    // What recovery wrote changes nothing.
    let (again, same) = Host::<Strict>::open(start.layout, after.disk.clone(), &start.superblock);
    assert_eq!(same, Ok(recovered));
    assert_eq!(again.header_writes, 0);
    Ok(())
}

fn check_solo<R: Rules>(disk: &Disk, host: &Host<R>, start: &Start) -> Result<(), String> {
    let superblock = Super {
        solo: true,
        ..start.superblock.clone()
    };
    let (after, recovered) = Host::<Strict>::open(start.layout, disk.clone(), &superblock);
    let recovered = recovered.map_err(|refusal| format!("alone, refused: {refusal}"))?;
    // Alone, an op is committed when it and all before it are acknowledged.
    let mut committed = after.journal.checkpoint_op();
    while let Some(ack) = host.acked.iter().find(|ack| ack.0 == committed + 1) {
        committed += 1;
        if recovered.head_op < committed || !after.journal.is_durable(ack.0, ack.1) {
            return Err(format!("alone, committed op {committed} is gone"));
        }
    }
    Ok(())
}

fn check_decay<R: Rules>(disk: &Disk, host: &Host<R>, start: &Start) -> Result<(), String> {
    let first = |op| start.layout.prepare_at(start.layout.slot(op)) as usize / SECTOR_SIZE;
    let prepares = host
        .acked
        .iter()
        .flat_map(|ack| [first(ack.0), first(ack.0) + 1]);
    for sector in prepares.chain([0]) {
        for whole in [true, false] {
            let mut decayed = disk.clone();
            let at = (sector * SECTOR_SIZE) as u64;
            if whole {
                decayed.wipe_sector(at);
            } else {
                decayed.flip(at + 300);
            }
            let (after, recovered) = Host::<Strict>::open(start.layout, decayed, &start.superblock);
            recovered.map_err(|refusal| format!("refused after decay: {refusal}"))?;
            for &(op, _) in &host.acked {
                if matches!(after.journal.state(op), State::Absent | State::Torn) {
                    return Err(format!(
                        "acknowledged op {op} is nacked after sector {sector} decayed"
                    ));
                }
            }
        }
    }
    Ok(())
}

#[track_caller]
fn holds(scenario: &Scenario) {
    let explored = scenario
        .explore::<Strict>()
        .unwrap_or_else(|broken| panic!("{broken}"));
    assert!(explored.histories > 0 && explored.states.len() > 2);
    assert!(explored.acks > 0);
}

#[track_caller]
fn is_caught<R: Rules>(scenario: &Scenario, how: &str) {
    holds(scenario);
    let broken = scenario
        .explore::<R>()
        .err()
        .expect("the missing rule is noticed");
    assert!(broken.contains(how), "{broken}");
}

#[test]
fn a_power_cut_loses_no_acknowledged_prepare_and_leaves_no_other_in_the_way() {
    for ack in [JournalAck::Single, JournalAck::Both] {
        holds(&Scenario { ack, ..PLAIN });
        holds(&Scenario {
            ack,
            script: &[2, 1, 2],
            ..PLAIN
        });
    }
}

#[test]
fn nor_at_the_wrap_of_the_ring() {
    for ack in [JournalAck::Single, JournalAck::Both] {
        let wrap = Scenario {
            ack,
            before: 7,
            checkpoint_op: 5,
            ..PLAIN
        };
        holds(&wrap);
        holds(&Scenario {
            script: &[2, 2],
            ..wrap
        });
    }
}

#[test]
fn nor_when_prepares_of_an_earlier_view_are_replaced() {
    for ack in [JournalAck::Single, JournalAck::Both] {
        let replaced = Scenario {
            ack,
            before: 5,
            replaced: 2,
            ..PLAIN
        };
        holds(&replaced);
        holds(&Scenario {
            script: &[2, 1],
            ..replaced
        });
    }
}

#[test]
fn decay_of_an_acknowledged_prepare_is_never_a_nack() {
    for ack in [JournalAck::Single, JournalAck::Both] {
        holds(&Scenario {
            ack,
            decay: true,
            ..PLAIN
        });
        holds(&Scenario {
            ack,
            decay: true,
            before: 5,
            replaced: 2,
            script: &[1, 2],
            ..PLAIN
        });
    }
}

#[test]
fn a_lost_write_is_never_a_nack_but_for_the_stated_exclusion() {
    let wrap = Scenario {
        before: 7,
        checkpoint_op: 5,
        ..PLAIN
    };
    let replaced = Scenario {
        before: 5,
        replaced: 2,
        script: &[1, 2],
        ..PLAIN
    };
    for scenario in [
        Scenario {
            script: &[1, 2],
            ..PLAIN
        },
        wrap,
        replaced,
    ] {
        holds(&Scenario {
            ack: JournalAck::Both,
            drops: Drops::Strict,
            ..scenario
        });
        holds(&Scenario {
            drops: Drops::Excluded,
            ..scenario
        });
    }
    // The exclusion is needed, and for a first write of one sector only.
    let one = Scenario {
        drops: Drops::Strict,
        script: &[1],
        ..PLAIN
    };
    let broken = one
        .explore::<Strict>()
        .err()
        .expect("what one write gives up");
    assert!(
        broken.contains("op 1 is nacked after a lost write"),
        "{broken}"
    );
    holds(&Scenario {
        script: &[2],
        ..one
    });
    holds(&Scenario {
        drops: Drops::Strict,
        script: &[1],
        ..replaced
    });
}

#[test]
fn a_header_written_before_its_prepare_is_noticed() {
    struct Hasty;
    impl Rules for Hasty {
        const HEADER_AWAITS_PREPARE: bool = false;
    }
    is_caught::<Hasty>(&PLAIN, "after a power cut");
}

#[test]
fn a_long_prepare_acknowledged_on_one_write_is_noticed() {
    struct Single;
    impl Rules for Single {
        const LONG_PREPARE_AWAITS_HEADER: bool = false;
    }
    is_caught::<Single>(
        &Scenario {
            decay: true,
            script: &[2],
            ..PLAIN
        },
        "is nacked after",
    );
}

#[test]
fn an_ack_ahead_of_older_headers_is_noticed() {
    struct Ahead;
    impl Rules for Ahead {
        const RING_RULE: bool = false;
    }
    is_caught::<Ahead>(
        &Scenario {
            decay: true,
            script: &[1, 1, 1],
            ..PLAIN
        },
        "is nacked after",
    );
}

#[test]
fn a_missing_flush_is_noticed() {
    struct Cached;
    impl Rules for Cached {
        const FLUSH: bool = false;
    }
    is_caught::<Cached>(
        &Scenario {
            script: &[1, 1],
            ..PLAIN
        },
        "acknowledged op",
    );
}
