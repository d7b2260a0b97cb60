//! A source in memory, over the contract of an engine: tables that several readers see as of the
//! moment of their snapshot; a file, of which each reading sees what it holds then; and what can be
//! read once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use sealift_engine_api::{PartReader, Planned, RowSink, Snapshot, Source, StopToken};
use sealift_protocol::{
    failure::Outcome,
    id::PartIndex,
    manifest::{Plan, Section},
};

use super::super::{
    scenario::{SourceKind, Version},
    world::World,
};

#[derive(Clone)]
pub struct SimSource {
    kind: SourceKind,
    plan: Plan,
    readers_max: usize,
    versions: Arc<Vec<Version>>,
    /// Which of them it holds now.
    now: Arc<AtomicUsize>,
}

impl SimSource {
    pub fn open(world: &World<'_>) -> Box<dyn Source> {
        let scenario = world.scenario;
        Box::new(Self {
            kind: scenario.source,
            plan: scenario.plan.clone(),
            readers_max: scenario.readers_max,
            versions: Arc::clone(&scenario.versions),
            now: Arc::clone(&world.version),
        })
    }
}

impl Source for SimSource {
    fn plan(self: Box<Self>, _stop: Arc<dyn StopToken>) -> Outcome<Planned> {
        let (plan, opened) = (self.plan.clone(), self.now.load(Ordering::Relaxed));
        let snapshot = SimSnapshot { source: *self, opened, readers: AtomicUsize::new(0) };
        Ok(Planned { plan, findings: Vec::new(), snapshot: Arc::new(snapshot) })
    }
}

struct SimSnapshot {
    source: SimSource,
    opened: usize,
    readers: AtomicUsize,
}

impl Snapshot for SimSnapshot {
    fn readers_max(&self) -> usize {
        self.source.readers_max
    }

    fn can_repeat(&self) -> bool {
        matches!(self.source.kind, SourceKind::Tables | SourceKind::File)
    }

    fn reader(&self) -> Outcome<Box<dyn PartReader>> {
        let before = self.readers.fetch_add(1, Ordering::Relaxed);
        assert!(before < self.source.readers_max, "more readers than there may be");
        let reads_once = !self.can_repeat();
        Ok(Box::new(SimReader { source: self.source.clone(), opened: self.opened, reads_once, has_read: false }))
    }
}

struct SimReader {
    source: SimSource,
    opened: usize,
    reads_once: bool,
    has_read: bool,
}

impl PartReader for SimReader {
    fn read(&mut self, part: PartIndex, out: &mut dyn RowSink) -> Outcome {
        assert!(!self.reads_once || !self.has_read, "what can be read once is read again");
        self.has_read = true;
        let version = match self.source.kind {
            SourceKind::File => self.source.now.load(Ordering::Relaxed),
            _ => self.opened,
        };
        let content = &self.source.versions[version][part.0 as usize];
        for row in &content.rows {
            match content.section {
                Section::Data => out.row(&[row])?,
                _ => out.bytes(row)?,
            }
        }
        Ok(())
    }
}
