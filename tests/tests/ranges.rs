//! Issue 10, item 2: a large table is sent in ranges, and is resumed from those that are committed,
//! whichever side is killed.
#![cfg(debug_assertions)]

use std::thread;

use sealift_agent::role::Role;
use sealift_tests::{
    fail_points::{self, Point},
    link::Faults,
    place::{Kind, Place},
};

/// Some six megabytes, most of them in one table.
const ROWS: u32 = 24_000;

/// Faults C1, C2: each side is killed in the middle: before and after the commit of a range, and
/// while one is sent.
#[test]
fn a_kill_in_the_middle_costs_no_committed_range() {
    let of_receiver = [("sqlite-part-written", 6), ("sqlite-part-committed", 6), ("chunk-taken", 9)];
    let of_sender = [("chunk-sent", 9), ("part-sent", 7)];
    thread::scope(|scope| {
        for (point, time) in of_receiver.into_iter().chain(of_sender) {
            scope.spawn(move || survives(fail_points::named(point), time));
        }
    });
}

fn survives(point: Point, time: u32) {
    let place = Place::new(Kind::Ranges(ROWS), Faults::default(), 1);
    let (sender, receiver) = fail_points::assert_survives(&place, point, time);
    let killed = if point.side == Role::Receiver { &receiver } else { &sender };
    assert_eq!(killed.resume().as_deref(), Some("resumed"), "{}", point.name);
    let receipts = place.receipts("receiver");
    let [receipt] = receipts.as_slice() else { panic!("{}: {} receipts", point.name, receipts.len()) };
    let plan = &receipt.receipt.plan;
    let ranges = plan.parts.iter().filter(|part| part.range.is_some()).count();
    assert!(ranges > 5, "{}: {ranges} ranges", point.name);
    assert_eq!(receipt.receipt.evidence.tables, receipt.receipt.manifest.manifest.tables);
}
