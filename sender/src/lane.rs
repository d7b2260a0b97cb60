//! A part on its way from the source to the link. What was read of it and is not sent yet outlives
//! a connection: a pipe cannot be read twice.

use std::{cell::RefCell, pin::Pin, rc::Rc, sync::Arc};

use futures_util::{Stream, StreamExt, stream};
use sealift_agent::{
    budget::{Budget, LaneBudget, Room},
    failure::{Failure, Outcome},
    random::SystemRandom,
    workers::chunks_at_work,
};
use sealift_protocol::{
    chunk::Chunk,
    close::Code,
    digest::RowsDigest,
    id::ChunkCount,
    limits::CHUNK_PLAIN_BYTES,
    random::Nonces,
    seal::EpochKeys,
    send::{Read, SourceLane, WasRead},
};

use tokio::sync::mpsc;

use crate::{reader::ReadingPart, workers::Workers};

/// What a chunk takes while it is at work: as it was and as it will be, and the one that the source
/// has ready behind it.
const CHUNK_AT_WORK_BYTES: usize = 3 * CHUNK_PLAIN_BYTES;

/// What seals: the workers, and the keys of the connection that stands now.
pub struct Sealer {
    pub workers: Workers,
    pub budget: Budget,
    pub nonces: RefCell<Nonces<SystemRandom>>,
    /// An earlier process had read this source, which has to be brought again.
    comes_again: bool,
    keys: RefCell<Option<Arc<EpochKeys>>>,
}

/// The same command may be given again without the input that is needed once more.
pub fn nothing_came() -> Failure {
    let next = "Give the same command again, with all of the input.";
    Failure::new(Code::ResumeImpossible, "the source has to be read from its beginning again, and it is empty", next)
}

/// A chunk that was read, and what it takes of the budget.
struct InMemory {
    read: Read,
    room: Room,
}

/// A part that is being read.
pub struct Lane {
    /// What is done with what was read.
    pub rules: SourceLane,
    chunks: Pin<Box<dyn Stream<Item = Outcome<InMemory>>>>,
    /// What the chunk that was read last takes of the budget, until the next one is asked for: what
    /// is sent is in the window.
    room: Option<Room>,
    summary: tokio::sync::oneshot::Receiver<Outcome<RowsDigest>>,
}

impl Sealer {
    pub fn new(workers: Workers, budget: Budget) -> Self {
        let (nonces, keys) = (RefCell::new(Nonces::new(SystemRandom::default())), RefCell::default());
        Self { workers, budget, nonces, comes_again: false, keys }
    }

    /// Of a source that an earlier process had read: it was not brought again if it is empty.
    pub fn comes_again(self, comes_again: bool) -> Self {
        Self { comes_again, ..self }
    }

    /// A connection stands: what is read from now on is sealed with its keys.
    pub fn set_keys(&self, keys: Arc<EpochKeys>) {
        *self.keys.borrow_mut() = Some(keys);
    }

    /// Not cancel-safe: the chunk is lost, so [`Lane`] keeps it running.
    async fn process(&self, chunk: Chunk, held: ChunkCount) -> Outcome<Read> {
        let keys = self.keys.borrow().clone();
        let keys = keys.ok_or_else(|| Failure::new(Code::Internal, "a chunk was read before there were keys", ""))?;
        if self.comes_again && chunk.index.0 == 0 && chunk.plain().is_empty() {
            return Err(nothing_came());
        }
        match WasRead::of(chunk, held) {
            WasRead::Held(chunk) => {
                let (index, plain_bytes, last) = (chunk.index, chunk.plain().len() as u64, chunk.last);
                let hash = self.workers.hash(chunk, keys.digests().clone()).await?;
                Ok(Read::Held { hash, index, plain_bytes, last })
            }
            WasRead::New(chunk) => {
                let nonce = self.nonces.borrow_mut().draw()?;
                Ok(Read::Sealed(self.workers.seal(chunk, Arc::clone(&keys), nonce).await?, keys))
            }
        }
    }
}

/// The chunks of a part as they are read, each with what it takes of the budget.
pub fn arriving(chunks: mpsc::Receiver<Chunk>, budget: LaneBudget) -> impl Stream<Item = (Chunk, Outcome<Room>)> {
    stream::unfold((chunks, budget), |(mut chunks, budget)| async move {
        let room = budget.take(CHUNK_AT_WORK_BYTES).await;
        Some(((chunks.recv().await?, room), (chunks, budget)))
    })
}

impl Lane {
    /// Chunks are sealed side by side and come out in order.
    pub fn new(reading: ReadingPart, budget: LaneBudget, rules: SourceLane, sealer: &Rc<Sealer>) -> Self {
        let sealer = Rc::clone(sealer);
        let held = rules.held();
        let chunks = arriving(reading.chunks, budget).map(move |(chunk, room)| {
            let sealer = Rc::clone(&sealer);
            async move {
                let room = room?;
                Ok(InMemory { read: sealer.process(chunk, held).await?, room })
            }
        });
        let chunks = Box::pin(chunks.buffered(chunks_at_work()));
        Self { rules, chunks, room: None, summary: reading.summary }
    }

    /// The next chunk, if there is one. Cancel-safe.
    pub async fn read(&mut self) -> Outcome<Option<Read>> {
        self.room = None;
        let Some(InMemory { read, room }) = self.chunks.next().await.transpose()? else { return Ok(None) };
        self.room = Some(room);
        Ok(Some(read))
    }

    /// After the last chunk: what the part came to. Cancel-safe.
    pub async fn summary(&mut self) -> Outcome<RowsDigest> {
        let ended_early = |_| Failure::new(Code::Internal, "the source's thread ended early", "");
        let summary = (&mut self.summary).await.map_err(ended_early)?;
        // What the lane had reserved is free for another one.
        self.chunks = Box::pin(stream::empty());
        self.room = None;
        summary
    }
}
