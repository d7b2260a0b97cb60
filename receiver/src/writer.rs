//! The thread that writes one part into the target. It waits until the part may be written, and
//! until then nothing of the part is read from the link: parts that wait hold no memory and take
//! nothing from the one that is being written.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sealift_agent::{
    budget::Room,
    failure::{Failure, Outcome},
    stop::Stop,
};
use sealift_engine_api::{Durability, PartSink, Writers};
use sealift_protocol::{
    chunk::VerifiedChunk,
    digest::{Digests, PartRoot},
    id::{ChunkCount, PartIndex},
    receive::WholePart,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// Verified chunks that may wait for the target: one is being written while the next is ready.
const CHUNKS_WAITING: usize = 1;

/// The same while a sync is under way, of a target whose chunks count when they are synced: what
/// comes meanwhile shares the next.
const CHUNKS_WAITING_FOR_SYNC: usize = 8;

/// What the writers report to the load.
pub enum Written {
    /// The target has the first chunks of the part for good, or synced where they count as verified
    /// then.
    Durable(PartIndex, ChunkCount),
    /// The target has all of the part.
    Finished {
        part: PartIndex,
        durable: bool,
    },
    Failed(Failure),
}

/// A part's way into the target. It outlives connections: dropped with its last handle, the thread
/// ends.
#[derive(Clone)]
pub struct PartWriter {
    chunks: mpsc::Sender<ChunkInMemory>,
}

/// A verified chunk until the target has it.
pub struct ChunkInMemory {
    pub chunk: VerifiedChunk,
    /// What it takes of the transfer's budget. Those of an archive or a journal come one after the
    /// other, and take nothing of it.
    pub held: Option<Room>,
}

impl From<VerifiedChunk> for ChunkInMemory {
    fn from(chunk: VerifiedChunk) -> Self {
        Self { chunk, held: None }
    }
}

/// A writer whose part's turn may not have come yet.
pub struct Starting {
    pub writer: PartWriter,
    pub ready: oneshot::Receiver<Outcome>,
    /// Ends after the part, or with the writer's last handle.
    pub thread: JoinHandle<()>,
}

impl PartWriter {
    /// Starts the thread, which adds to `rows` what it has written. The part may be written once
    /// `ready` says so.
    pub fn start(
        into: Arc<dyn Writers>,
        durability: Durability,
        part: PartIndex,
        digests: Digests,
        written: mpsc::UnboundedSender<Written>,
        rows: Arc<AtomicU64>,
        stop: Stop,
    ) -> Starting {
        let waiting = match durability {
            Durability::SyncedChunks => CHUNKS_WAITING_FOR_SYNC,
            _ => CHUNKS_WAITING,
        };
        let (chunks, queue) = mpsc::channel(waiting);
        let (ready_in, ready) = oneshot::channel();
        let thread = tokio::task::spawn_blocking(move || {
            let mut out = match into.begin(part, &digests) {
                Ok(out) => out,
                Err(failure) => {
                    let _ = ready_in.send(Err(failure.at_part(part)));
                    return;
                }
            };
            // The connection may have been lost meanwhile; the next one asks again.
            if ready_in.send(Ok(())).is_err() {
                return;
            }
            let root = out.begun(part, &digests);
            let durable = |chunks| drop(written.send(Written::Durable(part, chunks)));
            if let Some(outcome) = write_part(&mut *out, part, root, queue, durable, &rows, &stop) {
                let finished = outcome.and_then(|whole| {
                    stop.check()?;
                    out.finish(&whole)
                });
                match finished {
                    Ok(finished) => {
                        let durable = durability == Durability::Parts;
                        for part in finished {
                            let _ = written.send(Written::Finished { part, durable });
                        }
                    }
                    Err(failure) => drop(written.send(Written::Failed(failure.at_part(part)))),
                }
            }
        });
        Starting { writer: Self { chunks }, ready, thread }
    }

    /// Waits while the target is busy; then there is a place for one chunk. `None` if the thread
    /// has ended. Cancel-safe.
    pub async fn place(&self) -> Option<mpsc::Permit<'_, ChunkInMemory>> {
        self.chunks.reserve().await.ok()
    }
}

/// Writes what comes up to the part's last chunk. `None` if the load was given up before. Nothing
/// is written or committed once the transfer has to end.
fn write_part(
    out: &mut dyn PartSink,
    part: PartIndex,
    mut root: PartRoot,
    mut queue: mpsc::Receiver<ChunkInMemory>,
    durable: impl Fn(ChunkCount),
    rows: &AtomicU64,
    stop: &Stop,
) -> Option<Outcome<WholePart>> {
    while let Some(ChunkInMemory { chunk, held }) = queue.blocking_recv() {
        let before = out.rows();
        if let Err(failure) = stop.check().and_then(|()| out.write(&chunk)) {
            return Some(Err(failure));
        }
        rows.fetch_add(out.rows() - before, Ordering::Relaxed);
        root.add(chunk.hash(), chunk.plain().len() as u64);
        let is_last = chunk.is_last();
        drop(chunk);
        drop(held);
        if is_last {
            let (chunks, plain_bytes, root) = (root.chunks(), root.plain_bytes(), root.root());
            return Some(Ok(WholePart { part, chunks, plain_bytes, root }));
        }
        let may_commit = stop.check();
        let synced =
            may_commit.and_then(|()| out.edge(&root)).and_then(|synced| Ok(synced || queue.is_empty() && out.rest()?));
        match synced {
            Ok(true) => durable(root.chunks()),
            Ok(false) => {}
            Err(failure) => return Some(Err(failure)),
        }
    }
    None
}
