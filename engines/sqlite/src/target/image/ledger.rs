//! What is durable of an image: a file beside the staging file, which only grows, and is locked by
//! the process that loads.
//!
//! | bytes | header | | bytes | entry |
//! |---|---|---|---|---|
//! | 16 | magic | | 8, 8 | chunks, plaintext bytes so far |
//! | 16, 32 | transfer, hash of the plan | | 32 | root over their hashes |
//! | 8 | inode of the staging file | | 1 | 1 if that is all of the part |
//! | 32 | check | | 32 each | hashes of the chunks since the entry before; none in the last |
//! | | | | 32 | check |
//!
//! Numbers are big-endian. A check is BLAKE3 over the check before it and the bytes since. An entry
//! that a crash cut short does not hold its check: nobody was told of it, and it is cut off.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufReader, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use sealift_protocol::{
    digest::Root,
    id::{ChunkCount, TransferId},
    limits::{CHUNK_HASH_BYTES, CHUNK_INDEX_MAX},
    receive::{FoundPrefix, WholePart},
};

use super::{super::ledger::Bond, super::staging::Identity, IMAGE_PART};

const MAGIC: &[u8; 16] = b"sealift image 1\n";
const HEADER_BYTES: usize = 16 + 16 + 32 + 8;
const ENTRY_BYTES: usize = 8 + 8 + 32 + 1;
const CHECK_BYTES: usize = 32;

/// The ledger, open and locked.
pub struct ImageLedger {
    file: File,
    bond: Bond,
    check: [u8; CHECK_BYTES],
    last: Option<WholePart>,
    is_whole: bool,
    noted: Noted,
}

/// What the entries come to.
#[derive(Default)]
pub struct Noted {
    pub prefix: Option<FoundPrefix>,
    pub whole: Option<WholePart>,
}

/// What lies where a ledger may be.
pub enum Found {
    /// Nothing, or a file that is no ledger of this staging file.
    Nothing,
    /// Another process loads.
    Busy,
    Ledger(Box<ImageLedger>),
}

impl ImageLedger {
    /// Makes it, empty and durable but for its name.
    pub fn create(path: &Path, bond: Bond, of: Identity) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        file.try_lock().map_err(io::Error::from)?;
        let header = header(bond, of);
        let check = check(&[0; CHECK_BYTES], &header);
        file.write_all(&[header.as_slice(), &check].concat())?;
        file.sync_all()?;
        Ok(Self { file, bond, check, last: None, is_whole: false, noted: Noted::default() })
    }

    /// Opens the ledger of the staging file `of`, and makes durable what it says.
    pub fn find(path: &Path, of: Identity) -> io::Result<Found> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let file = match OpenOptions::new().read(true).append(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let ours = metadata.is_file() && metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.nlink() == 1;
        let Some((bond, check)) = ours.then(|| read_header(&file, of)).transpose()?.flatten() else {
            return Ok(Found::Nothing);
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Found::Busy),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // What a killed process had written may be in the page cache alone.
        file.sync_all()?;
        let mut ledger = Self { file, bond, check, last: None, is_whole: false, noted: Noted::default() };
        ledger.read_entries()?;
        Ok(Found::Ledger(Box::new(ledger)))
    }

    pub fn bond(&self) -> Bond {
        self.bond
    }

    /// Whether the latest entry says that nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The latest entry.
    pub fn last(&self) -> Option<WholePart> {
        self.last
    }

    /// What was found when it was opened; once.
    pub fn take_noted(&mut self) -> Noted {
        std::mem::take(&mut self.noted)
    }

    /// Notes the first chunks of the part, whose pages are durable; `hashes` are those since the
    /// last entry.
    pub fn note(&mut self, so_far: &WholePart, hashes: &[u8]) -> io::Result<()> {
        self.append(so_far, false, hashes)
    }

    /// Notes that the part is whole and durable.
    pub fn note_whole(&mut self, whole: &WholePart) -> io::Result<()> {
        self.append(whole, true, &[])
    }

    fn append(&mut self, state: &WholePart, is_whole: bool, hashes: &[u8]) -> io::Result<()> {
        let mut entry = Vec::with_capacity(ENTRY_BYTES + hashes.len() + CHECK_BYTES);
        entry.extend(state.chunks.0.to_be_bytes());
        entry.extend(state.plain_bytes.to_be_bytes());
        entry.extend(state.root.0);
        entry.push(is_whole.into());
        entry.extend(hashes);
        let check = check(&self.check, &entry);
        entry.extend(check);
        self.file.write_all(&entry)?;
        self.file.sync_data()?;
        self.check = check;
        self.last = Some(*state);
        self.is_whole = is_whole;
        Ok(())
    }

    fn read_entries(&mut self) -> io::Result<()> {
        let file_bytes = self.file.metadata()?.len();
        let mut good_bytes = (HEADER_BYTES + CHECK_BYTES) as u64;
        let mut hashes = Vec::new();
        let mut reader = BufReader::new(&self.file);
        while let Some(entry) = read_entry(&mut reader, self.check, self.last, file_bytes - good_bytes)? {
            let ImageEntry { state, is_whole, hashes: more, check } = entry;
            good_bytes += (ENTRY_BYTES + more.len() + CHECK_BYTES) as u64;
            hashes.extend(more);
            self.check = check;
            self.last = Some(state);
            if is_whole {
                self.is_whole = true;
                self.noted.whole = Some(state);
                break;
            }
        }
        if file_bytes > good_bytes {
            self.file.set_len(good_bytes)?;
            self.file.sync_all()?;
        }
        if let (Some(WholePart { part, chunks, plain_bytes, root }), None) = (self.last, self.noted.whole) {
            self.noted.prefix = Some(FoundPrefix { part, chunks, plain_bytes, root, hashes });
        }
        Ok(())
    }
}

fn header(bond: Bond, of: Identity) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..16].copy_from_slice(MAGIC);
    header[16..32].copy_from_slice(&bond.transfer.0);
    header[32..64].copy_from_slice(&bond.plan_hash);
    // The inode without its device, which may have another number after the next boot.
    header[64..].copy_from_slice(&of.inode().to_be_bytes());
    header
}

/// `None` for another file's, or what is no ledger.
fn read_header(mut file: &File, of: Identity) -> io::Result<Option<(Bond, [u8; CHECK_BYTES])>> {
    let (mut bytes, mut found) = ([0; HEADER_BYTES], [0; CHECK_BYTES]);
    match file.read_exact(&mut bytes).and_then(|()| file.read_exact(&mut found)) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let (mut transfer, mut plan_hash) = ([0; 16], [0; 32]);
    transfer.copy_from_slice(&bytes[16..32]);
    plan_hash.copy_from_slice(&bytes[32..64]);
    let bond = Bond { transfer: TransferId(transfer), plan_hash };
    let is_its = bytes == header(bond, of) && found == check(&[0; CHECK_BYTES], &bytes);
    Ok(is_its.then_some((bond, found)))
}

struct ImageEntry {
    state: WholePart,
    is_whole: bool,
    hashes: Vec<u8>,
    check: [u8; CHECK_BYTES],
}

/// The next entry; `None` where there is none that is whole.
fn read_entry(
    reader: &mut impl Read,
    before: [u8; CHECK_BYTES],
    last: Option<WholePart>,
    left_bytes: u64,
) -> io::Result<Option<ImageEntry>> {
    if left_bytes < (ENTRY_BYTES + CHECK_BYTES) as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; ENTRY_BYTES];
    reader.read_exact(&mut bytes)?;
    let number = |at: usize| bytes[at..at + 8].iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    let (chunks, plain_bytes, is_whole) = (number(0), number(8), bytes[ENTRY_BYTES - 1] == 1);
    let mut root = [0; 32];
    root.copy_from_slice(&bytes[16..48]);
    let since = chunks.saturating_sub(last.map_or(0, |last| last.chunks.0));
    let hash_bytes = if is_whole { 0 } else { since.saturating_mul(CHUNK_HASH_BYTES as u64) };
    let room_bytes = left_bytes - (ENTRY_BYTES + CHECK_BYTES) as u64;
    if chunks > CHUNK_INDEX_MAX || hash_bytes > room_bytes {
        return Ok(None);
    }
    bytes.resize(ENTRY_BYTES + hash_bytes as usize, 0);
    reader.read_exact(&mut bytes[ENTRY_BYTES..])?;
    let mut found = [0; CHECK_BYTES];
    reader.read_exact(&mut found)?;
    let state = WholePart { part: IMAGE_PART, chunks: ChunkCount(chunks), plain_bytes, root: Root(root) };
    let expected = check(&before, &bytes);
    let hashes = bytes.split_off(ENTRY_BYTES);
    Ok((found == expected).then_some(ImageEntry { state, is_whole, hashes, check: found }))
}

fn check(before: &[u8; CHECK_BYTES], bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("sealift/1 2026-11 image ledger check");
    hasher.update(before);
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> (Self, Identity) {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("staging"), "").unwrap();
            let identity = Identity::of(&fs::metadata(folder.path().join("staging")).unwrap());
            (Self(folder), identity)
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("ledger")
        }

        fn found(&self, of: Identity) -> ImageLedger {
            match ImageLedger::find(&self.path(), of).unwrap() {
                Found::Ledger(ledger) => *ledger,
                Found::Nothing => panic!("no ledger"),
                Found::Busy => panic!("busy"),
            }
        }
    }

    fn bond() -> Bond {
        Bond { transfer: TransferId([7; 16]), plan_hash: [8; 32] }
    }

    fn state(chunks: u64) -> WholePart {
        WholePart {
            part: IMAGE_PART,
            chunks: ChunkCount(chunks),
            plain_bytes: chunks << 20,
            root: Root([chunks as u8; 32]),
        }
    }

    /// Two entries; what they come to, and the bytes of the file.
    fn filled(place: &Place, of: Identity) -> Vec<u8> {
        let mut ledger = ImageLedger::create(&place.path(), bond(), of).unwrap();
        ledger.note(&state(2), &[1; 64]).unwrap();
        ledger.note(&state(3), &[2; 32]).unwrap();
        assert!(matches!(ImageLedger::find(&place.path(), of).unwrap(), Found::Busy));
        drop(ledger);
        fs::read(place.path()).unwrap()
    }

    #[test]
    fn entries_are_found_again() {
        let (place, of) = Place::new();
        filled(&place, of);
        let mut ledger = place.found(of);
        assert_eq!(ledger.bond(), bond());
        let prefix = ledger.take_noted().prefix.unwrap();
        assert_eq!((prefix.chunks.0, prefix.plain_bytes, prefix.root), (3, 3 << 20, Root([3; 32])));
        assert_eq!(prefix.hashes, [[1; 32], [1; 32], [2; 32]].concat());
        ledger.note(&state(5), &[3; 64]).unwrap();
        ledger.note_whole(&state(6)).unwrap();
        drop(ledger);
        let noted = place.found(of).take_noted();
        assert_eq!(noted.whole, Some(state(6)));
    }

    /// Whatever a crash leaves of the last entry, those before it hold.
    #[test]
    fn an_entry_that_was_cut_short_is_cut_off() {
        let (place, of) = Place::new();
        let whole = filled(&place, of);
        let first_bytes = HEADER_BYTES + CHECK_BYTES + ENTRY_BYTES + 64 + CHECK_BYTES;
        for length in first_bytes..whole.len() {
            fs::write(place.path(), &whole[..length]).unwrap();
            let mut ledger = place.found(of);
            assert_eq!(ledger.take_noted().prefix.unwrap().chunks.0, 2, "{length}");
            ledger.note(&state(3), &[2; 32]).unwrap();
            drop(ledger);
            assert!(fs::read(place.path()).unwrap() == whole, "{length}");
        }
    }

    #[test]
    fn a_bit_is_not_lost_unseen() {
        let (place, of) = Place::new();
        let whole = filled(&place, of);
        for at in 0..whole.len() {
            let mut spoiled = whole.clone();
            spoiled[at] ^= 1;
            fs::write(place.path(), &spoiled).unwrap();
            match ImageLedger::find(&place.path(), of).unwrap() {
                Found::Nothing => assert!(at < HEADER_BYTES + CHECK_BYTES),
                Found::Busy => panic!("busy"),
                Found::Ledger(mut ledger) => {
                    let prefix = ledger.take_noted().prefix;
                    assert!(prefix.is_none_or(|prefix| prefix.chunks.0 == 2), "{at}");
                }
            }
        }
    }

    #[test]
    fn the_ledger_of_another_file_is_none() {
        let (place, of) = Place::new();
        filled(&place, of);
        fs::write(place.0.path().join("other"), "").unwrap();
        let other = Identity::of(&fs::metadata(place.0.path().join("other")).unwrap());
        assert!(matches!(ImageLedger::find(&place.path(), other).unwrap(), Found::Nothing));
        fs::remove_file(place.path()).unwrap();
        assert!(matches!(ImageLedger::find(&place.path(), of).unwrap(), Found::Nothing));
        std::os::unix::fs::symlink("other", place.path()).unwrap();
        assert!(ImageLedger::find(&place.path(), other).is_err());
    }
}
