//! The digests that prove completeness (`docs/protocol.md`, section 6.2): a hash of each chunk, a
//! root over the chunks of a part, a root over the parts, and a digest of each table as a multiset
//! of rows, which is computed again from the target. All are BLAKE3 under keys of this transfer
//! alone: an unkeyed hash of a small chunk, or of a row, would identify a patient.

use minicbor::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    id::{ChunkCount, PartIndex, TransferId},
    key::DigestSecret,
    limits::CHUNK_HASH_BYTES,
};

/// A keyed BLAKE3 output that stands for a part or a transfer, 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Root(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

/// Keyed BLAKE3 of a chunk's plaintext.
pub type ChunkHash = [u8; 32];

/// The key of chunk hashes in one transfer. No other digest is made with it: a guess at a chunk can
/// be compared with its hash under it, and nothing can be compared with a root.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ChunkHashKey([u8; 32]);

impl ChunkHashKey {
    /// The key from bytes that were stored beside the plaintext of the chunks.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, to be stored beside the plaintext of the chunks and nowhere else.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The keyed hash of a chunk's plaintext.
    pub fn hash(&self, plain: &[u8]) -> ChunkHash {
        *blake3::keyed_hash(&self.0, plain).as_bytes()
    }
}

/// The hash keys of one transfer.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Digests {
    chunk_hash_key: ChunkHashKey,
    part_root_key: [u8; 32],
    transfer_root_key: [u8; 32],
    row_digest_key: [u8; 32],
}

impl Digests {
    /// Derives the four keys (`docs/protocol.md`, section 5.3).
    pub fn new(secret: &DigestSecret) -> Self {
        Self {
            chunk_hash_key: ChunkHashKey(secret.chunk_hash_key()),
            part_root_key: secret.part_root_key(),
            transfer_root_key: secret.transfer_root_key(),
            row_digest_key: secret.row_digest_key(),
        }
    }

    /// The keyed hash of a chunk's plaintext.
    pub fn chunk_hash(&self, plain: &[u8]) -> ChunkHash {
        self.chunk_hash_key.hash(plain)
    }

    /// The key of chunk hashes, for what has to prove chunks again without the transfer's secret.
    pub fn chunk_hash_key(&self) -> &ChunkHashKey {
        &self.chunk_hash_key
    }

    /// The root of a part that has no chunk yet.
    pub fn part_root(&self, part: PartIndex) -> PartRoot {
        let state = RootState::Fresh { key: self.part_root_key, part };
        PartRoot { state, chunks: 0, plain_bytes: 0 }
    }

    /// The root over the roots of all parts, in the order of the plan.
    pub fn transfer_root(&self, transfer: TransferId, part_roots: impl Iterator<Item = Root>) -> Root {
        let mut hasher = blake3::Hasher::new_keyed(&self.transfer_root_key);
        hasher.update(&transfer.0);
        part_roots.for_each(|root| {
            hasher.update(&root.0);
        });
        Root(*hasher.finalize().as_bytes())
    }

    /// The root of a part whose first chunks have these hashes, concatenated, and this much
    /// plaintext. More chunks can be added.
    pub fn part_root_of(&self, part: PartIndex, hashes: &[u8], plain_bytes: u64) -> PartRoot {
        let mut root = self.part_root(part);
        root.extend(hashes);
        root.chunks = (hashes.len() / CHUNK_HASH_BYTES) as u64;
        root.plain_bytes = plain_bytes;
        root
    }

    /// The digest of a table, or of a range of one, that has no row yet.
    pub fn multiset(&self) -> MultisetDigest {
        MultisetDigest { key: self.row_digest_key, sum: [0; 4], rows: 0 }
    }
}

/// The root of a part as its chunks are added: part index, every chunk hash, then the number of
/// chunks and of bytes.
#[derive(Clone)]
pub struct PartRoot {
    state: RootState,
    chunks: u64,
    plain_bytes: u64,
}

/// A hasher takes 2 KiB, and a transfer has a root for each of many parts: it is there while chunks
/// are added.
#[derive(Clone)]
enum RootState {
    /// No chunk yet: what the hasher is made of.
    Fresh {
        key: [u8; 32],
        part: PartIndex,
    },
    Running(Box<blake3::Hasher>),
    /// No chunk follows.
    Ended(Root),
}

impl Drop for RootState {
    /// The hasher's state begins with its key.
    fn drop(&mut self) {
        match self {
            Self::Fresh { key, .. } => key.zeroize(),
            Self::Running(hasher) => hasher.zeroize(),
            Self::Ended(_) => {}
        }
    }
}

fn part_hasher(key: &[u8; 32], part: PartIndex) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&part.0.to_be_bytes());
    hasher
}

impl PartRoot {
    /// Adds the next chunk: its hash, and the length of its plaintext.
    ///
    /// # Panics
    ///
    /// After [`PartRoot::end`].
    pub fn add(&mut self, hash: &ChunkHash, plain_bytes: u64) {
        self.extend(hash);
        self.chunks += 1;
        self.plain_bytes += plain_bytes;
    }

    fn extend(&mut self, hashes: &[u8]) {
        if let RootState::Fresh { key, part } = &self.state {
            self.state = RootState::Running(Box::new(part_hasher(key, *part)));
        }
        let RootState::Running(hasher) = &mut self.state else { panic!("the root of a part that has ended") };
        hasher.update(hashes);
    }

    /// Ends the root with the chunks added so far. No more can be added, and it takes little
    /// memory.
    pub fn end(&mut self) {
        self.state = RootState::Ended(self.root());
    }

    /// The number of chunks added.
    pub fn chunks(&self) -> ChunkCount {
        ChunkCount(self.chunks)
    }

    /// The bytes of plaintext of the chunks added.
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// The root over the chunks added so far; more may follow.
    pub fn root(&self) -> Root {
        let mut hasher = match &self.state {
            RootState::Fresh { key, part } => part_hasher(key, *part),
            RootState::Running(hasher) => (**hasher).clone(),
            RootState::Ended(root) => return *root,
        };
        hasher.update(&self.chunks.to_be_bytes());
        hasher.update(&self.plain_bytes.to_be_bytes());
        let root = Root(*hasher.finalize().as_bytes());
        hasher.zeroize();
        root
    }
}

/// Order-independent digest of rows with their multiplicity: the sum modulo 2^256 of a keyed hash
/// of each row (MSet-Add-Hash of Clarke et al., "Incremental Multiset Hash Functions", ASIACRYPT
/// 2003; secure while the key is).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MultisetDigest {
    key: [u8; 32],
    sum: [u64; 4],
    rows: u64,
}

impl MultisetDigest {
    /// Adds one row in its encoding of [`crate::row`].
    pub fn add(&mut self, encoded_row: &[u8]) {
        self.add_hash(blake3::keyed_hash(&self.key, encoded_row));
    }

    /// Adds one row whose encoding is in pieces that follow each other.
    pub fn add_pieces(&mut self, pieces: &[&[u8]]) {
        // Of a row in one piece the hash is made at once, which is quicker where rows are small.
        if let [row] = pieces {
            return self.add(row);
        }
        let mut row = self.begin_row();
        for piece in pieces {
            row.update(piece);
        }
        self.add_row(row);
    }

    /// Begins a row that is read piece by piece, to be added with [`MultisetDigest::add_row`].
    pub fn begin_row(&self) -> RowHasher {
        RowHasher(Box::new(blake3::Hasher::new_keyed(&self.key)))
    }

    /// Adds a row all of whose pieces have been hashed.
    pub fn add_row(&mut self, row: RowHasher) {
        self.add_hash(row.0.finalize());
    }

    fn add_hash(&mut self, hash: blake3::Hash) {
        self.sum = add_modulo(self.sum, limbs(hash.as_bytes()));
        self.rows += 1;
    }

    /// The number of rows added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The digest of the rows added so far; more may follow.
    pub fn digest(&self) -> RowsDigest {
        RowsDigest { rows: self.rows, sum: bytes(self.sum) }
    }
}

/// The keyed hash of one row as its pieces are read.
pub struct RowHasher(Box<blake3::Hasher>);

impl RowHasher {
    /// Adds the next piece of the row's encoding.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }
}

impl Drop for RowHasher {
    /// The hasher's state begins with the key.
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The value of a [`MultisetDigest`], of a table or of a range of one. The digests of all ranges of
/// a table add up to the digest of the table, whatever the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RowsDigest {
    /// The number of rows, each counted as often as it occurs.
    #[n(0)]
    pub rows: u64,
    /// The sum modulo 2^256, little-endian; zero if there are no rows.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub sum: [u8; 32],
}

impl RowsDigest {
    /// The digest of both sets of rows together, or `None` if the number of rows overflows.
    pub fn merge(self, other: Self) -> Option<Self> {
        let rows = self.rows.checked_add(other.rows)?;
        Some(Self { rows, sum: bytes(add_modulo(limbs(&self.sum), limbs(&other.sum))) })
    }
}

/// A number below 2^256 as four limbs, the lowest first.
type Limbs = [u64; 4];

fn limbs(bytes: &[u8; 32]) -> Limbs {
    let mut limbs = [0; 4];
    for (limb, bytes) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
        *limb = u64::from_le_bytes(bytes.try_into().expect("chunks_exact(8) yields 8 bytes"));
    }
    limbs
}

fn bytes(limbs: Limbs) -> [u8; 32] {
    let mut out = [0; 32];
    for (bytes, limb) in out.chunks_exact_mut(8).zip(limbs) {
        bytes.copy_from_slice(&limb.to_le_bytes());
    }
    out
}

/// The sum modulo 2^256.
fn add_modulo(one: Limbs, other: Limbs) -> Limbs {
    let mut sum = one;
    let mut carry = false;
    for (limb, addend) in sum.iter_mut().zip(other) {
        let (partial, first) = limb.overflowing_add(addend);
        let (total, second) = partial.overflowing_add(carry.into());
        *limb = total;
        carry = first | second;
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Issue 10, item 1: however a table is divided, and in whatever order the ranges are read,
        /// they add up to the table.
        #[test]
        fn ranges_add_up_to_their_table(
            rows in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..9)), 0..60),
            ranges in 1usize..9,
            first in any::<prop::sample::Index>(),
        ) {
            let mut table = digests().multiset();
            let mut divided: Vec<MultisetDigest> = (0..ranges).map(|_| digests().multiset()).collect();
            for (range, row) in &rows {
                table.add(row);
                divided[range.index(ranges)].add(row);
            }
            divided.rotate_left(first.index(ranges));
            let merged = divided.iter().try_fold(RowsDigest::default(), |sum, range| sum.merge(range.digest()));
            prop_assert_eq!(merged, Some(table.digest()));
        }
    }

    /// Issue 10, item 3: a row is the same row in however many pieces.
    #[test]
    fn pieces_add_up_to_their_row() {
        let row = [7; 300_000];
        let mut whole = digests().multiset();
        whole.add(&row);
        for pieces in [&[&row[..]][..], &[&row[..1], &[], &row[1..200_000], &row[200_000..]], &[&row[..9], &row[9..]]] {
            let mut divided = digests().multiset();
            divided.add_pieces(pieces);
            assert_eq!(divided.digest(), whole.digest());
        }
    }

    /// A carry out of each limb, and out of the last; and more rows than can be counted.
    #[test]
    fn sums_carry_and_wrap() {
        let most = RowsDigest { rows: 1, sum: [0xff; 32] };
        let one = RowsDigest { rows: 1, sum: bytes([1, 0, 0, 0]) };
        assert_eq!(most.merge(one), Some(RowsDigest { rows: 2, sum: [0; 32] }));
        assert_eq!(RowsDigest { rows: u64::MAX, ..one }.merge(one), None);
    }

    fn digests() -> Digests {
        Digests::new(&DigestSecret::from_bytes([4; 32]))
    }

    /// Fault D12: order does not count, multiplicity does.
    #[test]
    fn multiset_counts_rows_but_not_their_order() {
        let of = |rows: &[&str]| {
            let mut digest = digests().multiset();
            rows.iter().for_each(|row| digest.add(row.as_bytes()));
            digest.digest()
        };
        assert_eq!(of(&["a", "b", "b"]), of(&["b", "a", "b"]));
        assert_ne!(of(&["a", "b", "b"]), of(&["a", "a", "b"]));
        assert_ne!(of(&["a", "b"]).sum, of(&["a", "b", "b"]).sum);
        assert_ne!(of(&["ab"]).sum, of(&["a", "b"]).sum);
    }

    /// A part that has ended has the same root, and takes no hasher's memory.
    #[test]
    fn an_ended_root_is_the_same_and_small() {
        for chunks in [0, 1, 3] {
            let mut root = digests().part_root(PartIndex(7));
            (0..chunks).for_each(|chunk| root.add(&[chunk; 32], 5));
            let before = (root.root(), root.chunks(), root.plain_bytes());
            root.end();
            root.end();
            assert_eq!((root.root(), root.chunks(), root.plain_bytes()), before);
            assert!(matches!(root.state, RootState::Ended(_)));
        }
        assert!(std::mem::size_of::<PartRoot>() <= 64);
    }

    #[test]
    fn part_roots_depend_on_order_count_and_place() {
        let of = |part, hashes: &[u8]| {
            let mut root = digests().part_root(PartIndex(part));
            hashes.iter().for_each(|&hash| root.add(&[hash; 32], 1));
            root.root()
        };
        assert_ne!(of(0, &[1, 2]), of(0, &[2, 1]));
        assert_ne!(of(0, &[1]), of(0, &[1, 1]));
        assert_ne!(of(0, &[1]), of(1, &[1]));
    }
}
