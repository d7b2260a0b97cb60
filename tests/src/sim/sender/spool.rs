//! The spool of a source that can be read only once: filled whether or not there is a link, and
//! sent from. What is appended, and when it may be sent, [`SpoolFilling`] says.

use sealift_protocol::{
    chunk::Sealed,
    disposition::sender::Sends,
    frame::ChunkHeader,
    id::ChunkIndex,
    key::KeyCommitment,
    manifest::SignedManifest,
    random::Nonce,
    seal::seal,
    sealed_log::Record,
    send::{SPOOLED_PART, SenderSession, Spool as Keys, SpoolContents, SpoolFilling},
};

use super::{
    super::{
        fault::Moment,
        world::{Outcome, World},
    },
    Disk, SENDER, Sender,
    disk::{Place, keep, record, transfer},
};

/// Chunks that are synced together, at most.
const BATCH_MAX: usize = 3;

/// A spool that is sent from.
pub struct Spool {
    /// Chunks that are durable.
    pub frames: u64,
    /// Once all of the source is.
    pub whole: Option<SignedManifest>,
    filling: Option<Filling>,
}

struct Filling {
    rules: SpoolFilling,
    /// Of the keys that it is sealed with.
    commitment: KeyCommitment,
    unsynced: usize,
    /// When the source will have ended, of which the last byte is spooled.
    ends_at_ms: Option<u64>,
}

impl Spool {
    /// When its source will have ended.
    pub fn next_event_ms(&self) -> Option<u64> {
        self.filling.as_ref()?.ends_at_ms
    }

    /// A chunk that is durable.
    pub fn frame(&self, at: ChunkIndex, disk: &Disk) -> (ChunkHeader, Vec<u8>) {
        // The epoch is the first record.
        let place = at.0 as usize + 1;
        assert!(place < disk.spool.synced(), "a chunk is sent that a loss of power would take away");
        match disk.spool.values().nth(place) {
            Some(Record::Chunk { header, sealed }) => (*header, [&header.to_bytes()[..], sealed].concat()),
            other => panic!("no chunk: {other:?}"),
        }
    }
}

impl Sender<'_> {
    /// What an earlier process had spooled of its source, if that is all of it.
    pub(super) fn resume_spool(&mut self, disk: &mut Disk) -> Outcome<bool> {
        let Some(place) = record(disk)?.spool else { return Ok(false) };
        let mut contents = SpoolContents::default();
        let found = disk.spool.recover();
        assert!(!place.made || !found.is_empty(), "a spool that was made is gone");
        found.iter().try_for_each(|record| contents.handle(record))?;
        let Some(whole) = contents.whole() else { return Ok(false) };
        self.transfer.handle_earlier(whole.manifest.clone());
        self.transfer.handle_spool(Keys { epoch: whole.epoch, key: place.key });
        self.attempt.handle_earlier(Sends::Spool);
        self.spool = Some(Spool { frames: whole.frames, whole: Some(whole.manifest), filling: None });
        Ok(true)
    }

    /// The first connection stands: from here on the source goes into the spool, under its keys.
    pub(super) fn begin_spool(
        &mut self,
        session: &SenderSession,
        commitment: KeyCommitment,
        disk: &mut Disk,
        world: &mut World<'_>,
    ) -> Outcome {
        let Some(source) = self.source.as_mut().filter(|_| world.scenario.spools && self.spool.is_none()) else {
            return Ok(());
        };
        let kept = record(disk)?;
        let rules = transfer(&kept, &self.grant, self.transfer.plan().clone(), world)?;
        // The record first: by it a later process knows what to remove.
        let mut place = Place { key: session.spool.key, made: false };
        let mut kept = super::disk::Record { spool: Some(place.clone()), ..kept };
        keep(disk, Some(kept.clone()), world)?;
        disk.spool.begin_anew();
        disk.spool.append(Record::Epoch(session.spool.epoch.clone()));
        world.reach(SENDER, Moment::SpoolMade)?;
        disk.spool.sync();
        place.made = true;
        kept.spool = Some(place);
        keep(disk, Some(kept), world)?;
        source.ask(SPOOLED_PART, &self.transfer)?;
        let rules = SpoolFilling::new(rules, session.keys.clone());
        let filling = Some(Filling { rules, commitment, unsynced: 0, ends_at_ms: None });
        self.transfer.handle_spool(session.spool.clone());
        self.spool = Some(Spool { frames: 0, whole: None, filling });
        Ok(())
    }

    /// One step from the source into the spool.
    pub(super) fn fill_spool(&mut self, disk: &mut Disk, world: &mut World<'_>) -> Outcome<bool> {
        let Self { spool, source, packer, nonces, signer, .. } = self;
        let (Some(spool), Some(source)) = (spool, source) else { return Ok(false) };
        let Some(filling) = &mut spool.filling else { return Ok(false) };
        if source.step(world)? {
            return Ok(true);
        }
        let lane = source.lanes.get_mut(&SPOOLED_PART.0).expect("asked for when the spool was made");
        let more = filling.unsynced < BATCH_MAX;
        if let Some(chunk) = lane.waiting.take_if(|_| more) {
            let nonce: Nonce = nonces.draw()?;
            let packed = packer.pack(chunk, filling.rules.keys().digests());
            let sealed: Sealed = seal(packed, filling.rules.keys(), nonce)?;
            world.checks.sealed(filling.commitment, &sealed);
            disk.spool.append(filling.rules.append(&sealed));
            filling.unsynced += 1;
            world.reach(SENDER, Moment::SpoolWritten)?;
            return Ok(true);
        }
        if filling.unsynced > 0 {
            disk.spool.sync();
            filling.unsynced = 0;
            spool.frames = filling.rules.handle_synced()?;
            world.reach(SENDER, Moment::SpoolSynced)?;
            return Ok(true);
        }
        let Some(rows) = lane.drained() else { return Ok(false) };
        let lingers_ms = world.wire.chance.below(world.scenario.lingers_ms) as u64;
        if *filling.ends_at_ms.get_or_insert(world.now_ms() + lingers_ms) > world.now_ms() {
            return Ok(false);
        }
        let filling = spool.filling.take().expect("it is filled");
        let (manifest, record) = filling.rules.end(rows, *signer, None)?;
        disk.spool.append(record);
        world.reach(SENDER, Moment::SpoolWritten)?;
        disk.spool.sync();
        spool.whole = Some(manifest);
        world.reach(SENDER, Moment::SpoolWhole)?;
        Ok(true)
    }

    /// What was spooled is of no use any more.
    pub(super) fn drop_spool(&mut self, disk: &mut Disk, world: &mut World<'_>) -> Outcome {
        let mut kept = record(disk)?;
        let Some(place) = &mut kept.spool else { return Ok(()) };
        // First: a process that is killed from here on leaves no record of a spool that is gone.
        place.made = false;
        keep(disk, Some(kept.clone()), world)?;
        self.spool = None;
        disk.spool.begin_anew();
        disk.spool.sync();
        world.reach(SENDER, Moment::SpoolGone)?;
        keep(disk, Some(super::disk::Record { spool: None, ..kept }), world)
    }
}
