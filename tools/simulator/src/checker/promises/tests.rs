//! Each promise, and a replica that breaks it.

use super::*;
use storage::header::Typed;
use zerocopy::IntoBytes;

const CLUSTER: u128 = 7;

fn prepare(op: u64, view: u32) -> Prepare {
    let mut prepare = Prepare::new(CLUSTER, view, 0);
    prepare.op = op;
    prepare.header_mut().seal(&[]);
    prepare
}

fn acknowledge(promises: &mut Promises, replica: u8, view: u32, prepare: &Prepare) {
    let mut ok = PrepareOk::new(CLUSTER, view, replica);
    (ok.op, ok.prepare) = (prepare.op, prepare.frame.checksum);
    promises.on_send(replica, ok.header(), &[]);
}

/// A vote with these headers, highest op first.
fn vote(
    promises: &mut Promises,
    (replica, view, log_view): (u8, u32, u32),
    list: &[Prepare],
    nack: u128,
) {
    let mut vote = DoViewChange::new(CLUSTER, view, replica);
    let body: Vec<u8> = list.iter().flat_map(|it| it.as_bytes().to_vec()).collect();
    vote.log_view = log_view;
    vote.op = list[0].op;
    vote.op_max = list[0].op;
    vote.nack = nack;
    promises.on_send(replica, vote.header(), &body);
}

fn start_view(promises: &mut Promises, replica: u8, view: u32, list: &[Prepare]) {
    let mut start = StartView::new(CLUSTER, view, replica);
    let body: Vec<u8> = list.iter().flat_map(|it| it.as_bytes().to_vec()).collect();
    start.op = list[0].op;
    promises.on_send(replica, start.header(), &body);
}

/// Three replicas; replica 1 has acknowledged ops 1 and 2 in view 0.
fn acknowledged() -> Promises {
    let mut promises = Promises::new(3);
    for op in 1..=2 {
        promises.on_prepare(&prepare(op, 0));
        acknowledge(&mut promises, 1, 0, &prepare(op, 0));
    }
    promises
}

#[test]
fn a_view_change_by_the_rules_passes() {
    let mut promises = acknowledged();
    let list = [prepare(2, 0), prepare(1, 0)];
    vote(&mut promises, (1, 1, 0), &list, 0);
    vote(&mut promises, (1, 1, 0), &list, 0);
    vote(&mut promises, (2, 1, 0), &list[1..], 0);
    start_view(&mut promises, 1, 1, &list);
    acknowledge(&mut promises, 2, 1, &list[0]);
    promises.on_prepare(&prepare(3, 1));
    acknowledge(&mut promises, 2, 1, &prepare(3, 1));
    let spoke = promises.spoke();
    assert_eq!(
        (spoke.votes, spoke.views, spoke.acknowledgements),
        (2, 1, 4)
    );
}

#[test]
#[should_panic(expected = "changes its vote")]
fn a_changed_vote_is_noticed() {
    let mut promises = acknowledged();
    vote(&mut promises, (2, 1, 0), &[prepare(2, 0), prepare(1, 0)], 0);
    vote(&mut promises, (2, 1, 0), &[prepare(1, 0)], 0);
}

#[test]
#[should_panic(expected = "never acknowledged op 2; it did")]
fn a_nack_of_what_was_acknowledged_is_noticed() {
    vote(
        &mut acknowledged(),
        (1, 1, 0),
        &[prepare(2, 0), prepare(1, 0)],
        1,
    );
}

#[test]
#[should_panic(expected = "that ends at 1, and acknowledged op 2")]
fn a_vote_that_ends_below_what_was_acknowledged_is_noticed() {
    vote(&mut acknowledged(), (1, 1, 0), &[prepare(1, 0)], 0);
}

#[test]
fn what_a_later_log_has_cut_off_may_be_forgotten() {
    let mut promises = acknowledged();
    start_view(&mut promises, 1, 4, &[prepare(1, 0)]);
    vote(&mut promises, (1, 5, 4), &[prepare(1, 0)], 0);
}

#[test]
#[should_panic(expected = "acknowledges a prepare in view 0, and has voted for view 1")]
fn an_acknowledgement_in_a_view_that_was_left_is_noticed() {
    let mut promises = acknowledged();
    vote(&mut promises, (1, 1, 0), &[prepare(2, 0)], 0);
    acknowledge(&mut promises, 1, 0, &prepare(3, 0));
}

#[test]
#[should_panic(expected = "confirms a round in view 0, and has voted for view 1")]
fn a_round_confirmed_in_a_view_that_was_left_is_noticed() {
    let mut promises = acknowledged();
    vote(&mut promises, (1, 1, 0), &[prepare(2, 0)], 0);
    promises.on_send(1, CommitOk::new(CLUSTER, 0, 1).header(), &[]);
}

#[test]
#[should_panic(expected = "view 1 has two logs at op 2")]
fn two_logs_of_a_view_are_noticed() {
    let mut promises = acknowledged();
    start_view(&mut promises, 1, 1, &[prepare(2, 0)]);
    start_view(&mut promises, 1, 1, &[prepare(2, 1)]);
}

#[test]
#[should_panic(expected = "begins view 1, which is another's")]
fn a_view_begun_by_another_is_noticed() {
    start_view(&mut acknowledged(), 2, 1, &[prepare(2, 0)]);
}

#[test]
#[should_panic(expected = "is not that view's")]
fn an_acknowledgement_of_another_log_is_noticed() {
    let mut promises = acknowledged();
    start_view(&mut promises, 1, 1, &[prepare(2, 0)]);
    acknowledge(&mut promises, 2, 1, &prepare(2, 5));
}

#[test]
fn acknowledgements_of_several_views_make_no_commit() {
    let mut promises = Promises::new(5);
    let held = prepare(1, 0);
    acknowledge(&mut promises, 1, 0, &held);
    acknowledge(&mut promises, 1, 0, &held);
    let committed = |promises: &Promises, holds: bool| {
        promises.is_committed(1, held.frame.checksum, 3, |_| holds)
    };
    acknowledge(&mut promises, 2, 5, &held);
    assert!(!committed(&promises, true));
    acknowledge(&mut promises, 3, 5, &held);
    assert!(committed(&promises, true) && !committed(&promises, false));
    assert!(!promises.is_committed(1, 77, 1, |_| false));
}
