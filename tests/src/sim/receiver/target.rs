//! A target in memory, over the contract of an engine: one writer or many, parts that share a
//! commit, a place that is staged until it is published, and failures on demand.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use sealift_engine_api::{
    Abandoned, Commit, Durability, LeftAt, LoadFailure, PartSink, PreparedLoad, ProvenLoad, Recovery, StagedLoad,
    StopToken, Target, TargetCapabilities, TargetLoad, Writers,
};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::{Digests, PartRoot, RowsDigest},
    disposition::Asks,
    error::Error,
    failure::{Failure, Outcome},
    id::{PartIndex, TransferId},
    manifest::{CatalogueCheck, Check, CheckKind, Evidence, Plan, Proof},
    receive::{Found, WholePart},
    row::RowReader,
};

use super::{
    super::scenario::{Scenario, TargetKind},
    disk::{Committed, Staged, Store},
};
use crate::random::Random;

/// How often a part waits for another one to be committed with.
const SHARED_PERCENT: f64 = 50.0;

const ROW_BYTES_MAX: usize = 1 << 20;

/// The target of one process.
pub struct SimTarget {
    kind: TargetKind,
    durability: Durability,
    one_writer: bool,
    store: Store,
    chance: Mutex<Random>,
    /// A write fails after so many others, once.
    fails_in: Arc<Mutex<Option<u64>>>,
}

/// What is left out when a process is killed in the middle of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dies {
    #[default]
    No,
    /// What is written is not synced.
    BeforeSync,
}

impl SimTarget {
    pub fn open(scenario: &Scenario, store: &Store, chance: Random) -> Arc<Self> {
        Arc::new(Self {
            kind: scenario.target,
            durability: scenario.durability(),
            one_writer: scenario.one_writer,
            store: store.share(),
            chance: Mutex::new(chance),
            fails_in: Arc::default(),
        })
    }

    /// Whether a part waits for the end of another.
    pub fn has_one_writer(&self) -> bool {
        self.one_writer
    }

    /// Chunks of the staging file that no loss of power takes away.
    pub fn synced_chunks(&self) -> u64 {
        self.store.lock().file.synced() as u64
    }

    /// Bytes of it that one may take away.
    pub fn unsynced_bytes(&self) -> u64 {
        let store = self.store.lock();
        store.file.values().skip(store.file.synced()).map(|staged| staged.plain.len() as u64).sum()
    }

    /// Has a write fail, after so many others.
    pub fn fail_in(&self, writes: u64) {
        *self.fails_in.lock().expect("no panic") = Some(writes);
    }

    /// A part that is committed, or what is about to be published, is lost with the power from now
    /// on: the process is killed in the middle of the step that is called next.
    pub fn dies(&self, dies: Dies) {
        self.store.lock().dies = dies;
    }
}

/// Whether this write is to fail.
fn is_due(fails_in: &Mutex<Option<u64>>) -> bool {
    let mut fails_in = fails_in.lock().expect("no panic");
    match *fails_in {
        Some(writes) => {
            *fails_in = writes.checked_sub(1);
            writes == 0
        }
        None => false,
    }
}

impl Recovery for SimTarget {
    fn publish(&self, _transfer: TransferId) -> Outcome {
        self.store.lock().publish();
        Ok(())
    }

    fn abandon(&self, _transfer: TransferId, _left_at: LeftAt) -> Outcome<Abandoned> {
        self.store.lock().drop_parts();
        Ok(Abandoned::Dropped)
    }
}

impl Target for SimTarget {
    fn capabilities(&self, _plan: &Plan) -> TargetCapabilities {
        TargetCapabilities { durability: self.durability, commit: Commit::Observable }
    }

    fn prepare(
        &self,
        _transfer: TransferId,
        plan: &Plan,
        asks: Asks,
        stop: Arc<dyn StopToken>,
    ) -> Outcome<PreparedLoad> {
        plan.check()?;
        let mut store = self.store.lock();
        if asks == Asks::StartOver {
            store.drop_parts();
        } else {
            // The killed process may have written it and not synced it: it is found, and counts as
            // durable only now.
            store.sync_parts();
        }
        let prefix = if self.kind == TargetKind::Synced { store.find_file() } else { None };
        // A dump's one part is begun again, where it is no file.
        let keeps = self.kind == TargetKind::Tables || matches!(prefix, Some(Found::Whole(_)));
        let parts = store.parts.iter().map(|part| part.read().clone().filter(|_| keeps));
        let parts: Vec<_> = parts.collect();
        drop(store);
        let whole = || parts.iter().flatten().map(|(whole, _)| Found::Whole(*whole)).collect();
        let found = prefix.map_or_else(whole, |prefix| vec![prefix]);
        let shared = Shared {
            kind: self.kind,
            one_writer: self.one_writer,
            plan: plan.clone(),
            store: self.store.share(),
            stop,
            loading: Mutex::new(Loading { parts, writing: 0, ended: BTreeMap::new() }),
            chance: Mutex::new(Random::new(self.chance.lock().expect("no panic").number())),
            fails_in: Arc::clone(&self.fails_in),
        };
        Ok(PreparedLoad { found, rows: 0, load: Box::new(SimLoad(Arc::new(shared))) })
    }
}

/// What the writers of one load share.
struct Shared {
    kind: TargetKind,
    one_writer: bool,
    plan: Plan,
    store: Store,
    stop: Arc<dyn StopToken>,
    loading: Mutex<Loading>,
    chance: Mutex<Random>,
    fails_in: Arc<Mutex<Option<u64>>>,
}

struct Loading {
    /// What is committed, by an earlier process or by this one.
    parts: Vec<Option<Committed>>,
    writing: usize,
    /// Parts that are written and not committed.
    ended: BTreeMap<usize, Committed>,
}

struct SimLoad(Arc<Shared>);

impl StagedLoad for SimLoad {
    fn abandon(self: Box<Self>) {
        self.0.store.lock().drop_parts();
    }
}

impl TargetLoad for SimLoad {
    fn writers(&self) -> Arc<dyn Writers> {
        Arc::clone(&self.0) as Arc<dyn Writers>
    }

    fn prove(self: Box<Self>, digests: &Digests) -> Result<Box<dyn ProvenLoad>, LoadFailure> {
        match self.0.read_back(digests) {
            Ok(evidence) => Ok(Box::new(SimProven { load: *self, evidence })),
            Err(failure) => Err(LoadFailure::new(failure, self)),
        }
    }
}

struct SimProven {
    load: SimLoad,
    evidence: Evidence,
}

impl StagedLoad for SimProven {
    fn abandon(self: Box<Self>) {
        Box::new(self.load).abandon();
    }
}

impl ProvenLoad for SimProven {
    fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    fn publish(self: Box<Self>) -> Result<(), LoadFailure> {
        self.load.0.store.lock().publish();
        Ok(())
    }
}

impl Shared {
    fn loading(&self) -> MutexGuard<'_, Loading> {
        self.loading.lock().expect("no panic while it was held")
    }

    /// Reads every table back; the ranges of one add up.
    fn read_back(&self, digests: &Digests) -> Outcome<Evidence> {
        self.stop.check()?;
        let store = self.store.lock();
        let mut tables = vec![RowsDigest::default(); self.plan.tables.len()];
        for (planned, part) in self.plan.parts.iter().zip(&store.parts) {
            let (_, bytes) = part.read().as_ref().ok_or_else(|| out_of_order("a part is not committed"))?;
            let Some(table) = planned.table else { continue };
            let table = &mut tables[table.0 as usize];
            *table = table.merge(digest_of(bytes, digests)?).ok_or_else(|| out_of_order("too many rows"))?;
        }
        let reads = &self.plan.engine.capabilities.checks;
        let checks = reads.contains(&CheckKind::Catalogue);
        let checks = checks.then_some(Check::Catalogue(CatalogueCheck { definitions: 1 })).into_iter().collect();
        Ok(match self.kind {
            TargetKind::Tables => Evidence { tables, checks, ..Evidence::bare(Proof::RowsReadBack) },
            TargetKind::Discarded => Evidence { tables, ..Evidence::bare(Proof::Discarded) },
            TargetKind::Journalled | TargetKind::Synced | TargetKind::Plain => Evidence::bare(Proof::LoaderExit),
        })
    }

    /// What is in the staging file of a part, where it goes into one.
    fn prefix(&self, part: PartIndex, digests: &Digests) -> Option<PartRoot> {
        if self.kind != TargetKind::Synced {
            return None;
        }
        let mut root = digests.part_root(part);
        self.store.lock().file.values().for_each(|staged| root.add(&staged.hash, staged.plain.len() as u64));
        Some(root)
    }

    /// Whether another part will come that may share the commit of this one.
    fn may_share(&self, loading: &Loading, part: usize) -> bool {
        let is_to_come = |other: usize| loading.parts[other].is_none() && !loading.ended.contains_key(&other);
        let section = self.plan.parts[part].section;
        let mut others = self.plan.parts.iter().enumerate();
        others.any(|(other, planned)| planned.section == section && is_to_come(other))
    }
}

fn digest_of(bytes: &[u8], digests: &Digests) -> Outcome<RowsDigest> {
    let mut digest = digests.multiset();
    let mut reader = RowReader::new(ROW_BYTES_MAX);
    reader.feed(Bytes::copy_from_slice(bytes), |row| -> Result<(), Error> {
        digest.add(row);
        Ok(())
    })?;
    reader.finish()?;
    Ok(digest.digest())
}

fn out_of_order(what: &'static str) -> Failure {
    Failure::new(Code::Internal, what, "")
}

impl Writers for Shared {
    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        self.stop.check()?;
        let mut loading = self.loading();
        assert!(!self.one_writer || loading.writing == 0, "it would wait for another part");
        let place = part.0 as usize;
        let section = self.plan.parts[place].section;
        let mut earlier = self.plan.parts.iter().zip(&loading.parts).filter(|(planned, _)| planned.section < section);
        assert!(earlier.all(|(_, part)| part.is_some()), "{part:?} begins before those it depends on are durable");
        let is_new = loading.parts[place].is_none() && !loading.ended.contains_key(&place);
        assert!(is_new, "{part:?} is written twice");
        loading.writing += 1;
        drop(loading);
        Ok(Box::new(SimPart { shared: self, part: place, bytes: Vec::new(), file: self.prefix(part, digests) }))
    }
}

struct SimPart<'a> {
    shared: &'a Shared,
    part: usize,
    bytes: Vec<u8>,
    /// Over the chunks in the staging file, where it goes there.
    file: Option<PartRoot>,
}

impl PartSink for SimPart<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.shared.stop.check()?;
        if is_due(&self.shared.fails_in) {
            return Err(Failure::new(Code::TargetFull, "the target is full, as asked", ""));
        }
        self.bytes.extend_from_slice(chunk.plain());
        if let Some(root) = &mut self.file {
            root.add(chunk.hash(), chunk.plain().len() as u64);
            let (plain, hash, last) = (chunk.plain().clone(), *chunk.hash(), chunk.is_last());
            self.shared.store.lock().file.append(Staged { plain, hash, root: root.root(), last });
        }
        Ok(())
    }

    fn sync(&mut self) -> Outcome {
        assert!(self.file.is_some(), "only a file is synced before it is whole");
        self.shared.store.lock().sync_file();
        Ok(())
    }

    fn finish(mut self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        self.shared.stop.check()?;
        let shared = self.shared;
        let mut loading = shared.loading();
        let mut bytes = mem::take(&mut self.bytes);
        if self.file.is_some() {
            let mut store = shared.store.lock();
            store.sync_file();
            bytes = store.file.values().flat_map(|staged| staged.plain.to_vec()).collect();
        }
        loading.ended.insert(self.part, (*whole, bytes));
        let may_share = shared.may_share(&loading, self.part);
        if may_share && shared.chance.lock().expect("no panic").chance(SHARED_PERCENT) {
            drop(loading);
            return Ok(Vec::new());
        }
        let ended = mem::take(&mut loading.ended);
        for (&part, committed) in &ended {
            loading.parts[part] = Some(committed.clone());
        }
        // The sink ends with this, and takes the lock as well.
        drop(loading);
        let parts = ended.keys().map(|part| PartIndex(*part as u32)).collect();
        shared.store.lock().commit(ended.into_values().collect());
        Ok(parts)
    }
}

impl Drop for SimPart<'_> {
    fn drop(&mut self) {
        self.shared.loading().writing -= 1;
    }
}
