//! What reads an opened source: its readers, of which each blocks while the lane of its part is
//! full. What was read and not sent outlives a connection. Which reader reads what, [`ReadQueue`]
//! says.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use sealift_engine_api::{Planned, Snapshot};
use sealift_protocol::{
    chunk::Chunk,
    digest::{MultisetDigest, RowsDigest},
    id::PartIndex,
    manifest::Plan,
    send::{Read, ReadQueue, SenderTransfer, SourceLane},
};

use super::{
    super::world::{Outcome, World},
    reader::{Come, ReaderThread},
    source::SimSource,
};
use crate::one_load::endless;

/// A part that is being read.
pub struct Lane {
    job: u64,
    /// What is done with what was read.
    pub rules: SourceLane,
    pub waiting: Option<Chunk>,
    /// Sealed ahead with the keys of the time.
    pub ready: VecDeque<Read>,
    /// Once it was read to its end.
    summary: Option<RowsDigest>,
}

pub struct Reading {
    snapshot: Arc<dyn Snapshot>,
    chunk_bytes: usize,
    queue: ReadQueue<Job>,
    readers: Vec<Reader>,
    jobs_asked: u64,
    pub lanes: BTreeMap<u32, Lane>,
}

struct Job {
    number: u64,
    part: PartIndex,
    rows: MultisetDigest,
}

struct Reader {
    thread: ReaderThread,
    /// What it reads.
    job: Option<(u64, PartIndex)>,
}

impl Reading {
    /// Plans the source, and opens its first reader.
    pub fn open(world: &World<'_>) -> Outcome<(Self, Plan)> {
        let Planned { plan, snapshot, .. } = SimSource::open(world).plan(endless())?;
        let queue = ReadQueue::new(snapshot.readers_max());
        let (chunk_bytes, readers, lanes) = (world.scenario.chunk_bytes, Vec::new(), BTreeMap::new());
        let mut reading = Self { snapshot, chunk_bytes, queue, readers, jobs_asked: 0, lanes };
        reading.open_reader()?;
        Ok((reading, plan))
    }

    fn open_reader(&mut self) -> Outcome {
        let thread = ReaderThread::start(self.snapshot.reader()?, self.chunk_bytes);
        self.readers.push(Reader { thread, job: None });
        Ok(())
    }

    /// Whether a part can be asked for again.
    pub fn can_repeat(&self) -> bool {
        self.snapshot.can_repeat()
    }

    /// Asks for a part, if it is not being read.
    pub fn ask(&mut self, part: PartIndex, transfer: &SenderTransfer) -> Outcome {
        if self.lanes.contains_key(&part.0) {
            return Ok(());
        }
        self.jobs_asked += 1;
        let number = self.jobs_asked;
        let rules = SourceLane::new(transfer, part);
        let lane = Lane { job: number, rules, waiting: None, ready: VecDeque::new(), summary: None };
        self.lanes.insert(part.0, lane);
        let rows = transfer.digests().multiset();
        match self.queue.handle_asked(Job { number, part, rows }) {
            true => self.open_reader(),
            false => Ok(()),
        }
    }

    /// One step of one of the readers.
    pub fn step(&mut self, world: &mut World<'_>) -> Outcome<bool> {
        let first = world.wire.chance.below(self.readers.len());
        for offset in 0..self.readers.len() {
            let at = (first + offset) % self.readers.len();
            if self.step_reader(at)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn step_reader(&mut self, at: usize) -> Outcome<bool> {
        let Self { queue, readers, lanes, .. } = self;
        let Reader { thread, job } = &mut readers[at];
        let come = match *job {
            None => {
                let Some(Job { number, part, rows }) = queue.poll() else { return Ok(false) };
                *job = Some((number, part));
                thread.read(part, rows)
            }
            Some((number, part)) => match lanes.get(&part.0) {
                Some(lane) if lane.job == number && lane.waiting.is_some() => return Ok(false),
                Some(lane) if lane.job == number => thread.go_on(),
                _ => {
                    thread.give_up();
                    *job = None;
                    queue.handle_read();
                    return Ok(true);
                }
            },
        };
        let (number, part) = job.expect("it reads a part");
        let lane = lanes.get_mut(&part.0).filter(|lane| lane.job == number);
        match come {
            Come::Chunk(chunk) => {
                if let Some(lane) = lane {
                    lane.waiting = Some(chunk);
                }
            }
            Come::Ended(summary) => {
                *job = None;
                queue.handle_read();
                let summary = summary?;
                if let Some(lane) = lane {
                    lane.summary = Some(summary);
                }
            }
        }
        Ok(true)
    }
}

impl Lane {
    /// What the part came to, once all of it was read and sealed.
    pub fn drained(&self) -> Option<RowsDigest> {
        self.summary.filter(|_| self.waiting.is_none() && self.ready.is_empty())
    }
}
