//! Opening chunks off the async threads: authenticate, decompress, hash.

use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use sealift_agent::{
    fail_point::{self, Point},
    failure::Outcome,
    workers::work,
};
use sealift_protocol::{
    chunk::VerifiedChunk,
    compress::Unpacker,
    frame::ChunkHeader,
    seal::{EpochKeys, open},
};

/// Unpackers are reused; there are at most as many as threads at work.
#[derive(Default)]
pub struct Workers(Arc<Mutex<Vec<Unpacker>>>);

impl Workers {
    /// Opens one chunk. Not cancel-safe: the chunk is lost.
    pub async fn open(&self, header: ChunkHeader, body: BytesMut, keys: Arc<EpochKeys>) -> Outcome<VerifiedChunk> {
        let idle = Arc::clone(&self.0);
        work(move || {
            let reused = idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
            let mut unpacker = match reused {
                Some(unpacker) => unpacker,
                None => Unpacker::new()?,
            };
            let chunk = open(&header, body, &keys, &mut unpacker);
            idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(unpacker);
            fail_point::hit(Point::ChunkOpened);
            Ok(chunk?)
        })
        .await?
    }
}
