//! The gate on advisories where RustSec's database cannot be reached (issue 9, D5): a dated copy
//! stands in.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use sealift_tests::shared::{installed, workspace_root};
use tempfile::TempDir;

const PLANTED: &str = "RUSTSEC-2026-9999";

/// How a warning of a copy that is too old begins.
const OLD: &str = "\nWARNING: ADVISORIES OF THE LAST";

/// A copy of the database that this repository has, changed, with a new date.
fn snapshot(dated: &str, change: impl FnOnce(&Path)) -> TempDir {
    let folder = tempfile::Builder::new().prefix("sealift-advisories-").tempdir().unwrap();
    let database = folder.path().join("database");
    fs::create_dir(&database).unwrap();
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&database).env("KEPT", workspace_root().join("scripts/advisory-db"));
        assert!(command.status().unwrap().success(), "{script}");
    };
    shell("zstd -dcq \"$KEPT/advisory-db.tar.zst\" | tar -xf - --no-same-owner");
    assert!(database.join("LICENSES/CC-BY-4.0.txt").is_file() && database.join("LICENSE.txt").is_file());
    change(&database);
    shell("tar -cf - . | zstd -q -1 >../advisory-db.tar.zst");
    fs::write(folder.path().join("README.md"), format!("A copy of {dated}.\n")).unwrap();
    folder
}

fn checked(folder: &Path) -> Output {
    let mut script = Command::new(workspace_root().join("scripts/advisories"));
    script.arg("--snapshot").arg(folder).env("CARGO_NET_OFFLINE", "true").output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

fn all_installed() -> bool {
    ["cargo-deny", "zstd", "git"].into_iter().all(installed)
}

/// Issue 9, D5: the copy is used, and its age is told.
#[test]
fn a_dated_copy_stands_in_and_says_how_old_it_is() {
    if !all_installed() {
        return;
    }
    let today = Command::new("date").arg("+%F").output().unwrap();
    let today = String::from_utf8(today.stdout).unwrap().trim().to_owned();
    let folder = snapshot(&today, |_| {});
    let passed = checked(folder.path());
    let said = said(&passed);
    assert!(passed.status.success() && said.contains("advisories ok"), "{said}");
    assert!(said.contains(&format!("those of {today}, 0 days old")) && !said.contains(OLD), "{said}");
}

/// Issue 9, D5: nobody answers where the database should be, and the newest of the copies that are
/// here is taken, wherever it lies.
#[test]
fn the_newest_copy_is_taken_where_the_database_cannot_be_reached() {
    if !all_installed() {
        return;
    }
    let shared = TempDir::new().unwrap();
    // A few of its thousands of files: only its date is looked at.
    let newest = snapshot("2099-01-02", |database| {
        let crates = fs::read_dir(database.join("crates")).unwrap().map(|entry| entry.unwrap());
        let others = crates.filter(|entry| entry.file_name() != "bytes");
        others.for_each(|entry| fs::remove_dir_all(entry.path()).unwrap());
    });
    std::os::unix::fs::symlink(newest.path(), shared.path().join("advisories")).unwrap();
    let mut script = Command::new(workspace_root().join("scripts/advisories"));
    // Port 9 of this host: discard, which nobody serves.
    script.env("https_proxy", "http://127.0.0.1:9").env("CARGO_NET_OFFLINE", "true");
    let passed = script.env("SEALIFT_SHARED", shared.path()).output().unwrap();
    let said = said(&passed);
    assert!(passed.status.success() && said.contains("advisories ok"), "{said}");
    assert!(said.contains("those of 2099-01-02, "), "{said}");
}

/// Issue 9, D5: what the copy knows of is found; what it is too old to know of is warned of.
#[test]
fn a_vulnerability_that_the_copy_knows_of_is_found() {
    if !all_installed() {
        return;
    }
    let folder = snapshot("2026-01-02", |database| {
        let advisory = format!(
            "```toml\n[advisory]\nid = \"{PLANTED}\"\npackage = \"bytes\"\ndate = \"2026-01-01\"\n\n\
             [versions]\npatched = [\">= 900.0.0\"]\n```\n\n# Planted by a test\n\nIt is none.\n"
        );
        fs::create_dir_all(database.join("crates/bytes")).unwrap();
        fs::write(database.join(format!("crates/bytes/{PLANTED}.md")), advisory).unwrap();
    });
    let refused = checked(folder.path());
    assert!(!refused.status.success() && said(&refused).contains(PLANTED), "{}", said(&refused));
    assert!(said(&refused).contains(OLD), "{}", said(&refused));
}

/// Issue 9, D5: where there is no copy, nothing was checked, and the gate does not pass.
#[test]
fn without_a_copy_the_check_fails() {
    let folder = tempfile::tempdir().unwrap();
    let refused = checked(folder.path());
    assert!(!refused.status.success() && said(&refused).contains("no dated copy"), "{}", said(&refused));
}
