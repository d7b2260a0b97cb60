//! Transfers that are interrupted and go on: whole agents, real databases, loaders and files, and a
//! link that can be cut. After each, the target equals the source and nothing of the transfer is
//! left but receipts and audit logs.
//!
//! These tests wait for links to be given up, ten seconds each time, and use hardly any processor:
//! many run at once.

/// Tests of one case each: a case is written once, and says of what it is (`Kind`), which stands
/// for an engine and its programs.
macro_rules! cases {
    ($($(#[$doc:meta])* $name:ident: $call:expr;)+) => {
        $($(#[$doc])* #[test] fn $name() { $call; })+
    };
}

mod clocks;
mod crash;
mod doubt;
mod early;
mod ending;
mod grant;
mod journal;
mod outage;
mod prefix;
mod rivals;
mod rollback;
mod room;
mod signals;
mod sources;
mod stopped;
mod upgrade;

use std::time::Duration;

use sealift_tests::{
    agents::Agent,
    finished::Finished,
    grid::Content,
    link::Faults,
    place::{Kind, Place},
};

/// For an outage, what follows it, and a machine that is busy with something else.
const WITHIN: Duration = Duration::from_secs(100);

/// An outage that both sides notice: they give a silent link up after 8 s.
const OUTAGE: Duration = Duration::from_secs(10);

/// Both notice a dead link within this (fault N7 allows 30 s).
const NOTICED_WITHIN: Duration = Duration::from_secs(12);

const MIB: usize = 1 << 20;

/// Some 12 MB in twelve ranges of two tables, of the engine of the tests: with three readers, and
/// as many writers as there are lanes.
const GRID: Kind = grid(12);

/// So many MB, in ranges of one.
const fn grid(megabytes: u64) -> Kind {
    let ranges = megabytes.div_ceil(2);
    Kind::Grid(Content { tables: 2, ranges, rows: 1000, bytes: 1000, widest: 0, finding: None })
}

/// A link of so many megabits a second, so that there is time to interfere.
fn rate(megabits: u64) -> Faults {
    Faults { bits_per_second: Some(megabits * 1_000_000), ..Faults::default() }
}

/// Both end well, the place is as it has to be, and both say that they went on.
#[track_caller]
fn assert_resumed(place: &Place, sender: Agent, receiver: Agent) -> (Finished, Finished) {
    let (sender, receiver) = assert_done(place, sender, receiver);
    assert_eq!(sender.resume().as_deref(), Some("resumed"), "{:?}", sender.events());
    (sender, receiver)
}

#[track_caller]
fn assert_done(place: &Place, sender: Agent, receiver: Agent) -> (Finished, Finished) {
    place.assert_ends_well(sender, receiver)
}
