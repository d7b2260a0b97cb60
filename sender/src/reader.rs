//! The thread that owns the source. It reads one part at a time, in the order of the jobs, and
//! blocks while the part's lane is full.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sealift_agent::{
    failure::{Failure, Outcome},
    stop::{Cause, Stop},
    threads,
};
use sealift_engine_api::Source;
use sealift_protocol::{
    chunk::Chunk,
    close::Code,
    digest::{MultisetDigest, RowsDigest},
    id::PartIndex,
    manifest::{Empty, Plan, Section},
};
use tokio::sync::{mpsc, oneshot};

use crate::part::PartWriter;

/// Chunks that a part's lane may have waiting: the source fills the next while the workers have
/// this one.
const CHUNKS_WAITING: usize = 1;

/// Where the async side asks for parts.
pub struct Reader {
    jobs: mpsc::UnboundedSender<Job>,
    can_repeat: bool,
    /// That were emitted.
    rows: Arc<AtomicU64>,
    stop: Stop,
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

impl Reader {
    /// Starts the thread and waits for the plan. `empty` is what was said about a source with
    /// nothing in it; `is_empty`, what is wrong with a dump that has none. Not cancel-safe: the
    /// thread ends once it has its plan.
    pub async fn start(
        mut source: Box<dyn Source>,
        row_bytes_max: usize,
        empty: Option<Empty>,
        is_empty: fn() -> Failure,
        stop: Stop,
    ) -> Outcome<(Self, Plan)> {
        // Jobs are bounded by the lanes: one is asked for only when a lane is free.
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let (plan_out, plan) = oneshot::channel();
        let can_repeat = source.can_repeat();
        let rows = Arc::<AtomicU64>::default();
        let passed = Arc::clone(&rows);
        let asked = stop.clone();
        let run = move || {
            let mut passed_of_part = BTreeMap::new();
            let planned = source.plan().and_then(|plan| check_not_empty(Plan { empty, ..plan }));
            let is_opaque = planned.as_ref().is_ok_and(|plan| plan.engine.capabilities.has(Section::Opaque));
            let failed = planned.is_err();
            if plan_out.send(planned).is_err() || failed {
                return;
            }
            while let Some(job) = queue.blocking_recv() {
                let of_part = passed_of_part.entry(job.part).or_insert(0);
                let refuse_empty = (empty.is_none() && is_opaque).then_some(is_empty);
                let summary = read_part(&mut *source, &job, row_bytes_max, (&*passed, of_part), refuse_empty, &asked);
                // A part that is no longer wanted is interrupted, and may be asked for again.
                if let Err(failure) = summary.as_ref()
                    && failure.code != Code::Interrupted
                {
                    asked.raise(Cause::Source, failure.clone());
                }
                drop(job.chunks);
                let _ = job.summary.send(summary);
            }
        };
        threads::spawn("source", run)
            .map_err(|error| Failure::io(Code::Internal, "the source's thread cannot be started", &error, ""))?;
        let plan = plan.await.map_err(|_| gone())??;
        Ok((Self { jobs, can_repeat, rows, stop }, plan))
    }

    /// Rows that have passed so far, in whole or in part.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Ends with the transfer, and when this source fails.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Whether parts may be asked for again.
    pub fn can_repeat(&self) -> bool {
        self.can_repeat
    }

    /// Asks for a part; it is read when those asked for before have been.
    pub fn read(&self, part: PartIndex, rows: MultisetDigest) -> Outcome<ReadingPart> {
        let (chunks_in, chunks) = mpsc::channel(CHUNKS_WAITING);
        let (summary_in, summary) = oneshot::channel();
        self.jobs.send(Job { part, rows, chunks: chunks_in, summary: summary_in }).map_err(|_| gone())?;
        Ok(ReadingPart { chunks, summary })
    }
}

fn gone() -> Failure {
    Failure::new(Code::Internal, "the source's thread ended early", "")
}

fn read_part(
    source: &mut dyn Source,
    job: &Job,
    row_bytes_max: usize,
    (passed, of_part): (&AtomicU64, &mut u64),
    refuse_empty: Option<fn() -> Failure>,
    stop: &Stop,
) -> Outcome<RowsDigest> {
    let mut emit = |chunk| {
        stop.check()?;
        job.chunks.blocking_send(chunk).map_err(|_| Failure::new(Code::Interrupted, "the transfer ended", ""))
    };
    let mut out = PartWriter::new(job.part, job.rows.clone(), row_bytes_max, &mut emit).counting(passed, of_part);
    source.read(job.part, &mut out).map_err(|failure| failure.at_part(job.part))?;
    // Before its last chunk, without which no loader sees the end of its input.
    if let Some(is_empty) = refuse_empty.filter(|_| out.is_empty()) {
        return Err(is_empty());
    }
    out.finish()
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
