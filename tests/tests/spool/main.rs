//! A source that can be read only once, and is spooled: whole agents, killed, cut off, out of room,
//! and with a spool that is not as it was left. After each, the target equals the source and
//! nothing is left of the spool.
//!
//! The modules' names say that their tests wait more than they work (`.config/nextest.toml`).

mod spool_killed;
mod spool_spoiled;
mod spool_used;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use sealift_tests::{
    agents::Agent,
    exit,
    finished::Finished,
    link::Faults,
    place::{Kind, Place},
};

/// For an outage, what follows it, and a machine that is busy with something else.
const WITHIN: Duration = Duration::from_secs(100);

/// An outage that both sides notice: they give a silent link up after 8 s.
const OUTAGE: Duration = Duration::from_secs(10);

const MIB: usize = 1 << 20;

/// A spooled source of so many MiB, over a link that leaves time to interfere: 1.5 MB a second.
fn place(mebibytes: usize) -> Place {
    let faults = Faults { bits_per_second: Some(12_000_000), ..Faults::default() };
    Place::new(Kind::Spool(mebibytes * MIB), faults, 1)
}

/// As `place`, with a program that has printed all of it and does not end before `open` is called.
fn gated(mebibytes: usize) -> Place {
    let mut place = place(mebibytes);
    fs::write(place.path("gate"), "").unwrap();
    let (source, gate) = (place.source(), place.path("gate"));
    let wait = format!("while [ -e {} ]; do sleep 0.05; done", gate.display());
    place.source_url = format!("exec:sh -c 'cat {}; {wait}'", source.display());
    place
}

fn open(place: &Place) {
    fs::remove_file(place.path("gate")).unwrap();
}

/// Both have begun, and all of the source is spooled, though far from all of it is sent.
fn spooled(mebibytes: usize) -> (Place, Agent, Agent) {
    let place = place(mebibytes);
    let (mut sender, receiver) = place.start();
    sender.wait_for_event("spooled", 1, WITHIN);
    place.wait_until_passed(&mut sender, 2 << 20);
    (place, sender, receiver)
}

/// As `spooled`, and the sender was killed.
fn left(mebibytes: usize) -> (Place, Agent) {
    let (place, sender, receiver) = spooled(mebibytes);
    kill(sender);
    (place, receiver)
}

fn kill(agent: Agent) {
    agent.kill9();
    let _ = agent.wait(WITHIN);
}

/// From here on nobody can read the source; `assert_same` compares with where it is now.
fn hide(place: &Place) {
    fs::rename(place.source(), place.path("hidden")).unwrap();
}

fn unhide(place: &Place) {
    fs::rename(place.path("hidden"), place.source()).unwrap();
}

/// The one file of the spool.
fn spool_file(place: &Place) -> PathBuf {
    let [transfer] = &place.transfers("sender")[..] else { panic!("not one transfer") };
    let file = place.spool().join(transfer).join("spool");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o700);
    file
}

#[track_caller]
fn assert_done(place: &Place, sender: Agent, receiver: Agent, resume: Option<&str>) -> (Finished, Finished) {
    let (sender, receiver) = place.assert_ends_well(sender, receiver);
    assert_eq!(sender.resume().as_deref(), resume, "{:?}", sender.events());
    (sender, receiver)
}

/// The sender ends so, in one message that holds these words; nothing is loaded, and the transfer
/// is kept.
#[track_caller]
fn assert_stopped(place: &Place, sender: Agent, code: i32, outcome: &str, words: &[&str]) -> Finished {
    let ended = sender.wait(WITHIN);
    ended.assert_code(code).assert_one_message();
    assert_eq!(ended.finished_event()["outcome"], outcome);
    words.iter().for_each(|word| assert!(ended.message().contains(word), "{}", ended.message()));
    assert!(!place.target().exists());
    assert_eq!(place.transfers("sender").len(), 1, "nothing is lost");
    ended
}

fn reason(ended: &Finished) -> String {
    let events = ended.events();
    let resume = events.iter().rfind(|event| event["event"] == "resume").expect("says how it goes on");
    resume["reason"].as_str().unwrap().to_owned()
}
