//! What a transfer is at its sender over all its connections: the state machine, the source's
//! thread, and the parts that are being read.

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    collections::BTreeMap,
    convert::Infallible,
    rc::Rc,
};

use sealift_agent::{
    failure::{Failure, Outcome},
    report::Report,
    stop::{Cause, Stop},
};
use sealift_protocol::{
    close::Code,
    frame::ChunkHeader,
    id::{ChunkCount, ChunkIndex, PartIndex},
    message::{Ack, Have},
    send::{Readable, SenderSession, SenderTransfer, SourceLane, Spool as Keys},
};
use tokio::sync::{Mutex, Notify};

use crate::{
    arrivals::{Arrivals, SentChunk},
    lane::{Lane, Sealer},
    reader::{Reader, ReadingPart},
    spool::Spool,
};

pub struct Outgoing {
    transfer: RefCell<SenderTransfer>,
    /// None while nothing has to be read: an earlier process had sent all of it.
    reader: Option<Reader>,
    pub sealer: Rc<Sealer>,
    spool: RefCell<Option<Rc<Spool>>>,
    spool_made: Notify,
    lanes: RefCell<BTreeMap<PartIndex, Rc<Mutex<Lane>>>>,
    arrivals: RefCell<Arrivals>,
    /// The receiver acknowledged something since `take_progress`.
    progress: Cell<bool>,
}

impl Outgoing {
    pub fn new(transfer: SenderTransfer, reader: Option<Reader>, sealer: Sealer) -> Self {
        let (transfer, spool, lanes) = (RefCell::new(transfer), RefCell::default(), RefCell::default());
        let (arrivals, progress) = (RefCell::default(), Cell::default());
        let spool_made = Notify::new();
        Self { transfer, reader, sealer: Rc::new(sealer), spool, spool_made, lanes, arrivals, progress }
    }

    pub fn transfer(&self) -> Ref<'_, SenderTransfer> {
        self.transfer.borrow()
    }

    pub fn transfer_mut(&self) -> RefMut<'_, SenderTransfer> {
        self.transfer.borrow_mut()
    }

    /// Takes an acknowledgement, and returns the chunks that have arrived by it.
    pub fn handle_ack(&self, ack: &Ack) -> Outcome<Vec<SentChunk>> {
        let is_more = self.transfer_mut().handle_ack(ack)?;
        self.progress.set(self.progress.get() || is_more);
        Ok(self.arrivals.borrow_mut().handle_verified(ack.part, ack.verified))
    }

    /// Whether the receiver acknowledged anything since this was last asked.
    pub fn take_progress(&self) -> bool {
        self.progress.take()
    }

    /// From now on everything is sent from this spool, which these keys open.
    pub fn set_spool(&self, spool: Rc<Spool>, keys: Keys) {
        self.transfer_mut().handle_spool(keys);
        *self.spool.borrow_mut() = Some(spool);
        self.spool_made.notify_one();
    }

    pub fn spool(&self) -> Option<Rc<Spool>> {
        self.spool.borrow().clone()
    }

    /// A chunk is sent; whether for the first time in this process.
    pub fn handle_sent(&self, header: &ChunkHeader) -> bool {
        self.arrivals.borrow_mut().handle_sent(header, self.rows())
    }

    /// A chunk is at the receiver already. Returns how many rows were read with it, or `None` if it
    /// was counted before.
    pub fn handle_held(&self, part: PartIndex, index: ChunkIndex) -> Option<u64> {
        self.arrivals.borrow_mut().handle_held(part, index, self.rows())
    }

    /// The chunks of a part that are counted as arrived.
    pub fn arrived(&self, part: PartIndex) -> ChunkCount {
        self.arrivals.borrow().arrived(part)
    }

    /// Whether there is a source to be read.
    pub fn has_source(&self) -> bool {
        self.reader.is_some()
    }

    /// What ends the reading of this source, and with it the transfer; without one, what ends the
    /// transfer.
    pub fn stop(&self, transfer: &Stop) -> Stop {
        self.reader.as_ref().map_or_else(|| transfer.clone(), |reader| reader.stop().clone())
    }

    /// The receiver has ended the transfer: nothing more is read of this source.
    pub fn end_reading(&self, why: &Failure) {
        if let Some(reader) = &self.reader {
            reader.stop().raise(Cause::Peer, why.clone());
        }
    }

    /// Says when all of a source that is spooled is durable here. Never returns. Cancel-safe.
    pub async fn report_spooled(&self, report: &Report) -> Infallible {
        loop {
            if let Some(spool) = self.spool() {
                spool.report_whole(report).await;
            }
            self.spool_made.notified().await;
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

    /// A new connection stands, and the receiver has what its session says. Returns the chunks
    /// whose acknowledgement was lost with an earlier one. Fails with `ResumeImpossible` where it
    /// lacks what cannot be read again.
    pub fn resume(&self, session: &SenderSession) -> Outcome<Vec<SentChunk>> {
        let spooled = self.spool().map(|spool| Readable::Spooled(spool.frames()));
        let readable = spooled.unwrap_or_else(|| Readable::of_source(self.reader.as_ref().map(Reader::can_repeat)));
        let repeated = self.transfer_mut().resume(session, readable)?;
        let arrived = self.handle_have(&session.have);
        if spooled.is_some() {
            // It is read again from there.
            self.arrivals.borrow_mut().handle_repeat_all();
        }
        let mut lanes = self.lanes.borrow_mut();
        for part in repeated {
            lanes.remove(&part);
            self.arrivals.borrow_mut().handle_repeat(part);
        }
        Ok(arrived)
    }

    fn handle_have(&self, have: &[Have]) -> Vec<SentChunk> {
        let mut arrivals = self.arrivals.borrow_mut();
        have.iter().flat_map(|have| arrivals.handle_verified(have.part, have.verified)).collect()
    }

    /// The lane of a part; its reading begins if it has none, once what a lane needs is free.
    /// Cancel-safe.
    pub async fn lane(&self, part: PartIndex) -> Outcome<Rc<Mutex<Lane>>> {
        if let Some(lane) = self.lanes.borrow().get(&part) {
            return Ok(Rc::clone(lane));
        }
        let budget = self.sealer.budget.open_lane().await?;
        let reading = self.read(part)?;
        let lane =
            Rc::new(Mutex::new(Lane::new(reading, budget, SourceLane::new(&self.transfer(), part), &self.sealer)));
        self.lanes.borrow_mut().insert(part, Rc::clone(&lane));
        Ok(lane)
    }
}
