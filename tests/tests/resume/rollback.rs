//! A host is put back to an earlier state, as a virtual machine's snapshot is, and the same command
//! is given (fault C15).

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use sealift_protocol::{
    id::Epoch,
    sealed_log::{LogReader, ReadStep, Record},
};
use sealift_tests::{
    agents::Agent,
    exit,
    link::{Direction, Faults},
    place::{Kind, Place},
    shared::run,
};
use serde_json::Value;

use super::{MIB, WITHIN, assert_resumed, grid, rate};

fn copy(from: PathBuf, to: PathBuf) {
    let _ = fs::remove_dir_all(&to);
    run(Command::new("cp").arg("-a").args([from, to]));
}

fn snapshot(place: &Place) {
    for side in ["sender", "receiver"] {
        copy(place.path(side), place.path(&format!("{side}-before")));
    }
}

fn put_back(place: &Place, side: &str) {
    copy(place.path(&format!("{side}-before")), place.path(side));
}

fn kill(agents: (Agent, Agent)) {
    for agent in [&agents.0, &agents.1] {
        agent.kill9();
    }
    let _ = (agents.0.wait(WITHIN), agents.1.wait(WITHIN));
}

fn go_on(place: &Place, bytes: usize) -> (Agent, Agent) {
    let passed = place.link.counters(Direction::ToReceiver).sent_bytes;
    let mut receiver = place.receiver().start();
    receiver.wait_for_event("listening", 1, WITHIN);
    let mut sender = place.sender().start();
    place.wait_until_passed(&mut sender, passed + bytes as u64);
    (sender, receiver)
}

/// By what each chunk was sealed, as journals have it: the key's commitment and the nonce; and to
/// what.
#[derive(Default)]
struct Seen {
    sealed: BTreeMap<([u8; 32], [u8; 24]), Vec<u8>>,
    epochs: BTreeMap<Epoch, Vec<[u8; 32]>>,
}

impl Seen {
    /// What the receiver's journal holds now.
    fn look(&mut self, place: &Place) {
        let folder = place.path("receiver/transfers").join(&place.transfers("receiver")[0]);
        let bytes = fs::read(folder.join("journal")).unwrap();
        let mut reader = LogReader::open(&bytes[..]).unwrap_or_else(|_| panic!("no journal"));
        let mut keys = BTreeMap::new();
        let mut chunks = 0;
        while let Ok(ReadStep::Record(record)) = reader.step() {
            match record {
                Record::Epoch(epoch) => {
                    keys.insert(epoch.epoch, epoch.commitment);
                    let known = self.epochs.entry(epoch.epoch).or_default();
                    if !known.contains(&epoch.commitment) {
                        known.push(epoch.commitment);
                    }
                }
                Record::Chunk { header, sealed } => {
                    let by = (keys[&header.epoch], header.nonce);
                    let first = self.sealed.entry(by).or_insert_with(|| sealed.to_vec());
                    assert!(first[..] == sealed[..], "one key and nonce for two chunks: {header:?}");
                    chunks += 1;
                }
                _ => {}
            }
        }
        assert!(chunks > 0, "an empty journal shows nothing");
    }
}

/// Killed, copied, resumed, killed; then one side is put back to where it was, and both are
/// started again.
fn rolled_back(side: &str, kind: Kind) {
    let place = Place::new(kind, rate(16), 15);
    let has_journal = matches!(kind, Kind::Loader(_));
    let mut seen = Seen::default();
    let mut look = |place: &Place| {
        if has_journal {
            seen.look(place);
        }
    };
    kill(go_on(&place, 3 * MIB));
    look(&place);
    snapshot(&place);
    kill(go_on(&place, 3 * MIB));
    look(&place);
    put_back(&place, side);
    let (sender, receiver) = go_on(&place, 5 * MIB);
    look(&place);
    let (sender, _) = assert_resumed(&place, sender, receiver);
    // Issue 9, A3: an epoch that an earlier sender has seen comes from a receiver that was put
    // back, or that lies.
    let events = sender.events();
    let is_told = |event: &&Value| event["event"] == "notice" && event["what"].to_string().contains("put back");
    assert_eq!(events.iter().filter(is_told).count(), usize::from(side == "receiver"), "{events:?}");
    if has_journal {
        // The connection of which a side had forgotten has the number of a later one, and nothing
        // else of it.
        let secrets: Vec<_> = seen.epochs.values().map(Vec::len).collect();
        let expected = if side == "receiver" { vec![1, 2] } else { vec![1, 1, 1] };
        assert_eq!(secrets, expected, "secrets by epoch");
    }
}

cases! {
    c15_sender_put_back_loader: rolled_back("sender", Kind::Loader(20 * MIB));
    c15_receiver_put_back_loader: rolled_back("receiver", Kind::Loader(20 * MIB));
    c15_sender_put_back_grid: rolled_back("sender", grid(20));
    c15_receiver_put_back_grid: rolled_back("receiver", grid(20));
    c15_sender_put_back_sqlite: rolled_back("sender", Kind::Sqlite(80_000));
    /// What is committed in the target is newer than what the receiver knows of it.
    c15_receiver_put_back_sqlite: rolled_back("receiver", Kind::Sqlite(80_000));
}

/// The transfer was done meanwhile. A receiver that does not know it any more gets nothing from its
/// sender, which does, and changes nothing in the target; a sender that does not know it finds
/// nobody.
#[test]
fn c15_put_back_after_the_end() {
    for side in ["receiver", "sender"] {
        let place = Place::new(Kind::Loader(6 * MIB), Faults::default(), 16);
        place.link.change(Direction::ToReceiver, |faults| faults.bits_per_second = Some(16_000_000));
        kill(go_on(&place, 2 * MIB));
        snapshot(&place);
        let (sender, receiver) = go_on(&place, MIB);
        assert_resumed(&place, sender, receiver);
        put_back(&place, side);
        let receiver = (side == "receiver").then(|| {
            let mut receiver = place.receiver().start();
            receiver.wait_for_event("listening", 1, WITHIN);
            receiver
        });
        let sender = place.sender().args(&["--retry-for", "3s"]).start().wait(WITHIN);
        sender.assert_one_message();
        match receiver {
            Some(receiver) => {
                sender.assert_code(exit::REFUSED);
                assert_eq!(sender.finished_event()["outcome"], "grant_used");
                receiver.sigint();
                receiver.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
            }
            None => drop(sender.assert_code(exit::INTERRUPTED)),
        }
        place.assert_same();
    }
}
