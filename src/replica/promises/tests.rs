use super::*;
use storage::header::Typed;

const FILE: u128 = 0xa;

/// A greeting of a life in which ops up to the second number are acknowledged, and up to the third may have been before. It
/// has written no superblock yet.
fn ping(life: u64, sequence: u64, acknowledged: u64, op_max: u64) -> Ping {
    let mut ping = Ping::new(1, 0, 0);
    (ping.file, ping.life, ping.superblock_sequence) = (FILE, life, sequence);
    ping.opened_sequence = sequence;
    (ping.op_acknowledged, ping.op_max) = (acknowledged, op_max);
    ping.start = Start::Begun as u8;
    ping
}

/// A greeting of another file.
fn of_file(file: u128, view: u32, start: Start, mut ping: Ping) -> Ping {
    ping.file = file;
    ping.frame.view = view;
    ping.start = start as u8;
    ping
}

fn acknowledgement(life: u64, sequence: u64, op: u64) -> PrepareOk {
    let mut ok = PrepareOk::new(1, 0, 0);
    (ok.life, ok.superblock_sequence, ok.op) = (life, sequence, op);
    ok
}

fn vote(life: u64, sequence: u64) -> DoViewChange {
    let mut vote = DoViewChange::new(1, 3, 0);
    (vote.life, vote.superblock_sequence) = (life, sequence);
    vote
}

fn hears(memory: &mut Remembered, greetings: &[(Ping, Verdict, &str)]) {
    for (ping, verdict, why) in greetings {
        assert_eq!(memory.hear(ping), *verdict, "{why}: {memory:?}");
    }
}

use Verdict::{Fine, Regressed as Went, Replaced};

#[test]
fn a_life_that_can_hold_less_is_regressed_for_ever() {
    hears(
        &mut Remembered::default(),
        &[
            (ping(0, 0, 0, 0), Fine, "one that knows nothing yet"),
            (ping(7, 5, 100, 130), Fine, "the first"),
            (ping(7, 5, 120, 130), Fine, "more"),
            (
                ping(8, 5, 0, 119),
                Went,
                "what was acknowledged is not there",
            ),
            (ping(8, 9, 500, 500), Went, "whatever it says later"),
            (ping(9, 4, 0, 900), Went, "an older superblock"),
            (
                ping(10, 5, 0, 120),
                Fine,
                "what was not acknowledged may be lost",
            ),
            (
                ping(11, 5, 0, 119),
                Went,
                "what was is not, in the second life either",
            ),
            (ping(12, 6, 0, 90), Fine, "a later log may end below"),
            (ping(12, 6, 95, 95), Fine, "more"),
            (ping(13, 6, 0, 94), Went, "the same of the later log"),
        ],
    );
}

/// What a life has written before it is heard for the first time says nothing of the lives before it.
#[test]
fn a_life_that_is_heard_late_is_judged_by_what_it_began_with() {
    let late = |life, opened_sequence, sequence| Ping {
        opened_sequence,
        ..ping(life, sequence, 300, 130)
    };
    hears(
        &mut Remembered::default(),
        &[
            (ping(7, 5, 100, 130), Fine, "the first"),
            (late(8, 4, 9), Went, "it has written five superblocks since"),
            (late(9, 5, 9), Fine, "it began with as much"),
            (ping(10, 8, 0, 900), Went, "the ninth counts from now on"),
        ],
    );
}

#[test]
fn greetings_out_of_order_accuse_nobody_who_lives() {
    hears(
        &mut Remembered::default(),
        &[
            (ping(7, 5, 100, 100), Fine, "the first"),
            (ping(7, 6, 90, 90), Fine, "the next"),
            (ping(7, 5, 99, 99), Fine, "a late one"),
            (
                of_file(FILE, 0, Start::Initialised, ping(7, 2, 0, 0)),
                Fine,
                "a very late one",
            ),
            (ping(8, 6, 0, 90), Fine, "another life"),
            // The verdict is about the life before, and nobody there hears it.
            (ping(7, 5, 99, 99), Went, "a late one of the life before"),
            (ping(8, 6, 91, 91), Fine, "the life goes on"),
            (ping(0, 0, 0, 0), Fine, "one that knows nothing yet"),
        ],
    );
}

#[test]
fn a_file_that_replaces_another_holds_less_and_is_not_accused() {
    let new = |start, ping| of_file(0xb, if start == Start::Begun { 9 } else { 0 }, start, ping);
    let old = |life| of_file(FILE, 4, Start::Begun, ping(life, 50, 100, 100));
    for missed_blank in [true, false] {
        let mut memory = Remembered::default();
        assert_eq!(memory.hear(&old(1)), Fine);
        if !missed_blank {
            assert_eq!(memory.hear(&new(Start::Blank, ping(2, 1, 0, 0))), Fine);
        }
        hears(
            &mut memory,
            &[
                (
                    new(Start::Begun, ping(2, 2, 0, 64)),
                    Fine,
                    "it has been recovered",
                ),
                (new(Start::Begun, ping(2, 3, 80, 80)), Fine, "and goes on"),
                (
                    new(Start::Begun, ping(3, 3, 80, 80)),
                    Fine,
                    "in another life too",
                ),
                (old(1), Replaced, "a late greeting, which nobody hears"),
                (
                    new(Start::Begun, ping(3, 3, 82, 82)),
                    Fine,
                    "the life goes on",
                ),
                (old(4), Replaced, "the old file is put back"),
                (
                    new(Start::Begun, ping(5, 3, 0, 81)),
                    Went,
                    "the new one went back",
                ),
                (
                    new(Start::Blank, ping(6, 1, 0, 0)),
                    Went,
                    "to when it was blank",
                ),
                (
                    new(Start::Initialised, ping(7, 2, 0, 0)),
                    Went,
                    "to its first start",
                ),
            ],
        );
    }
}

#[test]
fn a_blank_file_changes_nothing_and_an_initialised_one_comes_too_late() {
    let other = |start, life| of_file(0xb, 0, start, ping(life, 1, 0, 0));
    let mut memory = Remembered::default();
    hears(
        &mut memory,
        &[
            (other(Start::Initialised, 1), Fine, "a first start"),
            (other(Start::Blank, 2), Fine, "nothing was promised in it"),
            (
                of_file(FILE, 4, Start::Begun, ping(3, 5, 10, 10)),
                Fine,
                "formatted again, and begun",
            ),
            (other(Start::Blank, 4), Fine, "it will be lost"),
            (
                of_file(FILE, 4, Start::Begun, ping(5, 5, 0, 10)),
                Fine,
                "the true one is back",
            ),
            (
                of_file(FILE, 4, Start::Begun, ping(6, 5, 0, 9)),
                Went,
                "and still remembered",
            ),
            (
                other(Start::Initialised, 7),
                Replaced,
                "it would begin at once",
            ),
        ],
    );
}

#[test]
fn what_was_acknowledged_or_voted_between_greetings_is_remembered() {
    let mut memory = Remembered::default();
    memory.hear_acknowledgement(&acknowledgement(1, 9, 900));
    assert_eq!(
        memory.hear(&ping(1, 5, 0, 0)),
        Fine,
        "of nobody who was met"
    );
    memory.hear_acknowledgement(&acknowledgement(1, 5, 70));
    assert_eq!(memory.hear(&ping(2, 5, 0, 70)), Fine);
    assert_eq!(memory.hear(&ping(3, 5, 0, 69)), Went);
    memory.hear_acknowledgement(&acknowledgement(1, 5, 80));
    assert_eq!(memory.hear(&ping(4, 5, 0, 70)), Fine, "a late one");
    memory.hear_vote(&vote(4, 6));
    assert_eq!(memory.hear(&ping(5, 5, 0, 70)), Went, "it has voted since");
    memory.hear_acknowledgement(&acknowledgement(4, 5, 75));
    assert_eq!(
        memory.hear(&ping(6, 6, 0, 60)),
        Fine,
        "a late one of an older log"
    );
}

/// A life votes before its first greeting arrives: that greeting holds less than the vote, and is of the same life.
#[test]
fn a_greeting_that_comes_after_a_vote_of_its_life_accuses_nobody() {
    let mut memory = Remembered::default();
    assert_eq!(memory.hear(&ping(1, 5, 70, 70)), Fine);
    memory.hear_vote(&vote(2, 6));
    memory.hear_acknowledgement(&acknowledgement(2, 6, 75));
    assert_eq!(memory.hear(&ping(2, 5, 0, 70)), Fine);
}
