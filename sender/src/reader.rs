//! The threads that read the source. Each has a reader of the snapshot, takes the next part that
//! was asked for, and blocks while the part's lane is full. Further ones are started only while
//! parts wait.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use sealift_agent::{
    failure::{Failure, Outcome},
    stop::{Cause, Stop},
    threads,
};
use sealift_engine_api::{Finding, PartReader, Planned, Snapshot, Source, Waivers, refuse_errors, rows_not_as_counted};
use sealift_protocol::{
    chunk::Chunk,
    close::Code,
    digest::{MultisetDigest, RowsDigest},
    id::{PartIndex, TableIndex},
    manifest::{Empty, Plan, Section},
    send::ReadQueue,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    part::{PartWriter, RowsPassed},
    table_rows::TableRows,
};

/// Chunks that a part's lane may have waiting: the source fills the next while the workers have
/// this one.
const CHUNKS_WAITING: usize = 1;

/// Where the async side asks for parts. Dropped, it ends the threads once they have read those that
/// were asked for.
pub struct Reader {
    shared: Arc<Shared>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.jobs().is_over = true;
        self.shared.asked.notify_all();
    }
}

/// A source that was planned.
pub struct Opened {
    pub reader: Reader,
    pub plan: Plan,
    pub findings: Vec<Finding>,
}

/// How a source is read.
#[derive(Clone)]
pub struct Reading {
    /// The errors that are accepted.
    pub waivers: Waivers,
    pub row_bytes_max: usize,
    /// What was said about a source with nothing in it.
    pub empty: Option<Empty>,
    /// What is wrong with a dump that has nothing in it.
    pub is_empty: fn() -> Failure,
}

/// A part on its way out of the source.
pub struct ReadingPart {
    pub chunks: mpsc::Receiver<Chunk>,
    /// Resolves after the last chunk was taken, or when the source failed.
    pub summary: oneshot::Receiver<Outcome<RowsDigest>>,
}

struct Job {
    part: PartIndex,
    rows: MultisetDigest,
    chunks: mpsc::Sender<Chunk>,
    summary: oneshot::Sender<Outcome<RowsDigest>>,
}

/// What the threads of one source share.
struct Shared {
    snapshot: Arc<dyn Snapshot>,
    jobs: Mutex<Jobs>,
    /// Notified when a part is asked for, or none will be.
    asked: Condvar,
    rows: RowsPassed,
    row_bytes_max: usize,
    /// What to fail with where a dump has nothing in it.
    refuse_empty: Option<fn() -> Failure>,
    stop: Stop,
}

/// Bounded by the lanes: a part is asked for only when one is free.
struct Jobs {
    queue: ReadQueue<Job>,
    read: TableRows,
    is_over: bool,
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next part that is asked for.
    fn next_job(&self) -> Option<Job> {
        let jobs = self.jobs();
        let idle = |jobs: &mut Jobs| !jobs.is_over && jobs.queue.is_empty();
        let mut jobs = self.asked.wait_while(jobs, idle).unwrap_or_else(PoisonError::into_inner);
        jobs.queue.poll()
    }
}

impl Reader {
    /// Starts the first thread and waits for the plan. Not cancel-safe: the thread ends once it has
    /// its plan.
    pub async fn start(source: Box<dyn Source>, reading: Reading, stop: Stop) -> Outcome<Opened> {
        let (planned_out, planned) = oneshot::channel();
        let plan_and_read = move || {
            let (opened, shared) = match plan(source, reading, stop) {
                Ok(planned) => planned,
                Err(failure) => {
                    let _ = planned_out.send(Err(failure));
                    return;
                }
            };
            let is_refused = refuse_errors(&opened.findings).is_err();
            if planned_out.send(Ok(opened)).is_ok() && !is_refused {
                read_parts(&shared, true);
            }
        };
        threads::spawn("source", plan_and_read).map_err(|error| cannot_start(&error))?;
        planned.await.map_err(|_| gone())?
    }

    /// Rows that have passed so far, in whole or in part.
    pub fn rows(&self) -> u64 {
        self.shared.rows.count()
    }

    /// Ends with the transfer, and when this source fails.
    pub fn stop(&self) -> &Stop {
        &self.shared.stop
    }

    /// What is read.
    pub fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::clone(&self.shared.snapshot)
    }

    /// Whether parts may be asked for again.
    pub fn can_repeat(&self) -> bool {
        self.shared.snapshot.can_repeat()
    }

    /// Asks for a part. Parts are begun in the order in which they are asked for.
    pub fn read(&self, part: PartIndex, rows: MultisetDigest) -> Outcome<ReadingPart> {
        let (chunks_in, chunks) = mpsc::channel(CHUNKS_WAITING);
        let (summary_in, summary) = oneshot::channel();
        let job = Job { part, rows, chunks: chunks_in, summary: summary_in };
        let starts_another = self.shared.jobs().queue.handle_asked(job);
        self.shared.asked.notify_one();
        if starts_another {
            let shared = Arc::clone(&self.shared);
            if threads::spawn("source", move || read_parts(&shared, false)).is_err() {
                self.shared.jobs().queue.handle_not_opened();
            }
        }
        Ok(ReadingPart { chunks, summary })
    }
}

fn gone() -> Failure {
    Failure::new(Code::Internal, "the source's thread ended early", "")
}

fn cannot_start(error: &std::io::Error) -> Failure {
    Failure::io(Code::Internal, "the source's thread cannot be started", error, "")
}

/// Plans the source, and prepares for it to be read.
fn plan(source: Box<dyn Source>, reading: Reading, stop: Stop) -> Outcome<(Opened, Arc<Shared>)> {
    let Planned { plan, mut findings, snapshot } = source.plan(Arc::new(stop.clone()))?;
    reading.waivers.apply(&mut findings);
    let plan = check_not_empty(Plan { empty: reading.empty, ..plan })?;
    let is_opaque = plan.engine.capabilities.has(Section::Opaque);
    let queue = ReadQueue::new(snapshot.readers_max());
    let shared = Arc::new(Shared {
        snapshot,
        jobs: Mutex::new(Jobs { queue, read: TableRows::of(&plan), is_over: false }),
        asked: Condvar::new(),
        rows: RowsPassed::of(plan.parts.len()),
        row_bytes_max: reading.row_bytes_max,
        refuse_empty: (reading.empty.is_none() && is_opaque).then_some(reading.is_empty),
        stop,
    });
    let reader = Reader { shared: Arc::clone(&shared) };
    Ok((Opened { reader, plan, findings }, shared))
}

/// Reads what is asked for, until nothing more can be.
fn read_parts(shared: &Shared, is_first: bool) {
    let mut reader = match shared.snapshot.reader() {
        Ok(reader) => reader,
        Err(failure) => {
            // Of a source that has no room for another reader, the others read everything. One that
            // ended is not started again.
            if is_first {
                shared.stop.raise(Cause::Source, failure);
            }
            return;
        }
    };
    while let Some(job) = shared.next_job() {
        let summary = read_part(&mut *reader, &job, shared);
        // A part that is no longer wanted is interrupted, and may be asked for again.
        if let Err(failure) = &summary
            && failure.code != Code::Interrupted
        {
            shared.stop.raise(Cause::Source, failure.clone());
        }
        shared.jobs().queue.handle_read();
        drop(job.chunks);
        let _ = job.summary.send(summary);
    }
}

fn read_part(reader: &mut dyn PartReader, job: &Job, shared: &Shared) -> Outcome<RowsDigest> {
    let mut emit = |chunk| {
        shared.stop.check()?;
        job.chunks.blocking_send(chunk).map_err(|_| Failure::new(Code::Interrupted, "the transfer ended", ""))
    };
    let counter = shared.rows.of_part(job.part);
    let out = PartWriter::new(job.part, job.rows.clone(), shared.row_bytes_max, &mut emit).counting(counter);
    let summary = out.read(reader, shared.refuse_empty)?;
    let whole = shared.jobs().read.handle_read(job.part, summary.rows);
    if let Some((table, read)) = whole {
        check_counted(reader, table, read).map_err(|failure| failure.at_part(job.part))?;
    }
    Ok(summary)
}

/// Compares the rows that were read of a table with the engine's own count of them.
fn check_counted(reader: &mut dyn PartReader, table: TableIndex, read: u64) -> Outcome {
    match reader.count_rows(table)? {
        Some(counted) if counted != read => Err(rows_not_as_counted(read, counted)),
        _ => Ok(()),
    }
}

/// Refuses a source of which it is known before it is read that there is nothing to move.
fn check_not_empty(plan: Plan) -> Outcome<Plan> {
    if plan.empty.is_some() {
        return Ok(plan);
    }
    if plan.engine.capabilities.has(Section::Data) {
        return if plan.moves_nothing(0) { Err(empty_database()) } else { Ok(plan) };
    }
    match plan.parts.first() {
        // Only a file knows beforehand.
        Some(part) if part.bytes_estimate == Some(0) => Err(empty_dump()),
        Some(part) if part.rows_estimate == Some(0) => Err(empty_database()),
        _ => Ok(plan),
    }
}

fn empty_database() -> Failure {
    let what = "the source has nothing to move: it is a database without a table";
    let next = "Check the path in --source. If there is meant to be none, type --allow-empty.";
    Failure::new(Code::SourceEmpty, what, next)
}

/// A dump that ended without a byte, or with what a compressor makes of none.
pub fn empty_dump() -> Failure {
    let what = "the source has nothing to move: it ended without a byte, or with an empty compressed stream";
    let next = "Look at the file, or run the dump program alone: of sh -c 'DUMP | FILTER' only the exit code of FILTER counts, \
                bash -o pipefail -c counts both. If there is meant to be nothing, type --allow-empty.";
    Failure::new(Code::SourceEmpty, what, next)
}
