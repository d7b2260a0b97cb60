//! A chunk on its way: `Chunk → Packed → Sealed ⇒ link ⇒ Sealed → VerifiedChunk`, each a type that
//! only the step before it can make.

use std::io::{self, Read};

use bytes::Bytes;

pub use crate::{digest::ChunkHash, frame::Codec};
use crate::{
    frame::ChunkHeader,
    id::{ChunkIndex, PartIndex},
    limits::{CHUNK_HASH_BYTES, CHUNK_HEADER_BYTES, CHUNK_PLAIN_BYTES, CHUNK_PLAIN_BYTES_MAX, TAG_BYTES},
};

/// A bounded run of plaintext of one part, as the source gave it. Only the last of a part may be
/// empty.
#[derive(Clone)]
pub struct Chunk {
    /// The part that it is cut from.
    pub part: PartIndex,
    /// Its place in the part.
    pub index: ChunkIndex,
    /// Whether the part ends with it.
    pub last: bool,
    pub(crate) buffer: ChunkBuffer,
}

impl Chunk {
    /// # Panics
    /// If there is more plaintext than the limit, or none and it is not the last: a bug in the
    /// caller, not a fault.
    pub fn new(part: PartIndex, index: ChunkIndex, last: bool, plain: impl Into<ChunkBuffer>) -> Self {
        let buffer = plain.into();
        assert!(buffer.plain_bytes() <= CHUNK_PLAIN_BYTES_MAX && (last || buffer.plain_bytes() > 0));
        Self { part, index, last, buffer }
    }

    /// The plaintext, at most [`CHUNK_PLAIN_BYTES_MAX`] bytes.
    pub fn plain(&self) -> &[u8] {
        self.buffer.plain()
    }
}

/// Plaintext that lies where its frame will be, so that a chunk that is not compressed is sealed
/// without a copy.
pub struct ChunkBuffer(pub(crate) Vec<u8>);

impl ChunkBuffer {
    /// The bytes of a frame before its plaintext: header and hash.
    pub(crate) const ROOM_BYTES: usize = CHUNK_HEADER_BYTES + CHUNK_HASH_BYTES;

    /// An empty buffer that takes [`CHUNK_PLAIN_BYTES`] without growing.
    pub fn with_room() -> Self {
        Self::for_bytes(CHUNK_PLAIN_BYTES)
    }

    /// An empty buffer that takes so many bytes without growing.
    pub fn for_bytes(bytes: usize) -> Self {
        let mut frame = Vec::with_capacity(Self::ROOM_BYTES + bytes + TAG_BYTES);
        frame.resize(Self::ROOM_BYTES, 0);
        Self(frame)
    }

    /// The plaintext so far.
    pub fn plain(&self) -> &[u8] {
        &self.0[Self::ROOM_BYTES..]
    }

    /// The length of the plaintext so far.
    pub fn plain_bytes(&self) -> usize {
        self.0.len() - Self::ROOM_BYTES
    }

    /// Appends what `reader` returns, up to its end or `bytes_max`, and returns how many bytes that
    /// were.
    pub fn read_from(&mut self, reader: impl Read, bytes_max: usize) -> io::Result<usize> {
        reader.take(bytes_max as u64).read_to_end(&mut self.0)
    }

    /// Appends plaintext. The caller keeps it within [`CHUNK_PLAIN_BYTES_MAX`].
    pub fn extend(&mut self, plain: &[u8]) {
        self.0.extend_from_slice(plain);
    }
}

impl Clone for ChunkBuffer {
    /// The copy too has the room that sealing takes behind the plaintext.
    fn clone(&self) -> Self {
        Self::from(self.plain())
    }
}

impl<T: AsRef<[u8]>> From<T> for ChunkBuffer {
    fn from(plain: T) -> Self {
        let mut buffer = Self::for_bytes(plain.as_ref().len());
        buffer.extend(plain.as_ref());
        buffer
    }
}

/// A chunk hashed and compressed: header space, hash and packed bytes lie in one buffer, ready to
/// be sealed in place.
pub struct Packed {
    /// The part that the chunk is cut from.
    pub part: PartIndex,
    /// The chunk's place in the part.
    pub index: ChunkIndex,
    /// Whether the part ends with the chunk.
    pub last: bool,
    pub(crate) codec: Codec,
    pub(crate) plain_bytes: u32,
    pub(crate) packed_bytes: u32,
    pub(crate) hash: ChunkHash,
    pub(crate) frame: Vec<u8>,
}

/// A sealed chunk, as it lies on the wire and in a sealed log.
#[derive(Clone)]
pub struct Sealed {
    /// The first bytes of `frame`, decoded.
    pub header: ChunkHeader,
    /// Header and sealed bytes; `header.frame_bytes()` of them.
    pub frame: Bytes,
    /// The keyed hash of the plaintext, which the part root covers. The frame carries it sealed.
    pub hash: ChunkHash,
}

/// A chunk that was authenticated, unpacked within its bounds and hash-checked. Only
/// [`crate::seal::open`] makes one, and a target accepts nothing else.
#[derive(Clone)]
pub struct VerifiedChunk {
    part: PartIndex,
    index: ChunkIndex,
    last: bool,
    plain: Bytes,
    hash: ChunkHash,
}

impl VerifiedChunk {
    /// Called by `open` alone, after its checks.
    pub(crate) fn vouch(header: &ChunkHeader, plain: Bytes, hash: ChunkHash) -> Self {
        Self { part: header.part, index: header.index, last: header.last, plain, hash }
    }

    /// The part that it belongs to.
    pub fn part(&self) -> PartIndex {
        self.part
    }

    /// Its place in the part.
    pub fn index(&self) -> ChunkIndex {
        self.index
    }

    /// Whether the part ends with it.
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// The plaintext, at most [`CHUNK_PLAIN_BYTES_MAX`] bytes; empty only in the last chunk of a
    /// part.
    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The keyed hash of the plaintext, which was compared with the sealed one.
    pub fn hash(&self) -> &ChunkHash {
        &self.hash
    }

    /// What the receiver keeps of the chunk once the target has the bytes.
    pub fn taken(&self) -> TakenChunk {
        TakenChunk {
            part: self.part,
            index: self.index,
            last: self.last,
            plain_bytes: self.plain.len() as u64,
            hash: self.hash,
        }
    }
}

/// A verified chunk that a target has taken, without its bytes.
pub struct TakenChunk {
    pub(crate) part: PartIndex,
    pub(crate) index: ChunkIndex,
    pub(crate) last: bool,
    pub(crate) plain_bytes: u64,
    pub(crate) hash: ChunkHash,
}
