use std::{
    os::unix::fs::{PermissionsExt, symlink},
    thread,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    folder_of_mode(0o700)
}

/// Lets others in: what counts of a file in it is its own mode.
fn open_folder() -> TempDir {
    folder_of_mode(0o755)
}

fn folder_of_mode(mode: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    folder
}

fn find(path: &Path) -> Outcome<Output> {
    Output::find("--out", path.to_str().unwrap())
}

/// A FIFO with this mode, and what its reader gets.
fn fifo(path: &Path, mode: u32) -> thread::JoinHandle<String> {
    mkfifo(path, Mode::from_bits_truncate(0o600)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let path = path.to_owned();
    thread::spawn(move || fs::read_to_string(path).unwrap())
}

fn refusal(path: &Path) -> String {
    let failure = find(path).and_then(|output| output.put_secret("secret")).unwrap_err();
    assert_eq!(failure.code, Code::Usage);
    failure.what
}

/// Issue 9, C4; fault E6.
#[test]
fn a_file_of_ones_own_is_replaced_whole_and_closed_to_others() {
    let folder = open_folder();
    let path = folder.path().join("ticket");
    fs::write(&path, "").unwrap();
    for text in ["TICKET\nfirst\n", "TICKET\nsecond, longer\n", "TICKET\n3\n"] {
        find(&path).unwrap().put_secret(text).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // As an editor or a copy may leave it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Issue 9, C4; fault E6.
#[test]
fn a_stream_is_written_into() {
    let folder = open_folder();
    let path = folder.path().join("fifo");
    let reader = fifo(&path, 0o600);
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    find(&link).unwrap().put_secret("secret").unwrap();
    assert_eq!(reader.join().unwrap(), "secret");
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    // By links: if they were replaced, this host would keep its devices.
    for device in ["null", "full"] {
        symlink(Path::new("/dev").join(device), folder.path().join(device)).unwrap();
    }
    find(&folder.path().join("null")).unwrap().put_secret("secret").unwrap();
    assert!(fs::metadata(folder.path().join("null")).unwrap().file_type().is_char_device());
    let full = find(&folder.path().join("full")).unwrap().put_secret("secret").unwrap_err();
    assert!(full.what.contains("no space left"), "{}", full.what);
}

/// Issue 9, C4: a secret goes into no pipe that others may read, unless they cannot get at it.
#[test]
fn a_pipe_that_others_may_read_gets_no_secret() {
    let (open, closed) = (open_folder(), folder());
    let path = open.path().join("fifo");
    let reader = fifo(&path, 0o644);
    assert!(refusal(&path).contains("read by others"));
    assert_eq!(reader.join().unwrap(), "");
    let reader = fifo(&closed.path().join("fifo"), 0o644);
    find(&closed.path().join("fifo")).unwrap().put_secret("secret").unwrap();
    assert_eq!(reader.join().unwrap(), "secret");
}

/// Issue 9, C4; fault E6: what is no plain file of one's own, and nothing to write into, is left as
/// it is.
#[test]
fn anything_else_is_refused_and_left_alone() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "kept").unwrap();
    symlink(at("file"), at("link")).unwrap();
    symlink(at("nothing"), at("dangling")).unwrap();
    fs::write(at("twin"), "kept").unwrap();
    fs::hard_link(at("twin"), at("second-name")).unwrap();
    let refusals = [
        // A mistyped or a swapped argument: what is in a file of one's own is not lost for it.
        ("file", "something else"),
        ("link", "link to a file"),
        ("dangling", "link to nothing"),
        ("twin", "second name"),
        (".", "folder"),
        ("missing/file", "folder that cannot be used"),
        ("file/below", "cannot be used"),
        ("..", "folder"),
        ("file-wal", "has the name of a side file of"),
        ("file-shm", "has the name of a side file of"),
        ("file-journal", "has the name of a side file of"),
        (".file.sealift-staging", "has the name of a file in which Sealift stages"),
        (".file.sealift-staging-journal", "has the name of a file in which Sealift stages"),
        (".file.sealift-partial", "has the name of a file in which Sealift stages"),
    ];
    for (name, why) in refusals {
        let told = refusal(&at(name));
        assert!(told.contains(why), "{name}: {told}");
    }
    for name in ["file", "twin", "link", "second-name"] {
        assert_eq!(fs::read_to_string(at(name)).unwrap(), "kept");
    }
    assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink() && !at("nothing").exists());
    if geteuid().is_root() {
        fs::write(at("other"), "kept").unwrap();
        std::os::unix::fs::chown(at("other"), Some(65534), None).unwrap();
        assert!(refusal(&at("other")).contains("another user"));
        let planted = at(".new.partial");
        fs::write(&planted, "kept").unwrap();
        std::os::unix::fs::chown(&planted, Some(65534), None).unwrap();
        assert!(refusal(&at("new")).contains("in the way"));
        assert!(planted.exists() && !at("new").exists());
    }
}

#[test]
fn what_is_no_secret_is_not_written_over_anything() {
    let folder = folder();
    let path = folder.path().join("key.pub");
    for _ in 0..2 {
        find(&path).unwrap().put_public("key").unwrap();
    }
    let other = find(&path).unwrap().put_public("another key").unwrap_err();
    assert!(other.what.contains("something else"), "{}", other.what);
    assert_eq!(fs::read_to_string(&path).unwrap(), "key");
}
