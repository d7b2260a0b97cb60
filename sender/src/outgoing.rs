//! What a transfer is at its sender over all its connections: the state machine, the source's thread, and the parts that
//! are being read.

use std::{
    cell::{Ref, RefCell, RefMut},
    collections::BTreeMap,
    rc::Rc,
};

use sealift_agent::failure::{Failure, Outcome};
use sealift_protocol::{
    close::Code,
    error::Error,
    id::PartIndex,
    message::Have,
    send::{Resume, Transfer},
};
use tokio::sync::Mutex;

use crate::{
    lane::{Lane, Sealer},
    reader::Reader,
};

pub struct Outgoing {
    transfer: RefCell<Transfer>,
    /// None while nothing has to be read: an earlier process had sent all of it.
    reader: Option<Reader>,
    pub sealer: Rc<Sealer>,
    lanes: RefCell<BTreeMap<PartIndex, Rc<Mutex<Lane>>>>,
}

impl Outgoing {
    pub fn new(transfer: Transfer, reader: Option<Reader>, sealer: Sealer) -> Self {
        let (transfer, lanes) = (RefCell::new(transfer), RefCell::default());
        Self { transfer, reader, sealer: Rc::new(sealer), lanes }
    }

    pub fn transfer(&self) -> Ref<'_, Transfer> {
        self.transfer.borrow()
    }

    pub fn transfer_mut(&self) -> RefMut<'_, Transfer> {
        self.transfer.borrow_mut()
    }

    /// A new connection stands, and the receiver has this much. Fails with `ResumeImpossible` where it lacks what cannot be
    /// read again.
    pub fn resume(&self, have: &[Have]) -> Outcome {
        let resumed = self.transfer_mut().handle_have(have)?;
        let impossible = || Err(Error::new(Code::ResumeImpossible, "source").into());
        let is_whole = || (0..resumed.len() as u32).all(|part| !self.transfer().is_open(PartIndex(part)));
        // Nothing was opened to be read, since all of it had been sent; and the receiver has lost it.
        if self.reader.is_none() && !is_whole() {
            return impossible();
        }
        let mut lanes = self.lanes.borrow_mut();
        for (resume, part) in resumed.into_iter().zip((0..).map(PartIndex)) {
            if resume == Resume::Continue {
                continue;
            }
            // Dropped before anything is asked for again: the source's thread may be waiting to hand on more of it.
            lanes.remove(&part);
            if !self.reader.as_ref().is_some_and(Reader::can_repeat) {
                return impossible();
            }
        }
        Ok(())
    }

    /// The lane of a part; its reading begins if it has none.
    pub fn lane(&self, part: PartIndex) -> Outcome<Rc<Mutex<Lane>>> {
        if let Some(lane) = self.lanes.borrow().get(&part) {
            return Ok(Rc::clone(lane));
        }
        let reader = self.reader.as_ref().ok_or_else(|| Failure::new(Code::Internal, "no source", ""))?;
        let reading = reader.read(part, self.transfer().digests().multiset())?;
        let lane = Rc::new(Mutex::new(Lane::new(reading, self.transfer().held(part), &self.sealer)));
        self.lanes.borrow_mut().insert(part, Rc::clone(&lane));
        Ok(lane)
    }
}
