//! The source's one thread: reads a part at a time, in the order in which it is asked, and blocks
//! while the lane of the part is full. What was read and not sent outlives a connection.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use sealift_protocol::{
    chunk::Chunk,
    digest::{Digests, RowsDigest},
    id::{ChunkCount, ChunkIndex, PartIndex},
    manifest::Section,
    row::RowReader,
    send::Read,
};

use super::super::{
    scenario::{Scenario, SourceKind},
    world::World,
};

/// A part that is being read.
pub struct Lane {
    job: u64,
    /// Chunks of it that were at the receiver when its reading began.
    pub held: ChunkCount,
    /// Of what it is a part.
    version: usize,
    pub waiting: Option<Chunk>,
    /// Sealed ahead with the keys of the time.
    pub ready: VecDeque<Read>,
    /// Read, and not sent or proven yet.
    pub next: Option<Read>,
    read_whole: bool,
    pub ended: bool,
}

pub struct Source {
    kind: SourceKind,
    opened: usize,
    jobs: VecDeque<Job>,
    jobs_asked: u64,
    pub lanes: BTreeMap<u32, Lane>,
}

struct Job {
    number: u64,
    part: u32,
    next: usize,
}

impl Source {
    pub fn open(world: &World<'_>) -> Self {
        let (kind, opened) = (world.scenario.source, world.version);
        Self { kind, opened, jobs: VecDeque::new(), jobs_asked: 0, lanes: BTreeMap::new() }
    }

    /// Whether a part can be asked for again.
    pub fn can_repeat(&self) -> bool {
        matches!(self.kind, SourceKind::Tables | SourceKind::File)
    }

    /// Asks for a part, if it is not being read.
    pub fn ask(&mut self, part: u32, held: ChunkCount) {
        if self.lanes.contains_key(&part) {
            return;
        }
        self.jobs_asked += 1;
        let job = self.jobs_asked;
        self.jobs.push_back(Job { number: job, part, next: 0 });
        let (version, ready) = (self.opened, VecDeque::new());
        self.lanes.insert(
            part,
            Lane { job, held, version, waiting: None, ready, next: None, read_whole: false, ended: false },
        );
    }

    /// One step of the thread.
    pub fn step(&mut self, world: &World<'_>) -> bool {
        let Some(job) = self.jobs.front_mut() else { return false };
        let Some(lane) = self.lanes.get_mut(&job.part).filter(|lane| lane.job == job.number) else {
            // It is not needed any longer.
            self.jobs.pop_front();
            return true;
        };
        if lane.waiting.is_some() {
            return false;
        }
        if job.next == 0 && self.kind == SourceKind::File {
            lane.version = world.version;
        }
        let chunks = &world.scenario.versions[lane.version][job.part as usize];
        let last = job.next + 1 == chunks.len();
        let plain = Bytes::copy_from_slice(&chunks[job.next]);
        lane.waiting = Some(Chunk::new(PartIndex(job.part), ChunkIndex(job.next as u64), last, plain));
        job.next += 1;
        if last {
            lane.read_whole = true;
            self.jobs.pop_front();
        }
        true
    }
}

impl Lane {
    /// All of it was read and sealed.
    pub fn is_drained(&self) -> bool {
        self.read_whole && self.waiting.is_none() && self.ready.is_empty()
    }

    /// What the part came to.
    pub fn summary(&self, part: u32, scenario: &Scenario, digests: &Digests) -> RowsDigest {
        let mut digest = digests.multiset();
        if scenario.plan.parts[part as usize].section == Section::Data {
            let plain = Bytes::from(scenario.versions[self.version][part as usize].concat());
            let fed = RowReader::new(1 << 20).feed(plain, |row| -> sealift_protocol::error::Result<()> {
                digest.add(row);
                Ok(())
            });
            fed.expect("the scenario is made of rows");
        }
        digest.digest()
    }
}
