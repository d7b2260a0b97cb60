//! Issue 10, item 2: an engine that the product does not know is handed in as a value of the
//! registry, and has what the product promises, with no change to the product.

use std::{fs, sync::atomic::Ordering, time::Duration};

use sealift_agent::{failure::Failure, shutdown::Shutdown, stop::Stop};
use sealift_engine_api::{Severity, Source, Waivers};
use sealift_protocol::{
    digest::Digests,
    disposition::Asks,
    id::{PartIndex, TransferId},
    key::DigestSecret,
    manifest::Proof,
};
use sealift_sender::reader::{Reader, Reading};
use sealift_tests::{
    exit,
    grid::{Content, GridSource, GridTarget},
    link::Faults,
    one_load::{self, OneLoad},
    place::{Kind, Place},
};

const WITHIN: Duration = Duration::from_secs(120);

/// Two tables in three ranges each: eight parts with what comes before and after the rows.
const CONTENT: Content = Content { tables: 2, ranges: 3, rows: 600, bytes: 1000, widest: 0, finding: None };

/// A side that fails in the middle publishes nothing, and the same commands end well once the
/// reason is gone.
#[test]
fn a_failure_on_demand_publishes_nothing() {
    for beside in ["fail", "target/fail"] {
        let place = Place::new(Kind::Grid(CONTENT), Faults::default(), 2);
        fs::write(place.path(beside), "5").unwrap();
        let (sender, receiver) = place.start();
        let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
        assert!(sender.code() != Some(exit::DONE) && receiver.code() != Some(exit::DONE), "{beside}");
        assert!(!place.target().exists(), "nothing is published");
        fs::remove_file(place.path(beside)).unwrap();
        // Of a transfer that is over the ticket is void.
        let _ = fs::remove_file(place.ticket());
        let (sender, receiver) = place.start();
        place.assert_ends_well(sender, receiver);
    }
}

/// Fault D17: a row that the reader skips is in no digest of either side. The engine's own count
/// finds it before there is a manifest.
#[test]
fn a_row_that_the_reader_skips_is_missed() {
    let place = Place::new(Kind::Grid(CONTENT), Faults::default(), 2);
    fs::write(place.path("skip"), "5").unwrap();
    let (sender, receiver) = place.start();
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    assert_eq!(sender.code(), Some(exit::UNUSABLE), "{}", sender.message());
    assert!(sender.message().contains("1799 rows of a table were read, and it has 1800"), "{}", sender.message());
    assert!(receiver.code() != Some(exit::DONE) && !place.target().exists() && !place.has_receipt("sender"));
}

/// One value that is larger than all that is in flight.
#[test]
fn a_value_larger_than_the_budget_arrives() {
    let content = Content { tables: 1, ranges: 2, rows: 2, bytes: 10, widest: 40 << 20, finding: None };
    let place = Place::new(Kind::Grid(content), Faults::default(), 3);
    let allowed = ["--row-bytes-max", "64MiB"];
    let mut receiver = place.receiver().args(&allowed).start();
    receiver.ticket();
    place.assert_ends_well(place.sender().args(&allowed).start(), receiver);
}

/// N readers: a part whose lane is full keeps no other one from being read.
#[test]
fn parts_are_read_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    // Each part is more than its lane holds.
    fs::write(&from, Content { rows: 20_000, ..CONTENT }.text()).unwrap();
    let source = Box::new(GridSource::open(&from).unwrap());
    let is_empty = || -> Failure { panic!("it has rows") };
    let reading = Reading { waivers: Waivers::default(), row_bytes_max: 1 << 20, empty: None, is_empty };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (_drains, drained) = tokio::sync::watch::channel(false);
        let stop = Stop::on(Shutdown::with_all(drained));
        let opened = Reader::start(source, reading, stop).await.unwrap();
        let digests = Digests::new(&DigestSecret::from_bytes([7; 32]));
        let read = |part| opened.reader.read(PartIndex(part), digests.multiset()).unwrap();
        let mut parts = [read(1), read(2), read(3)];
        for part in parts.iter_mut().rev() {
            assert!(part.chunks.recv().await.is_some());
        }
        let mut rows = 0;
        for mut part in parts {
            while part.chunks.recv().await.is_some() {}
            rows += part.summary.await.unwrap().unwrap().rows;
        }
        assert_eq!((rows, opened.reader.rows()), (3 * 20_000, 3 * 20_000));
    });
}

/// What is found is said before anything is sent, and an error ends the transfer.
#[test]
fn findings_are_said_and_errors_end_it() {
    for (severity, code) in
        [(Severity::Note, exit::DONE), (Severity::Warning, exit::DONE), (Severity::Error, exit::PREFLIGHT)]
    {
        let place = Place::new(Kind::Grid(Content { finding: Some(severity), ..CONTENT }), Faults::default(), 4);
        let mut receiver = place.receiver().start();
        receiver.ticket();
        let sender = place.sender().start().wait(WITHIN);
        assert_eq!(sender.code(), Some(code), "{}", sender.message());
        let events = sender.events();
        let found: Vec<_> = events.iter().filter(|event| event["event"] == "finding").collect();
        assert_eq!(found.len(), 1, "{events:?}");
        assert_eq!(found[0]["severity"], severity.as_str());
        if severity != Severity::Error {
            assert_eq!(receiver.wait(WITHIN).code(), Some(exit::DONE));
            place.assert_done();
        }
    }
}

fn drill(content: Content) -> Place {
    let mut place = Place::new(Kind::Grid(content), Faults::default(), 4);
    place.target_url = "discard:".to_owned();
    place
}

/// Issue 10, item 2: the engine brings its own drill, which looks at every row of every range and
/// keeps nothing.
#[test]
fn a_drill_looks_at_every_row_and_keeps_nothing() {
    let place = drill(CONTENT);
    let (sender, receiver) = place.start();
    for ended in [sender.wait(WITHIN), receiver.wait(WITHIN)] {
        ended.assert_code(exit::DONE);
    }
    place.assert_clean(&[]);
    let receipts = place.receipts("receiver");
    let [receipt] = receipts.as_slice() else { panic!("{} receipts", receipts.len()) };
    let (evidence, sent) = (&receipt.receipt.evidence, &receipt.receipt.manifest.manifest.tables);
    assert_eq!((evidence.proof, &evidence.tables), (Proof::Discarded, sent));
    let rows: Vec<u64> = sent.iter().map(|table| table.rows).collect();
    assert_eq!(rows, [CONTENT.ranges * CONTENT.rows; 2]);
}

/// What the target would not take fails its drill.
#[test]
fn a_drill_refuses_a_row_that_the_target_would() {
    let place = drill(Content { widest: 3 << 20, ..CONTENT });
    let mut receiver = place.receiver().args(&["--row-bytes-max", "1MiB"]).start();
    receiver.ticket();
    let sender = place.sender().start().wait(WITHIN);
    let receiver = receiver.wait(WITHIN);
    let told = || format!("--- sender\n{}--- receiver\n{}", sender.message(), receiver.message());
    assert!(sender.code() != Some(exit::DONE) && receiver.code() != Some(exit::DONE), "{}", told());
    assert!(receiver.message().contains("limit"), "{}", told());
    assert!(!place.has_receipt("receiver"));
}

/// N writers: no part waits for the end of another.
#[test]
fn parts_are_written_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::write(&from, CONTENT.text()).unwrap();
    let source = Box::new(GridSource::open(&from).unwrap());
    let plan = source.plan(one_load::endless()).unwrap().plan;
    let target = GridTarget::new(folder.path().join("to"), 1 << 20);
    let writing = target.writing();
    let load = OneLoad::new(target);
    load.prepare(TransferId([1; 16]), &plan, Asks::Continue).unwrap();
    let digests = Digests::new(&DigestSecret::from_bytes([7; 32]));
    let writers: Vec<_> = (1..=4).map(|part| load.begin(PartIndex(part), &digests).unwrap()).collect();
    assert_eq!(writing.max.load(Ordering::Relaxed), writers.len());
}
