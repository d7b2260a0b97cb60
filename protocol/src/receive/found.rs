//! What a target has of a load.

use crate::{
    digest::{PartRoot, Root},
    id::{ChunkCount, PartIndex},
};

/// A whole part, as it was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholePart {
    /// Which part.
    pub part: PartIndex,
    /// The number of its chunks.
    pub chunks: ChunkCount,
    /// The bytes of its plaintext.
    pub plain_bytes: u64,
    /// The root over the hashes of its chunks.
    pub root: Root,
}

impl WholePart {
    /// The part whose chunks were all added to `root`.
    pub fn of(part: PartIndex, root: &PartRoot) -> Self {
        Self { part, chunks: root.chunks(), plain_bytes: root.plain_bytes(), root: root.root() }
    }
}

/// The first chunks of a part, as an earlier process committed them in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPrefix {
    /// Which part.
    pub part: PartIndex,
    /// The number of chunks committed.
    pub chunks: ChunkCount,
    /// The bytes of their plaintext.
    pub plain_bytes: u64,
    /// The root over `hashes`.
    pub root: Root,
    /// The hashes of the chunks, concatenated.
    pub hashes: Vec<u8>,
}

/// What is committed in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A part, committed to its end.
    Whole(WholePart),
    /// The beginning of a part.
    Prefix(FoundPrefix),
}
