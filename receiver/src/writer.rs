//! The thread that writes one part into the sink. It waits until the part may be written, and until then nothing of the
//! part is read from the link: parts that wait hold no memory and take nothing from the one that is being written.

use std::sync::Arc;

use sealift_agent::failure::{Failure, Outcome};
use sealift_protocol::{
    chunk::{TakenChunk, VerifiedChunk},
    close::Code,
    digest::Digests,
    id::PartIndex,
    receive::WholePart,
};
use tokio::sync::{mpsc, oneshot};

use crate::sink::Sink;

/// Verified chunks that may wait for the sink: one is being written while the next is ready.
const CHUNKS_WAITING: usize = 1;

/// What the writers tell the transfer.
pub enum Written {
    Taken(TakenChunk),
    Durable(PartIndex),
}

/// A part's way into the sink.
pub struct PartWriter {
    chunks: mpsc::Sender<VerifiedChunk>,
    done: oneshot::Receiver<Outcome>,
}

impl PartWriter {
    /// Starts the thread and waits until the part may be written.
    pub async fn start(
        sink: Arc<dyn Sink>,
        part: PartIndex,
        digests: Digests,
        written: mpsc::UnboundedSender<Written>,
    ) -> Outcome<Self> {
        let (chunks, queue) = mpsc::channel(CHUNKS_WAITING);
        let (ready_in, ready) = oneshot::channel();
        let (done_in, done) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let _ = done_in.send(write_part(&*sink, part, &digests, queue, ready_in, &written));
        });
        let mut writer = Self { chunks, done };
        match ready.await {
            Ok(()) => Ok(writer),
            Err(_) => Err(writer.failure().await),
        }
    }

    /// Hands on a chunk; waits while the sink is busy.
    pub async fn write(&mut self, chunk: VerifiedChunk) -> Outcome {
        match self.chunks.send(chunk).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Every chunk was handed on, with the last of the part: waits until the sink has finished it.
    pub async fn finish(self) -> Outcome {
        drop(self.chunks);
        self.done.await.unwrap_or_else(|_| Err(ended_early()))
    }

    async fn failure(&mut self) -> Failure {
        match (&mut self.done).await {
            Ok(Err(failure)) => failure,
            Ok(Ok(())) | Err(_) => ended_early(),
        }
    }
}

fn ended_early() -> Failure {
    Failure::new(Code::Internal, "a part's writer ended early", "")
}

fn write_part(
    sink: &dyn Sink,
    part: PartIndex,
    digests: &Digests,
    mut queue: mpsc::Receiver<VerifiedChunk>,
    ready: oneshot::Sender<()>,
    written: &mpsc::UnboundedSender<Written>,
) -> Outcome {
    let mut out = sink.begin(part, digests).map_err(|failure| failure.at_part(part))?;
    if ready.send(()).is_err() {
        return Err(Failure::new(Code::Interrupted, "the transfer ended", ""));
    }
    let mut root = digests.part_root(part);
    let mut ended = false;
    while let Some(chunk) = queue.blocking_recv() {
        out.write(&chunk).map_err(|failure| failure.at_part(part))?;
        ended = chunk.is_last();
        root.add(chunk.hash(), chunk.plain().len() as u64);
        let _ = written.send(Written::Taken(chunk.into_taken()));
    }
    if !ended {
        // Dropped unfinished, the part leaves nothing behind.
        return Err(Failure::new(Code::Interrupted, "the transfer ended inside a part", ""));
    }
    let whole = WholePart { part, chunks: root.chunks(), plain_bytes: root.plain_bytes(), root: root.root() };
    out.finish(&whole).map_err(|failure| failure.at_part(part))?;
    let _ = written.send(Written::Durable(part));
    Ok(())
}
