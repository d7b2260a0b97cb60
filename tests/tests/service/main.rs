//! A standing receiver, and what people do about transfers that were begun and not ended.

mod abandon;
mod certified;
mod crowd;
mod place;
mod spool;
mod unit;

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use nix::sys::signal::Signal;
use place::{Place, WITHIN, events, slow, url, wait_for_events, wait_for_progress};
use sealift_receiver::serve::DRAIN_TIMEOUT;
use sealift_tests::{
    agents::{Agent, RECEIVER},
    exit,
    link::{Direction, Faults},
};

/// What has come of each transfer before something happens to it: some chunks, far from all.
pub const FAR_BYTES: u64 = 512 << 10;

pub fn slow_down(place: &Place) {
    Direction::BOTH.iter().for_each(|&direction| place.link.change(direction, |faults| *faults = slow()));
}

pub fn speed_up(place: &Place) {
    Direction::BOTH.iter().for_each(|&direction| place.link.change(direction, |faults| *faults = Faults::default()));
}

#[track_caller]
pub fn stop(receiver: Agent) {
    receiver.signal(Signal::SIGTERM);
    let stopped = receiver.wait(DRAIN_TIMEOUT + Duration::from_secs(10));
    assert_eq!(stopped.assert_code(exit::DONE).finished_event()["outcome"], "done");
}

#[test]
fn two_run_at_once_and_a_third_is_refused() {
    let place =
        Place::new("transfers_max = 2", &[("a", "sqlite:{}/a.db"), ("b", "sqlite:{}/b.db"), ("c", "sqlite:{}/c.db")]);
    slow_down(&place);
    let mut receiver = place.serve();
    let sources = ["a", "b", "c"].map(|name| place.database(name));
    let tickets = ["a", "b", "c"].map(|name| place.ticket(name));
    let a = place.push(&url(&sources[0]), &tickets[0]);
    let b = place.push(&url(&sources[1]), &tickets[1]);
    wait_for_events(&mut receiver, "started", 2);
    let c = place.push(&url(&sources[2]), &tickets[2]).wait(WITHIN);
    c.assert_code(exit::REFUSED).assert_one_message();
    assert_eq!(c.finished_event()["outcome"], "receiver_busy");
    let (a, b) = (a.wait(WITHIN), b.wait(WITHIN));
    a.assert_code(exit::DONE);
    b.assert_code(exit::DONE);
    wait_for_events(&mut receiver, "ended", 2);
    // The ticket that was refused is still good.
    speed_up(&place);
    place.push(&url(&sources[2]), &tickets[2]).wait(WITHIN).assert_code(exit::DONE);
    wait_for_events(&mut receiver, "ended", 3);
    for (source, target) in sources.iter().zip(["a.db", "b.db", "c.db"]) {
        place.assert_same(source, target);
    }
    // Every event of a transfer says which it is of.
    let ended = events(&receiver, "ended");
    let ids: std::collections::BTreeSet<String> = ended.iter().map(|event| event["transfer"].to_string()).collect();
    assert_eq!(ids.len(), 3, "{ended:?}");
    assert!(ended.iter().all(|event| event["outcome"] == "done" && event["receipt"].is_string()), "{ended:?}");
    assert_eq!(place.files("receiver/receipts").len(), 3);
    place.assert_nothing_left(&["a.db", "b.db", "c.db"]);
    stop(receiver);
}

/// A database, whose parts are committed, and a loader, which is fed again from the journal.
fn interrupted(settings: &str, interrupt: impl FnOnce(Agent)) {
    let place = Place::new(
        settings,
        &[("ehr", "sqlite:{}/ehr.db"), ("dump", "exec:sh -c 'cat > {}/part && mv {}/part {}/dump'")],
    );
    slow_down(&place);
    let mut receiver = place.serve();
    let (ehr, dump) = (place.database("ehr"), place.dump("dump"));
    let to_ehr = place.push(&url(&ehr), &place.ticket("ehr"));
    let to_dump = place.push(&format!("file:{}", dump.display()), &place.ticket("dump"));
    wait_for_progress(&mut receiver, 2, FAR_BYTES);
    interrupt(receiver);
    let status = place.status(RECEIVER);
    assert_eq!(status.len(), 2, "{status:?}");
    for transfer in &status {
        assert_eq!((&transfer["stage"], &transfer["running"]), (&"loading".into(), &false.into()), "{status:?}");
        assert!(transfer["connections"] == 1 && transfer["held_bytes"].as_u64() > Some(0), "{status:?}");
    }
    speed_up(&place);
    let mut receiver = place.serve();
    for sender in [to_ehr, to_dump] {
        let sender = sender.wait(WITHIN);
        assert_eq!(sender.assert_code(exit::DONE).finished_event()["resume"], "resumed");
    }
    wait_for_events(&mut receiver, "ended", 2);
    place.assert_same(&ehr, "ehr.db");
    assert!(fs::read(place.path("target/dump")).unwrap() == fs::read(&dump).unwrap(), "the dump differs");
    place.assert_nothing_left(&["dump", "ehr.db"]);
    stop(receiver);
}

/// The senders finish by themselves once the receiver is there again.
#[test]
fn a_drain_puts_transfers_down_and_a_start_takes_them_up() {
    interrupted("", stop);
}

/// Fault C2, for a standing receiver.
#[test]
fn c2_a_killed_service_takes_its_transfers_up() {
    interrupted("", |receiver| {
        receiver.kill9();
        assert_eq!(receiver.wait(WITHIN).killed_by(), Some(Signal::SIGKILL as i32));
    });
}

/// Suspended when its sender has not come back in time, and resumed when it does: the service goes
/// on meanwhile.
#[test]
fn a_transfer_whose_grace_has_passed_is_put_down_and_taken_up() {
    let place = Place::new("grace = \"1s\"", &[("ehr", "sqlite:{}/ehr.db")]);
    slow_down(&place);
    let mut receiver = place.serve();
    let (source, ticket) = (place.database("ehr"), place.ticket("ehr"));
    let sender = place.push(&url(&source), &ticket);
    wait_for_progress(&mut receiver, 1, FAR_BYTES);
    sender.kill9();
    sender.wait(WITHIN);
    wait_for_events(&mut receiver, "ended", 1);
    assert_eq!(events(&receiver, "ended")[0]["outcome"], "interrupted");
    // Its place is kept.
    let other = place.push(&url(&source), &{
        let second = place.path("second.ticket");
        place.ticket_command("ehr", &second).assert_code(0);
        second
    });
    assert_eq!(other.wait(WITHIN).assert_code(exit::REFUSED).finished_event()["outcome"], "target_busy");
    speed_up(&place);
    let sender = place.push(&url(&source), &ticket).wait(WITHIN);
    assert_eq!(sender.assert_code(exit::DONE).finished_event()["resume"], "resumed");
    wait_for_events(&mut receiver, "ended", 2);
    place.assert_same(&source, "ehr.db");
    stop(receiver);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let place = Place::new("", &[("ehr", "sqlite:{}/ehr.db")]);
    slow_down(&place);
    let mut receiver = place.serve();
    let sender = place.push(&url(&place.database("ehr")), &place.ticket("ehr"));
    wait_for_events(&mut receiver, "started", 1);
    // A sender that answers nothing any more: the farewell would be waited for.
    sender.signal(Signal::SIGSTOP);
    receiver.signal(Signal::SIGINT);
    wait_for_events(&mut receiver, "draining", 1);
    receiver.signal(Signal::SIGTERM);
    let begun = std::time::Instant::now();
    receiver.wait(WITHIN).assert_code(exit::DONE);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    sender.signal(Signal::SIGCONT);
}

#[test]
fn a_ticket_works_once_also_after_a_restart() {
    let place = Place::new("", &[("drill", "discard:")]);
    let receiver = place.serve();
    let dump = format!("file:{}", place.dump("dump").display());
    let ticket = place.ticket("drill");
    place.push(&dump, &ticket).wait(WITHIN).assert_code(exit::DONE);
    let used = |place: &Place| {
        let _ = fs::remove_dir_all(place.path("sender"));
        let again = place.push(&dump, &ticket).wait(WITHIN);
        assert_eq!(again.assert_code(exit::REFUSED).finished_event()["outcome"], "grant_used");
    };
    used(&place);
    stop(receiver);
    let receiver = place.serve();
    used(&place);
    // A ticket of before is good at the same receiver after its restart, and at no other.
    place.push(&dump, &place.ticket("drill")).wait(WITHIN).assert_code(exit::DONE);
    let ticket = place.ticket("drill");
    stop(receiver);
    fs::remove_file(place.state_dir().join("identity")).unwrap();
    let receiver = place.serve();
    let stranger = place.push(&dump, &ticket).wait(WITHIN);
    assert_eq!(stranger.assert_code(exit::PEER).finished_event()["outcome"], "identity_refused");
    stop(receiver);
}

#[test]
fn what_the_configuration_does_not_know_is_refused() {
    let place = Place::new("", &[("ehr", "sqlite:{}/ehr.db")]);
    let unknown = place.ticket_command("her", &place.path("no.ticket"));
    unknown.assert_code(exit::USAGE).assert_one_message();
    assert!(unknown.stderr().contains("no target 'her'") && unknown.stderr().contains("There are: ehr"));
    assert!(!place.path("no.ticket").exists());

    let good = fs::read_to_string(place.config()).unwrap();
    for (settings, expected) in [
        ("memroy = \"64MiB\"\n", "line 1: unknown field `memroy`"),
        ("grace = 15\n", "line 1"),
        ("journal_bytes_max = \"lots\"\n", "give a size"),
        ("[targets.dump]\nurl = \"file:/srv/dump\"\n[targets.x]\nurl = \"discard:\"\n", "in the clear"),
        ("[targets.x]\nurl = \"exec:no-such-program\"\n", "targets.x"),
    ] {
        let text = if settings.starts_with('[') { format!("{good}{settings}") } else { format!("{settings}{good}") };
        fs::write(place.config(), text).unwrap();
        let refused = place.launch().start().wait(WITHIN);
        assert!([exit::USAGE, exit::UNUSABLE].contains(&refused.code().unwrap()), "{}", refused.stderr());
        assert!(refused.stderr().contains(expected), "{settings}: {}", refused.stderr());
        refused.assert_one_message().assert_tidy();
    }
    fs::write(place.config(), good).unwrap();
    fs::set_permissions(place.config(), fs::Permissions::from_mode(0o666)).unwrap();
    let refused = place.launch().start().wait(WITHIN);
    assert!(refused.assert_code(exit::USAGE).stderr().contains("can be changed by others"), "{}", refused.stderr());
    let missing = sealift_tests::agents::Launch::bare(RECEIVER, &["serve", "--config", "none.toml"]).start();
    assert!(missing.wait(WITHIN).assert_code(exit::USAGE).stderr().contains("none.toml cannot be read"));
}

/// Whether a loader committed that was ending when its receiver died, nobody knows: nothing is
/// loaded twice, and the sender is not kept busy.
#[test]
fn a_load_of_unknown_end_is_for_a_person() {
    let place = Place::new("", &[("dump", "exec:sh -c 'cat > {}/dump'")]);
    let mut receiver = place.launch().env("SEALIFT_FAIL_POINT", "load-ending").start();
    wait_for_events(&mut receiver, "listening", 1);
    let source = format!("exec:cat {}", place.dump("dump").display());
    let ticket = place.ticket("dump");
    let sender = place.push(&source, &ticket);
    assert_eq!(receiver.wait(WITHIN).killed_by(), Some(Signal::SIGKILL as i32));
    let mut receiver = place.serve();
    wait_for_events(&mut receiver, "ended", 1);
    let ended = &events(&receiver, "ended")[0];
    assert_eq!((&ended["outcome"], &ended["resume"]), (&"in_doubt".into(), &"in_doubt".into()), "{ended}");
    let sender = sender.wait(WITHIN);
    assert_eq!(sender.assert_code(exit::INTERRUPTED).finished_event()["outcome"], "in_doubt");
    let status = &place.status(RECEIVER)[0];
    assert_eq!((&status["stage"], &status["target"]), (&"in_doubt".into(), &"exec:sh".into()), "{status}");
    let transfer = status["transfer"].as_str().unwrap();
    // Neither the operator nor the sender ends it without a word about what the target holds.
    for refused in [&["abandon", transfer][..], &["abandon", "--all"]] {
        let refused = place.run(RECEIVER, refused);
        assert!(refused.assert_code(exit::INTERRUPTED).stderr().contains("is in doubt"), "{}", refused.stderr());
    }
    let stated = place.run(RECEIVER, &["resolve", transfer, "--loaded"]);
    assert!(stated.assert_code(0).stderr().contains("your statement"), "{}", stated.stderr());
    assert_eq!(place.status(RECEIVER)[0]["stage"], "stated_loaded");
    // The sender that comes again is told, and that ends it.
    let told = place.push(&source, &ticket).wait(WITHIN);
    assert_eq!(told.assert_code(exit::OTHER).finished_event()["outcome"], "stated_loaded");
    // At the start, at the offer of the first sender, and now.
    wait_for_events(&mut receiver, "ended", 3);
    assert_eq!(events(&receiver, "ended")[2]["outcome"], "stated_loaded");
    assert_eq!(place.files("receiver/transfers"), Vec::<String>::new());
    assert_eq!(place.files("receiver/receipts"), Vec::<String>::new());
    place.push(&source, &ticket).wait(WITHIN).assert_code(exit::REFUSED);
    stop(receiver);
}

/// What a sender that has gone did not hear, it can hear later: the load is there, and the receipt
/// is kept for it (fault N12).
#[test]
fn n12_a_receipt_is_kept_for_its_sender() {
    let place = Place::new("grace = \"1s\"", &[("ehr", "sqlite:{}/ehr.db")]);
    let mut receiver = place.launch().start();
    wait_for_events(&mut receiver, "listening", 1);
    let (source, ticket) = (place.database("ehr"), place.ticket("ehr"));
    let launch = sealift_tests::agents::Launch::bare("sealift-sender", &["push", "--json", "--source", &url(&source)]);
    let launch = launch.arg("--ticket").arg(&ticket).arg("--state-dir").arg(place.sender_state());
    let killed = launch.env("SEALIFT_FAIL_POINT", "receipt-checked").start().wait(WITHIN);
    assert_eq!(killed.killed_by(), Some(Signal::SIGKILL as i32));
    wait_for_events(&mut receiver, "ended", 1);
    assert_eq!(place.status(RECEIVER)[0]["stage"], "published");
    stop(receiver);
    let mut receiver = place.serve();
    place.push(&url(&source), &ticket).wait(WITHIN).assert_code(exit::DONE);
    wait_for_events(&mut receiver, "ended", 1);
    assert_eq!(events(&receiver, "ended")[0]["outcome"], "done");
    place.assert_same(&source, "ehr.db");
    place.assert_nothing_left(&["ehr.db"]);
    stop(receiver);
}
