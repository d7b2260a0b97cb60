//! Writing a plain file as it arrives.

use std::{
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sealift_engine_api::{LeftAt, LoadFailure, PartSink, ProvenLoad, StagedLoad, StopToken, TargetLoad, Writers};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::{Digests, PartRoot},
    failure::{Failure, Outcome},
    id::{PartIndex, TransferId},
    manifest::{Evidence, Proof},
    receive::WholePart,
};

use super::{FileTarget, Staging, prefix::Entry};
use crate::fail_point::{FILE_NOTED, FILE_SYNCED, FILE_WRITTEN, hit};

/// A file that this process holds. Dropped, what is durable stays.
pub struct FileLoad(Arc<Shared>);

impl FileLoad {
    pub fn new(target: FileTarget, transfer: TransferId, staging: Staging, stop: Arc<dyn StopToken>) -> Self {
        Self(Arc::new(Shared { target, transfer, staging: Mutex::new(staging), stop }))
    }
}

impl StagedLoad for FileLoad {
    fn abandon(self: Box<Self>) {
        let _ = self.0.target.abandon(self.0.transfer, LeftAt::Loading);
    }
}

impl TargetLoad for FileLoad {
    fn writers(&self) -> Arc<dyn Writers> {
        Arc::clone(&self.0) as Arc<dyn Writers>
    }

    fn prove(self: Box<Self>, _digests: &Digests) -> Result<Box<dyn ProvenLoad>, LoadFailure> {
        Ok(Box::new(WrittenFile { load: *self, evidence: Evidence::bare(Proof::Written) }))
    }
}

/// A file with everything in it, which has not its name yet.
struct WrittenFile {
    load: FileLoad,
    evidence: Evidence,
}

impl StagedLoad for WrittenFile {
    fn abandon(self: Box<Self>) {
        Box::new(self.load).abandon();
    }
}

impl ProvenLoad for WrittenFile {
    fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    fn publish(self: Box<Self>) -> Result<(), LoadFailure> {
        let Shared { target, transfer, .. } = &*self.load.0;
        match target.publish(*transfer) {
            Ok(()) => Ok(()),
            Err(failure) => Err(LoadFailure::new(failure, self)),
        }
    }
}

/// What a load and the thread that writes it share.
struct Shared {
    target: FileTarget,
    transfer: TransferId,
    /// Held by what writes it.
    staging: Mutex<Staging>,
    stop: Arc<dyn StopToken>,
}

impl Writers for Shared {
    /// What takes the load, behind what is proven; once more if what took it was dropped before
    /// anything came.
    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        self.stop.check()?;
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.is_written {
            return Err(Failure::new(Code::Internal, "a file is written once", ""));
        }
        let kept = staging.prefix.keep_key(digests.chunk_hash_key());
        if !kept.map_err(|error| self.target.place.cannot_write(&error))? {
            return Err(Failure::new(Code::Internal, "the staging file is of a transfer with another secret", ""));
        }
        let root = digests.part_root_of(part, &staging.proven.hashes, staging.proven.plain_bytes());
        Ok(Box::new(FilePart { shared: self, part, staging, root, entries: Vec::new() }))
    }
}

struct FilePart<'a> {
    shared: &'a Shared,
    part: PartIndex,
    staging: MutexGuard<'a, Staging>,
    /// Over the chunks that are written.
    root: PartRoot,
    /// Of what is written and not noted.
    entries: Vec<Entry>,
}

impl PartSink for FilePart<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.shared.stop.check()?;
        let plain = chunk.plain();
        let staging = &mut *self.staging;
        staging.is_written = true;
        let written = staging.file.write_all_at(plain, self.root.plain_bytes());
        written.map_err(|error| self.shared.target.place.cannot_write(&error))?;
        self.root.add(chunk.hash(), plain.len() as u64);
        self.entries.push(Entry {
            plain_bytes: self.root.plain_bytes(),
            is_last: chunk.is_last(),
            hash: *chunk.hash(),
            root: self.root.root(),
        });
        Ok(())
    }

    /// Syncs what is written, then notes it: the record never says more than is there.
    fn sync(&mut self) -> Outcome {
        let Staging { file, prefix, .. } = &mut *self.staging;
        let Shared { target, transfer, .. } = self.shared;
        let cannot_write = |error| target.place.cannot_write(&error);
        hit(FILE_WRITTEN);
        target.check_in_place(*transfer, file)?;
        file.sync_data().map_err(cannot_write)?;
        hit(FILE_SYNCED);
        prefix.note(&self.entries).map_err(cannot_write)?;
        hit(FILE_NOTED);
        self.entries.clear();
        Ok(())
    }

    fn finish(mut self: Box<Self>, _whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        self.shared.stop.check()?;
        self.sync()?;
        Ok(vec![self.part])
    }
}
