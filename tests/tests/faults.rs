//! `docs/faults.md` and what the code cites of it: every cited row is there, and every row names
//! tests that cite it, or says that there are none.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use sealift_tests::shared::{run, workspace_root};

/// A row of the page, by the id of its fault.
struct Row {
    /// The files that show it, below the root of the workspace.
    shown_by: Vec<String>,
    /// It is marked as *not yet* or *not tested*.
    is_open: bool,
}

fn rows(page: &str) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, id, _, _, shown, _] = cells[..] else { continue };
        if !is_id(id) {
            continue;
        }
        let names = shown.split('`').skip(1).step_by(2);
        let shown_by = names.map(|name| match name.starts_with("tests/") || workspace_root().join(name).is_file() {
            true => name.to_owned(),
            false => format!("tests/tests/{name}"),
        });
        let row = Row { shown_by: shown_by.collect(), is_open: ["not yet", "not tested"].contains(&shown) };
        assert!(rows.insert(id.to_owned(), row).is_none(), "{id} stands twice in docs/faults.md");
    }
    rows
}

/// A capital letter and a number.
fn is_id(word: &str) -> bool {
    let mut characters = word.chars();
    characters.next().is_some_and(|letter| letter.is_ascii_uppercase())
        && (2..=3).contains(&word.len())
        && characters.all(|digit| digit.is_ascii_digit())
}

/// The ids behind each `fault` or `faults` in comments: a list, in which `to` makes a range.
fn cited(text: &str) -> BTreeSet<String> {
    let comments = text.lines().filter_map(|line| line.split_once("//").or_else(|| line.split_once("# ")));
    let comments = comments.map(|(_, comment)| comment.trim_start_matches(['/', '!']).trim());
    let words = comments.collect::<Vec<_>>().join(" ");
    let mut words = words.split_whitespace().map(|word| word.trim_start_matches('(')).peekable();
    let mut found = BTreeSet::new();
    while let Some(word) = words.next() {
        if !["fault", "faults", "Fault", "Faults"].contains(&word) {
            continue;
        }
        let (mut last, mut is_range) = (None, false);
        while let Some(word) = words.peek() {
            let id = word.trim_end_matches(|end: char| !end.is_ascii_alphanumeric());
            if is_id(id) {
                let number: u32 = id[1..].parse().unwrap();
                let first = last.filter(|_| is_range).map_or(number, |last| last + 1);
                found.extend((first..=number).map(|number| format!("{}{number}", &id[..1])));
                last = Some(number);
            } else if *word != "to" && *word != "and" {
                break;
            }
            is_range = *word == "to";
            let goes_on = !is_id(id) || *word == id || word.ends_with(',');
            words.next();
            if !goes_on {
                break;
            }
        }
    }
    found
}

/// Every Rust file and script that git keeps, or would keep, but for this one.
fn files() -> Vec<(String, String)> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs", "scripts"]);
    let listed = run(git.current_dir(workspace_root()));
    let read = |path: &str| Some((path.to_owned(), fs::read_to_string(workspace_root().join(path)).ok()?));
    let files: Vec<_> = listed.lines().filter(|path| !path.ends_with("/faults.rs")).filter_map(read).collect();
    assert!(files.len() > 50, "only {} files were found", files.len());
    files
}

#[test]
fn every_citation_is_a_row_and_every_row_is_shown() {
    let page = fs::read_to_string(workspace_root().join("docs/faults.md")).unwrap();
    let rows = rows(&page);
    assert!(rows.len() > 150, "only {} rows were read", rows.len());
    let cited: BTreeMap<_, _> = files().into_iter().map(|(path, text)| (path, cited(&text))).collect();
    let mut wrong = Vec::new();
    for (path, ids) in &cited {
        wrong.extend(ids.iter().filter(|id| !rows.contains_key(*id)).map(|id| format!("{path} cites {id}, no row")));
    }
    for (id, row) in &rows {
        if row.shown_by.is_empty() != row.is_open {
            wrong.push(format!("{id} names no test and is not marked, or the other way round"));
        }
        let shows = |path: &String| cited.get(path).is_some_and(|ids| ids.contains(id));
        wrong.extend(row.shown_by.iter().filter(|path| !shows(path)).map(|path| format!("{path} does not cite {id}")));
        let citing = cited.iter().filter(|(path, ids)| path.starts_with("tests/tests/") && ids.contains(id));
        if row.is_open {
            wrong.extend(citing.map(|(path, _)| format!("{path} cites {id}, which is marked as not shown")));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Rows are cited in one form, so that none escapes this test.
#[test]
fn faults_are_cited_in_one_form() {
    // In halves, so that this list is not found by itself.
    let others = ["fault-", "fault "].map(|half| format!("{half}matrix"));
    let uses_other = |text: &str| others.iter().any(|other| text.contains(other.as_str()));
    let wrong: Vec<_> = files().into_iter().filter(|(_, text)| uses_other(text)).map(|(path, _)| path).collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn citations_are_read() {
    let read = |text: &str| cited(text).into_iter().collect::<Vec<_>>();
    assert_eq!(read("/// Fault N5: a link.\n"), ["N5"]);
    assert_eq!(read("/// Issue 9, B1; faults E1, C5: a\n"), ["C5", "E1"]);
    assert_eq!(read("//! Killed (faults C1 to C3,\n//! N5).\n"), ["C1", "C2", "C3", "N5"]);
    assert_eq!(read("code(); // As S1; see faults X9, and N1.\n"), ["N1", "X9"]);
    assert_eq!(read("/// Fault A1. N2 is a fault of the disk.\n"), ["A1"]);
}
