//! Issue 10, item 3: what reads a spool, an archive or a journal takes its bytes from the
//! transfer's budget, and the smallest `--memory` is enough for each.

use std::time::Duration;

use sealift_agent::cli::MEMORY_BYTES_MIN;
use sealift_tests::{
    agents::{Launch, RECEIVER, SENDER},
    exit,
    link::Faults,
    place::{Kind, Place},
    sqlite,
};

const WITHIN: Duration = Duration::from_secs(100);

/// More than is in flight at a time.
const SPOOL: Kind = Kind::Spool(24 << 20);

fn least(launch: Launch) -> Launch {
    launch.arg("--memory").arg(MEMORY_BYTES_MIN.to_string())
}

/// A spooled source, into a loader with a journal; and again with a side that is killed, so that
/// the spool is sent from or the journal is read by another process.
#[test]
fn a_spool_and_a_journal_need_no_more_than_the_smallest_memory() {
    let points = [None, Some(("spool-whole", false)), Some(("chunk-taken:20", true))];
    let points = points.into_iter().filter(|point| cfg!(debug_assertions) || point.is_none());
    std::thread::scope(|scope| {
        for point in points {
            scope.spawn(move || spooled(point));
        }
    });
}

fn spooled(point: Option<(&str, bool)>) {
    let place = Place::new(SPOOL, Faults::default(), 7);
    let armed = |launch: Launch, of_receiver: bool| match point {
        Some((point, is_receivers)) if of_receiver == is_receivers => least(launch).env("SEALIFT_FAIL_POINT", point),
        _ => least(launch),
    };
    let mut receiver = armed(place.receiver(), true).start();
    receiver.ticket();
    let mut sender = armed(place.sender(), false).start();
    match point {
        Some((_, true)) => {
            assert_eq!(receiver.wait(WITHIN).killed_by(), Some(9), "{point:?}");
            receiver = least(place.receiver()).start();
        }
        Some((_, false)) => {
            assert_eq!(sender.wait(WITHIN).killed_by(), Some(9), "{point:?}");
            sender = least(place.sender()).start();
        }
        None => {}
    }
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    let told = || format!("{point:?}\n--- sender\n{}--- receiver\n{}", sender.message(), receiver.message());
    assert_eq!((sender.code(), receiver.code()), (Some(exit::DONE), Some(exit::DONE)), "{}", told());
    place.assert_done();
}

#[test]
fn an_archive_needs_no_more_than_the_smallest_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let url = |name: &str| format!("sqlite:{}", path(name).display());
    sqlite::create_hospital(&path("from.db"), 60_000);
    let receiver = |words: &[&str]| Launch::bare(RECEIVER, words).arg("--state-dir").arg(path("receiver.state"));
    receiver(&["key"]).arg("--out").arg(path("RECEIVER.pub")).start().wait(WITHIN).assert_code(exit::DONE);
    let sealing = Launch::bare(SENDER, &["seal", "--json", "--source", &url("from.db")]);
    let sealing = sealing.arg("--to").arg(path("RECEIVER.pub")).arg("--out").arg(path("archive"));
    let sealed = least(sealing.arg("--state-dir").arg(path("sender.state"))).start().wait(WITHIN);
    let from = sealed.assert_code(exit::DONE).finished_event()["fingerprint"].as_str().unwrap().to_owned();
    let loading = receiver(&["load", "--json", "--target", &url("to.db"), "--from", &from]).arg(path("archive"));
    least(loading).start().wait(WITHIN).assert_code(exit::DONE);
    assert_eq!(sqlite::content(&path("from.db")), sqlite::content(&path("to.db")));
}
