//! The receiver killed at each step by which it makes anything durable or visible (faults C2, C14):
//! not at random moments, but at the first, second, … call of each kind, as `strace` injects the
//! signal. What one kill leaves behind must not be in the way of the next run.

use std::{ffi::OsString, fs, path::PathBuf, time::Duration};

use sealift_tests::{agents::Launch, exit, pair::transfer, shared, sqlite};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

/// Calls that change what a crash leaves: content made durable, names made, changed and removed.
const STEPS: &[&str] =
    &["fsync", "fdatasync", "linkat", "link", "rename", "renameat2", "unlink", "unlinkat", "ftruncate", "write"];

/// What a load touches in the target's folder. `strace` counts by thread, so that each is looked at
/// alone, too.
const FILES: &[&str] = &[
    "target/.to.db.sealift-staging",
    "target/.to.db.sealift-staging-journal",
    "target/.to.db.sealift-staging-finished",
    "target/to.db",
    "target",
];

/// A database of a few chunks; more would only repeat the same steps.
const ROWS: u32 = 300;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
        sqlite::create_hospital(&folder.path().join("from.db"), ROWS);
        fs::create_dir(folder.path().join("target")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn same(&self) -> bool {
        sqlite::content(&self.path("from.db")) == sqlite::content(&self.path("target/to.db"))
    }

    fn url(&self, name: &str) -> String {
        format!("sqlite:{}", self.path(name).display())
    }

    /// One transfer whose receiver is killed at the `count`th `call`, of those on `file` if one is
    /// named. Whether there was one.
    fn killed_at(&self, call: &str, file: Option<&str>, count: u32) -> bool {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={count}"));
        let mut words: Vec<OsString> = ["strace", "-f", "-qq", "-e", &trace, "-e", &inject].map(Into::into).into();
        if let Some(file) = file {
            words.extend(["-P".into(), self.path(file).into()]);
        }
        words.extend(["-o".into(), self.path("trace").into(), "--".into()]);
        let launch = Launch::receiver(&self.url("target/to.db")).bind_loopback().json();
        let mut receiver = launch.wrapped_in(words).start();
        // It may be killed before it has written a ticket.
        let sender = receiver.ticket_if_it_lives().map(|ticket| Launch::sender(&self.url("from.db"), ticket).start());
        receiver.wait_for("its end", WITHIN, |receiver| !receiver.is_running());
        let receiver = receiver.wait(WITHIN);
        let killed = receiver.killed_by() == Some(nix::libc::SIGKILL);
        if !killed {
            receiver.assert_code(exit::DONE);
        }
        if let Some(sender) = sender {
            // It would notice a killed receiver by itself, in ten seconds: `crash` proves that.
            if killed {
                sender.kill9();
            }
            let sender = sender.wait(WITHIN);
            assert!(killed || sender.code() == Some(exit::DONE), "{}", sender.message());
        }
        killed
    }
}

/// Kills at one step after the other until there is none left, each run after what the one before
/// it left.
fn kill_at_every_step(place: &Place, call: &str, file: Option<&str>) {
    let target = place.path("target/to.db");
    for count in 1.. {
        let killed = place.killed_at(call, file, count);
        let visible = target.exists();
        println!("{call} {count} {}: killed {killed}, visible {visible}", file.unwrap_or(""));
        assert!(visible || killed, "done, and nothing is there");
        assert!(!visible || place.same(), "{call} {count}: what is visible is not whole");
        let _ = fs::remove_file(&target);
        if !killed {
            break;
        }
    }
}

#[track_caller]
fn assert_nothing_is_in_the_way(place: &Place) {
    transfer(place.url("from.db"), place.url("target/to.db")).assert_done();
    let left: Vec<_> = fs::read_dir(place.path("target")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["to.db"], "what killed runs staged is gone");
}

/// Fault C2: every step of each kind.
#[test]
fn c2_receiver_killed_at_every_step_sqlite() {
    if !shared::installed("strace") {
        return;
    }
    let place = Place::new();
    STEPS.iter().filter(|call| **call != "write").for_each(|call| kill_at_every_step(&place, call, None));
    assert_nothing_is_in_the_way(&place);
}

/// Fault C2: every step on each file.
#[test]
fn c2_receiver_killed_at_every_step_of_a_file_sqlite() {
    if !shared::installed("strace") {
        return;
    }
    let place = Place::new();
    for file in FILES {
        STEPS.iter().for_each(|call| kill_at_every_step(&place, call, Some(file)));
    }
    assert_nothing_is_in_the_way(&place);
}
