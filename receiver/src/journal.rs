//! The receiver's journal: a sealed log in which verified chunks of an opaque load lie as they
//! came, so that a fresh loader can be fed without the network after this process was killed.
//!
//! One thread writes it. Whatever waits when it comes round is written together and synced once.

use std::path::{Path, PathBuf};

use sealift_agent::{
    audit::{AuditLog, entry},
    budget::{LANE_BYTES, LaneBudget, Room},
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    random::SystemRandom,
    sealed_file::{self, Replay, SealedFile},
};
use sealift_protocol::{
    close::Code,
    envelope::SealingKey,
    id::TransferId,
    receive::{JournalReplay, Replayed},
    sealed_log::{KeyFingerprint, LogHeader, LogId, LogKind, Record},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// The journal's file in the folder of its transfer.
const NAME: &str = "journal";

/// Records that one sync makes durable at most: what the lanes may have on their way, and no more
/// than some megabytes.
const BATCH_RECORDS_MAX: usize = 16;

/// Chunks that wait, opened, for the loader that is fed again.
const REPLAYED_WAITING: usize = 2;

/// A journal that is being written.
pub struct Journal {
    queue: mpsc::UnboundedSender<Entry>,
    thread: JoinHandle<()>,
}

struct Entry {
    record: Record,
    synced: oneshot::Sender<Outcome>,
}

/// Which journal, and what opens it.
pub struct Place {
    pub folder: PathBuf,
    pub transfer: TransferId,
    pub key: SealingKey,
    pub bytes_max: u64,
}

impl Place {
    fn id(&self) -> LogId {
        LogId { kind: LogKind::Journal, transfer: self.transfer, key: KeyFingerprint::of(&self.key.public_key()) }
    }

    /// Begins a journal, where there is none.
    pub fn create(&self) -> Outcome<SealedFile> {
        let header = LogHeader::new(self.id(), &mut SystemRandom::default());
        SealedFile::create(&self.folder, NAME, header, self.bytes_max)
    }

    /// Opens the journal that an earlier process left, `made` if it is known that one did; cuts off
    /// what a crash tore.
    pub fn open(&self, made: bool, audit: &AuditLog) -> Outcome<Option<SealedFile>> {
        let opened = match SealedFile::open(&self.folder, NAME, &self.id(), self.bytes_max, |_| Ok(()))? {
            Some(opened) => opened,
            None if made => return Err(self.missing()),
            None => return Ok(None),
        };
        if let Some(repaired) = opened.repaired {
            let entry =
                entry::Entry::JournalRepaired { kept_bytes: repaired.kept_bytes, cut_bytes: repaired.cut_bytes };
            audit.append(Some(self.transfer), &entry)?;
        }
        Ok(Some(opened.log))
    }

    /// What was acknowledged as durable is nowhere: a person decides whether it is sent again
    /// (fault S4).
    fn missing(&self) -> Failure {
        let what = format!("the journal of this transfer is not in {}", self.folder.display());
        let next = format!(
            "Bring it back, and give the same command again. Or end this transfer with `sealift-receiver abandon {}`, and \
             start a new one.",
            self.transfer
        );
        Failure::new(Code::LogDamaged, what, next)
    }
}

/// Removes the journal, whosever it is. Where there is none, that is done already.
pub fn drop_journal(folder: &Path) -> Outcome {
    sealed_file::destroy(folder, NAME)
}

impl Journal {
    /// Starts the thread that writes.
    pub fn start(mut log: SealedFile) -> Self {
        // Bounded by the callers: each lane waits for the records that it has handed over.
        let (queue, mut entries) = mpsc::unbounded_channel::<Entry>();
        let thread = tokio::task::spawn_blocking(move || {
            let mut batch = Vec::new();
            // After one that is missing nothing more is written, though it may fit: a journal has
            // no holes.
            let mut so_far = Ok(());
            while entries.blocking_recv_many(&mut batch, BATCH_RECORDS_MAX) > 0 {
                let (records, waiting): (Vec<_>, Vec<_>) =
                    batch.drain(..).map(|entry| (entry.record, entry.synced)).unzip();
                let written = so_far.and_then(|()| log.append(&records));
                fail_point::hit(Point::JournalWritten);
                so_far = written.and_then(|()| log.sync());
                fail_point::hit(Point::JournalSynced);
                waiting.into_iter().for_each(|waiting| drop(waiting.send(so_far.clone())));
            }
        });
        Self { queue, thread }
    }

    /// Waits until the thread has let go of the file.
    pub async fn close(self) {
        drop(self.queue);
        let _ = self.thread.await;
    }

    /// Hands over a record, now and in this order; the future resolves when it is durable.
    pub fn append(&self, record: Record) -> impl Future<Output = Outcome> + use<> {
        let (synced, done) = oneshot::channel();
        let handed = self.queue.send(Entry { record, synced }).is_ok();
        async move {
            let ended = || Failure::new(Code::Internal, "the journal's thread ended early", "");
            if !handed {
                return Err(ended());
            }
            done.await.unwrap_or_else(|_| Err(ended()))
        }
    }
}

/// Reads a journal from its beginning, and opens every chunk again, on a thread of its own. A
/// record is read when there is room for it and what it holds.
pub fn replay(
    log: &SealedFile,
    transfer: TransferId,
    key: SealingKey,
    budget: LaneBudget,
) -> Outcome<mpsc::Receiver<Outcome<InMemory>>> {
    let mut records = log.replay()?;
    let (out, replayed) = mpsc::channel(REPLAYED_WAITING);
    tokio::task::spawn_blocking(move || {
        let mut replay = match JournalReplay::new(transfer, key) {
            Ok(replay) => replay,
            Err(error) => return drop(out.blocking_send(Err(error.into()))),
        };
        while let Some(next) = next_of(&mut replay, &mut records, &budget).transpose() {
            let failed = next.is_err();
            if out.blocking_send(next).is_err() || failed {
                return;
            }
        }
    });
    Ok(replayed)
}

/// What a record held, and the room that it takes.
pub struct InMemory {
    pub replayed: Replayed,
    pub room: Room,
}

/// What comes next; `None` after the last record.
fn next_of(replay: &mut JournalReplay, records: &mut Replay, budget: &LaneBudget) -> Outcome<Option<InMemory>> {
    loop {
        // How long it is, is known when it is read.
        let mut room = budget.take_blocking(LANE_BYTES)?;
        let Some(record) = records.next().transpose()? else { return Ok(None) };
        let Some(replayed) = replay.handle(record)? else { continue };
        if let Replayed::Chunk(chunk) = &replayed {
            room.shrink(chunk.plain().len());
        }
        return Ok(Some(InMemory { replayed, room }));
    }
}
