//! What both agents tell while a transfer runs.

use std::time::Duration;

use sealift_tests::{
    finished::Finished,
    link::Faults,
    place::{Kind, Place},
};

const WITHIN: Duration = Duration::from_secs(60);

/// Nearly all of the hospital's rows are in one table: those of whole tables alone would be none,
/// and then all.
const ROWS: u32 = 150_000;

fn rows_told(ended: &Finished) -> Vec<u64> {
    let events = ended.events();
    let told = events.iter().filter(|event| event["event"] == "progress");
    told.map(|event| event["rows"].as_u64().unwrap()).collect()
}

#[test]
fn rows_are_told_as_they_pass() {
    let faults = Faults { bits_per_second: Some(32_000_000), ..Faults::default() };
    let place = Place::new(Kind::Sqlite(ROWS), faults, 1);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    // Otherwise all of it is read ahead, and waits to be acknowledged.
    let sender = place.sender().args(&["--memory", "17MiB"]).start();
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    place.assert_done();
    for ended in [sender, receiver] {
        let told = rows_told(&ended);
        let within_the_table =
            told.iter().filter(|&&rows| rows > u64::from(ROWS) / 5 && rows < u64::from(ROWS)).count();
        assert!(within_the_table >= 2 && told.is_sorted(), "{told:?}");
    }
}
