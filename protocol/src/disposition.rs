//! What becomes of a transfer when something happens to it: one table for each side, without I/O.
//! This is the receiver's; [`sender`] is the sender's, and [`receiver`] what a failure means to a
//! receiver.
//!
//! A loader that is told the end of its input may commit from then on, and only its exit says
//! whether it has. Until that exit is observed and recorded, the load may be there or not. Nothing
//! from outside decides that: it is either observed, or stated by the receiver's operator.

use minicbor::{Decode, Encode};

pub mod receiver;
pub mod sender;

/// Who found the reason why something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaisedBy {
    /// This side, which tells the other.
    ThisSide,
    /// The other side, which need not be told.
    Peer,
    /// A person at the other side: to try again unasked would be against their will.
    PeerOperator,
}

impl RaisedBy {
    pub const ALL: [RaisedBy; 3] = [RaisedBy::ThisSide, RaisedBy::Peer, RaisedBy::PeerOperator];

    /// Whether the other side said so.
    pub fn is_peer(self) -> bool {
        self != RaisedBy::ThisSide
    }
}

/// What an offer asks of a receiver that has something of the transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// To continue from there.
    Continue,
    /// To drop it.
    StartOver,
}

impl Asks {
    pub const ALL: [Asks; 2] = [Asks::Continue, Asks::StartOver];
}

/// How far a transfer has come at its receiver, as it is kept on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Stage {
    /// The target has taken nothing for good that anybody can see: a staging place can be dropped,
    /// and a loader that has not seen the end of its input can be killed.
    #[default]
    #[n(0)]
    Loading,
    /// The loader was told that its input is whole, and this process waits for its exit. Kept as
    /// [`Stage::InDoubt`], which is what it is to every other process.
    #[n(1)]
    Ending,
    /// The loader was told that its input is whole, and its exit is not known.
    #[n(2)]
    InDoubt,
    /// The load is proven and its receipt is signed.
    #[n(3)]
    ReceiptSigned,
    /// The load is visible under its final name.
    #[n(4)]
    Published,
    /// In doubt, and the receiver's operator states that the load is there. Nothing proves it.
    #[n(5)]
    StatedLoaded,
}

impl Stage {
    pub const ALL: [Stage; 6] =
        [Stage::Loading, Stage::Ending, Stage::InDoubt, Stage::ReceiptSigned, Stage::Published, Stage::StatedLoaded];

    /// The word for `status` and `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Loading => "loading",
            Stage::Ending | Stage::InDoubt => "in_doubt",
            Stage::ReceiptSigned => "receipt_signed",
            Stage::Published => "published",
            Stage::StatedLoaded => "stated_loaded",
        }
    }

    /// Whether the load is in the target, so that it waits for its sender alone and keeps no other
    /// out.
    pub fn is_loaded(self) -> bool {
        matches!(self, Stage::Published | Stage::StatedLoaded)
    }

    /// Whether a message may say that nothing is visible in the target.
    pub fn shows_nothing(self) -> bool {
        self == Stage::Loading
    }
}

/// What happens to a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process opens what an earlier one kept.
    Opened,
    /// The sender offers the transfer again and cannot continue: what is here is to be dropped.
    OfferedAnew,
    /// The connection to the sender was lost.
    ConnectionLost,
    /// A signal, or the drain of a standing receiver.
    StopRequested,
    /// Since the stop was requested, the loader was waited for as long as is waited at most.
    WaitExceeded,
    /// The time that the grant gives to finish has run out.
    TimeRanOut,
    /// A ticket that no sender has used has expired, or what is suspended was kept for as long as
    /// its grant says.
    Expired,
    /// The sender abandons the transfer.
    AbandonedBySender,
    /// The receiver's operator abandons the transfer.
    AbandonedByOperator,
    /// The loader has read everything and ended with exit code 0.
    LoaderSucceeded,
    /// The loader ended by itself with another exit code.
    LoaderFailed,
    /// The loader ended without an exit code that says whether it committed: a signal ended it, it
    /// ended well before it had read everything, or it lost its database.
    LoaderUnknown,
    /// The operator states that the load is in the target.
    StatedLoaded,
    /// The operator states that nothing of the load is in the target.
    StatedNotLoaded,
}

impl Event {
    pub const ALL: [Event; 14] = [
        Event::Opened,
        Event::OfferedAnew,
        Event::ConnectionLost,
        Event::StopRequested,
        Event::WaitExceeded,
        Event::TimeRanOut,
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

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Load on, from what is kept: another loader may be fed.
    Load,
    /// Drop what is staged, and load from the beginning.
    StartOver,
    /// Keep everything, and end this process.
    Suspend,
    /// Wait for the loader's exit: nothing else counts before it.
    AwaitLoader,
    /// Keep everything, and load nothing, until the operator has stated what the target holds.
    AskOperator,
    /// Sign the receipt: the load is proven.
    SignReceipt,
    /// Finish what publishes the load, and give the sender its receipt.
    Publish,
    /// Tell the sender what the operator has stated, and keep the statement until it knows.
    TellStatement,
    /// Drop what is staged and what is kept.
    Drop,
    /// Drop what is kept. What was loaded stays.
    Forget,
    /// This cannot be asked of a transfer at this stage.
    Refuse,
}

/// The one table of what is done at which stage about which event.
pub fn disposition(stage: Stage, event: Event) -> Disposition {
    use Disposition::{
        AskOperator, AwaitLoader, Drop, Forget, Load, Publish, Refuse, SignReceipt, StartOver, Suspend, TellStatement,
    };
    match (stage, event) {
        (Stage::Loading, Event::Opened | Event::ConnectionLost | Event::LoaderFailed) => Load,
        (Stage::Loading, Event::OfferedAnew) => StartOver,
        (Stage::Loading, Event::StopRequested | Event::WaitExceeded | Event::TimeRanOut) => Suspend,
        (Stage::Loading, Event::Expired | Event::AbandonedBySender | Event::AbandonedByOperator) => Drop,
        (Stage::Loading, Event::LoaderUnknown) => AskOperator,
        (Stage::Loading, Event::LoaderSucceeded | Event::StatedLoaded | Event::StatedNotLoaded) => Refuse,

        (Stage::Ending, Event::LoaderSucceeded) => SignReceipt,
        (Stage::Ending, Event::LoaderFailed) => Load,
        (Stage::Ending, Event::LoaderUnknown | Event::WaitExceeded | Event::Opened) => AskOperator,
        (Stage::Ending, Event::StatedLoaded | Event::StatedNotLoaded) => Refuse,
        (Stage::Ending, _) => AwaitLoader,

        (Stage::InDoubt, Event::StatedLoaded) => TellStatement,
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

        // A statement may be corrected as long as nobody was told.
        (Stage::StatedLoaded, Event::StatedNotLoaded) => Load,
        (Stage::StatedLoaded, Event::Expired | Event::AbandonedBySender | Event::AbandonedByOperator) => Forget,
        (Stage::StatedLoaded, Event::StopRequested | Event::WaitExceeded | Event::TimeRanOut) => Suspend,
        (Stage::StatedLoaded, Event::LoaderSucceeded | Event::LoaderFailed | Event::LoaderUnknown) => Refuse,
        (Stage::StatedLoaded, _) => TellStatement,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = (Stage, Event, Disposition)> {
        let pairs = Stage::ALL.into_iter().flat_map(|stage| Event::ALL.map(|event| (stage, event)));
        pairs.map(|(stage, event)| (stage, event, disposition(stage, event)))
    }

    /// B1, E1: once the loader has everything, only its own failure or the operator's word lets
    /// anything be loaded again.
    #[test]
    fn nothing_from_outside_turns_in_doubt_into_load_again() {
        let observed = (Stage::Ending, Event::LoaderFailed);
        let stated = [Stage::InDoubt, Stage::StatedLoaded].map(|stage| (stage, Event::StatedNotLoaded));
        for (stage, event, disposition) in all().filter(|(stage, ..)| *stage != Stage::Loading) {
            let loads = matches!(disposition, Disposition::Load | Disposition::StartOver);
            let may = (stage, event) == observed || stated.contains(&(stage, event));
            assert_eq!(loads, may, "{stage:?}, {event:?}: {disposition:?}");
        }
    }

    /// B1: a receipt is signed for what was observed, never for what was stated.
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

    /// E1: while the loader runs, whatever comes from outside waits; afterwards it is kept.
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
                        (Event::StatedLoaded, Disposition::TellStatement)
                            | (Event::StatedNotLoaded, Disposition::Load)
                            | (_, Disposition::AskOperator)
                    ),
                    "{event:?}: {disposition:?}"
                ),
                _ => assert_ne!(disposition, Disposition::AwaitLoader, "{stage:?}, {event:?}"),
            }
        }
    }

    /// Whatever is dropped has nothing visible; whatever may be visible is forgotten at most.
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
        assert_eq!(shows_nothing.collect::<Vec<_>>(), [Stage::Loading]);
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
