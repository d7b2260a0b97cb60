//! The load of one transfer: what outlives a connection at the receiver. The state machine, the
//! load in the target, and the threads that write there.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use sealift_engine_api::{ProvenLoad, Recovery, StopToken, Target, TargetLoad, Writers};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::Digests,
    disposition::Asks,
    envelope::SealingKey,
    failure,
    id::{ChunkCount, PartIndex},
    manifest::{Evidence, SignedReceipt},
    receive::{Durability, Found, JournalReplay, ReceiverTransfer, Replayed, Syncing, WholePart},
};

use super::{
    super::{
        fault::Moment,
        world::{Outcome, Side, World},
    },
    disk::Disk,
    target::{Dies, SimTarget},
    writer::WriterThread,
};
use crate::{random::Random, wire::TRANSFER};

const RECEIVER: Side = Side::Receiver;

/// Chunks that a writer may have: one that it writes, and the next.
const CHUNKS_WAITING: usize = 2;

/// More of one that syncs before what it has counts.
const CHUNKS_WAITING_FOR_SYNC: usize = 6;

/// Few chunks, so that the limit is felt.
const UNSYNCED_BYTES_MAX: u64 = 1000;

pub struct Load {
    pub transfer: ReceiverTransfer,
    target: Arc<SimTarget>,
    held: Held,
    into: Option<Arc<dyn Writers>>,
    writers: BTreeMap<u32, Writer>,
}

/// The load, as far as it has come in the target.
enum Held {
    Loading(Box<dyn TargetLoad>),
    Proven(Box<dyn ProvenLoad>),
    /// Published, or used up by a step that failed.
    Nothing,
}

/// A part that is written.
struct Writer {
    thread: WriterThread,
    queue: VecDeque<VerifiedChunk>,
    /// What it has of the part, with what an earlier process had written.
    written: ChunkCount,
    written_bytes: u64,
    syncing: Syncing,
    /// It has all of the part.
    whole: bool,
    done: bool,
    busy_until_ms: Option<u64>,
}

/// What ends a load from outside is looked at between its steps.
struct Unstopped;

impl StopToken for Unstopped {
    fn check(&self) -> failure::Outcome {
        Ok(())
    }

    fn wakes(&self, _wake: Box<dyn FnOnce() + Send>) {}
}

impl Load {
    /// Opens the target, and feeds a new loader from the journal.
    pub fn open(
        mut transfer: ReceiverTransfer,
        asks: Asks,
        sealing_key: &SealingKey,
        disk: &mut Disk,
        world: &mut World<'_>,
    ) -> Outcome<Self> {
        let target = SimTarget::open(world.scenario, &disk.store, Random::new(world.wire.chance.number()));
        if asks == Asks::StartOver {
            world.checks.target_forgot = true;
            disk.journal.begin_anew();
            if let Err(killed) = world.reach(RECEIVER, Moment::TargetDropped) {
                target.dies(Dies::BeforeSync);
                let _ = target.prepare(TRANSFER, transfer.plan(), asks, Arc::new(Unstopped));
                return Err(killed);
            }
            disk.journal.sync();
        }
        if let Some(writes) = world.target_fails_in.take() {
            target.fail_in(writes);
        }
        let prepared = target.prepare(TRANSFER, transfer.plan(), asks, Arc::new(Unstopped))?;
        for found in prepared.found {
            match found {
                Found::Whole(whole) => transfer.handle_found(whole),
                Found::Prefix(prefix) => transfer.handle_found_prefix(prefix)?,
            }
        }
        transfer.handle_prepared(target.capabilities(transfer.plan()).durability);
        let into = Some(prepared.load.writers());
        let mut load = Self { transfer, target, held: Held::Loading(prepared.load), into, writers: BTreeMap::new() };
        if load.transfer.has_journal() {
            load.feed_from_journal(sealing_key, disk)?;
        }
        Ok(load)
    }

    /// Publishes what an earlier process has proven, and finds it.
    pub fn publish_again(
        mut transfer: ReceiverTransfer,
        receipt: &SignedReceipt,
        disk: &mut Disk,
        world: &mut World<'_>,
    ) -> Outcome<Self> {
        for (sent, index) in receipt.receipt.manifest.manifest.parts.iter().zip(0..) {
            let (part, chunks, plain_bytes, root) = (PartIndex(index), sent.chunks, sent.plain_bytes, sent.root);
            transfer.handle_found(WholePart { part, chunks, plain_bytes, root });
        }
        let target = SimTarget::open(world.scenario, &disk.store, Random::new(0));
        let mut load = Self { transfer, target, held: Held::Nothing, into: None, writers: BTreeMap::new() };
        load.publish(world)?;
        Ok(load)
    }

    /// A new loader gets what the journal holds, without the network.
    fn feed_from_journal(&mut self, sealing_key: &SealingKey, disk: &mut Disk) -> Outcome {
        let mut replay = JournalReplay::new(TRANSFER, SealingKey::from_bytes(&sealing_key.expose()[..])?)?;
        for record in disk.journal.recover() {
            match replay.handle(record)? {
                Some(Replayed::Secret(secret)) => self.transfer.handle_digest_secret(&secret)?,
                Some(Replayed::Chunk(chunk)) => {
                    let part = chunk.part();
                    assert!(self.begin(part.0)?, "the one part of a dump");
                    let writer = self.writers.get_mut(&part.0).expect("begun above");
                    self.transfer.handle_taken(chunk.taken());
                    writer.whole = chunk.is_last();
                    writer.written.0 += 1;
                    writer.thread.write(chunk)?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Whether the part can be written: it is, from when its turn has come. A part that its target
    /// would let wait is not begun.
    pub fn begin(&mut self, part: u32) -> Outcome<bool> {
        if self.writers.contains_key(&part) {
            return Ok(true);
        }
        let Some(digests) = self.transfer.digests().cloned() else { return Ok(false) };
        let waits = self.target.has_one_writer() && self.writers.values().any(|writer| !writer.done);
        if !self.transfer.may_begin(PartIndex(part)) || waits {
            return Ok(false);
        }
        let into = self.into.clone().ok_or(Code::Internal)?;
        let root = self.transfer.part_root(PartIndex(part)).ok_or(Code::Internal)?;
        let (written, written_bytes) = (root.chunks(), root.plain_bytes());
        let thread = WriterThread::start(into, root, PartIndex(part), digests)?;
        let writer = Writer {
            thread,
            queue: VecDeque::new(),
            written,
            written_bytes,
            syncing: Syncing::new(written_bytes, UNSYNCED_BYTES_MAX),
            whole: false,
            done: false,
            busy_until_ms: None,
        };
        self.writers.insert(part, writer);
        self.transfer.handle_begun(PartIndex(part));
        Ok(true)
    }

    /// Whether the part's writer takes another chunk now.
    pub fn has_room(&self, part: u32) -> bool {
        let waiting_max = match self.transfer.durability() {
            Durability::SyncedChunks => CHUNKS_WAITING_FOR_SYNC,
            _ => CHUNKS_WAITING,
        };
        self.writers.get(&part).is_some_and(|writer| writer.queue.len() < waiting_max)
    }

    /// Passes a chunk to the target.
    pub fn write(&mut self, chunk: VerifiedChunk) {
        let taken = chunk.taken();
        let writer = self.writers.get_mut(&chunk.part().0).expect("a part is begun before its chunks are read");
        writer.queue.push_back(chunk);
        self.transfer.handle_taken(taken);
    }

    /// One step of the writers.
    pub fn step(&mut self, world: &mut World<'_>) -> Outcome<bool> {
        for writer in self.writers.values_mut() {
            let now_ms = world.now_ms();
            let has_work = !writer.queue.is_empty() || writer.whole && !writer.done;
            match writer.busy_until_ms {
                None if has_work => {
                    writer.busy_until_ms = Some(now_ms + world.wire.chance.below(world.scenario.disk_ms) as u64);
                    return Ok(true);
                }
                Some(until_ms) if until_ms <= now_ms => {}
                _ => continue,
            }
            writer.busy_until_ms = None;
            if let Some(chunk) = writer.queue.pop_front() {
                let part = chunk.part();
                writer.whole |= chunk.is_last();
                writer.written.0 += 1;
                writer.written_bytes += chunk.plain().len() as u64;
                writer.thread.write(chunk)?;
                let synced_chunks = self.transfer.durability() == Durability::SyncedChunks && !writer.whole;
                let more_waits = !writer.queue.is_empty();
                if synced_chunks && writer.syncing.is_due(writer.written_bytes, more_waits) {
                    let unsynced_bytes = self.target.unsynced_bytes();
                    assert!(
                        !more_waits || unsynced_bytes >= UNSYNCED_BYTES_MAX,
                        "it is synced more often than it has to be"
                    );
                    let killed = world.reach(RECEIVER, Moment::StagedWritten);
                    if killed.is_err() {
                        self.target.dies(Dies::BeforeSync);
                    }
                    writer.thread.sync()?;
                    killed?;
                    world.reach(RECEIVER, Moment::StagedSynced)?;
                    writer.syncing.handle_synced(writer.written_bytes);
                    self.transfer.handle_synced(part, writer.written);
                }
                if synced_chunks {
                    let unsynced_bytes = self.target.unsynced_bytes();
                    assert!(unsynced_bytes < UNSYNCED_BYTES_MAX, "{unsynced_bytes} bytes could be lost with the power");
                    let synced = self.target.synced_chunks();
                    assert!(self.transfer.verified(part).0 <= synced, "a chunk counts, and {synced} are synced");
                }
                return Ok(true);
            }
            writer.done = true;
            world.check_grant(RECEIVER);
            let killed = world.reach(RECEIVER, Moment::CommitWritten);
            if killed.is_err() {
                self.target.dies(Dies::BeforeSync);
            }
            let finished = writer.thread.finish();
            killed?;
            for part in finished? {
                self.transfer.handle_finished(part);
            }
            world.reach(RECEIVER, Moment::Committed)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Ends the load in its target, and reads it back.
    pub fn prove(&mut self, digests: &Digests) -> Outcome<Evidence> {
        let Held::Loading(load) = std::mem::replace(&mut self.held, Held::Nothing) else {
            return Err(Code::Internal.into());
        };
        let proven = load.prove(digests).map_err(|failed| failed.failure.code)?;
        let evidence = proven.evidence().clone();
        self.held = Held::Proven(proven);
        Ok(evidence)
    }

    /// Shows the load under its final name, in the process that has proven it or in a later one.
    pub fn publish(&mut self, world: &mut World<'_>) -> Outcome {
        let killed = world.reach(RECEIVER, Moment::PublishWritten);
        if killed.is_err() {
            self.target.dies(Dies::BeforeSync);
        }
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Proven(proven) => proven.publish().map_err(|failed| failed.failure.code)?,
            Held::Loading(_) => return Err(Code::Internal.into()),
            Held::Nothing => self.target.publish(TRANSFER)?,
        }
        killed?;
        world.reach(RECEIVER, Moment::Published)
    }

    pub fn next_event_ms(&self, now_ms: u64) -> Option<u64> {
        self.writers.values().filter_map(|writer| writer.busy_until_ms).filter(|at| *at > now_ms).min()
    }
}
