//! Every named fail point of both agents: killed there, and started again with the same command,
//! the transfer ends as if nothing had happened. A point that is added to the list is tested by
//! being there.
#![cfg(debug_assertions)]

use std::{thread, time::Duration};

use nix::sys::signal::Signal;
use sealift_agent::role::Role;
use sealift_tests::{
    agents::{Agent, Launch},
    exit,
    fail_points::{self, Point},
    link::Faults,
    place::{Kind, Place},
};

/// Until an agent comes to its point, or both to their end; most of it is waiting for the silence
/// of a dead peer.
const WITHIN: Duration = Duration::from_secs(120);

/// Transfers at once: they wait more than they work.
const AT_ONCE: usize = 12;

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
        // A loader that may have committed is another matter, below.
        "load-ending" | "receipt-signed" => vec![SQLITE, FILE, DRILL],
        "chunk-taken" | "part-finished" | "receipt-kept" | "published" => {
            vec![SQLITE, LOADER, FILE, DRILL]
        }
        _ if point.side == Role::Sender => vec![SQLITE, LOADER, SPOOL],
        _ => vec![SQLITE, LOADER, FILE],
    }
}

fn armed(launch: Launch, side: Role, point: Point) -> Launch {
    armed_for(launch, side, point, 1)
}

/// Has the agent of `side` die when it comes to `point` for the time of this number.
fn armed_for(launch: Launch, side: Role, point: Point, time: u32) -> Launch {
    if point.side == side { launch.env("SEALIFT_FAIL_POINT", format!("{}:{time}", point.name)) } else { launch }
}

/// Waits for the death of the agent that was armed.
fn died(agent: Agent, point: Point, kind: Kind) {
    let ended = agent.wait(WITHIN);
    let words = ended.stderr();
    assert_eq!(ended.killed_by(), Some(Signal::SIGKILL as i32), "{} is not reached by {kind:?}:\n{words}", point.name);
}

fn survives(point: Point, kind: Kind) {
    let place = Place::new(kind, Faults::default(), 1);
    let mut receiver = armed(place.receiver(), Role::Receiver, point).start();
    if receiver.ticket_if_it_lives().is_none() {
        died(receiver, point, kind);
        receiver = place.receiver().start();
        receiver.ticket();
        finish(&place, place.sender().start(), receiver, point);
        return;
    }
    let sender = armed(place.sender(), Role::Sender, point).start();
    match point.name {
        "record-gone" => {
            died(sender, point, kind);
            receiver.wait(WITHIN).assert_code(exit::DONE);
        }
        "record-overwritten" | "record-removing" => {
            died(receiver, point, kind);
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
            died(receiver, point, kind);
            sender.wait(WITHIN).assert_code(exit::DONE);
            let mut next = place.receiver().start();
            next.wait_for_event("listening", 1, WITHIN);
            next.sigint();
            next.wait(WITHIN).assert_code(exit::DONE);
        }
        "receipt-delivered" => {
            died(sender, point, kind);
            receiver.wait(WITHIN).assert_code(exit::DONE);
            place.sender().start().wait(WITHIN).assert_code(exit::DONE);
        }
        _ if point.side == Role::Sender => {
            died(sender, point, kind);
            finish(&place, place.sender().start(), receiver, point);
            return;
        }
        // Nothing was agreed on yet: a sender whose offer has no answer does not try again by
        // itself. A record is first replaced when an offer is accepted.
        "ticket-bound" | "record-replaced" | "sqlite-staged" => {
            died(receiver, point, kind);
            // Its link is given up, or its offer is unanswered for too long, whichever comes first.
            let sender = sender.wait(WITHIN);
            assert!(matches!(sender.code(), Some(exit::INTERRUPTED | exit::PEER)), "{}", sender.message());
            let mut receiver = place.receiver().start();
            receiver.ticket();
            finish(&place, place.sender().start(), receiver, point);
            return;
        }
        _ => {
            died(receiver, point, kind);
            finish(&place, sender, place.receiver().start(), point);
            return;
        }
    }
    place.assert_done();
}

fn finish(place: &Place, sender: Agent, receiver: Agent, point: Point) {
    let sender = sender.wait(WITHIN);
    assert_eq!(sender.code(), Some(exit::DONE), "{}\n--- sender\n{}", point.name, sender.message());
    let receiver = receiver.wait(WITHIN);
    let words = || format!("{}\n--- sender\n{}--- receiver\n{}", point.name, sender.message(), receiver.message());
    assert_eq!((sender.code(), receiver.code()), (Some(exit::DONE), Some(exit::DONE)), "{}", words());
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
                let place = Place::new(TABLES, Faults::default(), 1);
                let mut receiver = armed_for(place.receiver(), Role::Receiver, point, time).start();
                receiver.ticket();
                let sender = place.sender().start();
                died(receiver, point, TABLES);
                finish(&place, sender, place.receiver().start(), point);
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
        let mut receiver = armed(place.receiver(), Role::Receiver, point).start();
        receiver.ticket();
        let sender = place.sender().args(&["--retry-for", "1s"]).start();
        died(receiver, point, LOADER);
        let again = place.receiver().start().wait(WITHIN);
        again.assert_code(exit::INTERRUPTED).assert_one_message();
        assert_eq!(again.finished_event()["outcome"], "in_doubt");
        assert!(again.message().contains("resolve"), "{}", again.message());
        sender.wait(WITHIN).assert_code(exit::INTERRUPTED);
    }
}
