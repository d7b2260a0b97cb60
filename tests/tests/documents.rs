//! The documents name what the code has: events with their keys, states, what lies in a state
//! directory. Audit entries are in `audit_entries.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sealift_agent::control::PROOF_TIMEOUT;
use sealift_protocol::{
    disposition::{Stage, sender::SenderStage},
    ticket_proof::TICKET_PROOF_BYTES,
};
use sealift_tests::{
    exit,
    link::Faults,
    place::{Kind, Place, assert_named_in_readme},
};

const WITHIN: Duration = Duration::from_secs(60);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => {
                found.push(fs::read_to_string(path).unwrap());
            }
            false => {}
        }
    }
}

type Words = BTreeSet<String>;

/// Every call of `Report::event` in a program's sources: the event, and the keys that are written
/// in the call.
fn events(program: &str) -> Vec<(String, Words)> {
    let mut texts = Vec::new();
    sources(&root().join(program), &mut texts);
    let mut found = Vec::new();
    for text in &texts {
        for rest in text.split(".event(").skip(1) {
            if let Some(literal) = rest.trim_start().strip_prefix('"') {
                let event = literal.split('"').next().unwrap().to_owned();
                found.push((event, keys(call(rest))));
            }
        }
    }
    found
}

/// What stands before the parenthesis that ends a call.
fn call(text: &str) -> &str {
    let mut depth = 1;
    let end = text.char_indices().find(|(_, character)| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    &text[..end.expect("a call ends").0]
}

/// Every `("key", json!(…))`.
fn keys(code: &str) -> Words {
    let pairs = code.split("(\"").skip(1).filter_map(|rest| rest.split_once("\","));
    let is_key = |key: &str| key.chars().all(|character| character == '_' || character.is_ascii_lowercase());
    pairs.map(|(key, _)| key.to_owned()).filter(|key| is_key(key)).collect()
}

/// The keys in the body of a function.
fn keys_in(file: &str, function: &str) -> Words {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let (_, body) = text.split_once(&format!("fn {function}(")).unwrap_or_else(|| panic!("{file} has no {function}"));
    let keys = keys(body.split("\n}").next().unwrap().split("\n    }\n").next().unwrap());
    assert!(!keys.is_empty(), "{file}, {function}");
    keys
}

/// What stands in backquotes.
fn quoted(text: &str) -> Words {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// The lines of the tables under this heading of a document.
fn tables(name: &str, heading: &str) -> Vec<Vec<String>> {
    let text = document(name);
    let (_, section) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{name} has no {heading}"));
    tables_of(section.split("\n## ").next().unwrap())
}

/// The lines of the tables in a text, without their heads, as cells.
fn tables_of(text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_head = |at: usize| lines.get(at + 1).is_some_and(|next| next.starts_with("|---"));
    let cells = |at: usize| {
        let row = lines[at].strip_prefix("| ")?.strip_suffix('|')?;
        Some(row.split('|').map(|cell| cell.trim().to_owned()).collect())
    };
    (0..lines.len()).filter(|at| !is_head(*at)).filter_map(cells).collect()
}

/// The keys of a table whose first cells name them.
fn documented_keys(document: &str, heading: &str) -> Words {
    tables(document, heading).iter().flat_map(|row| quoted(&row[0])).collect()
}

/// The keys that the table of events gives to one event at one of the agents.
fn keys_of_row(cell: &str, agent: &str) -> Words {
    let is_here = |key: &&str| !key.contains('(') || key.contains(&format!("({agent})"));
    cell.split(", ").filter(is_here).flat_map(quoted).collect()
}

/// Events whose keys another function makes, and whose tables are compared below.
const OTHER_TABLES: [&str; 3] = ["progress", "finished", "ended"];

/// Issue 9, D3: a page for `--json`. Every call that makes an event has all of the event's keys.
#[test]
fn every_event_has_its_line_and_its_keys() {
    let text = document("events.md");
    let rows = tables_of(text.split("\n## ").next().unwrap()).into_iter().filter(|row| row.len() == 4);
    let rows: BTreeMap<String, Vec<String>> =
        rows.map(|row| (row[0].trim_matches('`').to_owned(), row[1..].to_vec())).collect();
    let mut seen = BTreeSet::new();
    for (agent, program) in [("both", "agent/src"), ("sender", "sender/src"), ("receiver", "receiver/src")] {
        for (event, keys) in events(program) {
            let row = rows.get(&event).unwrap_or_else(|| panic!("docs/events.md lacks {event}"));
            if !OTHER_TABLES.contains(&event.as_str()) {
                assert_eq!(keys, keys_of_row(&row[1], agent), "{program}: {event}");
            }
            assert!(agent == "both" || [agent, "both"].contains(&row[0].as_str()), "{event} is of the {agent}, too");
            seen.insert(event);
        }
    }
    // Its name is an argument.
    seen.insert("ended".to_owned());
    let documented: Words = rows.into_keys().collect();
    assert_eq!(documented, seen);
}

/// Issue 9, D3: the tables of keys that one function makes.
#[test]
fn progress_and_the_last_event_have_the_documented_keys() {
    assert_eq!(documented_keys("events.md", "## `progress`"), keys_in("agent/src/progress.rs", "fields"));
    let ending = "agent/src/report/ending.rs";
    let of = |function| {
        let mut keys = keys_in(ending, function);
        // The name of the event and an outcome stand behind a parenthesis there, too.
        keys.retain(|key| key != "finished" && key != "done");
        keys
    };
    let last: Words = ["last_event", "of_receipt", "finish_archive"].into_iter().flat_map(of).collect();
    assert_eq!(documented_keys("events.md", "## `finished` and `ended`"), last);
    assert!(of("stop").is_subset(&last), "{:?}", of("stop"));
}

/// Issue 9, D3: the keys of `status --json`, and the stages in it.
#[test]
fn status_has_the_documented_keys() {
    let how_far = keys_in("agent/src/progress/how_far.rs", "fields");
    let mut sender = keys_in("sender/src/unfinished.rs", "print_status");
    // Which agent prints it.
    sender.remove("sender");
    let mut receiver = keys_in("receiver/src/unfinished.rs", "line");
    receiver.extend(keys_in("receiver/src/archive/record.rs", "lines"));
    let rows = tables("events.md", "## `status --json`");
    for (agent, keys) in [("sender", &mut sender), ("receiver", &mut receiver)] {
        keys.extend(how_far.iter().cloned().chain(["transfer".to_owned()]));
        let of_agent = rows.iter().filter(|row| ["both", agent].contains(&row[1].as_str()));
        let documented: Words = of_agent.flat_map(|row| quoted(&row[0])).collect();
        assert_eq!(&documented, keys, "{agent}");
    }
    let stages = rows.iter().find(|row| row[0] == "`stage`").map(|row| quoted(&row[2])).unwrap();
    let mut expected: Words = ["unreadable"].map(str::to_owned).into();
    expected.extend(SenderStage::ALL.map(|stage| stage.as_str().to_owned()));
    expected.extend(Stage::ALL.map(|stage| stage.as_str().to_owned()));
    assert_eq!(stages, expected);
}

/// Issue 9, D3: the tables of states have every message and every stage, and the Proof as the code
/// has it.
#[test]
fn the_states_have_every_message_and_stage() {
    let rows = tables("codes.md", "## States");
    let row = |state: &str| rows.iter().find(|row| row[0] == state).unwrap_or_else(|| panic!("no {state}"));
    assert!(row("proving")[1].contains(&format!("the Proof, {TICKET_PROOF_BYTES} bytes")));
    let within = format!("the Proof, all of it within {} s", PROOF_TIMEOUT.as_secs());
    assert!(row("unproven")[2].contains(&within), "{:?}", row("unproven"));

    let connections: Vec<_> = rows.iter().filter(|row| row.len() == 4).collect();
    for message in ["Proof", "Offer", "Accept", "Begin", "Ready", "Ack", "Finish", "Receipt"] {
        let times = |cell: usize| connections.iter().filter(|row| row[cell].contains(message)).count();
        assert!(times(1) > 0 && times(2) > 0, "{message} is sent {} times, received {}", times(1), times(2));
    }
    let stages: Words = rows.iter().filter(|row| row.len() == 3).flat_map(|row| quoted(&row[0])).collect();
    let sender = SenderStage::ALL.map(SenderStage::as_str);
    let receiver = Stage::ALL.map(Stage::as_str);
    for stage in sender.iter().chain(&receiver) {
        assert!(stages.contains(*stage), "docs/codes.md lacks {stage}");
    }
}

/// Issue 9, D3, D4: whatever an agent leaves in its state directory is named in README. What only
/// archives leave is looked at in `carry`.
#[test]
fn what_lies_in_a_state_directory_is_named() {
    let place = Place::new(Kind::Sqlite(10), Faults::default(), 1);
    let (sender, receiver) = place.start();
    for (side, agent) in [("sender", sender), ("receiver", receiver)] {
        agent.wait(WITHIN).assert_code(exit::DONE);
        assert_named_in_readme(&place.path(side));
    }
}
