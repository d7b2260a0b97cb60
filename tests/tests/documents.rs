//! The documents name what the code has: events, states. Audit entries are in `audit_entries.rs`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

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

/// Every literal that is the first argument of this call, wherever the line is broken.
fn first_arguments(call: &str) -> BTreeSet<String> {
    let mut texts = Vec::new();
    for program in ["agent/src", "sender/src", "receiver/src"] {
        sources(&root().join(program), &mut texts);
    }
    let mut found = BTreeSet::new();
    for text in &texts {
        for rest in text.split(call).skip(1) {
            if let Some(literal) = rest.trim_start().strip_prefix('"') {
                found.insert(literal.split('"').next().unwrap().to_owned());
            }
        }
    }
    assert!(found.len() > 5, "{call}: {found:?}");
    found
}

/// What stands in backquotes in the first cell of each line of its tables.
fn documented(document: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs").join(document)).unwrap();
    let first_cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next().map(str::to_owned));
    first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Issue 9, D3: a page for `--json`.
#[test]
fn every_event_has_its_line() {
    let known = documented("events.md");
    let missing: Vec<_> = first_arguments(".event(").into_iter().filter(|event| !known.contains(event)).collect();
    assert!(missing.is_empty(), "docs/events.md lacks {missing:?}");
}
