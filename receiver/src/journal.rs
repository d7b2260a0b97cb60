//! The receiver's journal: a sealed log in which verified chunks of an opaque load lie as they
//! came, so that a fresh loader can be fed without the network after this process was killed.
//!
//! One thread writes it. Whatever waits when it comes round is written together and synced once.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::BytesMut;
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
    compress::Unpacker,
    digest::Digests,
    envelope::SealingKey,
    error::Error,
    id::{Epoch, PartIndex, TransferId},
    key::DigestSecret,
    seal::{EpochKeys, open},
    sealed_log::{KeyFingerprint, LogHeader, LogId, LogKind, Record},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::writer::ChunkInMemory;

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

/// What a journal held, in the order in which it goes to a loader.
pub enum Replayed {
    /// Under what the transfer's plaintext is hashed.
    Secret(DigestSecret),
    Chunk(ChunkInMemory),
}

/// Reads a journal from its beginning, and opens every chunk again, on a thread of its own. A chunk
/// that is there twice, since a connection was lost between its record and its acknowledgement,
/// comes once. A record is read when there is room for it and what it holds.
pub fn replay(
    log: &SealedFile,
    transfer: TransferId,
    key: SealingKey,
    budget: LaneBudget,
) -> Outcome<mpsc::Receiver<Outcome<Replayed>>> {
    let mut records = log.replay()?;
    let (out, replayed) = mpsc::channel(REPLAYED_WAITING);
    tokio::task::spawn_blocking(move || {
        let mut opener = match Opener::new(transfer, key) {
            Ok(opener) => opener,
            Err(failure) => return drop(out.blocking_send(Err(failure))),
        };
        while let Some(next) = opener.next(&mut records, &budget).transpose() {
            let failed = next.is_err();
            if out.blocking_send(next).is_err() || failed {
                return;
            }
        }
    });
    Ok(replayed)
}

struct Opener {
    transfer: TransferId,
    key: SealingKey,
    /// Of every epoch so far: a sender that spools goes on under the one in which it began.
    keys: BTreeMap<Epoch, Arc<EpochKeys>>,
    unpacker: Unpacker,
    /// Chunks of the one part that have come.
    next: u64,
}

impl Opener {
    fn new(transfer: TransferId, key: SealingKey) -> Outcome<Self> {
        Ok(Self { transfer, key, keys: BTreeMap::new(), unpacker: Unpacker::new()?, next: 0 })
    }

    /// What comes next; `None` after the last record.
    fn next(&mut self, records: &mut Replay, budget: &LaneBudget) -> Outcome<Option<Replayed>> {
        loop {
            // How long it is, is known when it is read.
            let room = budget.take_blocking(LANE_BYTES)?;
            let Some(record) = records.next().transpose()? else { return Ok(None) };
            if let Some(replayed) = self.open(record, room)? {
                return Ok(Some(replayed));
            }
        }
    }

    fn open(&mut self, record: Record, mut room: Room) -> Outcome<Option<Replayed>> {
        match record {
            Record::Epoch(epoch) => {
                let (secret, digest_secret) = epoch.open(&self.key, self.transfer)?;
                let digests = Digests::new(&digest_secret);
                let keys = EpochKeys::new(epoch.suite, self.transfer, epoch.epoch, secret, digests);
                self.keys.insert(epoch.epoch, Arc::new(keys));
                Ok(Some(Replayed::Secret(digest_secret)))
            }
            Record::Chunk { header, sealed } => {
                let damaged = |check| Error::new(Code::LogDamaged, check).at_chunk(header.part, header.index);
                if header.part != PartIndex(0) || header.index.0 > self.next {
                    return Err(damaged("a chunk is missing in the journal").into());
                }
                if header.index.0 < self.next {
                    return Ok(None);
                }
                let keys = self.keys.get(&header.epoch).ok_or(damaged("a chunk before its keys"))?;
                let chunk = open(&header, BytesMut::from(sealed), keys, &mut self.unpacker)?;
                self.next += 1;
                room.shrink(chunk.plain().len());
                Ok(Some(Replayed::Chunk(ChunkInMemory { chunk, held: room })))
            }
            Record::Statement(_) | Record::Mark => Ok(None),
        }
    }
}
