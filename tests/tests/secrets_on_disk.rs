//! What lies on the disk when keys are said to be destroyed: the raw blocks of a file system are
//! searched (issue 9, C2).
#![cfg(debug_assertions)]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use sealift_agent::transfer_dir::TICKET_SECRET;
use sealift_tests::{
    agents::{Agent, Launch, RECEIVER, SENDER},
    disk::RawDisk,
    link::Faults,
    place::{Kind, Place},
};

const WITHIN: Duration = Duration::from_secs(60);

/// Moments at which a file that holds keys is written, replaced or destroyed, or has been; and how
/// often that comes before.
// The first that each agent writes is its identity, which it keeps.
const KILLED_AT: &[(&str, &str)] = &[
    (RECEIVER, "ticket-bound"),
    (RECEIVER, "record-written:2"),
    (RECEIVER, "record-written:3"),
    (RECEIVER, "record-replaced:1"),
    (RECEIVER, "record-replaced:2"),
    (RECEIVER, "record-overwritten"),
    (RECEIVER, "record-removing"),
    (SENDER, "record-written:2"),
    (SENDER, "record-written:3"),
    (SENDER, "record-replaced:1"),
    (SENDER, "record-gone"),
];

type Secrets = BTreeSet<[u8; 32]>;

/// As CBOR begins a string of 32 bytes: a key, a secret, a fingerprint.
const STRING_OF_32: [u8; 2] = [0x58, 32];

fn strings_of_32(bytes: &[u8]) -> impl Iterator<Item = [u8; 32]> {
    let marked = bytes.windows(34).filter(|window| window[..2] == STRING_OF_32);
    marked.filter_map(|window| window[2..].try_into().ok()).filter(|string| *string != [0; 32])
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What records and secrets of tickets hold now, those included that are being written or
/// destroyed.
fn harvest(state: &Path, secrets: &mut Secrets) {
    for file in files(&state.join("transfers")) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if ["record", TICKET_SECRET].iter().any(|secret| name.starts_with(secret)) {
            secrets.extend(strings_of_32(&fs::read(&file).unwrap_or_default()));
        }
    }
}

/// Two state directories on the disk.
struct States {
    sender: PathBuf,
    receiver: PathBuf,
}

impl States {
    fn new(folder: &Path) -> Self {
        let states = Self { sender: folder.join("sender"), receiver: folder.join("receiver") };
        for state in [&states.sender, &states.receiver] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(state).unwrap();
        }
        states
    }

    fn harvest(&self, secrets: &mut Secrets) {
        harvest(&self.sender, secrets);
        harvest(&self.receiver, secrets);
    }

    fn abandon_all(&self) {
        // Killed after its loader had everything, a transfer is in doubt, and that is for the
        // operator to say first.
        for transfer in fs::read_dir(self.receiver.join("transfers")).unwrap() {
            let transfer = transfer.unwrap().file_name().into_string().unwrap();
            let words = ["resolve", &transfer, "--not-loaded", "--state-dir", self.receiver.to_str().unwrap()];
            Launch::bare(RECEIVER, &words).start().wait(WITHIN);
        }
        for (program, state) in [(SENDER, &self.sender), (RECEIVER, &self.receiver)] {
            let words = ["abandon", "--all", "--state-dir", state.to_str().unwrap()];
            Launch::bare(program, &words).start().wait(WITHIN).assert_code(0);
        }
    }
}

/// One agent is killed at `point`, the other then, too; both transfers are abandoned. What their
/// records held meanwhile.
fn killed_and_abandoned(side: &str, point: &str, states: &States) -> Secrets {
    let place = Place::new(Kind::Loader(1 << 16), Faults::default(), 1);
    let armed = |launch: Launch, of: &str| if of == side { launch.env("SEALIFT_FAIL_POINT", point) } else { launch };
    let mut secrets = Secrets::new();
    let mut receiver = armed(place.receiver().state(&states.receiver), RECEIVER).start();
    if receiver.ticket_if_it_lives().is_some() {
        states.harvest(&mut secrets);
        let mut sender = armed(place.sender().state(&states.sender), SENDER).start();
        let started = Instant::now();
        let is_over = |sender: &mut Agent, receiver: &mut Agent| match side {
            SENDER => !sender.is_running(),
            _ => !receiver.is_running(),
        };
        while !is_over(&mut sender, &mut receiver) {
            assert!(started.elapsed() < WITHIN, "{side} does not come to {point}");
            states.harvest(&mut secrets);
            thread::sleep(Duration::from_millis(2));
        }
        let [sender, receiver] = [sender, receiver].map(|mut agent| {
            if agent.is_running() {
                agent.kill9();
            }
            agent.wait(WITHIN)
        });
        let killed = if side == SENDER { sender } else { receiver };
        assert_eq!(killed.killed_by(), Some(Signal::SIGKILL as i32), "{side} {point}: {}", killed.message());
    }
    states.harvest(&mut secrets);
    states.abandon_all();
    secrets
}

/// A kill at any moment leaves no copy of a key behind that the clean-up does not reach.
#[test]
fn no_key_is_left_in_any_block_once_it_is_destroyed() {
    let Some(disk) = RawDisk::mount() else { return };
    let mut secrets = Secrets::new();
    for (number, (side, point)) in KILLED_AT.iter().enumerate() {
        let found = killed_and_abandoned(side, point, &States::new(&disk.folder().join(number.to_string())));
        assert!(!found.is_empty(), "no record was seen: {side} {point}");
        secrets.extend(found);
    }
    let kept: BTreeSet<_> = files(&disk.folder()).iter().map(|file| fs::read(file).unwrap()).collect();
    // What a file has to this day, such as a public key in a receipt, was no secret.
    secrets.retain(|secret| !kept.iter().any(|bytes| contains(bytes, secret)));
    assert!(secrets.len() >= KILLED_AT.len(), "only {} secrets were seen", secrets.len());

    // What is removed and not overwritten is found.
    let control = *b"a secret that is only removed...";
    let path = disk.folder().join("control");
    fs::write(&path, [&STRING_OF_32[..], &control].concat()).unwrap();
    fs::File::open(&path).unwrap().sync_all().unwrap();
    fs::remove_file(&path).unwrap();
    let blocks = disk.unmount();
    let on_disk: Secrets = strings_of_32(&blocks).collect();
    assert!(on_disk.contains(&control), "the search finds nothing");
    let left: Vec<_> = secrets.intersection(&on_disk).collect();
    assert!(left.is_empty(), "{} of {} secrets are on the disk", left.len(), secrets.len());
}

fn contains(bytes: &[u8], secret: &[u8; 32]) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret)
}
