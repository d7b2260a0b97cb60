//! What one process of a sender has come to with its transfer, from one attempt to the next.

use super::{Contact, During, Replay, SenderStage, Sends, Standing};
use crate::disposition::Asks;

/// The state on which the table looks when an attempt fails. Drivers report what happens; nothing
/// else changes it.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    contact: Contact,
    sends: Sends,
    asks: Asks,
    during: During,
    replay: Replay,
}

impl Attempt {
    /// Of a process that finds the transfer at this stage. `asks` is what its command asks of what
    /// the receiver has.
    pub fn new(found: SenderStage, replay: Replay, asks: Asks) -> Self {
        let Standing { contact, sends, .. } = Standing::found(found, replay);
        Self { contact, sends, asks, during: During::Exchange, replay }
    }

    /// Whether a receiver ever sent Ready.
    pub fn contact(&self) -> Contact {
        self.contact
    }

    /// Where this process reads what it sends.
    pub fn sends(&self) -> Sends {
        self.sends
    }

    /// What the next offer asks of what the receiver has.
    pub fn asks(&self) -> Asks {
        self.asks
    }

    /// How far the attempt has come.
    pub fn during(&self) -> During {
        self.during
    }

    /// An earlier process had read the source, and it has to be brought again.
    pub fn comes_again(&self) -> bool {
        self.contact == Contact::Earlier && self.replay == Replay::Never
    }

    /// An earlier process had sent, or spooled, all of it.
    pub fn handle_earlier(&mut self, sends: Sends) {
        self.sends = sends;
    }

    /// The source is about to be opened, with no connection.
    pub fn handle_opening(&mut self) {
        self.during = During::Exchange;
        self.sends = Sends::Source;
    }

    /// The source is open. Where an earlier process had read some of it and it can be read only
    /// once, the receiver is asked to start over; returns whether it is, for that reason.
    pub fn handle_opened(&mut self, can_repeat: bool) -> bool {
        let starts_over = !can_repeat && self.contact == Contact::Earlier && self.asks == Asks::Continue;
        if starts_over {
            self.asks = Asks::StartOver;
        }
        starts_over
    }

    /// The program is run again: what it prints is of another moment, and the receiver is asked to
    /// start over.
    pub fn handle_run_again(&mut self) {
        self.asks = Asks::StartOver;
    }

    /// A connection is tried.
    pub fn handle_connecting(&mut self) {
        self.during = During::Exchange;
    }

    /// The record says that the transfer has begun, and Begin is about to be sent.
    pub fn handle_begin(&mut self) {
        self.during = During::Beginning;
    }

    /// The receiver has sent Ready.
    pub fn handle_ready(&mut self) {
        self.during = During::Data;
    }

    /// What the receiver lacks can be sent: from now on the transfer is resumed.
    pub fn handle_resumed(&mut self) {
        self.contact = Contact::Made;
        self.asks = Asks::Continue;
    }

    /// The state for the table, at this recorded stage.
    pub fn standing(&self, stage: SenderStage) -> Standing {
        Standing { stage, contact: self.contact, sends: self.sends, replay: self.replay, asks: self.asks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_once_is_asked_for_from_the_start_by_a_later_process_alone() {
        for (stage, replay, starts_over) in [
            (SenderStage::Prepared, Replay::Never, false),
            (SenderStage::Begun, Replay::Never, true),
            (SenderStage::Begun, Replay::RunAgain, true),
            (SenderStage::Begun, Replay::Always, false),
        ] {
            let mut attempt = Attempt::new(stage, replay, Asks::Continue);
            assert_eq!(attempt.handle_opened(replay == Replay::Always), starts_over, "{stage:?} {replay:?}");
            assert_eq!(attempt.asks() == Asks::StartOver, starts_over);
            attempt.handle_ready();
            attempt.handle_resumed();
            assert_eq!((attempt.contact(), attempt.asks()), (Contact::Made, Asks::Continue));
            assert!(!attempt.handle_opened(false), "this process has what it read");
        }
    }
}
