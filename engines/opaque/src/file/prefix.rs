//! What is durable of a plain file: a record beside the staging file, one entry a chunk, which only
//! grows. The staging file is its own prefix; the record says how far it goes and by what its
//! content is known again.
//!
//! | bytes | header | | bytes | key | | bytes | entry |
//! |---|---|---|---|---|---|---|---|
//! | 16 | magic | | 32 | key of the transfer's chunk hashes | | 8 | plaintext bytes so far |
//! | 16, 32 | transfer, hash of the plan | | 32 | check | | 1 | 1 for the last chunk of the part |
//! | 32 | check | | | | | 32, 32 | hash of the chunk, root over those so far |
//! | | | | | | | 32 | check |
//!
//! Numbers are big-endian. What looks for a prefix does not have the transfer's secret; the key of
//! its chunk hashes is kept here, so that the content can be compared with them and is not hashed
//! twice. It lies beside the plaintext and goes with it; the roots in a receipt have other keys. A
//! check is BLAKE3 over the check before it and the bytes since. An entry that a crash cut short
//! does not have its check, and what rotted of the staging file does not have its hash: the prefix
//! ends there, and what is behind it is asked for again.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use sealift_protocol::{
    chunk::ChunkHash,
    digest::{ChunkHashKey, Root},
    id::{ChunkCount, PartIndex, TransferId},
    limits::{CHUNK_HASH_BYTES, CHUNK_PLAIN_BYTES_MAX},
    receive::{Found, FoundPrefix, WholePart},
};

/// The one part of an opaque load.
pub const FILE_PART: PartIndex = PartIndex(0);

const MAGIC: &[u8; 16] = b"sealift prefix 1";
const KEY_BYTES: usize = 32;
const CHECK_BYTES: usize = 32;
const HEADER_BYTES: usize = 16 + 16 + 32;
const ENTRY_BYTES: usize = 8 + 1 + CHUNK_HASH_BYTES + 32;

type Check = [u8; CHECK_BYTES];
/// Before the header.
const NO_CHECK: Check = [0; CHECK_BYTES];

/// Which load it is of.
#[derive(Clone, Copy)]
pub struct Bond {
    pub transfer: TransferId,
    pub plan_hash: [u8; 32],
}

/// One chunk that is in the staging file.
#[derive(Clone, Copy)]
pub struct Entry {
    /// With this chunk.
    pub plain_bytes: u64,
    pub is_last: bool,
    pub hash: ChunkHash,
    pub root: Root,
}

/// The record, open and locked.
pub struct Prefix {
    file: File,
    /// The key of the chunk hashes, once something is written.
    key: Option<ChunkHashKey>,
    /// Over everything so far.
    check: Check,
}

/// What an earlier process left, proven from the staging file.
#[derive(Default)]
pub struct Proven {
    /// The latest entry that holds.
    pub last: Option<Entry>,
    /// Of all chunks, one after the other.
    pub hashes: Vec<u8>,
}

impl Proven {
    pub fn plain_bytes(&self) -> u64 {
        self.last.map_or(0, |last| last.plain_bytes)
    }

    pub fn found(&self) -> Option<Found> {
        let Entry { plain_bytes, is_last, root, .. } = self.last?;
        let chunks = ChunkCount((self.hashes.len() / CHUNK_HASH_BYTES) as u64);
        Some(match is_last {
            true => Found::Whole(WholePart { part: FILE_PART, chunks, plain_bytes, root }),
            false => {
                Found::Prefix(FoundPrefix { part: FILE_PART, chunks, plain_bytes, root, hashes: self.hashes.clone() })
            }
        })
    }
}

impl Prefix {
    /// Makes it, empty and durable but for its name.
    pub fn create(path: &Path, bond: Bond) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        lock(&file)?;
        let header = header(bond);
        let check = check(&NO_CHECK, &header);
        file.write_all(&[header.as_slice(), &check].concat())?;
        file.sync_all()?;
        Ok(Self { file, key: None, check })
    }

    /// Opens the record of a load and proves what it says from the staging file. `None` where there
    /// is no such record; fails with `WouldBlock` while another process has it. `go_on` is asked
    /// before each chunk is read.
    pub fn find(
        path: &Path,
        bond: Bond,
        staging: &mut File,
        go_on: impl Fn() -> bool,
    ) -> io::Result<Option<(Self, Proven)>> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let file = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !is_own_file(&file)? {
            return Ok(None);
        }
        lock(&file)?;
        let Some(check) = read_header(&file, bond)? else { return Ok(None) };
        let mut prefix = Self { file, key: None, check };
        let proven = prefix.prove(staging, go_on)?;
        Ok(Some((prefix, proven)))
    }

    /// Reads the entries and what they stand for, and cuts off what does not hold.
    fn prove(&mut self, staging: &mut File, go_on: impl Fn() -> bool) -> io::Result<Proven> {
        // What a killed process had written may be in the page cache alone.
        staging.sync_data()?;
        staging.seek(SeekFrom::Start(0))?;
        let mut proven = Proven::default();
        let mut good_bytes = (HEADER_BYTES + CHECK_BYTES) as u64;
        let mut entries = BufReader::new(&self.file);
        if let Some((key, check)) = read_checked::<KEY_BYTES>(&mut entries, &self.check)? {
            good_bytes += (KEY_BYTES + CHECK_BYTES) as u64;
            self.check = check;
            self.key = Some(ChunkHashKey::from_bytes(key));
        }
        let mut plain = Vec::new();
        while let Some(key) = &self.key
            && !proven.last.is_some_and(|last| last.is_last)
        {
            if !go_on() {
                return Err(ErrorKind::Interrupted.into());
            }
            let Some((bytes, check)) = read_checked::<ENTRY_BYTES>(&mut entries, &self.check)? else { break };
            let entry = Entry::from_bytes(bytes);
            let length = entry.plain_bytes.checked_sub(proven.plain_bytes());
            let Some(length) = length.filter(|length| *length <= CHUNK_PLAIN_BYTES_MAX as u64) else { break };
            plain.resize(length as usize, 0);
            if !read_whole(staging, &mut plain)? || key.hash(&plain) != entry.hash {
                break;
            }
            self.check = check;
            proven.last = Some(entry);
            proven.hashes.extend(entry.hash);
            good_bytes += (ENTRY_BYTES + CHECK_BYTES) as u64;
        }
        drop(entries);
        self.file.set_len(good_bytes)?;
        self.file.seek(SeekFrom::End(0))?;
        self.file.sync_all()?;
        staging.set_len(proven.plain_bytes())?;
        Ok(proven)
    }

    /// Keeps the key by which the chunks' hashes can be compared with the content. `false` if they
    /// were made with another one.
    pub fn keep_key(&mut self, key: &ChunkHashKey) -> io::Result<bool> {
        if let Some(kept) = &self.key {
            return Ok(kept == key);
        }
        let check = check(&self.check, key.expose());
        self.file.write_all(&[key.expose().as_slice(), &check].concat())?;
        self.check = check;
        self.key = Some(key.clone());
        Ok(true)
    }

    /// Notes chunks whose bytes are durable.
    pub fn note(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut out = Vec::with_capacity(entries.len() * (ENTRY_BYTES + CHECK_BYTES));
        let mut last = self.check;
        for entry in entries {
            let bytes = entry.to_bytes();
            last = check(&last, &bytes);
            out.extend(bytes);
            out.extend(last);
        }
        self.file.write_all(&out)?;
        self.file.sync_data()?;
        self.check = last;
        Ok(())
    }
}

impl Entry {
    fn to_bytes(self) -> Vec<u8> {
        let plain_bytes = self.plain_bytes.to_be_bytes();
        [plain_bytes.as_slice(), &[self.is_last.into()], &self.hash, &self.root.0].concat()
    }

    fn from_bytes(bytes: [u8; ENTRY_BYTES]) -> Self {
        let (number, rest) = bytes.split_at(8);
        let (last, rest) = rest.split_at(1);
        let field = |index: usize| {
            let mut field = [0; 32];
            field.copy_from_slice(&rest[32 * index..32 * (index + 1)]);
            field
        };
        let plain_bytes = number.iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        Self { plain_bytes, is_last: last == [1], hash: field(0), root: Root(field(1)) }
    }
}

/// A plain file of this user that has no other name.
pub fn is_own_file(file: &File) -> io::Result<bool> {
    let found = file.metadata()?;
    Ok(found.is_file() && found.uid() == nix::unistd::geteuid().as_raw() && found.nlink() == 1)
}

fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => ErrorKind::WouldBlock.into(),
        TryLockError::Error(error) => error,
    })
}

/// `false` where less is left.
fn read_whole(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(bytes) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

/// The next `N` bytes and their check. `None` where less is left, or what is no longer what was
/// written behind `before`.
fn read_checked<const N: usize>(from: &mut impl Read, before: &Check) -> io::Result<Option<([u8; N], Check)>> {
    let mut bytes = [0; N];
    let mut found = NO_CHECK;
    let is_whole = read_whole(from, &mut bytes)? && read_whole(from, &mut found)?;
    Ok((is_whole && found == check(before, &bytes)).then_some((bytes, found)))
}

fn header(bond: Bond) -> Vec<u8> {
    [MAGIC.as_slice(), &bond.transfer.0, &bond.plan_hash].concat()
}

/// The header's check. `None` for another load's, or what is no record.
fn read_header(mut file: &File, bond: Bond) -> io::Result<Option<Check>> {
    let read = read_checked::<HEADER_BYTES>(&mut file, &NO_CHECK)?;
    Ok(read.and_then(|(bytes, check)| (bytes.as_slice() == header(bond)).then_some(check)))
}

fn check(before: &Check, bytes: &[u8]) -> Check {
    let mut hasher = blake3::Hasher::new_derive_key("sealift/1 2026-11 file prefix check");
    hasher.update(before);
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CHUNK: usize = 1000;
    const BEFORE_ENTRIES: usize = HEADER_BYTES + KEY_BYTES + 2 * CHECK_BYTES;

    struct Place {
        folder: tempfile::TempDir,
        plain: Vec<u8>,
        record: Vec<u8>,
    }

    fn key() -> ChunkHashKey {
        ChunkHashKey::from_bytes([9; 32])
    }

    fn bond() -> Bond {
        Bond { transfer: TransferId([7; 16]), plan_hash: [8; 32] }
    }

    impl Place {
        /// Three chunks, the last of them shorter; `is_whole` says that the part ends there.
        fn new(is_whole: bool) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let plain: Vec<u8> = (0..2 * CHUNK + 10).map(|at| (at * 31) as u8).collect();
            let mut prefix = Prefix::create(&folder.path().join("record"), bond()).unwrap();
            assert!(prefix.keep_key(&key()).unwrap());
            let mut entries = Vec::new();
            for (index, chunk) in plain.chunks(CHUNK).enumerate() {
                let plain_bytes = (CHUNK * index + chunk.len()) as u64;
                entries.push(Entry {
                    plain_bytes,
                    is_last: is_whole && plain_bytes == plain.len() as u64,
                    hash: key().hash(chunk),
                    root: Root([0xf0 | index as u8; 32]),
                });
            }
            prefix.note(&entries[..1]).unwrap();
            prefix.note(&entries[1..]).unwrap();
            let record = fs::read(folder.path().join("record")).unwrap();
            Self { folder, plain, record }
        }

        /// What is proven of a staging file and a record with these bytes; `None` if the record is
        /// of another load.
        fn proven(&self, plain: &[u8], record: &[u8]) -> Option<Proven> {
            let staging = self.folder.path().join("staging");
            let path = self.folder.path().join("record");
            fs::write(&staging, plain).unwrap();
            fs::write(&path, record).unwrap();
            let mut staging_file = OpenOptions::new().read(true).write(true).open(&staging).unwrap();
            let (_, proven) = Prefix::find(&path, bond(), &mut staging_file, || true).unwrap()?;
            assert_eq!(fs::metadata(staging).unwrap().len(), proven.plain_bytes(), "what does not hold is cut off");
            Some(proven)
        }
    }

    fn chunks(proven: &Proven) -> usize {
        proven.hashes.len() / CHUNK_HASH_BYTES
    }

    #[test]
    fn a_prefix_is_found_again_and_goes_on() {
        for is_whole in [false, true] {
            let place = Place::new(is_whole);
            let proven = place.proven(&place.plain, &place.record).unwrap();
            match proven.found().unwrap() {
                Found::Whole(whole) => {
                    assert!(is_whole);
                    assert_eq!((whole.chunks.0, whole.plain_bytes), (3, place.plain.len() as u64));
                    assert_eq!(whole.root, Root([0xf2; 32]));
                }
                Found::Prefix(prefix) => {
                    assert!(!is_whole);
                    assert_eq!((prefix.chunks.0, prefix.plain_bytes), (3, place.plain.len() as u64));
                    assert_eq!(
                        (prefix.root, &prefix.hashes[32..64]),
                        (Root([0xf2; 32]), key().hash(&place.plain[CHUNK..2 * CHUNK]).as_slice())
                    );
                }
            }
        }
    }

    /// Faults C10, S5: whatever a crash or a rotting disk leaves of either file, what is proven is
    /// a prefix of what was written.
    #[test]
    fn s5_a_byte_is_not_lost_unseen() {
        let place = Place::new(true);
        for at in 0..place.plain.len() {
            let mut spoiled = place.plain.clone();
            spoiled[at] ^= 1;
            let proven = place.proven(&spoiled, &place.record).unwrap();
            assert_eq!(chunks(&proven), at / CHUNK, "staging, byte {at}");
        }
        for at in 0..place.record.len() {
            let mut spoiled = place.record.clone();
            spoiled[at] ^= 1;
            let proven = place.proven(&place.plain, &spoiled);
            let entry = at.saturating_sub(BEFORE_ENTRIES) / (ENTRY_BYTES + CHECK_BYTES);
            let expected = (at >= HEADER_BYTES + CHECK_BYTES).then_some(entry);
            assert_eq!(proven.as_ref().map(chunks), expected, "record, byte {at}");
        }
    }

    /// Fault C11.
    #[test]
    fn c11_what_a_crash_cut_short_is_cut_off() {
        let place = Place::new(true);
        for length in 0..place.plain.len() {
            let proven = place.proven(&place.plain[..length], &place.record).unwrap();
            assert_eq!(chunks(&proven), length / CHUNK, "staging, {length} bytes");
        }
        for length in HEADER_BYTES + CHECK_BYTES..place.record.len() {
            let proven = place.proven(&place.plain, &place.record[..length]).unwrap();
            let entries = length.saturating_sub(BEFORE_ENTRIES) / (ENTRY_BYTES + CHECK_BYTES);
            assert_eq!(chunks(&proven), entries, "record, {length} bytes");
        }
    }

    /// Faults S6, S10.
    #[test]
    fn s6_the_record_of_another_load_or_process_is_none() {
        let place = Place::new(false);
        let path = place.folder.path().join("record");
        let mut staging = tempfile::tempfile().unwrap();
        let other = Bond { plan_hash: [9; 32], ..bond() };
        assert!(Prefix::find(&path, other, &mut staging, || true).unwrap().is_none());
        let missing = place.folder.path().join("missing");
        assert!(Prefix::find(&missing, bond(), &mut staging, || true).unwrap().is_none());
        let held = Prefix::find(&path, bond(), &mut staging, || true).unwrap().unwrap();
        let busy = Prefix::find(&path, bond(), &mut staging, || true).err().unwrap();
        assert_eq!(busy.kind(), ErrorKind::WouldBlock);
        let (mut held, _) = held;
        assert!(held.keep_key(&key()).unwrap());
        assert!(!held.keep_key(&ChunkHashKey::from_bytes([8; 32])).unwrap(), "another transfer's key");
        drop(held);
        fs::hard_link(&path, place.folder.path().join("link")).unwrap();
        assert!(Prefix::find(&path, bond(), &mut staging, || true).unwrap().is_none());
    }
}
