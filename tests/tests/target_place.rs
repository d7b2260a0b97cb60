//! What stands in the way of a target is told before there is a ticket, and a target that was made
//! beforehand stays whose it was.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
    time::Duration,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use sealift_tests::{
    agents::{Launch, RECEIVER, SENDER},
    disk::SmallDisk,
    exit,
    finished::Finished,
    pair::Pair,
    port::free_udp_port,
    sqlite::create_hospital,
};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

/// Two users that own nothing else.
const APPLICATION: u32 = 45_001;
const AGENT: u32 = 45_002;

fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("sealift-place-").tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Everything in a folder, by name.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A `listen` into this target ends before it has made a ticket, and says why.
#[track_caller]
fn refused_with(launch: Launch, says: &str) -> Finished {
    let ended = launch.bind_loopback().start().wait(WITHIN);
    ended.assert_code(exit::UNUSABLE).assert_one_message();
    assert!(ended.stderr().contains(says), "not {says:?}:\n{}", ended.stderr());
    assert!(!ended.home().join("ticket").exists(), "a ticket was made");
    ended
}

#[track_caller]
fn refused(target: &str, says: &str) {
    refused_with(Launch::receiver(target).arg("--danger-plaintext-file"), says);
}

/// Issue 9, B7; faults E6, E12: before a ticket, with the true reason, and nothing is touched.
#[test]
fn what_is_in_the_way_is_told_before_there_is_a_ticket() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("full"), "another's").unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    symlink("empty", path("link")).unwrap();
    fs::write(path("empty"), "").unwrap();
    mkfifo(Path::new(&path("fifo")), Mode::S_IRWXU).unwrap();
    fs::write(path("read-only"), "").unwrap();
    fs::set_permissions(path("read-only"), fs::Permissions::from_mode(0o444)).unwrap();
    fs::write(path("two-names"), "").unwrap();
    fs::hard_link(path("two-names"), path("other-name")).unwrap();
    let before = names(folder.path());
    for scheme in ["sqlite:", "file:"] {
        for (name, says) in [
            ("folder", "is a folder"),
            ("folder/", "names no file"),
            ("absent/", "names no file"),
            ("full", "exists and is not empty"),
            ("dangling", "is a symbolic link"),
            ("link", "is a symbolic link"),
            ("fifo", "is a device, a FIFO or a socket"),
            ("read-only", "may not read and write"),
            ("two-names", "has a second name"),
            ("missing/target", "the folder of the target"),
            ("full/target", "is not a folder"),
        ] {
            refused(&format!("{scheme}{}", path(name)), says);
        }
        refused(&format!("{scheme}/proc/target"), "cannot be written");
        refused(&format!("{scheme}{}", path(&"n".repeat(255))), "the name of the target is too long");
    }
    for name in ["full-wal", "full-shm", "full-journal"] {
        refused(&format!("sqlite:{}", path(name)), "has the name of a side file of");
        refused(&format!("file:{}", path(name)), "has the name of a side file of");
    }
    for name in [".full.sealift-staging", ".full.sealift-staging-journal", ".full.sealift-partial"] {
        refused(&format!("sqlite:{}", path(name)), "has the name of a file in which Sealift stages");
        refused(&format!("file:{}", path(name)), "has the name of a file in which Sealift stages");
    }
    fs::write(path("used-wal"), "").unwrap();
    refused(&format!("sqlite:{}", path("used")), "a database of this name is or was in use");
    fs::write(path(".foreign.sealift-staging"), "another's").unwrap();
    refused(&format!("sqlite:{}", path("foreign")), "is in the way and is no unfinished load");
    fs::remove_file(path("used-wal")).unwrap();
    fs::remove_file(path(".foreign.sealift-staging")).unwrap();
    assert_eq!(names(folder.path()), before);
    refused("exec:no-such-loader-anywhere", "cannot be started");
}

/// Issue 9, B7: the longest name that fits works; one byte more is refused, and what fits is said.
#[test]
fn a_name_is_too_long_when_one_of_its_staging_names_is() {
    let folder = folder();
    create_hospital(&folder.path().join("source"), 10);
    let source = format!("sqlite:{}", folder.path().join("source").display());
    let named = |bytes: usize| format!("sqlite:{}", folder.path().join("n".repeat(bytes)).display());
    refused(&named(230), "it has 230 bytes, and up to 229 can be used");
    Pair::new(&source, named(229)).run().assert_done();
    // SQLite's own limit is of the whole path.
    let deep = (0..5).fold(folder.path().to_owned(), |path, _| path.join("d".repeat(100)));
    fs::create_dir_all(&deep).unwrap();
    refused(&format!("sqlite:{}/target", deep.display()), "too long for SQLite");
}

/// Issue 9, B7; faults S8, S11: a disk that cannot be written or has no room.
#[test]
fn a_disk_that_takes_nothing_is_told_before_there_is_a_ticket() {
    for (options, says) in [("size=2m,ro", "read-only file system"), ("size=16k", "no space left")] {
        let Some(disk) = SmallDisk::mount(options) else { return };
        for scheme in ["sqlite:", "file:"] {
            refused(&format!("{scheme}{}", disk.path("target").display()), says);
        }
        assert_eq!(disk.names(), Vec::<String>::new());
    }
}

/// Issue 9, B7: what this user may not write, or may not keep as it was, is told before there is a
/// ticket.
#[test]
fn another_users_folder_and_file_are_told_before_there_is_a_ticket() {
    if !is_root() {
        return;
    }
    let folder = folder();
    fs::create_dir(folder.path().join("theirs")).unwrap();
    fs::create_dir(folder.path().join("open")).unwrap();
    fs::set_permissions(folder.path().join("open"), fs::Permissions::from_mode(0o1777)).unwrap();
    let made = folder.path().join("open/made");
    fs::write(&made, "").unwrap();
    chown(&made, Some(APPLICATION), Some(APPLICATION)).unwrap();
    fs::set_permissions(&made, fs::Permissions::from_mode(0o660)).unwrap();
    let target = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    let listen = |name: &str| Launch::receiver(&target(name)).as_user(AGENT, AGENT);
    refused_with(listen("theirs/target"), "permission denied");
    refused_with(listen("open/made"), "made beforehand for 45001:45001, mode 0660");
    assert_eq!(names(&folder.path().join("open")), ["made"]);
}

/// A command of a standing receiver with this one target ends before it has made anything, and
/// speaks of its configuration.
#[track_caller]
fn refused_configured(folder: &Path, words: &[&str], url: &str, says: &str) {
    let home = tempfile::Builder::new().prefix("sealift-standing-").tempdir_in(folder).unwrap();
    let (config, state) = (home.path().join("receiver.toml"), home.path().join("state"));
    let address = format!("127.0.0.1:{}", free_udp_port());
    let settings = format!("listen = [\"{address}\"]\naddresses = [\"{address}\"]");
    let target = format!("[targets.ehr]\nurl = \"{url}\"\ndanger_plaintext_file = true");
    fs::write(&config, format!("{settings}\nstate_dir = \"{}\"\n{target}\n", state.display())).unwrap();
    let ended = Launch::bare(RECEIVER, words).arg("--config").arg(&config).start().wait(WITHIN);
    ended.assert_code(exit::UNUSABLE).assert_one_message();
    let said = ended.stderr();
    assert!(said.contains("targets.ehr: ") && said.contains(says), "{words:?} {url}: not {says:?}:\n{said}");
    assert!(!said.contains("--target"), "{said}");
    assert!(ended.stdout().is_empty() && !state.join("transfers").exists(), "{words:?} {url}: a ticket was made");
}

/// Issue 9, B7: the target of a standing receiver is looked at when it starts, and before each
/// ticket.
#[test]
fn what_is_in_the_way_of_a_configured_target_is_told_before_there_is_a_ticket() {
    let folder = folder();
    fs::create_dir(folder.path().join("folder")).unwrap();
    fs::write(folder.path().join("full"), "another's").unwrap();
    let before = names(folder.path());
    let refused = |words: &[&str], name: &str, says: &str| {
        for scheme in ["sqlite:", "file:"] {
            refused_configured(folder.path(), words, &format!("{scheme}{}/{name}", folder.path().display()), says);
        }
    };
    let ticket = ["ticket", "--target", "ehr", "--ticket-out", "-"];
    for words in [&["serve"][..], &ticket] {
        refused(words, "missing/target", "the folder of the target");
        refused(words, "full/target", "is not a folder");
        refused(words, &"n".repeat(255), "the name of the target is too long");
    }
    refused(&ticket, "full", "exists and is not empty");
    refused(&ticket, "folder", "is a folder");
    assert_eq!(names(folder.path()), before);
}

/// Issue 9, B7: so is the target of an archive, which can be loaded elsewhere afterwards.
#[test]
fn what_is_in_the_way_of_an_archive_is_told_before_it_is_loaded() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    create_hospital(&folder.path().join("source"), 10);
    let run = |program: &str, words: &[&str], code: i32| {
        let ended = Launch::bare(program, words).arg("--state-dir").arg(path(program)).start().wait(WITHIN);
        ended.assert_code(code);
        ended
    };
    run(RECEIVER, &["key", "--out", &path("key")], exit::DONE);
    let source = format!("sqlite:{}", path("source"));
    run(SENDER, &["seal", "--source", &source, "--to", &path("key"), "--out", &path("archive")], exit::DONE);
    let from = run(SENDER, &["identity"], exit::DONE).stdout();
    let from = String::from_utf8(from).unwrap().trim().to_owned();
    fs::write(path("full"), "another's").unwrap();
    let before = names(folder.path());
    let load = |target: &str, code: i32| {
        let target = format!("sqlite:{}", path(target));
        run(RECEIVER, &["load", "--target", &target, "--from", &from, &path("archive")], code)
    };
    for (target, says) in [("missing/target", "the folder of the target"), ("full", "exists and is not empty")] {
        let refused = load(target, exit::UNUSABLE);
        assert!(refused.assert_one_message().stderr().contains(says), "{}", refused.stderr());
        assert_eq!(names(folder.path()), before);
    }
    load("target", exit::DONE);
}

/// Lets the other user read it, too (acl(5)): version, then tag, permissions and id of each entry.
fn access_list() -> Vec<u8> {
    let entries = [(1u16, 6u16, u32::MAX), (2, 4, AGENT), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 4, u32::MAX)];
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        list.extend(id.to_le_bytes());
    }
    list
}

/// The attributes that the file system takes; most take both.
fn set_attributes(path: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let all = [("system.posix_acl_access", access_list()), ("user.retention", b"10y".to_vec())];
    let set = |(name, value): &(&str, Vec<u8>)| {
        rustix::fs::setxattr(path, *name, value, rustix::fs::XattrFlags::empty()).is_ok()
    };
    all.into_iter().filter(set).collect()
}

fn attribute(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 1000];
    let length = rustix::fs::getxattr(path, name, value.as_mut_slice()).unwrap();
    value[..length].to_vec()
}

/// Issue 9, B7: an empty file that was made beforehand gives the target its owner, group, mode,
/// access list and extended attributes; else it is said whose it will be.
#[test]
fn a_target_made_beforehand_keeps_its_owner_and_mode() {
    let folder = folder();
    create_hospital(&folder.path().join("source"), 100);
    let (sqlite, made) = (format!("sqlite:{}", folder.path().join("source").display()), folder.path().join("made"));
    for scheme in ["sqlite:", "file:"] {
        fs::write(&made, "").unwrap();
        fs::set_permissions(&made, fs::Permissions::from_mode(0o664)).unwrap();
        let owner = if is_root() { APPLICATION } else { nix::unistd::geteuid().as_raw() };
        chown(&made, Some(owner), None).unwrap();
        let attributes = set_attributes(&made);
        let source = sqlite.replace("sqlite:", scheme);
        let pair = Pair::new(source, format!("{scheme}{}", made.display())).for_people();
        let done = pair.receiver_args(&["--danger-plaintext-file"]).run();
        let said = done.assert_done().receiver.stderr();
        assert!(said.contains("keeps the owner and mode") && said.contains("mode 0664"), "{said}");
        let found = fs::metadata(&made).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (owner, 0o664));
        assert!(found.len() > 0);
        for (name, value) in attributes {
            assert_eq!(attribute(&made, name), value, "{scheme} {name}");
        }
        fs::remove_file(&made).unwrap();
    }
    let done = Pair::new(&sqlite, format!("sqlite:{}", made.display())).for_people().run();
    let said = done.assert_done().receiver.stderr();
    assert!(said.contains("will belong to") && said.contains("mode 0600"), "{said}");
    assert_eq!(fs::metadata(&made).unwrap().mode() & 0o7777, 0o600);
}

/// Issue 9, B7: what comes under the target's name after the check is never overwritten.
#[test]
fn what_comes_after_the_check_is_left_alone() {
    let folder = folder();
    create_hospital(&folder.path().join("source"), 100);
    let target = folder.path().join("target");
    for scheme in ["sqlite:", "file:"] {
        let source = format!("{scheme}{}", folder.path().join("source").display());
        let pair = Pair::new(source, format!("{scheme}{}", target.display()));
        let pair = pair.receiver_args(&["--danger-plaintext-file"]).start_with(
            |sender| {
                fs::write(&target, "another's").unwrap();
                sender
            },
            |receiver| receiver,
        );
        pair.wait(WITHIN).assert_codes(exit::UNUSABLE, exit::UNUSABLE);
        assert_eq!(fs::read(&target).unwrap(), b"another's");
        assert_eq!(names(folder.path()), ["source", "target"]);
        fs::remove_file(&target).unwrap();
    }
}
