//! What outlives the receiver's process.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use sealift_protocol::{
    chunk::ChunkHash,
    digest::Root,
    disposition::Stage,
    id::{ChunkCount, Epoch, PartIndex},
    manifest::SignedReceipt,
    receive::{Found, FoundPrefix, WholePart},
    sealed_log,
};

use super::{
    super::{
        scenario::Scenario,
        storage::{Kept, Log},
    },
    target::Dies,
};
use crate::random::Random;

#[derive(Clone)]
pub struct Disk {
    pub record: Kept<Option<Record>>,
    pub journal: Log<sealed_log::Record>,
    /// What the target keeps.
    pub store: Store,
}

#[derive(Clone)]
pub struct Record {
    pub epoch: Epoch,
    pub digest_check: Option<[u8; 32]>,
    pub stage: Stage,
    pub receipt: Option<SignedReceipt>,
}

/// A part, with its row of the ledger.
pub type Committed = (WholePart, Vec<u8>);

/// What a target keeps, as its files would be. A clone of it is a copy of the disk.
pub struct Store(Arc<Mutex<Staging>>);

/// One chunk in a staging file that is its own durable prefix, with what its record says of it.
#[derive(Clone)]
pub struct Staged {
    pub plain: Bytes,
    pub hash: ChunkHash,
    /// Over the chunks up to this one.
    pub root: Root,
    pub last: bool,
}

#[derive(Clone)]
pub struct Staging {
    pub parts: Vec<Kept<Option<Committed>>>,
    /// The staging file of a dump's one part, where that is kept.
    pub file: Log<Staged>,
    /// What is there under its final name.
    pub published: Kept<Option<Vec<Vec<u8>>>>,
    pub dies: Dies,
}

impl Clone for Store {
    fn clone(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }
}

impl Store {
    /// The same files, opened by a process.
    pub fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    pub fn lock(&self) -> MutexGuard<'_, Staging> {
        self.0.lock().expect("no panic while it was held")
    }

    /// What is there under the target's final name.
    pub fn published(&self) -> Option<Vec<Vec<u8>>> {
        self.lock().published.read().clone()
    }
}

impl Staging {
    fn is_synced(&self) -> bool {
        self.dies == Dies::No
    }

    /// What was written to the staging file is durable when this returns.
    pub fn sync_file(&mut self) {
        if self.is_synced() {
            self.file.sync();
        }
    }

    /// Opens the staging file after an earlier process, and says what is there of it. The one part
    /// is there if its last chunk is.
    pub fn find_file(&mut self) -> Option<Found> {
        let staged = self.file.recover();
        let plain: Vec<u8> = staged.iter().flat_map(|staged| staged.plain.to_vec()).collect();
        let Staged { root, last, .. } = staged.last()?.clone();
        let (part, chunks, plain_bytes) = (PartIndex(0), ChunkCount(staged.len() as u64), plain.len() as u64);
        if !last {
            let hashes = staged.iter().flat_map(|staged| staged.hash).collect();
            return Some(Found::Prefix(FoundPrefix { part, chunks, plain_bytes, root, hashes }));
        }
        let whole = WholePart { part, chunks, plain_bytes, root };
        self.commit(vec![(whole, plain)]);
        Some(Found::Whole(whole))
    }

    /// Commits parts together: what is written of them is durable when it is synced.
    pub fn commit(&mut self, committed: Vec<Committed>) {
        for (whole, bytes) in committed {
            let place = whole.part.0 as usize;
            self.parts[place].write(Some((whole, bytes)));
            if self.is_synced() {
                self.parts[place].sync();
            }
        }
    }

    /// Shows what is staged under the final name; once, however often it is called.
    pub fn publish(&mut self) {
        assert!(self.file.is_synced(), "what is published could be lost with the power");
        if self.published.read().is_none() {
            let parts =
                self.parts.iter().map(|part| part.read().as_ref().map_or_else(Vec::new, |(_, bytes)| bytes.clone()));
            let parts = parts.collect();
            self.published.write(Some(parts));
        }
        if self.is_synced() {
            self.published.sync();
        }
    }

    /// Changes what the target has, behind everybody's back.
    pub fn change_part(&mut self, place: usize, more: &[u8]) {
        if let Some((whole, bytes)) = self.parts[place].read().clone() {
            self.parts[place].write(Some((whole, [&bytes, more].concat())));
        }
    }

    pub fn drop_parts(&mut self) {
        self.parts.iter_mut().for_each(|part| part.write(None));
        self.file.begin_anew();
        if self.is_synced() {
            self.sync_parts();
            self.file.sync();
        }
    }

    pub fn sync_parts(&mut self) {
        self.parts.iter_mut().for_each(Kept::sync);
    }
}

impl Disk {
    /// As `listen` leaves it when it has printed the ticket.
    pub fn new(scenario: &Scenario) -> Self {
        let record = Record { epoch: Epoch(0), digest_check: None, stage: Stage::Issued, receipt: None };
        let parts = scenario.plan.parts.iter().map(|_| Kept::new(None)).collect();
        let staging = Staging { parts, file: Log::new(), published: Kept::new(None), dies: Dies::No };
        Self { record: Kept::new(Some(record)), journal: Log::new(), store: Store(Arc::new(Mutex::new(staging))) }
    }

    /// What is staged is given up, and what feeds another loader.
    pub fn drop_staged(&mut self) {
        self.journal.begin_anew();
        self.journal.sync();
        self.store.lock().drop_parts();
    }

    /// Another process, or none, has the disk.
    pub fn handle_process_gone(&mut self) {
        self.store.lock().dies = Dies::No;
    }

    pub fn lose_power(&mut self, chance: &mut Random) {
        self.record.lose_power(chance);
        self.journal.lose_power(chance);
        let mut staging = self.store.lock();
        staging.parts.iter_mut().for_each(|part| part.lose_power(chance));
        staging.file.lose_power(chance);
        staging.published.lose_power(chance);
    }
}
