//! Every named fail point of both agents: killed there, and started again with the same command,
//! the transfer ends as if nothing had happened. A point that is added to the list is tested by
//! being there.
#![cfg(debug_assertions)]

use std::{thread, time::Duration};

use sealift_agent::role::Role;
use sealift_tests::{
    exit,
    fail_points::{self, Point},
    grid::Content,
    link::Faults,
    place::{Kind, Place},
};

/// Until an agent comes to its point, or both to their end; most of it is waiting for the silence
/// of a dead peer.
const WITHIN: Duration = Duration::from_secs(120);

/// Transfers at once: they wait more than they work.
const AT_ONCE: usize = 16;

/// Several chunks, for the points that come with each.
const LOADER: Kind = Kind::Loader(3 << 20);
/// The same, by way of a spool.
const SPOOL: Kind = Kind::Spool(3 << 20);
const SQLITE: Kind = Kind::Sqlite(2000);
/// Whose parts share commits.
const TABLES: Kind = Kind::Tables(60);
const IMAGE: Kind = Kind::Image(2000);
const FILE: Kind = Kind::File(3 << 20);
/// Whose receiver has nothing to go on from.
const DRILL: Kind = Kind::Drill(2000);
/// Two tables in three ranges each, written side by side.
const GRID: Kind = Kind::Grid(Content { tables: 2, ranges: 3, rows: 600, bytes: 1000, widest: 0, finding: None });

/// What a point is reached by; every other one is by both.
fn kinds(point: Point) -> Vec<Kind> {
    match point.name {
        // `sqlite/resume.rs` kills there: in a transfer that ends well nothing staged is removed.
        "sqlite-removing" => vec![],
        // `postgres_engine.rs` kills there, with a server.
        _ if point.name.starts_with("postgres-") => vec![],
        // Of both forms.
        "sqlite-staged" | "sqlite-marked" | "sqlite-proven" | "sqlite-renamed" | "sqlite-forgetting"
        | "sqlite-forgotten" => vec![SQLITE, IMAGE],
        // In the middle of it, and at its end.
        "image-synced" | "image-noted" => vec![IMAGE, Kind::Image(200_000)],
        // One that comes at once, so that it is waited for.
        "sqlite-part-shared" => vec![TABLES],
        _ if point.name.starts_with("sqlite-") => vec![SQLITE],
        _ if point.name.starts_with("spool-") => vec![SPOOL],
        _ if point.name.starts_with("journal-") => vec![LOADER],
        _ if point.name.starts_with("file-") => vec![FILE],
        _ if point.name.starts_with("grid-") => vec![GRID],
        // A loader that may have committed is another matter, below.
        "load-ending" | "receipt-signed" => vec![SQLITE, FILE, DRILL, GRID],
        "chunk-taken" | "part-finished" | "receipt-kept" | "published" => {
            vec![SQLITE, LOADER, FILE, DRILL, GRID]
        }
        "begin-kept" | "chunk-sent" | "part-sent" | "manifest-kept" => vec![SQLITE, LOADER, SPOOL, GRID],
        "ready-due" => vec![SQLITE, LOADER, FILE, GRID],
        _ if point.side == Role::Sender => vec![SQLITE, LOADER, SPOOL],
        _ => vec![SQLITE, LOADER, FILE],
    }
}

/// For which time a point is come to: where parts are written side by side, in the middle of them.
fn time(point: Point, kind: Kind) -> u32 {
    let comes_often = ["chunk-taken", "part-finished", "chunk-sent", "part-sent"].contains(&point.name);
    match kind {
        Kind::Grid(_) if comes_often || point.name.starts_with("grid-part-") => 3,
        _ => 1,
    }
}

fn survives(point: Point, kind: Kind) {
    let place = Place::new(kind, Faults::default(), 1);
    let mut receiver = point.arm(place.receiver(), Role::Receiver, time(point, kind)).start();
    if receiver.ticket_if_it_lives().is_none() {
        point.assert_died(receiver);
        receiver = place.receiver().start();
        receiver.ticket();
        place.assert_ends_well_at(point.name, place.sender().start(), receiver);
        return;
    }
    let sender = point.arm(place.sender(), Role::Sender, time(point, kind)).start();
    match point.name {
        "record-gone" => {
            point.assert_died(sender);
            receiver.wait(WITHIN).assert_code(exit::DONE);
        }
        "record-overwritten" | "record-removing" => {
            point.assert_died(receiver);
            sender.wait(WITHIN).assert_code(exit::DONE);
            // Fault C13: the next start finishes the clean-up, and then waits for another transfer.
            let mut next = place.receiver().start();
            next.wait_for("another ticket", WITHIN, |next| {
                next.stderr().contains("waiting") || !next.stdout().is_empty()
            });
            // One that finds the load in its way has ended by itself.
            if next.is_running() {
                next.sigint();
            }
            next.wait(WITHIN);
        }
        // It cannot know, and waits for the sender to fetch the receipt, until it is asked to stop.
        "receipt-fetched" => {
            point.assert_died(receiver);
            sender.wait(WITHIN).assert_code(exit::DONE);
            let mut next = place.receiver().start();
            next.wait_for_event("listening", 1, WITHIN);
            next.sigint();
            next.wait(WITHIN).assert_code(exit::DONE);
        }
        "receipt-delivered" => {
            point.assert_died(sender);
            receiver.wait(WITHIN).assert_code(exit::DONE);
            place.sender().start().wait(WITHIN).assert_code(exit::DONE);
        }
        // Nothing was agreed on yet: a sender whose offer has no answer does not try again by
        // itself. A record is first replaced when an offer is accepted.
        "ticket-bound" | "record-replaced" | "sqlite-staged" => {
            point.assert_died(receiver);
            // Its link is given up, or its offer is unanswered for too long, whichever comes first.
            let sender = sender.wait(WITHIN);
            assert!(matches!(sender.code(), Some(exit::INTERRUPTED | exit::PEER)), "{}", sender.message());
            let mut receiver = place.receiver().start();
            receiver.ticket();
            place.assert_ends_well_at(point.name, place.sender().start(), receiver);
            return;
        }
        _ => {
            fail_points::assert_goes_on(&place, point, sender, receiver);
            return;
        }
    }
    place.assert_done();
}

/// Faults C1, C2, C13, N11, N12, and "kill at every named fail point".
#[test]
fn a_kill_at_every_fail_point_changes_nothing() {
    let cases: Vec<_> = fail_points::all()
        .into_iter()
        .flat_map(|point| kinds(point).into_iter().map(move |kind| (point, kind)))
        .collect();
    for some in cases.chunks(AT_ONCE) {
        thread::scope(|scope| {
            for &(point, kind) in some {
                scope.spawn(move || survives(point, kind));
            }
        });
    }
}

/// Issue 9, B8, fault C2: killed before, within and after commits that many parts share, whose rows
/// and ledger lines are there together or not at all.
#[test]
fn a_kill_around_a_shared_commit_doubles_nothing() {
    let points = ["sqlite-part-written", "sqlite-part-shared", "sqlite-part-committed"].map(fail_points::named);
    thread::scope(|scope| {
        for (point, time) in points.into_iter().flat_map(|point| [(point, 2), (point, 3), (point, 20)]) {
            // There are not so many commits.
            if (point.name, time) == ("sqlite-part-committed", 20) {
                continue;
            }
            scope.spawn(move || {
                fail_points::assert_survives(&Place::new(TABLES, Faults::default(), 1), point, time);
            });
        }
    });
}

/// Killed while its loader was ending, a receiver cannot know whether that committed: it says so
/// and loads nothing twice.
#[test]
fn a_loader_that_may_have_committed_is_not_fed_again() {
    for point in ["load-ending", "receipt-signed"].map(fail_points::named) {
        let place = Place::new(LOADER, Faults::default(), 2);
        let mut receiver = point.arm(place.receiver(), Role::Receiver, 1).start();
        receiver.ticket();
        let sender = place.sender().args(&["--retry-for", "1s"]).start();
        point.assert_died(receiver);
        let again = place.receiver().start().wait(WITHIN);
        again.assert_code(exit::INTERRUPTED).assert_one_message();
        assert_eq!(again.finished_event()["outcome"], "in_doubt");
        assert!(again.message().contains("resolve"), "{}", again.message());
        sender.wait(WITHIN).assert_code(exit::INTERRUPTED);
    }
}
