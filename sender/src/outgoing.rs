//! What a transfer is at its sender over all its connections: the state machine, the source's
//! thread, and the parts that are being read.

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    collections::BTreeMap,
    rc::Rc,
};

use sealift_agent::{
    failure::{Failure, Outcome},
    report::Report,
};
use sealift_protocol::{
    close::Code,
    error::Error,
    id::{ChunkCount, ChunkIndex, PartIndex},
    message::Ack,
    send::{Readable, Session, Spool as Keys, Transfer},
};
use tokio::sync::Mutex;

use crate::{
    lane::{Lane, Sealer},
    reader::{Reader, ReadingPart},
    spool::Spool,
};

pub struct Outgoing {
    transfer: RefCell<Transfer>,
    /// None while nothing has to be read: an earlier process had sent all of it.
    reader: Option<Reader>,
    pub sealer: Rc<Sealer>,
    spool: RefCell<Option<Rc<Spool>>>,
    lanes: RefCell<BTreeMap<PartIndex, Rc<Mutex<Lane>>>>,
    /// Chunks of each part that this process has counted, sent or found at the receiver.
    counted: RefCell<BTreeMap<PartIndex, ChunkCount>>,
    /// The receiver acknowledged something since `take_progress`.
    progress: Cell<bool>,
}

impl Outgoing {
    pub fn new(transfer: Transfer, reader: Option<Reader>, sealer: Sealer) -> Self {
        let (transfer, spool, lanes) = (RefCell::new(transfer), RefCell::default(), RefCell::default());
        let (counted, progress) = (RefCell::default(), Cell::default());
        Self { transfer, reader, sealer: Rc::new(sealer), spool, lanes, counted, progress }
    }

    pub fn transfer(&self) -> Ref<'_, Transfer> {
        self.transfer.borrow()
    }

    pub fn transfer_mut(&self) -> RefMut<'_, Transfer> {
        self.transfer.borrow_mut()
    }

    pub fn handle_ack(&self, ack: &Ack) -> Outcome {
        let is_more = self.transfer_mut().handle_ack(ack)?;
        self.progress.set(self.progress.get() || is_more);
        Ok(())
    }

    /// Whether the receiver acknowledged anything since this was last asked.
    pub fn take_progress(&self) -> bool {
        self.progress.take()
    }

    /// From now on everything is sent from this spool, which these keys open.
    pub fn set_spool(&self, spool: Rc<Spool>, keys: Keys) {
        self.transfer_mut().handle_spool(keys);
        *self.spool.borrow_mut() = Some(spool);
    }

    pub fn spool(&self) -> Option<Rc<Spool>> {
        self.spool.borrow().clone()
    }

    /// Whether this chunk comes for the first time: a part that is read again gives those of
    /// before.
    pub fn is_new(&self, part: PartIndex, index: ChunkIndex) -> bool {
        let mut counted = self.counted.borrow_mut();
        let counted = counted.entry(part).or_insert(ChunkCount(0));
        let is_new = index.0 >= counted.0;
        counted.0 = counted.0.max(index.0 + 1);
        is_new
    }

    /// Whether there is a source to be read.
    pub fn has_source(&self) -> bool {
        self.reader.is_some()
    }

    /// Returns when a source that is spooled, ahead of the link or without one, cannot be read to
    /// its end.
    pub async fn source_failed(&self, report: &Report) -> Failure {
        match self.spool() {
            Some(spool) => spool.failed(report).await,
            None => std::future::pending().await,
        }
    }

    /// Runs `work`, unless the source fails meanwhile.
    pub async fn or<T>(&self, report: &Report, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        tokio::select! {
            outcome = work => outcome,
            failure = self.source_failed(report) => Err(failure),
        }
    }

    /// Rows that were read so far; those that the receiver had are among them.
    pub fn rows(&self) -> u64 {
        self.reader.as_ref().map_or(0, Reader::rows)
    }

    /// Begins to read a part of the source.
    pub fn read(&self, part: PartIndex) -> Outcome<ReadingPart> {
        let reader = self.reader.as_ref().ok_or_else(|| Failure::new(Code::Internal, "no source", ""))?;
        reader.read(part, self.transfer().digests().multiset())
    }

    /// A new connection stands, and the receiver has what its session says. Fails with
    /// `ResumeImpossible` where it lacks what cannot be read again.
    pub fn resume(&self, session: &Session) -> Outcome {
        let (have, epoch) = (&session.have, session.keys.epoch());
        if let Some(spool) = self.spool() {
            if have.iter().any(|have| have.verified.0 > spool.frames()) {
                return Err(Error::new(Code::AckImpossible, "more than was spooled").into());
            }
            self.transfer_mut().handle_have(have, epoch)?;
            return Ok(());
        }
        let readable = match &self.reader {
            None => Readable::Nothing,
            Some(reader) if reader.can_repeat() => Readable::Again,
            Some(_) => Readable::Once,
        };
        let repeated = self.transfer_mut().resume(session, readable)?;
        let mut lanes = self.lanes.borrow_mut();
        repeated.iter().for_each(|part| drop(lanes.remove(part)));
        Ok(())
    }

    /// The lane of a part; its reading begins if it has none.
    pub fn lane(&self, part: PartIndex) -> Outcome<Rc<Mutex<Lane>>> {
        if let Some(lane) = self.lanes.borrow().get(&part) {
            return Ok(Rc::clone(lane));
        }
        let reading = self.read(part)?;
        let lane = Rc::new(Mutex::new(Lane::new(reading, self.transfer().held(part), &self.sealer)));
        self.lanes.borrow_mut().insert(part, Rc::clone(&lane));
        Ok(lane)
    }
}
