//! Hashing, compressing and sealing, off the async threads. Chunks of one part run side by side and
//! come out in order.

use std::sync::{Arc, Mutex};

use sealift_agent::{
    fail_point::{self, Point},
    failure::Outcome,
    workers::work,
};
use sealift_protocol::{
    chunk::{Chunk, ChunkHash, Sealed},
    compress::{Compression, Packer},
    digest::Digests,
    random::Nonce,
    seal::{EpochKeys, seal},
};

/// Packers are reused, as their contexts take a megabyte each; there are at most as many as threads
/// at work.
#[derive(Clone)]
pub struct Workers {
    compression: Compression,
    idle: Arc<Mutex<Vec<Packer>>>,
}

impl Workers {
    /// Hashes a chunk that the receiver has.
    pub async fn hash(&self, chunk: Chunk, digests: Digests) -> Outcome<ChunkHash> {
        work(move || digests.chunk_hash(chunk.plain())).await
    }

    pub fn new(compression: Compression) -> Self {
        Self { compression, idle: Arc::default() }
    }

    /// Packs and seals one chunk.
    pub async fn seal(&self, chunk: Chunk, keys: Arc<EpochKeys>, nonce: Nonce) -> Outcome<Sealed> {
        let (compression, idle) = (self.compression, Arc::clone(&self.idle));
        work(move || {
            let reused = idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
            let mut packer = match reused {
                Some(packer) => packer,
                None => Packer::new(compression)?,
            };
            let packed = packer.pack(chunk, keys.digests());
            idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(packer);
            let sealed = seal(packed, &keys, nonce)?;
            fail_point::hit(Point::ChunkSealed);
            Ok(sealed)
        })
        .await?
    }
}
