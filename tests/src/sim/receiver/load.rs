//! The load of one transfer: what outlives a connection at the receiver. The state machine, the
//! sink, and the threads that write into it.

use std::collections::{BTreeMap, VecDeque};

use sealift_protocol::{
    chunk::VerifiedChunk,
    envelope::SealingKey,
    id::PartIndex,
    manifest::SignedReceipt,
    receive::{JournalReplay, ReceiverTransfer, Replayed, WholePart},
};

use super::{
    super::{
        fault::Moment,
        world::{Outcome, Side, World},
    },
    target::{Disk, Target},
};
use crate::wire::TRANSFER;

const RECEIVER: Side = Side::Receiver;

/// Chunks that a writer may have: one that it writes, and the next.
const CHUNKS_WAITING: usize = 2;

/// How often a part waits for another one to be committed with.
const SHARED_PERCENT: f64 = 50.0;

pub struct Load {
    pub transfer: ReceiverTransfer,
    pub target: Target,
    writers: BTreeMap<u32, Writer>,
}

/// The thread that writes one part.
#[derive(Default)]
struct Writer {
    queue: VecDeque<VerifiedChunk>,
    /// It has all of the part.
    whole: bool,
    done: bool,
    busy_until_ms: Option<u64>,
}

impl Load {
    /// Opens the target; `fresh` drops what an earlier attempt left there.
    pub fn open(
        mut transfer: ReceiverTransfer,
        fresh: bool,
        sealing_key: &SealingKey,
        disk: &mut Disk,
        world: &mut World<'_>,
    ) -> Outcome<Self> {
        if fresh {
            world.checks.target_forgot = true;
            disk.drop_staged();
            world.reach(RECEIVER, Moment::TargetDropped)?;
            disk.sync_staged();
        }
        let (target, found) = Target::open(world.scenario, false, disk);
        found.into_iter().for_each(|whole| transfer.handle_found(whole));
        transfer.handle_prepared(world.scenario.durability());
        let mut load = Self { transfer, target, writers: BTreeMap::new() };
        if load.transfer.has_journal() {
            load.feed_from_journal(sealing_key, disk)?;
        }
        Ok(load)
    }

    /// Opens what was proven by an earlier process.
    pub fn open_proven(
        mut transfer: ReceiverTransfer,
        receipt: &SignedReceipt,
        disk: &mut Disk,
        world: &World<'_>,
    ) -> Self {
        for (sent, index) in receipt.receipt.manifest.manifest.parts.iter().zip(0..) {
            let (part, chunks, plain_bytes, root) = (PartIndex(index), sent.chunks, sent.plain_bytes, sent.root);
            transfer.handle_found(WholePart { part, chunks, plain_bytes, root });
        }
        let (target, _) = Target::open(world.scenario, true, disk);
        Self { transfer, target, writers: BTreeMap::new() }
    }

    /// A fresh loader gets what the journal holds, without the network.
    fn feed_from_journal(&mut self, sealing_key: &SealingKey, disk: &mut Disk) -> Outcome {
        let mut replay = JournalReplay::new(TRANSFER, SealingKey::from_bytes(&sealing_key.expose()[..])?)?;
        for record in disk.journal.recover() {
            match replay.handle(record)? {
                Some(Replayed::Secret(secret)) => self.transfer.handle_digest_secret(&secret)?,
                Some(Replayed::Chunk(chunk)) => {
                    let part = chunk.part();
                    assert!(self.begin(part.0), "the one part of a dump");
                    self.target.write(part.0 as usize, chunk.plain(), chunk.hash());
                    self.transfer.handle_taken(chunk.taken());
                    self.writers.entry(part.0).or_default().whole = chunk.is_last();
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Whether the part can be written: it is, from when its turn has come.
    pub fn begin(&mut self, part: u32) -> bool {
        if self.writers.contains_key(&part) {
            return true;
        }
        let Some(digests) = self.transfer.digests().cloned() else { return false };
        if !self.transfer.may_begin(PartIndex(part)) || !self.target.begin(part as usize, &digests) {
            return false;
        }
        self.writers.insert(part, Writer::default());
        self.transfer.handle_begun(PartIndex(part));
        true
    }

    /// Whether the part's writer takes another chunk now.
    pub fn has_room(&self, part: u32) -> bool {
        self.writers.get(&part).is_some_and(|writer| writer.queue.len() < CHUNKS_WAITING)
    }

    /// Passes a chunk to the target.
    pub fn write(&mut self, chunk: VerifiedChunk) {
        let taken = chunk.taken();
        let writer = self.writers.get_mut(&chunk.part().0).expect("a part is begun before its chunks are read");
        writer.queue.push_back(chunk);
        self.transfer.handle_taken(taken);
    }

    /// One step of the writers.
    pub fn step(&mut self, disk: &mut Disk, world: &mut World<'_>) -> Outcome<bool> {
        for (&part, writer) in &mut self.writers {
            let now_ms = world.now_ms();
            let has_work = !writer.queue.is_empty() || writer.whole && !writer.done;
            match writer.busy_until_ms {
                None if has_work => {
                    writer.busy_until_ms = Some(now_ms + world.wire.chance.below(30) as u64);
                    return Ok(true);
                }
                Some(until_ms) if until_ms <= now_ms => {}
                _ => continue,
            }
            writer.busy_until_ms = None;
            if let Some(chunk) = writer.queue.pop_front() {
                self.target.write(part as usize, chunk.plain(), chunk.hash());
                writer.whole |= chunk.is_last();
                return Ok(true);
            }
            writer.done = true;
            world.check_grant(RECEIVER);
            self.target.end(part as usize);
            if self.target.may_share(part as usize) && world.wire.chance.chance(SHARED_PERCENT) {
                return Ok(true);
            }
            let committed = self.target.commit(disk);
            world.reach(RECEIVER, Moment::CommitWritten)?;
            for part in committed {
                disk.parts[part].sync();
                self.transfer.handle_finished(PartIndex(part as u32));
            }
            world.reach(RECEIVER, Moment::Committed)?;
            return Ok(true);
        }
        Ok(false)
    }

    pub fn next_event_ms(&self, now_ms: u64) -> Option<u64> {
        self.writers.values().filter_map(|writer| writer.busy_until_ms).filter(|at| *at > now_ms).min()
    }
}
