//! A chunk on its way: `Chunk → Packed → Sealed ⇒ link ⇒ Sealed → VerifiedChunk`, each a type that only the step
//! before it can make.

use bytes::{Bytes, BytesMut};

use crate::{
    frame::ChunkHeader,
    id::{ChunkIndex, PartIndex},
    limits::CHUNK_PLAIN_BYTES_MAX,
};

/// Keyed BLAKE3 of a chunk's plaintext.
pub type ChunkHash = [u8; 32];

/// How the plaintext is packed before it is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Stored = 0,
    /// One zstd frame (RFC 8878) with its content size, no dictionary; always shorter than the plaintext.
    Zstd = 1,
}

impl Codec {
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Codec::Stored),
            1 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// A bounded run of plaintext of one part, as the source gave it. Only the last of a part may be empty.
pub struct Chunk {
    pub part: PartIndex,
    pub index: ChunkIndex,
    pub last: bool,
    plain: Bytes,
}

impl Chunk {
    /// # Panics
    /// If `plain` is over the limit, or empty and not the last: a bug in the caller, not a fault.
    pub fn new(part: PartIndex, index: ChunkIndex, last: bool, plain: Bytes) -> Self {
        assert!(plain.len() <= CHUNK_PLAIN_BYTES_MAX && (last || !plain.is_empty()));
        Self { part, index, last, plain }
    }

    pub fn plain(&self) -> &[u8] {
        &self.plain
    }
}

/// A chunk hashed and compressed: header space, hash and packed bytes lie in one buffer, ready to be sealed in place.
pub struct Packed {
    pub part: PartIndex,
    pub index: ChunkIndex,
    pub last: bool,
    pub(crate) codec: Codec,
    pub(crate) plain_bytes: u32,
    pub(crate) packed_bytes: u32,
    pub(crate) hash: ChunkHash,
    pub(crate) frame: BytesMut,
}

/// A sealed chunk, as it lies on the wire and in a sealed log.
#[derive(Clone)]
pub struct Sealed {
    pub header: ChunkHeader,
    /// Header and sealed bytes; `header.frame_bytes()` of them.
    pub frame: Bytes,
    /// What the part root covers; the sender keeps it, the wire carries it sealed.
    pub hash: ChunkHash,
}

/// A chunk that was authenticated, unpacked within its bounds and hash-checked. Only [`crate::seal::open`] makes one,
/// and a sink accepts nothing else.
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

    pub fn part(&self) -> PartIndex {
        self.part
    }

    pub fn index(&self) -> ChunkIndex {
        self.index
    }

    pub fn is_last(&self) -> bool {
        self.last
    }

    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    pub fn hash(&self) -> &ChunkHash {
        &self.hash
    }

    /// What is left to remember once the sink has the bytes.
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

/// A verified chunk that a sink has taken, without its bytes.
pub struct TakenChunk {
    pub(crate) part: PartIndex,
    pub(crate) index: ChunkIndex,
    pub(crate) last: bool,
    pub(crate) plain_bytes: u64,
    pub(crate) hash: ChunkHash,
}
