//! Writing a plain file as it arrives.

use std::{os::unix::fs::FileExt, sync::MutexGuard};

use sealift_engine_api::PartSink;
use sealift_protocol::{
    chunk::{ChunkHash, VerifiedChunk},
    close::Code,
    digest::{Digests, PartRoot, Root},
    failure::{Failure, Outcome},
    id::PartIndex,
    receive::WholePart,
};

use super::{FileTarget, Staging, prefix::Entry};
use crate::fail_point::{FILE_NOTED, FILE_SYNCED, FILE_WRITTEN, hit};

/// What is synced at once at most: the sender's window waits for it. Less, where nothing more has
/// come.
const UNSYNCED_BYTES_MAX: u64 = 16 << 20;

pub struct FileLoad<'a> {
    target: &'a FileTarget,
    staging: MutexGuard<'a, Option<Staging>>,
    written_bytes: u64,
    durable_bytes: u64,
    /// The chunk that was written last; what it comes to with those before is said after it.
    latest: Option<(ChunkHash, [u8; 32])>,
    /// Of what is written and not noted.
    entries: Vec<Entry>,
}

impl<'a> FileLoad<'a> {
    /// `None` where nothing is prepared, or something was written already.
    pub fn begin(target: &'a FileTarget, staging: MutexGuard<'a, Option<Staging>>) -> Option<Self> {
        let written_bytes = staging.as_ref().filter(|staging| !staging.is_written)?.proven.plain_bytes();
        Some(Self { target, staging, written_bytes, durable_bytes: written_bytes, latest: None, entries: Vec::new() })
    }

    fn add_entry(&mut self, plain_bytes: u64, root: Root, is_last: bool) {
        if let Some((hash, content)) = self.latest.take() {
            self.entries.push(Entry { plain_bytes, is_last, hash, root, content });
        }
    }

    /// Syncs what is written, then notes it: the record never says more than is there.
    fn make_durable(&mut self) -> Outcome {
        let Staging { file, prefix, .. } = self.staging.as_mut().ok_or_else(out_of_order)?;
        let cannot_write = |error| self.target.place.cannot_write(&error);
        hit(FILE_WRITTEN);
        self.target.check_in_place(file)?;
        file.sync_data().map_err(cannot_write)?;
        hit(FILE_SYNCED);
        prefix.note(&self.entries).map_err(cannot_write)?;
        hit(FILE_NOTED);
        self.entries.clear();
        self.durable_bytes = self.written_bytes;
        Ok(())
    }
}

fn out_of_order() -> Failure {
    Failure::new(Code::Internal, "the target was used out of order", "")
}

impl PartSink for FileLoad<'_> {
    fn begun(&self, part: PartIndex, digests: &Digests) -> PartRoot {
        match self.staging.as_ref() {
            Some(Staging { proven, .. }) => digests.part_root_of(part, &proven.hashes, proven.plain_bytes()),
            None => digests.part_root(part),
        }
    }

    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.target.check_stop()?;
        let plain = chunk.plain();
        let staging = self.staging.as_mut().ok_or_else(out_of_order)?;
        staging.is_written = true;
        let written = staging.file.write_all_at(plain, self.written_bytes);
        written.map_err(|error| self.target.place.cannot_write(&error))?;
        self.written_bytes += plain.len() as u64;
        self.latest = Some((*chunk.hash(), staging.prefix.content(plain)));
        Ok(())
    }

    fn edge(&mut self, so_far: &PartRoot) -> Outcome<bool> {
        self.add_entry(so_far.plain_bytes(), so_far.root(), false);
        if self.written_bytes - self.durable_bytes < UNSYNCED_BYTES_MAX {
            return Ok(false);
        }
        self.make_durable().map(|()| true)
    }

    fn rest(&mut self) -> Outcome<bool> {
        self.make_durable().map(|()| true)
    }

    fn finish(mut self: Box<Self>, whole: &WholePart) -> Outcome {
        self.target.check_stop()?;
        self.add_entry(whole.plain_bytes, whole.root, true);
        self.make_durable()
    }
}
