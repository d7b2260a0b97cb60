//! Issue 10, item 2: a large table is sent in ranges, and is resumed from those that are committed,
//! whichever side is killed.
#![cfg(debug_assertions)]

use std::{thread, time::Duration};

use nix::sys::signal::Signal;
use sealift_tests::{
    exit,
    link::Faults,
    place::{Kind, Place},
};

const WITHIN: Duration = Duration::from_secs(120);

/// Some six megabytes, most of them in one table.
const ROWS: u32 = 24_000;

/// Faults C1, C2: each side is killed in the middle: before and after the commit of a range, and
/// while one is sent.
#[test]
fn a_kill_in_the_middle_costs_no_committed_range() {
    let of_receiver = ["sqlite-part-written:6", "sqlite-part-committed:6", "chunk-taken:9"].map(|point| (point, true));
    let of_sender = ["chunk-sent:9", "part-sent:7"].map(|point| (point, false));
    thread::scope(|scope| {
        for (point, is_receivers) in of_receiver.into_iter().chain(of_sender) {
            scope.spawn(move || survives(point, is_receivers));
        }
    });
}

fn survives(point: &str, is_receivers: bool) {
    let place = Place::new(Kind::Ranges(ROWS), Faults::default(), 1);
    let armed = |launch: sealift_tests::agents::Launch, of_receiver: bool| match of_receiver == is_receivers {
        true => launch.env("SEALIFT_FAIL_POINT", point),
        false => launch,
    };
    let mut receiver = armed(place.receiver(), true).start();
    receiver.ticket();
    let sender = armed(place.sender(), false).start();
    let (killed, sender, receiver) = match is_receivers {
        true => (receiver.wait(WITHIN), sender, place.receiver().start()),
        false => (sender.wait(WITHIN), place.sender().start(), receiver),
    };
    assert_eq!(killed.killed_by(), Some(Signal::SIGKILL as i32), "{point} is not reached:\n{}", killed.stderr());
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    let told = || format!("{point}\n--- sender\n{}--- receiver\n{}", sender.message(), receiver.message());
    assert_eq!((sender.code(), receiver.code()), (Some(exit::DONE), Some(exit::DONE)), "{}", told());
    let resumed = if is_receivers { receiver.resume() } else { sender.resume() };
    assert_eq!(resumed.as_deref(), Some("resumed"), "{}", told());
    place.assert_done();
    let receipts = place.receipts("receiver");
    let [receipt] = receipts.as_slice() else { panic!("{point}: {} receipts", receipts.len()) };
    let plan = &receipt.receipt.plan;
    let ranges = plan.parts.iter().filter(|part| part.range.is_some()).count();
    assert!(ranges > 5, "{point}: {ranges} ranges");
    assert_eq!(receipt.receipt.evidence.tables, receipt.receipt.manifest.manifest.tables);
}
