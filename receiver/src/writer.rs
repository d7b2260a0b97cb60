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
    receive::{Syncing, WholePart},
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

/// What such a target syncs at once at most, since the sender's window waits for it. It syncs less
/// where nothing more has come.
const UNSYNCED_BYTES_MAX: u64 = 16 << 20;

/// What the writers report to the load.
pub enum Written {
    /// The first chunks of the part are synced, in a target where they count as verified then.
    Synced(PartIndex, ChunkCount),
    /// The target has all of the part.
    Finished(PartIndex),
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
    /// What it takes of the transfer's budget.
    pub held: Room,
}

/// A writer whose part's turn may not have come yet.
pub struct Starting {
    pub writer: PartWriter,
    pub ready: oneshot::Receiver<Outcome>,
    /// Ends after the part, or with the writer's last handle.
    pub thread: JoinHandle<()>,
}

/// One part to be written.
pub struct PartToWrite {
    pub part: PartIndex,
    /// Over the chunks that the target has of it already.
    pub root: PartRoot,
    pub digests: Digests,
    pub durability: Durability,
}

impl PartWriter {
    /// Starts the thread, which adds to `rows` what it has written. The part may be written once
    /// `ready` says so.
    pub fn start(
        into: Arc<dyn Writers>,
        to_write: PartToWrite,
        written: mpsc::UnboundedSender<Written>,
        rows: Arc<AtomicU64>,
        stop: Stop,
    ) -> Starting {
        let PartToWrite { part, root, digests, durability } = to_write;
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
            let mut writing = Writing { out: &mut *out, part, root, rows: &rows, stop: &stop };
            let written_up = match durability {
                Durability::SyncedChunks => {
                    writing.write_synced(queue, |chunks| drop(written.send(Written::Synced(part, chunks))))
                }
                _ => writing.write(queue),
            };
            let Some(outcome) = written_up else { return };
            let finished = outcome.and_then(|whole| {
                stop.check()?;
                out.finish(&whole)
            });
            match finished {
                Ok(finished) => {
                    for part in finished {
                        let _ = written.send(Written::Finished(part));
                    }
                }
                Err(failure) => drop(written.send(Written::Failed(failure.at_part(part)))),
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

/// A part that is being written. Nothing is written or synced once the transfer has to end.
struct Writing<'a> {
    out: &'a mut dyn PartSink,
    part: PartIndex,
    /// Over the chunks so far.
    root: PartRoot,
    rows: &'a AtomicU64,
    stop: &'a Stop,
}

impl Writing<'_> {
    /// Writes what comes, up to the part's last chunk. `None` if the load was given up before.
    fn write(&mut self, mut queue: mpsc::Receiver<ChunkInMemory>) -> Option<Outcome<WholePart>> {
        while let Some(chunk) = queue.blocking_recv() {
            match self.write_chunk(chunk) {
                Ok(None) => {}
                Ok(Some(whole)) => return Some(Ok(whole)),
                Err(failure) => return Some(Err(failure)),
            }
        }
        None
    }

    /// The same, and syncs what is written when that is due.
    fn write_synced(
        &mut self,
        mut queue: mpsc::Receiver<ChunkInMemory>,
        synced: impl Fn(ChunkCount),
    ) -> Option<Outcome<WholePart>> {
        let mut syncing = Syncing::new(self.root.plain_bytes(), UNSYNCED_BYTES_MAX);
        while let Some(chunk) = queue.blocking_recv() {
            match self.write_chunk(chunk) {
                Ok(None) => {}
                Ok(Some(whole)) => return Some(Ok(whole)),
                Err(failure) => return Some(Err(failure)),
            }
            if !syncing.is_due(self.root.plain_bytes(), !queue.is_empty()) {
                continue;
            }
            if let Err(failure) = self.stop.check().and_then(|()| self.out.sync()) {
                return Some(Err(failure));
            }
            syncing.handle_synced(self.root.plain_bytes());
            synced(self.root.chunks());
        }
        None
    }

    /// Returns the part after its last chunk.
    fn write_chunk(&mut self, ChunkInMemory { chunk, held }: ChunkInMemory) -> Outcome<Option<WholePart>> {
        let before = self.out.rows();
        self.stop.check()?;
        self.out.write(&chunk)?;
        self.rows.fetch_add(self.out.rows() - before, Ordering::Relaxed);
        self.root.add(chunk.hash(), chunk.plain().len() as u64);
        let is_last = chunk.is_last();
        drop(chunk);
        drop(held);
        let Self { part, root, .. } = self;
        Ok(is_last.then(|| WholePart::of(*part, root)))
    }
}
