//! The audit log when it cannot be written, or was not written whole.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use sealift_agent::{
    audit::{
        AuditLog,
        entry::{Entry, Name, Purpose},
    },
    state::StateDir,
    ticket::Ticket,
};
use sealift_protocol::{close::Code, fingerprint::Fingerprint, limits::NAME_BYTES_MAX, manifest::ReceiverTrust};
use sealift_tests::{
    agents::{Agent, Launch},
    exit,
    finished::Finished,
    invited::write_ticket,
    shared::installed,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap())
    }

    fn state_dir(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn state(&self) -> StateDir {
        StateDir::open(Some(self.state_dir()), "test").unwrap()
    }

    fn log(&self) -> PathBuf {
        self.state_dir().join("audit.jsonl")
    }

    fn opened(&self) -> AuditLog {
        AuditLog::open(&self.state(), "test").unwrap()
    }

    /// A log of so many entries.
    fn filled(entries: usize) -> Self {
        let place = Self::new();
        let log = place.opened();
        (0..entries).for_each(|at| log.append(None, &Entry::ServeStart { targets: at }).unwrap());
        place
    }

    fn receiver(&self) -> Launch {
        Launch::receiver("discard:").bind_loopback().state(&self.state_dir())
    }

    fn start_receiver(&self) -> Agent {
        let mut receiver = self.receiver().start();
        receiver.ticket();
        receiver
    }

    /// Every entry, in a chain without a gap.
    #[track_caller]
    fn entries(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log()).unwrap();
        assert!(text.ends_with('\n'), "ends in half a line");
        let mut prev = "0".repeat(64);
        let check = |(seq, line): (usize, &str)| {
            let entry: Value = serde_json::from_str(line).unwrap();
            assert_eq!((entry["seq"].as_u64(), entry["prev"].as_str()), (Some(seq as u64), Some(prev.as_str())));
            prev = blake3::hash(line.as_bytes()).to_string();
            entry
        };
        text.lines().enumerate().map(check).collect()
    }

    #[track_caller]
    fn cut_bytes(&self) -> Vec<u64> {
        let repaired =
            |entry: &Value| (entry["event"] == "audit.repaired").then(|| entry["cut_bytes"].as_u64().unwrap());
        self.entries().iter().filter_map(repaired).collect()
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// Faults S2, S12, A11: nothing happens of which there would be no record, and with room the same
/// command continues with the same log.
#[test]
fn s2_a_log_that_fills_up_in_the_middle_of_a_line_stops_everything_and_stays_whole() {
    if !installed("prlimit") {
        return;
    }
    // Longer than any other file that a receiver makes, so that the limit is this file's.
    let place = Place::filled(200);
    let before = length(&place.log());
    for room in [0, 1, 100] {
        let limit = format!("--fsize={}", before + room);
        let refused = place.receiver().wrapped_in(vec!["prlimit".into(), limit.into()]).start().wait(WITHIN);
        refused.assert_code(exit::AUDIT).assert_one_message();
        assert!(!refused.home().join("ticket").exists(), "a sender was let in");
        assert_eq!(length(&place.log()), before, "{room}");
    }
    place.start_receiver();
    let entries = place.entries();
    assert_eq!(entries.len(), 202);
    assert_eq!(entries[200]["event"], "identity.make");
    assert_eq!(entries[201]["event"], "ticket.issue");
}

/// Fault C11 of the audit log: a line that was cut off anywhere was never durable, and goes; that
/// it did is in the log.
#[test]
fn c11_a_torn_line_is_cut_off_and_told_of() {
    for whole in [0, 1, 3] {
        let place = Place::filled(whole + 1);
        let bytes = fs::read(place.log()).unwrap();
        let lines = bytes.split_inclusive(|&byte| byte == b'\n');
        let whole_bytes: usize = lines.take(whole).map(<[u8]>::len).sum();
        for torn in 0..bytes.len() - whole_bytes - 1 {
            fs::write(place.log(), &bytes[..whole_bytes + torn]).unwrap();
            place.opened().append(None, &Entry::SourceEmptyAllowed {}).unwrap();
            let expected: &[u64] = if torn == 0 { &[] } else { &[torn as u64] };
            assert_eq!(place.cut_bytes(), expected);
            assert_eq!(place.entries().len(), whole + expected.len() + 1);
        }
    }
    // The same, of a program, and when another one dies while this one runs.
    let place = Place::filled(3);
    let tear = || OpenOptions::new().append(true).open(place.log()).unwrap().write_all(b"{\"event\":\"tr").unwrap();
    tear();
    let receiver = place.start_receiver();
    assert_eq!(place.cut_bytes(), [12]);
    tear();
    receiver.sigint();
    receiver.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
    assert_eq!(place.cut_bytes(), [12, 12]);
    assert_eq!(place.entries().last().unwrap()["event"], "transfer.end");
}

/// Fault A1: what no interrupted append leaves was changed by a person or a disk, and nothing is
/// moved until a person has looked.
#[test]
fn a1_other_damage_is_refused_and_left_as_it_is() {
    let place = Place::filled(3);
    let good = fs::read(place.log()).unwrap();
    let with = |behind: &[u8]| [&good, behind].concat();
    let flipped = [&good[..good.len() - 2], b"]\n"].concat();
    let damaged =
        [with(b"\n"), with(b"{}\n"), with(b"no entry\n"), with(b"no entry\n{\"ev"), with(&[0; 40_000]), flipped];
    for bytes in damaged {
        fs::write(place.log(), &bytes).unwrap();
        let refused: Finished = place.receiver().start().wait(WITHIN);
        refused.assert_code(exit::PREFLIGHT).assert_one_message();
        assert!(fs::read(place.log()).unwrap() == bytes, "it was changed");
    }
}

/// Issue 9, A6: an entry that lacks its newline alone is an entry: it stays, gets its newline, and
/// the chain goes on behind it.
#[test]
fn an_entry_without_its_newline_is_kept() {
    for entries in [1, 4] {
        let place = Place::filled(entries);
        let bytes = fs::read(place.log()).unwrap();
        fs::write(place.log(), &bytes[..bytes.len() - 1]).unwrap();
        place.opened().append(None, &Entry::SourceEmptyAllowed {}).unwrap();
        assert!(fs::read(place.log()).unwrap().starts_with(&bytes), "an entry was removed");
        let found = place.entries();
        assert_eq!(found.len(), entries + 2);
        assert_eq!((&found[entries]["event"], &found[entries]["added_bytes"]), (&json!("audit.repaired"), &json!(1)));
    }
    // One that follows another line is none.
    let place = Place::filled(3);
    let good = fs::read_to_string(place.log()).unwrap();
    let first = good.lines().next().unwrap();
    fs::write(place.log(), format!("{good}{first}")).unwrap();
    place.opened();
    assert_eq!(place.cut_bytes(), [first.len() as u64]);
}

/// Issue 9, A6: an agent checks all of its log when it starts, and says which line was changed,
/// removed or moved.
#[test]
fn a_start_checks_the_whole_chain() {
    type Edit = fn(&mut Vec<String>);
    let edits: [(&str, Edit); 5] = [
        // A change shows in the line behind it.
        ("line 4:", |lines| lines[2] = lines[2].replace("\"targets\":2", "\"targets\":7")),
        ("line 2:", |lines| drop(lines.remove(1))),
        ("line 2:", |lines| lines.swap(1, 2)),
        ("line 1:", |lines| drop(lines.remove(0))),
        ("line 4:", |lines| lines[3] = lines[3].replace("\"targets\":3", "\"targets\": 3")),
    ];
    for (named, edit) in edits {
        let place = Place::filled(600);
        let good = fs::read_to_string(place.log()).unwrap();
        let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
        edit(&mut lines);
        let edited = lines.join("\n") + "\n";
        fs::write(place.log(), &edited).unwrap();
        let refused = place.receiver().start().wait(WITHIN);
        refused.assert_code(exit::PREFLIGHT).assert_one_message();
        assert!(refused.stderr().contains(named), "{named}: {}", refused.stderr());
        assert!(!refused.home().join("ticket").exists());
        assert_eq!(fs::read_to_string(place.log()).unwrap(), edited);
    }
}

/// Fault A9: whatever a grant may say fits, however much of it JSON escapes; what does not is
/// refused and leaves the log good.
#[test]
fn a9_the_longest_texts_fit_and_longer_ones_are_not_written() {
    let place = Place::filled(1);
    let log = place.opened();
    let begin = |purpose_bytes| Entry::SendBegin {
        receiver: Fingerprint([7; 32]),
        receiver_trust: ReceiverTrust::Ticket,
        source: Name::new("\u{1}".repeat(NAME_BYTES_MAX)),
        engine: sealift_opaque::engine(),
        target: Name::new("\u{1}".repeat(NAME_BYTES_MAX)),
        purpose: Purpose::new("\u{1}".repeat(purpose_bytes)),
    };
    log.append(None, &begin(NAME_BYTES_MAX)).unwrap();
    let refused = log.append(None, &begin(6 * NAME_BYTES_MAX)).unwrap_err();
    assert_eq!(refused.code, Code::AuditUnwritable);
    log.append(None, &Entry::SourceEmptyAllowed {}).unwrap();
    assert_eq!(place.entries().len(), 3);
}

/// Fault A9: a ticket comes from elsewhere, and its grant is told of in the sender's log before the
/// receiver has checked it.
#[test]
fn a9_a_ticket_with_longer_texts_is_damaged() {
    let mut receiver = Launch::receiver("discard:").bind_loopback().start();
    let good = Ticket::from_text(&fs::read_to_string(receiver.ticket()).unwrap()).unwrap();
    let place = Place::new();
    let path = place.0.path().join("ticket");
    for field in 0..3 {
        let mut ticket = good.clone();
        let grant = &mut ticket.grant.grant;
        let texts = [&mut grant.source, &mut grant.target, &mut grant.purpose];
        texts.into_iter().nth(field).unwrap().push_str(&"\u{1}".repeat(NAME_BYTES_MAX + 1));
        write_ticket(&path, ticket.to_text().as_bytes());
        let refused = Launch::sender("exec:echo rows", &path).start().wait(WITHIN);
        refused.assert_code(exit::REFUSED).assert_one_message();
        assert!(refused.stderr().contains("the ticket is damaged"), "{}", refused.stderr());
    }
}
