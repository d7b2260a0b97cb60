//! A state directory in which nothing can be written (fault S8): told at the start, before anything
//! is read, sent or let in.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use nix::unistd::{Uid, User};
use sealift_tests::{agents::Launch, disk::SmallDisk, exit, finished::Finished, shared::skip};

const WITHIN: Duration = Duration::from_secs(30);

/// Before anything else, in one message that names what cannot be written, and why.
#[track_caller]
fn assert_refused(ended: &Finished, state: &Path, word: &str) {
    ended.assert_code(exit::PREFLIGHT).assert_one_message();
    let message = ended.message();
    for word in [word, "--state-dir", &state.display().to_string()] {
        assert!(message.contains(word), "no {word} in: {message}");
    }
    assert!(!ended.home().join("ticket").exists(), "a sender was let in");
}

/// Both agents, with this state directory. The sender is refused before it asks for its ticket or
/// its source.
fn both(state: &Path) -> [Launch; 2] {
    [Launch::receiver("discard:").bind_loopback(), Launch::sender("exec:touch read", "no-ticket")]
        .map(|agent| agent.state(state).json())
}

/// Whether the folder is new, or was used before, and has all that is needed but room for more.
#[test]
fn s8_a_state_directory_on_a_read_only_disk_is_refused() {
    for used in [false, true] {
        let Some(disk) = SmallDisk::mount("size=2m,mode=0700") else { return };
        if used {
            let mut receiver = Launch::receiver("discard:").bind_loopback().state(disk.folder()).start();
            receiver.ticket();
            receiver.sigint();
            receiver.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
        }
        disk.remount("ro");
        for agent in both(disk.folder()) {
            let ended = agent.start().wait(WITHIN);
            assert_refused(&ended, disk.folder(), "read-only file system");
            ended.assert_tidy();
        }
    }
}

/// A folder that its owner made read-only: root could write to it all the same.
#[test]
fn s8_a_state_directory_that_its_user_may_not_write_to_is_refused() {
    let user = User::from_name("nobody").unwrap().filter(|_| Uid::effective().is_root());
    if user.is_none() && Uid::effective().is_root() {
        return skip("there is no user nobody", false);
    }
    let agents = || [Launch::receiver("discard:").bind_loopback(), Launch::sender("exec:touch read", "no-ticket")];
    for (agent, used) in agents().into_iter().map(|agent| (agent, false)).chain(agents().map(|agent| (agent, true))) {
        let state = agent.home().join("state");
        if used {
            fs::create_dir(state.join("receipts")).unwrap();
        }
        fs::set_permissions(&state, Permissions::from_mode(0o500)).unwrap();
        let agent = match &user {
            Some(user) => agent.as_user(user.uid.as_raw(), user.gid.as_raw()),
            None => agent,
        };
        let ended = agent.json().start().wait(WITHIN);
        assert_refused(&ended, &state, "permission denied");
        ended.assert_tidy();
    }
}

/// A folder that can never be made, as in a file system of the kernel's.
#[test]
fn a_state_directory_that_cannot_be_made_is_refused() {
    let ended = Launch::receiver("discard:").bind_loopback().state("/proc/none/state".as_ref()).start().wait(WITHIN);
    ended.assert_code(3).assert_one_message();
}
