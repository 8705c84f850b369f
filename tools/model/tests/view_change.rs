//! All rules are kept, and no state within the bounds is wrong.

use model::{Bounds, Explored, explore};
use viewstone::rules::Strict;

#[track_caller]
fn holds(wanted: &str) -> Explored {
    let all = Bounds::SMALL.into_iter();
    let (_, bounds, states) = all
        .into_iter()
        .find(|(name, ..)| *name == wanted)
        .expect("one of the small bounds");
    let explored = match explore::<Strict>(bounds) {
        Ok(explored) => explored,
        Err(found) => panic!("{found}"),
    };
    println!("{wanted}: {explored:?}");
    assert!(explored.complete);
    assert!(explored.states > states, "{} states", explored.states);
    explored
}

#[test]
fn every_order_of_messages_of_two_ops_and_two_view_changes() {
    let reached = holds("views").reached;
    assert!(reached.inherited > 100_000 && reached.diverged > 10_000);
}

#[test]
fn and_of_one_op_and_three_view_changes() {
    assert!(holds("more views").reached.diverged > 10_000);
}

#[test]
fn two_restarts_and_a_decayed_slot_at_any_time() {
    assert!(holds("damage").reached.uncertain > 100_000);
}

#[test]
fn the_same_where_an_op_may_have_been_replaced() {
    let reached = holds("damage in views").reached;
    assert!(reached.uncertain > 100_000 && reached.diverged > 100_000 && reached.lagging > 10_000);
}

#[test]
fn slots_that_are_used_again() {
    let reached = holds("reuse").reached;
    assert!(reached.reused > 100_000 && reached.lagging > 100_000 && reached.uncertain > 100_000);
}

#[test]
fn writes_under_way_when_a_view_is_left_or_the_process_dies() {
    assert!(holds("slow writes").reached.uncertain > 10_000);
}

#[test]
fn what_is_damaged_everywhere_stops_the_cluster_and_is_not_forgotten() {
    assert!(holds("too much damage").stuck > 100);
}
