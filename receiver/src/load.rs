//! The load of one transfer: what outlives a connection at the receiver. What it holds in its
//! target, the threads that write there, and the state machine that knows what is there.

use std::{
    cell::{Ref, RefCell, RefMut},
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sealift_agent::{
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    report::Report,
    stop::{Cause, Stop},
};
use sealift_engine_api::{Commit, PreparedLoad, Target, TargetCapabilities, Writers};
use sealift_protocol::{
    close::Code,
    digest::Digests,
    disposition::Asks,
    id::{PartIndex, TransferId},
    manifest::{Evidence, Plan},
    receive::{Durability, Found, ReceiverTransfer, Replayed},
};
use tokio::{
    sync::{Mutex, Notify, mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    held::{Held, LetGo},
    journal::{InMemory, Journal},
    writer::{ChunkInMemory, PartToWrite, PartWriter, Starting, Written},
};

/// For threads to end once the load was stopped: a statement that is interrupted, a loader that is
/// killed.
const THREADS_END: Duration = Duration::from_secs(5);

pub struct Load {
    pub target: Arc<dyn Target>,
    capabilities: TargetCapabilities,
    pub held: Held,
    /// None where everything is there.
    into: Option<Arc<dyn Writers>>,
    journal: Option<Journal>,
    transfer: RefCell<ReceiverTransfer>,
    writers: RefCell<BTreeMap<PartIndex, PartWriter>>,
    threads: RefCell<Vec<JoinHandle<()>>>,
    written: mpsc::UnboundedSender<Written>,
    events: Mutex<mpsc::UnboundedReceiver<Written>>,
    /// That this process has written.
    rows: Arc<AtomicU64>,
    rows_found: u64,
    /// Notified whenever something was taken or finished, or a part was begun.
    pub moved: Notify,
    /// Within the transfer's, and raised when the load is closed. Asked by the engine, and by the
    /// writers before every chunk and commit.
    stop: Stop,
}

impl Load {
    /// One that was prepared in its target, and ends with `stop`.
    pub fn new(
        target: Arc<dyn Target>,
        prepared: PreparedLoad,
        mut transfer: ReceiverTransfer,
        journal: Option<Journal>,
        stop: Stop,
    ) -> Self {
        transfer.handle_prepared(match (target.capabilities(transfer.plan()).durability, &journal) {
            (Durability::Journal, None) => Durability::Nothing,
            (durability, _) => durability,
        });
        let into = prepared.load.writers();
        let held = Held::loading(prepared.load);
        Self { rows_found: prepared.rows, into: Some(into), journal, ..Self::with(target, held, transfer, stop) }
    }

    /// One that an earlier process has published.
    pub fn published(target: Arc<dyn Target>, transfer: ReceiverTransfer, stop: Stop) -> Self {
        Self::with(target, Held::published(), transfer, stop)
    }

    fn with(target: Arc<dyn Target>, held: Held, transfer: ReceiverTransfer, stop: Stop) -> Self {
        // Two messages a part at most, and one for each sync of it.
        let (written, events) = mpsc::unbounded_channel();
        Self {
            capabilities: target.capabilities(transfer.plan()),
            target,
            held,
            into: None,
            journal: None,
            transfer: RefCell::new(transfer),
            writers: RefCell::default(),
            threads: RefCell::default(),
            written,
            events: Mutex::new(events),
            rows: Arc::default(),
            rows_found: 0,
            moved: Notify::new(),
            stop,
        }
    }

    pub fn transfer(&self) -> Ref<'_, ReceiverTransfer> {
        self.transfer.borrow()
    }

    pub fn transfer_mut(&self) -> RefMut<'_, ReceiverTransfer> {
        self.transfer.borrow_mut()
    }

    /// The journal, of a transfer that has one.
    pub fn journal(&self) -> Outcome<&Journal> {
        self.journal.as_ref().ok_or_else(|| Failure::new(Code::Internal, "no journal", ""))
    }

    /// Rows that the target has taken: of this process, and of earlier ones.
    pub fn rows(&self) -> u64 {
        self.rows_found.saturating_add(self.rows.load(Ordering::Relaxed))
    }

    /// What can be known of the end of the load.
    pub fn commit(&self) -> Commit {
        self.capabilities.commit
    }

    /// Waits until the turn of `part` has come, which stays until the target has begun with it.
    /// Cancel-safe.
    pub async fn turn(&self, part: PartIndex) {
        loop {
            let notified = self.moved.notified();
            if self.transfer().may_begin(part) {
                return;
            }
            notified.await;
        }
    }

    /// The way into the target for `part`, once the part's turn has come. Cancel-safe: a thread
    /// that nothing waits for ends, and the next call starts another.
    pub async fn writer(&self, part: PartIndex) -> Outcome<PartWriter> {
        if let Some(writer) = self.writers.borrow().get(&part) {
            return Ok(writer.clone());
        }
        self.turn(part).await;
        let digests = self.transfer().digests().cloned();
        let digests = digests.ok_or_else(|| Failure::new(Code::Internal, "a part before any keys", ""))?;
        let there = || Failure::new(Code::Internal, "a part of what is there", "");
        let into = self.into.clone().ok_or_else(there)?;
        let root = self.transfer().part_root(part).ok_or_else(there)?;
        let to_write = PartToWrite { part, root, digests, durability: self.capabilities.durability };
        let (written, rows) = (self.written.clone(), Arc::clone(&self.rows));
        let Starting { writer, ready, thread } = PartWriter::start(into, to_write, written, rows, self.stop.clone());
        self.note_thread(thread);
        let ended_early = |_| Failure::new(Code::Internal, "a part's writer ended early", "");
        ready.await.map_err(ended_early)??;
        self.writers.borrow_mut().insert(part, writer.clone());
        self.transfer_mut().handle_begun(part);
        self.moved.notify_waiters();
        Ok(writer)
    }

    /// Waited for when the load is closed.
    fn note_thread(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads.borrow_mut();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }

    /// Gives a chunk to its writer, and counts it. Waits while the target is busy. Cancel-safe: a
    /// cancelled call has passed on nothing.
    pub async fn write(&self, writer: &PartWriter, chunk: ChunkInMemory) {
        let Some(place) = writer.place().await else {
            // The writer has ended; its failure is found by `watch`.
            return std::future::pending().await;
        };
        let taken = chunk.chunk.taken();
        place.send(chunk);
        fail_point::hit(Point::ChunkTaken);
        self.transfer_mut().handle_taken(taken);
        self.moved.notify_waiters();
    }

    /// Waits until what the writers have counts, before Accept says what is there. Cancel-safe.
    pub async fn await_counted(&self, report: &Report) -> Outcome {
        let counted = async {
            loop {
                let notified = self.moved.notified();
                if !self.transfer().is_syncing() {
                    return;
                }
                notified.await;
            }
        };
        tokio::select! {
            biased;
            () = counted => Ok(()),
            failure = self.watch(report) => Err(failure),
        }
    }

    /// Feeds the target with what a journal held; returns how many bytes that were. Not
    /// cancel-safe: a chunk that was received and not passed on is lost.
    pub async fn feed(&self, mut replayed: mpsc::Receiver<Outcome<InMemory>>) -> Outcome<u64> {
        let (mut writer, mut plain_bytes) = (None, 0);
        while let Some(next) = replayed.recv().await {
            let InMemory { replayed, room } = next?;
            match replayed {
                Replayed::Secret(secret) => self.transfer_mut().handle_digest_secret(&secret)?,
                Replayed::Chunk(chunk) => {
                    plain_bytes += chunk.plain().len() as u64;
                    let writer = match &mut writer {
                        Some(writer) => writer,
                        None => writer.insert(self.writer(chunk.part()).await?),
                    };
                    self.write(writer, ChunkInMemory { chunk, held: room }).await;
                }
            }
        }
        Ok(plain_bytes)
    }

    /// Notes what the writers finish; returns when one of them fails. Cancel-safe: what is received
    /// is recorded before the next wait.
    pub async fn watch(&self, report: &Report) -> Failure {
        let mut events = self.events.lock().await;
        loop {
            match events.recv().await {
                Some(Written::Synced(part, chunks)) => {
                    self.transfer_mut().handle_synced(part, chunks);
                    self.moved.notify_waiters();
                }
                Some(Written::Finished(part)) => {
                    fail_point::hit(Point::PartFinished);
                    self.writers.borrow_mut().remove(&part);
                    self.transfer_mut().handle_finished(part);
                    report.count(|totals| {
                        totals.parts += 1;
                        totals.rows = self.rows();
                    });
                    self.moved.notify_waiters();
                }
                Some(Written::Failed(failure)) => return failure,
                None => return Failure::new(Code::Internal, "no writers", ""),
            }
        }
    }

    /// Waits until all is there and the manifest fits it. Cancel-safe.
    pub async fn complete(&self) -> Outcome {
        loop {
            let notified = self.moved.notified();
            if let Some(checked) = self.transfer().poll_complete() {
                return Ok(checked?);
            }
            notified.await;
        }
    }

    /// Ends the load in its target, and reads it back. Cancelled, it goes on in its thread until
    /// the stop ends it.
    pub async fn prove(&self, digests: Digests) -> Outcome<Evidence> {
        let held = self.held.clone();
        let (done, proven) = oneshot::channel();
        self.note_thread(tokio::task::spawn_blocking(move || {
            let _ = done.send(held.prove(&digests));
        }));
        proven.await.map_err(|_| Failure::new(Code::Internal, "a proof ended early", ""))?
    }

    /// The transfer is being ended: so is what the target is busy with. Whether what is staged is
    /// kept is decided later, by [`Self::close`].
    pub fn interrupt(&self) {
        let _ = self.stop.check();
    }

    /// The load is over for this process: leaves what it needs to go on, or nothing. When this
    /// returns nothing is written any more, and another load may take its place.
    pub async fn close(self, how: LetGo) {
        self.writers.take().clear();
        self.stop.raise(Cause::Closed, Failure::new(Code::Interrupted, "the load was given up", ""));
        let ended = async {
            for thread in self.threads.take() {
                let _ = thread.await;
            }
        };
        // One that writes into a pipe that is not read ends with the process.
        let _ = tokio::time::timeout(THREADS_END, ended).await;
        let held = self.held;
        let _ = tokio::task::spawn_blocking(move || held.let_go(how)).await;
        if let Some(journal) = self.journal {
            journal.close().await;
        }
    }
}

/// How much that is.
#[derive(Clone, Copy, Debug, Default)]
pub struct FoundAmount {
    pub parts: u64,
    pub plain_bytes: u64,
}

/// What a target has from an earlier process.
pub fn note_found(transfer: &mut ReceiverTransfer, found: &[Found]) -> Outcome<FoundAmount> {
    let (mut parts, mut plain_bytes) = (0, 0u64);
    // What a damaged ledger says may be any number.
    for found in found {
        match found {
            Found::Whole(whole) => {
                plain_bytes = whole.plain_bytes.saturating_add(plain_bytes);
                transfer.handle_found(*whole);
                parts += 1;
            }
            Found::Prefix(prefix) => {
                plain_bytes = prefix.plain_bytes.saturating_add(plain_bytes);
                transfer.handle_found_prefix(prefix.clone())?;
            }
        }
    }
    Ok(FoundAmount { parts, plain_bytes })
}

/// Makes a place for the load in its target, or opens what an earlier process left there. The load
/// ends with `stop`. Not cancel-safe: the target may be prepared all the same.
pub async fn prepare(
    target: &Arc<dyn Target>,
    transfer: TransferId,
    plan: Plan,
    asks: Asks,
    stop: &Stop,
) -> Outcome<PreparedLoad> {
    let target = Arc::clone(target);
    let token = Arc::new(stop.clone());
    blocking(move || target.prepare(transfer, &plan, asks, token)).await
}

/// Runs a step of a target off the async thread. Not cancel-safe: the step runs to its end in its
/// thread.
pub async fn blocking<T: Send + 'static>(step: impl FnOnce() -> Outcome<T> + Send + 'static) -> Outcome<T> {
    let done = tokio::task::spawn_blocking(step).await;
    done.map_err(|_| Failure::new(Code::Internal, "a step of the target ended early", ""))?
}
