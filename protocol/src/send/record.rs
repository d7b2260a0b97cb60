//! What a sender records of a transfer, so that a later process resumes it, and the order in which
//! that is written: Begin is said once the record names the connection, and Finish once it holds
//! the manifest. Drivers write the record, with what is theirs, and report it.

use minicbor::{Decode, Encode};

use super::{Beginning, exchange::Accepted};
use crate::{
    close::Code,
    disposition::sender::SenderStage,
    error::{Error, Result},
    id::Epoch,
    manifest::{Plan, SignedManifest},
    message::Message,
    seal::Suite,
};

/// The record of one transfer.
#[derive(Clone, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct SenderRecord {
    #[n(0)]
    stage: SenderStage,
    /// From [`SenderStage::AllSent`] on.
    #[n(1)]
    sent: Option<Sent>,
    /// Those of its connections, under which a receipt may have been signed. There are as many as
    /// there are suites.
    #[n(2)]
    suites: Vec<Suite>,
    /// The receiver has said that its loader may have committed.
    #[n(3)]
    in_doubt: bool,
    /// The latest that a connection was agreed on with; 0 before the first.
    #[n(4)]
    epoch: Epoch,
    /// It was changed since it was last written.
    #[cbor(skip)]
    unwritten: bool,
}

/// All that was sent, so that only the receipt is missing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sent {
    /// The plan that was offered.
    #[n(0)]
    pub plan: Plan,
    /// The manifest over all of it.
    #[n(1)]
    pub manifest: SignedManifest,
}

impl SenderRecord {
    /// How far the transfer is.
    pub fn stage(&self) -> SenderStage {
        self.stage
    }

    /// Whether a receiver may know the transfer.
    pub fn is_begun(&self) -> bool {
        self.stage != SenderStage::Prepared
    }

    /// What was sent, if all of it was.
    pub fn sent(&self) -> Option<&Sent> {
        self.sent.as_ref()
    }

    /// The suites that its connections were agreed on with.
    pub fn suites(&self) -> &[Suite] {
        &self.suites
    }

    /// Whether the target may hold the load, or a part of it, by the receiver's own statement.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Whether it has to be written.
    pub fn is_unwritten(&self) -> bool {
        self.unwritten
    }

    /// It is durable as it is.
    pub fn handle_written(&mut self) {
        self.unwritten = false;
    }

    /// The terms of a connection are good. From Begin on, the receiver may know the transfer by a
    /// secret that only this side has.
    pub fn handle_accepted(&mut self, accepted: &Accepted) {
        let suite = accepted.suite();
        let is_known = self.is_begun() && self.suites.contains(&suite) && !self.in_doubt;
        self.unwritten |= !is_known;
        self.stage = self.stage.max(SenderStage::Begun);
        // A receiver whose transfer is in doubt agrees to nothing.
        self.in_doubt = false;
        if !self.suites.contains(&suite) {
            self.suites.push(suite);
        }
    }

    /// Begin, and what it leads to. Fails if the record does not durably name the connection.
    pub fn begin(&self, accepted: Accepted) -> Result<(Beginning, Message)> {
        match !self.unwritten && self.is_begun() && self.suites.contains(&accepted.suite()) {
            true => Ok(accepted.begin()),
            false => Err(Error::new(Code::Internal, "Begin before the record of it is durable")),
        }
    }

    /// A connection was agreed on with this epoch. Returns whether it is none that comes after
    /// those of earlier processes: then the receiver was put back to an earlier state.
    pub fn handle_epoch(&mut self, epoch: Epoch) -> bool {
        let is_repeated = epoch <= self.epoch;
        self.epoch = epoch;
        self.unwritten = true;
        is_repeated
    }

    /// The receiver cannot say whether its target holds the load.
    pub fn handle_in_doubt(&mut self) {
        self.in_doubt = true;
        self.unwritten = true;
    }

    /// Everything was sent, and verified by the receiver.
    pub fn handle_all_sent(&mut self, sent: Sent) {
        self.stage = SenderStage::AllSent;
        self.sent = Some(sent);
        self.unwritten = true;
    }

    /// Finish. Fails if the record does not durably hold the manifest: the receiver may publish
    /// what it states, and a later process could send another.
    pub fn finish(&self) -> Result<Message> {
        match &self.sent {
            Some(sent) if !self.unwritten => Ok(Message::Finish(sent.manifest.clone())),
            _ => Err(Error::new(Code::Internal, "Finish before the record of it is durable")),
        }
    }

    /// The source is sent from its beginning: an earlier manifest is of no use any more.
    pub fn handle_unsent(&mut self) {
        self.sent = None;
        self.stage = self.stage.min(SenderStage::Begun);
        self.unwritten = true;
    }

    /// Another source takes the place of the one that was sent.
    pub fn handle_replaced(&mut self) {
        self.sent = None;
        self.unwritten = true;
    }
}
