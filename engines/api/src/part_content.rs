//! What the sinks of every engine do alike with the chunks of a part.

use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    failure::{Failure, Outcome},
    id::PartIndex,
    receive::WholePart,
};

/// How many chunks of a part were written, and whether the last is among them.
#[derive(Clone, Copy, Debug, Default)]
pub struct WrittenChunks {
    chunks: u64,
    ended: bool,
}

impl WrittenChunks {
    /// The first chunks of a part, as an earlier process has written them.
    pub fn prefix(chunks: u64) -> Self {
        Self { chunks, ended: false }
    }

    /// Counts one that was written.
    pub fn add(&mut self, chunk: &VerifiedChunk) {
        self.chunks += 1;
        self.ended = chunk.is_last();
    }

    /// Fails unless they are all of `part`, with the one that ends it, and as many as `whole`
    /// states.
    pub fn check_whole(&self, part: PartIndex, whole: &WholePart) -> Outcome {
        match self.ended && (whole.part, whole.chunks.0) == (part, self.chunks) {
            true => Ok(()),
            false => Err(out_of_order().at_part(part)),
        }
    }
}

/// A document of the engine's own, gathered until its part is whole.
pub struct GatheredDocument {
    part: PartIndex,
    bytes: Vec<u8>,
    bytes_max: usize,
    written: WrittenChunks,
}

impl GatheredDocument {
    /// Of which nothing has come, and that has at most so many bytes.
    pub fn new(part: PartIndex, bytes_max: usize) -> Self {
        Self { part, bytes: Vec::new(), bytes_max, written: WrittenChunks::default() }
    }

    /// Appends a chunk. Fails with `LimitExceeded` over the limit.
    pub fn append(&mut self, chunk: &VerifiedChunk) -> Outcome {
        if self.bytes.len() + chunk.plain().len() > self.bytes_max {
            let what = format!("the schema of the source is over {} bytes", self.bytes_max);
            return Err(Failure::new(Code::LimitExceeded, what, "Split the database.").at_part(self.part));
        }
        self.bytes.extend_from_slice(chunk.plain());
        self.written.add(chunk);
        Ok(())
    }

    /// All of it. Fails unless it is what `whole` states.
    pub fn whole(self, whole: &WholePart) -> Outcome<Vec<u8>> {
        self.written.check_whole(self.part, whole)?;
        Ok(self.bytes)
    }
}

/// A row over the limit of a receiver, which keeps what it holds of one bounded. The sender allows
/// longer ones.
pub fn row_over_limit(row_bytes_max: usize) -> Failure {
    let what = format!("a row is over this receiver's limit of {row_bytes_max} bytes");
    let next = "Start it again with a higher --row-bytes-max; it then needs that much memory besides. The transfer is resumed.";
    Failure::new(Code::TargetFailed, what, next)
}

/// A target was not used as its contract says. This is a bug in what uses it.
pub fn out_of_order() -> Failure {
    Failure::new(Code::Internal, "the target was used out of order", "")
}
