//! A good Begin, until Ready may be sent: what has to be durable before any data flows.

use std::collections::VecDeque;

use super::{ReceiverSession, ReceiverTransfer};
use crate::{
    close::Code,
    error::{Error, Result},
    message::Message,
    sealed_log::{EpochRecord, Record},
};

/// What is done before Ready, in the order in which [`Agreed::poll`] says it. Each is durable
/// before the next is asked for.
#[derive(Debug)]
pub enum AgreedStep {
    /// Record the epoch, and what distinguishes the sender: a receiver that forgot them could agree
    /// on the epoch once more, or with another sender.
    Keep,
    /// Append the envelope to the journal: no chunk there opens without it.
    Append(Record),
}

/// The sender is the one that began the transfer, and its keys are good.
pub struct Agreed {
    session: ReceiverSession,
    ready: Message,
    is_kept: bool,
    /// The envelopes of the connection and of the sender's spool.
    epochs: VecDeque<Box<EpochRecord>>,
}

impl Agreed {
    pub(super) fn new(session: ReceiverSession, ready: Message, epochs: [Option<Box<EpochRecord>>; 2]) -> Self {
        Self { session, ready, is_kept: false, epochs: epochs.into_iter().flatten().collect() }
    }

    /// The connection that is agreed on.
    pub fn session(&self) -> &ReceiverSession {
        &self.session
    }

    /// What is to be done next for `transfer`, whose target is prepared; `None` once Ready may be
    /// sent.
    pub fn poll(&mut self, transfer: &ReceiverTransfer) -> Option<AgreedStep> {
        if !std::mem::replace(&mut self.is_kept, true) {
            return Some(AgreedStep::Keep);
        }
        if !transfer.has_journal() {
            self.epochs.clear();
        }
        self.epochs.pop_front().map(|epoch| AgreedStep::Append(Record::Epoch(epoch)))
    }

    /// Ready, and the session that it begins. Fails if a step is left.
    pub fn ready(self) -> Result<(ReceiverSession, Message)> {
        match self.is_kept && self.epochs.is_empty() {
            true => Ok((self.session, self.ready)),
            false => Err(Error::new(Code::Internal, "Ready before what it promises is durable")),
        }
    }
}
