//! What is done with a transfer when something happens to it: pure tables, one for each side. This
//! module has the receiver's stages and events, [`receiver`] what a failure means to a receiver,
//! and [`sender`] what it means to a sender.
//!
//! The end of a loader's input is its commit point: from then on it may commit, and only its exit
//! says whether it has. Until that exit is observed and recorded, the load is in doubt. It is
//! resolved by the exit, or by a statement of the receiver's operator, and by nothing else.

use minicbor::{Decode, Encode};

pub mod receiver;
pub mod sender;

/// Which side found the reason for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaisedBy {
    /// This side, which sends the code to the other.
    ThisSide,
    /// The other side, which sent the code.
    Peer,
    /// An operator at the other side. This side does not retry by itself.
    PeerOperator,
}

impl RaisedBy {
    /// Every value, for exhaustive tests.
    pub const ALL: [RaisedBy; 3] = [RaisedBy::ThisSide, RaisedBy::Peer, RaisedBy::PeerOperator];

    /// Whether the code came from the other side.
    pub fn is_peer(self) -> bool {
        self != RaisedBy::ThisSide
    }
}

/// What an offer asks of a receiver that holds data of the transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Resume from there.
    Continue,
    /// Drop it, and load from the beginning.
    StartOver,
}

impl Asks {
    /// Every value, for exhaustive tests.
    pub const ALL: [Asks; 2] = [Asks::Continue, Asks::StartOver];
}

/// How far a transfer is at its receiver, as recorded on disk. What is in the target, the target
/// says: up to [`Stage::Loading`] the record says how far the exchange has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Stage {
    /// No offer was accepted: there is a ticket, and no sender has used it for a transfer.
    #[default]
    #[n(0)]
    Issued,
    /// An offer was accepted, or an archive is being opened. The sender may still turn out to be
    /// another than the one that begins.
    #[n(1)]
    Offered,
    /// A Begin was accepted, or the opening of an archive: what distinguishes the sender is
    /// recorded. Nothing of the load is known to be in the target.
    #[n(2)]
    Agreed,
    /// Something of the load is in the target, and nothing of it is visible. What is staged can be
    /// dropped, and a loader that has not seen the end of its input can be killed.
    #[n(3)]
    Loading,
    /// Past the commit point: the loader has seen the end of its input, and this process waits for
    /// its exit. Any other process reads it as [`Stage::InDoubt`].
    #[n(4)]
    Ending,
    /// Past the commit point, and the loader's exit is not known.
    #[n(5)]
    InDoubt,
    /// The load is proven and its receipt is signed.
    #[n(6)]
    ReceiptSigned,
    /// The load is visible under its final name.
    #[n(7)]
    Published,
    /// It was in doubt, and the receiver's operator has stated that the load is in the target.
    /// Nothing proves it.
    #[n(8)]
    StatedLoaded,
}

impl Stage {
    /// Every stage, in the order of their numbers.
    pub const ALL: [Stage; 9] = [
        Stage::Issued,
        Stage::Offered,
        Stage::Agreed,
        Stage::Loading,
        Stage::Ending,
        Stage::InDoubt,
        Stage::ReceiptSigned,
        Stage::Published,
        Stage::StatedLoaded,
    ];

    /// The name in `status` and `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Issued => "ticket_unused",
            Stage::Offered => "offered",
            Stage::Agreed => "agreed",
            Stage::Loading => "loading",
            Stage::Ending | Stage::InDoubt => "in_doubt",
            Stage::ReceiptSigned => "receipt_signed",
            Stage::Published => "published",
            Stage::StatedLoaded => "stated_loaded",
        }
    }

    /// Whether a Begin was accepted: a sender has begun the transfer, and no other can resume it.
    pub fn is_begun(self) -> bool {
        self >= Stage::Agreed
    }

    /// Whether the load is in the target. The transfer then only waits for its sender, and does not
    /// make the target busy.
    pub fn is_loaded(self) -> bool {
        matches!(self, Stage::Published | Stage::StatedLoaded)
    }

    /// Whether a message may say that nothing is visible in the target.
    pub fn shows_nothing(self) -> bool {
        self <= Stage::Loading
    }
}

/// What happens to a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process opens what an earlier one kept.
    Opened,
    /// The sender offers the transfer again and asks to start over.
    StartOverOffered,
    /// The connection to the sender was lost.
    ConnectionLost,
    /// A signal, or the drain of `serve`.
    StopRequested,
    /// The loader has not exited within the longest wait after the stop was requested.
    WaitExceeded,
    /// The grant's `finish_before` has passed.
    TimeRanOut,
    /// The grant was revoked.
    Revoked,
    /// An unused ticket has expired, or a suspended transfer was retained for as long as its grant
    /// says.
    Expired,
    /// The sender abandons the transfer.
    AbandonedBySender,
    /// The receiver's operator abandons the transfer.
    AbandonedByOperator,
    /// The loader has read everything and ended with exit code 0.
    LoaderSucceeded,
    /// The loader exited by itself, and has committed nothing.
    LoaderFailed,
    /// The loader ended in a way that does not say whether it committed: by a signal, with success
    /// before it had read everything, or because it lost its database.
    LoaderUnknown,
    /// The operator states that the load is in the target.
    StatedLoaded,
    /// The operator states that nothing of the load is in the target.
    StatedNotLoaded,
}

impl Event {
    /// Every event, for exhaustive tests.
    pub const ALL: [Event; 15] = [
        Event::Opened,
        Event::StartOverOffered,
        Event::ConnectionLost,
        Event::StopRequested,
        Event::WaitExceeded,
        Event::TimeRanOut,
        Event::Revoked,
        Event::Expired,
        Event::AbandonedBySender,
        Event::AbandonedByOperator,
        Event::LoaderSucceeded,
        Event::LoaderFailed,
        Event::LoaderUnknown,
        Event::StatedLoaded,
        Event::StatedNotLoaded,
    ];
}

/// What is done about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Wait for an offer: nothing is loaded before one.
    AwaitOffer,
    /// Continue to load from what is kept; another loader may be started.
    Load,
    /// Drop what is staged, and load from the beginning.
    StartOver,
    /// Keep everything, and end this process.
    Suspend,
    /// Wait for the loader's exit, which decides.
    AwaitLoader,
    /// Keep everything, and load nothing, until the operator states what the target holds.
    AskOperator,
    /// Sign the receipt: the load is proven.
    SignReceipt,
    /// Finish publishing the load, and send the sender its receipt.
    Publish,
    /// Send the sender what the operator has stated, and keep the statement until it was sent.
    SendStatement,
    /// Drop what is staged and what is kept.
    Drop,
    /// Drop the record. What was loaded stays.
    Forget,
    /// The event is not possible at this stage.
    Refuse,
}

/// What is done at `stage` about `event`: the one table of the receiver.
pub fn disposition(stage: Stage, event: Event) -> Disposition {
    use Disposition::{
        AskOperator, AwaitLoader, AwaitOffer, Drop, Forget, Load, Publish, Refuse, SendStatement, SignReceipt,
        StartOver, Suspend,
    };
    match (stage, event) {
        (Stage::Issued | Stage::Offered, Event::Opened | Event::ConnectionLost) => AwaitOffer,
        // No loader has been given anything.
        (Stage::Issued | Stage::Offered, Event::LoaderFailed | Event::LoaderUnknown) => Refuse,
        (Stage::Agreed | Stage::Loading, Event::Opened | Event::ConnectionLost | Event::LoaderFailed) => Load,
        (Stage::Agreed | Stage::Loading, Event::LoaderUnknown) => AskOperator,
        (Stage::Issued | Stage::Offered | Stage::Agreed | Stage::Loading, Event::StartOverOffered) => StartOver,
        (
            Stage::Issued | Stage::Offered | Stage::Agreed | Stage::Loading,
            Event::StopRequested | Event::WaitExceeded | Event::TimeRanOut | Event::Revoked,
        ) => Suspend,
        (
            Stage::Issued | Stage::Offered | Stage::Agreed | Stage::Loading,
            Event::Expired | Event::AbandonedBySender | Event::AbandonedByOperator,
        ) => Drop,
        (
            Stage::Issued | Stage::Offered | Stage::Agreed | Stage::Loading,
            Event::LoaderSucceeded | Event::StatedLoaded | Event::StatedNotLoaded,
        ) => Refuse,

        (Stage::Ending, Event::LoaderSucceeded) => SignReceipt,
        (Stage::Ending, Event::LoaderFailed) => Load,
        (Stage::Ending, Event::LoaderUnknown | Event::WaitExceeded | Event::Opened) => AskOperator,
        (Stage::Ending, Event::StatedLoaded | Event::StatedNotLoaded) => Refuse,
        (Stage::Ending, _) => AwaitLoader,

        (Stage::InDoubt, Event::StatedLoaded) => SendStatement,
        (Stage::InDoubt, Event::StatedNotLoaded) => Load,
        (Stage::InDoubt, _) => AskOperator,

        (Stage::ReceiptSigned, Event::Expired | Event::AbandonedBySender | Event::AbandonedByOperator) => Drop,
        (Stage::Published, Event::Expired | Event::AbandonedBySender | Event::AbandonedByOperator) => Forget,
        (
            Stage::ReceiptSigned | Stage::Published,
            Event::LoaderSucceeded
            | Event::LoaderFailed
            | Event::LoaderUnknown
            | Event::StatedLoaded
            | Event::StatedNotLoaded,
        ) => Refuse,
        (Stage::ReceiptSigned | Stage::Published, _) => Publish,

        // A statement may be corrected until the sender was sent it.
        (Stage::StatedLoaded, Event::StatedNotLoaded) => Load,
        (Stage::StatedLoaded, Event::Expired | Event::AbandonedBySender | Event::AbandonedByOperator) => Forget,
        (Stage::StatedLoaded, Event::StopRequested | Event::WaitExceeded | Event::TimeRanOut | Event::Revoked) => {
            Suspend
        }
        (Stage::StatedLoaded, Event::LoaderSucceeded | Event::LoaderFailed | Event::LoaderUnknown) => Refuse,
        (Stage::StatedLoaded, _) => SendStatement,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = (Stage, Event, Disposition)> {
        let pairs = Stage::ALL.into_iter().flat_map(|stage| Event::ALL.map(|event| (stage, event)));
        pairs.map(|(stage, event)| (stage, event, disposition(stage, event)))
    }

    /// Issue 9, B1; fault E1: past the commit point, only the loader's own failure or the
    /// operator's statement lets anything be loaded again.
    #[test]
    fn nothing_from_outside_turns_in_doubt_into_load_again() {
        let observed = (Stage::Ending, Event::LoaderFailed);
        let stated = [Stage::InDoubt, Stage::StatedLoaded].map(|stage| (stage, Event::StatedNotLoaded));
        for (stage, event, disposition) in all().filter(|(stage, ..)| !stage.shows_nothing()) {
            let loads = matches!(disposition, Disposition::Load | Disposition::StartOver);
            let may = (stage, event) == observed || stated.contains(&(stage, event));
            assert_eq!(loads, may, "{stage:?}, {event:?}: {disposition:?}");
        }
    }

    /// Issue 9, B1: a receipt is signed for what was observed, never for what was stated.
    #[test]
    fn only_an_observed_success_makes_a_receipt() {
        for (stage, event, disposition) in all() {
            let signs = disposition == Disposition::SignReceipt;
            assert_eq!(signs, (stage, event) == (Stage::Ending, Event::LoaderSucceeded));
            if disposition == Disposition::Publish {
                assert!(matches!(stage, Stage::ReceiptSigned | Stage::Published), "{stage:?}, {event:?}");
            }
        }
    }

    /// Fault E1: while the loader runs, every outside event waits; afterwards the transfer is kept.
    #[test]
    fn what_is_in_doubt_is_waited_for_or_kept() {
        for (stage, event, disposition) in all() {
            match stage {
                Stage::Ending => assert!(
                    matches!(
                        (event, disposition),
                        (Event::LoaderSucceeded, Disposition::SignReceipt)
                            | (Event::LoaderFailed, Disposition::Load)
                            | (Event::LoaderUnknown | Event::WaitExceeded | Event::Opened, Disposition::AskOperator)
                            | (Event::StatedLoaded | Event::StatedNotLoaded, Disposition::Refuse)
                            | (_, Disposition::AwaitLoader)
                    ),
                    "{event:?}: {disposition:?}"
                ),
                Stage::InDoubt => assert!(
                    matches!(
                        (event, disposition),
                        (Event::StatedLoaded, Disposition::SendStatement)
                            | (Event::StatedNotLoaded, Disposition::Load)
                            | (_, Disposition::AskOperator)
                    ),
                    "{event:?}: {disposition:?}"
                ),
                _ => assert_ne!(disposition, Disposition::AwaitLoader, "{stage:?}, {event:?}"),
            }
        }
    }

    /// What is dropped has nothing visible; of what may be visible, only the record is removed.
    #[test]
    fn only_what_is_not_visible_is_dropped() {
        for (stage, event, disposition) in all() {
            if matches!(disposition, Disposition::Drop | Disposition::StartOver) {
                // Of a signed receipt, the target says whether it is published.
                assert!(stage.shows_nothing() || stage == Stage::ReceiptSigned, "{stage:?}, {event:?}");
            }
            if disposition == Disposition::Forget {
                assert!(matches!(stage, Stage::Published | Stage::StatedLoaded), "{stage:?}, {event:?}");
            }
        }
        let shows_nothing = Stage::ALL.into_iter().filter(|stage| stage.shows_nothing());
        let before_commit = [Stage::Issued, Stage::Offered, Stage::Agreed, Stage::Loading];
        assert_eq!(shows_nothing.collect::<Vec<_>>(), before_commit);
    }

    /// Nothing is loaded, and no loader can be in doubt, before a sender has begun; from then on it
    /// makes no difference whether anything has arrived.
    #[test]
    fn a_load_begins_with_the_agreement() {
        let begun = Stage::ALL.into_iter().filter(|stage| stage.is_begun());
        assert_eq!(begun.collect::<Vec<_>>(), Stage::ALL[2..]);
        for (stage, event, done) in all() {
            if !stage.is_begun() {
                assert!(!matches!(done, Disposition::Load | Disposition::AskOperator), "{stage:?}, {event:?}");
            }
            let waits = matches!(event, Event::Opened | Event::ConnectionLost) && !stage.is_begun();
            assert_eq!(done == Disposition::AwaitOffer, waits, "{stage:?}, {event:?}");
            assert_eq!(disposition(Stage::Agreed, event), disposition(Stage::Loading, event), "{event:?}");
        }
    }

    #[test]
    fn stages_and_events_are_listed_once() {
        assert_eq!(all().count(), Stage::ALL.len() * Event::ALL.len());
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index);
        }
        for (index, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, index);
        }
    }
}
