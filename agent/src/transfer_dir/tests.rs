use std::{
    io::Read,
    os::unix::fs::{PermissionsExt, symlink},
};

use super::*;

const TRANSFER: TransferId = TransferId([7; 16]);

fn state() -> (tempfile::TempDir, StateDir) {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(Some(folder.path().join("state")), "test").unwrap();
    (folder, state)
}

/// Fault S10: one process at a time.
#[test]
fn a_second_holder_is_refused() {
    let (_folder, state) = state();
    let held = TransferDir::open(&state, TRANSFER).unwrap();
    assert_eq!(TransferDir::open(&state, TRANSFER).err().unwrap().code, Code::TransferBusy);
    drop(held);
    TransferDir::open(&state, TRANSFER).unwrap();
}

#[test]
fn a_record_is_kept_and_destroyed() {
    let (_folder, state) = state();
    let dir = TransferDir::open(&state, TRANSFER).unwrap();
    assert_eq!(dir.record::<String>().unwrap(), None);
    dir.keep(&"kept".to_owned()).unwrap();
    assert_eq!(dir.record::<String>().unwrap().as_deref(), Some("kept"));
    assert_eq!(TransferDir::list(&state).unwrap(), [TRANSFER]);
    dir.destroy().unwrap();
    assert_eq!(TransferDir::list(&state).unwrap(), []);
}

/// What was replaced may lie on the disk for long, and it held keys.
#[test]
fn a_record_that_is_replaced_is_overwritten() {
    let (_folder, state) = state();
    let dir = TransferDir::open(&state, TRANSFER).unwrap();
    dir.keep(&"before".to_owned()).unwrap();
    fs::rename(dir.path().join("record"), dir.path().join("record.partial")).unwrap();
    let mut left = File::open(dir.path().join("record.partial")).unwrap();
    dir.keep(&"replaced".to_owned()).unwrap();
    let mut replaced = File::open(dir.path().join("record")).unwrap();
    dir.keep(&"kept".to_owned()).unwrap();
    assert_eq!(dir.record::<String>().unwrap().as_deref(), Some("kept"));
    for file in [&mut left, &mut replaced] {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 0));
    }
}

/// Fault S5, for a record: no bit of it may change unseen.
#[test]
fn a_spoiled_record_is_found() {
    let (_folder, state) = state();
    let dir = TransferDir::open(&state, TRANSFER).unwrap();
    dir.keep(&"kept".to_owned()).unwrap();
    let path = dir.path().join("record");
    let good = fs::read(&path).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        assert!(dir.record::<String>().unwrap_err().what.ends_with("is damaged"));
    }
    for bytes in 0..good.len() {
        fs::write(&path, &good[..bytes]).unwrap();
        assert!(dir.record::<String>().unwrap_err().what.ends_with("is damaged"));
    }
}

/// Fault C13: whatever a clean-up left is removed by the next start, and nothing that has a record
/// is.
#[test]
fn an_interrupted_clean_up_is_finished() {
    let (_folder, state) = state();
    let dir = TransferDir::open(&state, TRANSFER).unwrap();
    dir.keep(&"kept".to_owned()).unwrap();
    fs::write(dir.path().join("journal"), b"sealed").unwrap();
    fs::set_permissions(dir.path().join("journal"), fs::Permissions::from_mode(0o600)).unwrap();
    let path = dir.path().to_owned();
    drop(dir);
    TransferDir::sweep(&state).unwrap();
    assert!(path.join("journal").exists());
    let receipt = state.path().join("receipts").join(format!("{TRANSFER}.partial"));
    fs::write(&receipt, b"half").unwrap();
    fs::remove_file(path.join("record")).unwrap();
    TransferDir::sweep(&state).unwrap();
    assert!(!path.exists() && !receipt.exists());
}

/// Fault S9: a record that is a link, a FIFO, or open to others is refused.
#[test]
fn a_record_that_is_not_ours_is_refused() {
    let (folder, state) = state();
    let dir = TransferDir::open(&state, TRANSFER).unwrap();
    let record = dir.path().join("record");
    let elsewhere = folder.path().join("elsewhere");
    dir.keep(&"kept".to_owned()).unwrap();
    fs::rename(&record, &elsewhere).unwrap();
    let refused = || {
        let failure = dir.record::<String>().unwrap_err();
        fs::remove_file(&record).unwrap();
        assert!(failure.what.ends_with("is not what Sealift made"), "{failure}");
    };
    symlink(&elsewhere, &record).unwrap();
    refused();
    fs::hard_link(&elsewhere, &record).unwrap();
    refused();
    nix::unistd::mkfifo(&record, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused();
    dir.keep(&"kept".to_owned()).unwrap();
    fs::set_permissions(&record, fs::Permissions::from_mode(0o644)).unwrap();
    refused();
}
