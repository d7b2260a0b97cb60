//! A target: one writer or many, in a staging place until it is published.

use std::collections::BTreeMap;

use bytes::Bytes;
use sealift_protocol::{
    digest::{Digests, PartRoot, RowsDigest},
    disposition::Stage,
    error::Error,
    id::{Epoch, PartIndex},
    manifest::{Plan, Section, SignedReceipt},
    receive::WholePart,
    row::RowReader,
    sealed_log,
};

use super::super::{
    scenario::{Scenario, TargetKind},
    storage::{Kept, Log},
};
use crate::random::Random;

/// What outlives the process.
#[derive(Clone)]
pub struct Disk {
    pub record: Kept<Option<Record>>,
    pub parts: Vec<Kept<Option<Committed>>>,
    pub journal: Log<sealed_log::Record>,
    /// What is there under its final name.
    pub published: Kept<Option<Vec<Vec<u8>>>>,
}

/// A part, with its row of the ledger.
type Committed = (WholePart, Vec<u8>);

#[derive(Clone)]
pub struct Record {
    pub epoch: Epoch,
    pub digest_check: Option<[u8; 32]>,
    pub stage: Stage,
    pub receipt: Option<SignedReceipt>,
}

impl Disk {
    /// As `listen` leaves it when it has printed the ticket.
    pub fn new(scenario: &Scenario) -> Self {
        let record = Record { epoch: Epoch(0), digest_check: None, stage: Stage::Issued, receipt: None };
        Self {
            record: Kept::new(Some(record)),
            parts: scenario.plan.parts.iter().map(|_| Kept::new(None)).collect(),
            journal: Log::new(),
            published: Kept::new(None),
        }
    }

    pub fn lose_power(&mut self, chance: &mut Random) {
        self.record.lose_power(chance);
        self.parts.iter_mut().for_each(|part| part.lose_power(chance));
        self.journal.lose_power(chance);
        self.published.lose_power(chance);
    }

    /// Drops what was staged.
    pub fn drop_staged(&mut self) {
        self.parts.iter_mut().for_each(|part| part.write(None));
        self.journal.begin_anew();
    }

    pub fn sync_staged(&mut self) {
        self.parts.iter_mut().for_each(Kept::sync);
        self.journal.sync();
    }
}

/// The sink of one process: what it has of each part, and who writes.
pub struct Target {
    plan: Plan,
    one_writer: bool,
    pub staged: Vec<Vec<u8>>,
    durable: Vec<bool>,
    writing: BTreeMap<usize, PartRoot>,
    /// Parts that are written and not committed.
    ended: BTreeMap<usize, WholePart>,
}

impl Target {
    /// Opens what an earlier process left, and says which parts of it are whole. A dump's one part
    /// is begun again, unless all of it was proven.
    pub fn open(scenario: &Scenario, proven: bool, disk: &mut Disk) -> (Self, Vec<WholePart>) {
        let (plan, one_writer) = (scenario.plan.clone(), scenario.one_writer);
        let keeps = scenario.target == TargetKind::Tables || proven;
        // The killed process may have written it and not synced it: it is found, and counts as
        // durable only now.
        disk.parts.iter_mut().for_each(Kept::sync);
        let found: Vec<_> = disk.parts.iter().map(|part| part.read().clone().filter(|_| keeps)).collect();
        let staged = found.iter().map(|found| found.as_ref().map_or_else(Vec::new, |(_, bytes)| bytes.clone()));
        let (staged, durable) = (staged.collect(), found.iter().map(Option::is_some).collect());
        let target = Self { plan, one_writer, staged, durable, writing: BTreeMap::new(), ended: BTreeMap::new() };
        (target, found.into_iter().flatten().map(|(whole, _)| whole).collect())
    }

    /// Whether `part` can be written now; then it is.
    pub fn begin(&mut self, part: usize, digests: &Digests) -> bool {
        if self.one_writer && !self.writing.is_empty() {
            return false;
        }
        let section = self.plan.parts[part].section;
        let mut earlier = self.plan.parts.iter().zip(&self.durable).filter(|(planned, _)| planned.section < section);
        assert!(earlier.all(|(_, durable)| *durable), "part {part} begins before those it depends on are durable");
        assert!(!self.durable[part] && self.staged[part].is_empty(), "part {part} is written twice");
        self.writing.insert(part, digests.part_root(PartIndex(part as u32)));
        true
    }

    pub fn write(&mut self, part: usize, plain: &Bytes, hash: &[u8; 32]) {
        self.staged[part].extend_from_slice(plain);
        let root = self.writing.get_mut(&part).expect("a part is written after it was begun");
        root.add(hash, plain.len() as u64);
    }

    /// The part is whole, and is to be committed.
    pub fn end(&mut self, part: usize) {
        let root = self.writing.remove(&part).expect("a part is finished after it was begun");
        let whole = WholePart {
            part: PartIndex(part as u32),
            chunks: root.chunks(),
            plain_bytes: root.plain_bytes(),
            root: root.root(),
        };
        self.ended.insert(part, whole);
    }

    /// Whether another part will come that may share the commit of this one.
    pub fn may_share(&self, part: usize) -> bool {
        let is_to_come = |other: usize| !self.durable[other] && !self.ended.contains_key(&other);
        let sections = self.plan.parts.iter().map(|planned| planned.section);
        sections.enumerate().any(|(other, section)| section == self.plan.parts[part].section && is_to_come(other))
    }

    /// Writes the commit of all that has ended, which is durable when it is synced; returns which
    /// parts these are.
    pub fn commit(&mut self, disk: &mut Disk) -> Vec<usize> {
        let ended = std::mem::take(&mut self.ended);
        for (&part, whole) in &ended {
            self.durable[part] = true;
            disk.parts[part].write(Some((*whole, self.staged[part].clone())));
        }
        ended.into_keys().collect()
    }

    /// Reads every table back.
    pub fn prove(&self, digests: &Digests) -> Vec<RowsDigest> {
        let parts = self.plan.parts.iter().zip(&self.staged);
        let tables = parts.filter(|(planned, _)| planned.section == Section::Data);
        tables
            .map(|(_, bytes)| {
                let mut digest = digests.multiset();
                let mut reader = RowReader::new(1 << 20);
                let fed = reader.feed(Bytes::copy_from_slice(bytes), |row| -> Result<(), Error> {
                    digest.add(row);
                    Ok(())
                });
                fed.and_then(|()| reader.finish()).expect("the source wrote rows");
                digest.digest()
            })
            .collect()
    }
}
