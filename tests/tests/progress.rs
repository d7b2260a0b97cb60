//! What both agents say while a transfer runs.

use std::time::Duration;

use sealift_tests::{
    finished::Finished,
    link::Faults,
    pair::Pair,
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
    let sender = place.sender().start();
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    place.assert_done();
    for ended in [sender, receiver] {
        let told = rows_told(&ended);
        let within_the_table =
            told.iter().filter(|&&rows| rows > u64::from(ROWS) / 5 && rows < u64::from(ROWS)).count();
        assert!(within_the_table >= 2 && told.is_sorted(), "{told:?}");
    }
}

/// Issue 9, C7: what fits the sender's window is sent at once, and has not arrived.
#[test]
fn what_is_on_its_way_has_not_arrived() {
    const BYTES: u64 = 8 << 20;
    let faults = Faults { bits_per_second: Some(16_000_000), ..Faults::default() };
    let place = Place::new(Kind::Program(BYTES as usize), faults, 2);
    let (sender, receiver) = place.start();
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    place.assert_done();
    for ended in [&sender, &receiver] {
        let events = ended.events();
        let progress: Vec<_> = events.iter().filter(|event| event["event"] == "progress").collect();
        let arrived: Vec<_> = progress.iter().map(|event| event["plain_bytes"].as_u64().unwrap()).collect();
        let between = arrived.iter().filter(|&&bytes| bytes > 0 && bytes < BYTES).count();
        assert!(between >= 2 && arrived.is_sorted(), "{arrived:?}");
        // 2 MB/s, and a margin for a busy machine.
        let rates = progress.iter().filter_map(|event| event["bytes_per_second"].as_u64());
        assert!(rates.max() < Some(4_000_000), "{progress:?}");
        assert_eq!(ended.number("plain_bytes"), BYTES);
    }
}

/// Issue 9, C7: without a terminal there is a line now and then, also while a target takes nothing.
#[test]
fn a_line_of_progress_is_printed_beside_a_slow_target() {
    let slow = "exec:sh -c 'sleep 12; cat > /dev/null'";
    let done = Pair::new("exec:head -c 3000000 /dev/zero", slow).for_people().run();
    done.assert_done();
    for (name, ended) in [("sender", &done.sender), ("receiver", &done.receiver)] {
        let lines = ended.stderr();
        let progress =
            lines.lines().filter(|line| line.starts_with(name) && line.contains(" MB") && line.contains("  part 0/1"));
        assert_eq!(progress.count(), 1, "{lines}");
    }
}

/// Issue 9, C7: a sender that was started again after all was sent knows that all of it is there.
#[test]
fn what_an_earlier_process_sent_is_there() {
    let place = Place::new(Kind::Loader(300_000), Faults::default(), 4);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let killed = place.sender().env("SEALIFT_FAIL_POINT", "manifest-kept").start().wait(WITHIN);
    assert_eq!(killed.code(), None, "{}", killed.stderr());
    let sender = place.sender().start().wait(WITHIN);
    receiver.wait(WITHIN);
    place.assert_done();
    let events = sender.events();
    let first = events.iter().find(|event| event["event"] == "progress").unwrap();
    assert_eq!((first["plain_bytes"].as_u64(), first["parts"].as_u64()), (Some(300_000), Some(1)), "{first}");
}
