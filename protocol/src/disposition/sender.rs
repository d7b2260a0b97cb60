//! What a sender does when an attempt to go on with its transfer fails: one table, without I/O.
//!
//! A receiver that refuses before Ready leaves a transfer that had begun as it was
//! (`docs/codes.md`), and so does its sender. After Ready both go by the code. What only this
//! sender can still produce, a spool that holds all of its source, outlives every refusal: it is
//! dropped once the load is known to be there, or when a person abandons it.

use minicbor::{Decode, Encode};

use super::{Asks, RaisedBy};
use crate::close::Code;

/// How far a transfer has come at its sender, as it is kept on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum SenderStage {
    /// No receiver can have anything of it.
    #[default]
    #[n(0)]
    Prepared,
    /// Begin was sent, or was about to be: the receiver may know the transfer by its digest secret.
    #[n(1)]
    Begun,
    /// All of it was sent, and the manifest is kept: the receiver may have loaded and published it.
    #[n(2)]
    AllSent,
    /// The receipt is kept; what is left is what a process did not remove before it was killed.
    #[n(3)]
    Acknowledged,
}

impl SenderStage {
    pub const ALL: [SenderStage; 4] =
        [SenderStage::Prepared, SenderStage::Begun, SenderStage::AllSent, SenderStage::Acknowledged];

    /// The word for `status` and `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Begun => "begun",
            Self::AllSent => "all_sent",
            Self::Acknowledged => "done",
        }
    }
}

/// Whether the exchange was ever completed, so that receiver and sender agree that the transfer has
/// begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contact {
    /// Never.
    None,
    /// By an earlier process, as far as this one knows from its record.
    Earlier,
    /// By this process.
    Made,
}

impl Contact {
    pub const ALL: [Contact; 3] = [Contact::None, Contact::Earlier, Contact::Made];
}

/// What this process sends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sends {
    /// Nothing is read: an earlier process had sent all of it, and only the receipt is missing.
    Receipt,
    /// The source itself, or a spool that does not hold all of it yet.
    Source,
    /// A spool that holds all of the source.
    Spool,
}

impl Sends {
    pub const ALL: [Sends; 3] = [Sends::Receipt, Sends::Source, Sends::Spool];
}

/// What another process can read of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Nothing: what has passed is gone.
    Never,
    /// A program's output of another moment, when it is run again.
    Anew,
    /// The same again, as long as nobody changes it.
    Always,
}

impl Replay {
    pub const ALL: [Replay; 3] = [Replay::Never, Replay::Anew, Replay::Always];
}

/// A transfer at its sender, when an attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub stage: SenderStage,
    pub contact: Contact,
    pub sends: Sends,
    pub replay: Replay,
    pub asks: Asks,
}

impl Standing {
    /// As a new process finds it.
    pub fn found(stage: SenderStage, replay: Replay) -> Self {
        let contact = match stage {
            SenderStage::Prepared => Contact::None,
            _ => Contact::Earlier,
        };
        Self { stage, contact, sends: Sends::Source, replay, asks: Asks::Continue }
    }
}

/// When an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// Soon after the sender first tried to connect: a receiver that many connect to at once closes
    /// the oldest of the connections that it has not heard anything good from.
    Arrival,
    /// Before Begin, or with no connection at all.
    Exchange,
    /// After Begin and before Ready.
    Beginning,
    /// After Ready.
    Data,
}

impl During {
    pub const ALL: [During; 4] = [During::Arrival, During::Exchange, During::Beginning, During::Data];
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    pub code: Code,
    pub raised_by: RaisedBy,
    pub during: During,
}

impl Failed {
    /// At this side, with no connection.
    pub fn unconnected(code: Code) -> Self {
        Self { code, raised_by: RaisedBy::ThisSide, during: During::Exchange }
    }
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderDisposition {
    /// Connect again after a while, for as long as the grant and the command allow.
    Retry,
    /// Open the source, of which nothing was read so far: the receiver lacks something of what was
    /// sent before.
    ReadSource,
    /// Run the program again, and have the receiver drop what it has.
    RunAnew,
    /// Keep the record and, if it holds all of the source, the spool; end this process.
    Suspend,
    /// Remove the record and the spool: the transfer is over.
    Drop,
}

/// The one table of what a sender does about a failure.
pub fn sender_disposition(at: Standing, failed: Failed) -> SenderDisposition {
    let Failed { code, raised_by, .. } = failed;
    if ends_for_good(code) || at.stage == SenderStage::Acknowledged {
        return SenderDisposition::Drop;
    }
    if code == Code::ResumeImpossible && at.contact != Contact::None {
        return without_what_is_lacking(at);
    }
    let may_come_back = raised_by != RaisedBy::PeerOperator && code.retry_may_help();
    if may_come_back && is_worth_another_try(at, failed) {
        return SenderDisposition::Retry;
    }
    match keeps(at, failed) {
        true => SenderDisposition::Suspend,
        false => SenderDisposition::Drop,
    }
}

/// Whether nothing of the transfer is of any use after this, whatever else is true: the load is in
/// the target, or a person has abandoned it.
fn ends_for_good(code: Code) -> bool {
    matches!(code, Code::Done | Code::GrantUsed | Code::StatedLoaded | Code::Abandoned)
}

/// The receiver lacks what cannot be sent from where this process sends.
fn without_what_is_lacking(at: Standing) -> SenderDisposition {
    match (at.sends, at.replay, at.asks) {
        (Sends::Receipt, _, Asks::Continue) => SenderDisposition::ReadSource,
        // A receiver that cannot take even what is sent again is not asked once more.
        (_, Replay::Anew, Asks::Continue) => SenderDisposition::RunAnew,
        _ => SenderDisposition::Suspend,
    }
}

fn is_worth_another_try(at: Standing, failed: Failed) -> bool {
    match at.contact {
        Contact::Earlier | Contact::Made => true,
        Contact::None => match failed.raised_by {
            // Begin was sent, and the receiver may have the transfer.
            RaisedBy::ThisSide => at.stage >= SenderStage::Begun,
            RaisedBy::Peer => match failed.during {
                // One that had no room for it may have some soon.
                During::Arrival if failed.code == Code::Interrupted => true,
                // It may not have noticed yet that the connection is lost over which Begin was
                // sent.
                During::Arrival | During::Exchange => at.stage >= SenderStage::Begun,
                // One that turned the first Begin down would do so again.
                During::Beginning | During::Data => false,
            },
            RaisedBy::PeerOperator => false,
        },
    }
}

fn keeps(at: Standing, failed: Failed) -> bool {
    let Failed { code, raised_by, during } = failed;
    if at.stage == SenderStage::Prepared {
        return false;
    }
    match (at.contact, during) {
        (_, During::Arrival | During::Exchange) => true,
        // Another sender has begun it.
        (Contact::None, _) if code == Code::TransferBusy && raised_by.is_peer() => false,
        // Whatever else the receiver turned the first Begin down for, it may have noted the digest
        // secret.
        (Contact::None, _) => code.keeps_transfer(),
        (_, During::Beginning) => true,
        // There was nothing to send, so that nothing can be lost.
        (_, During::Data) if code == Code::SourceEmpty => false,
        (_, During::Data) => code.keeps_transfer() || at.sends == Sends::Spool,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standings() -> impl Iterator<Item = Standing> {
        SenderStage::ALL.into_iter().flat_map(|stage| {
            Contact::ALL.into_iter().flat_map(move |contact| {
                Sends::ALL.into_iter().flat_map(move |sends| {
                    Replay::ALL.into_iter().flat_map(move |replay| {
                        Asks::ALL.into_iter().map(move |asks| Standing { stage, contact, sends, replay, asks })
                    })
                })
            })
        })
    }

    fn failures() -> impl Iterator<Item = Failed> {
        Code::ALL.iter().flat_map(|&code| {
            RaisedBy::ALL.into_iter().flat_map(move |raised_by| {
                During::ALL.into_iter().map(move |during| Failed { code, raised_by, during })
            })
        })
    }

    /// Checks every standing against every failure.
    fn check_all(check: impl Fn(Standing, Failed, SenderDisposition) -> bool) {
        for at in standings() {
            for failed in failures() {
                let found = sender_disposition(at, failed);
                assert!(check(at, failed, found), "{at:?}\n{failed:?}\n{found:?}");
            }
        }
    }

    const OVER: [Code; 4] = [Code::Done, Code::GrantUsed, Code::StatedLoaded, Code::Abandoned];

    fn is_running(at: Standing) -> bool {
        matches!(at.stage, SenderStage::Begun | SenderStage::AllSent) && at.contact != Contact::None
    }

    /// S7: of standard input, a spool may be the only copy there is.
    #[test]
    fn no_refusal_destroys_a_spool_that_holds_all_of_its_source() {
        check_all(|at, failed, found| {
            let is_empty = failed.code == Code::SourceEmpty && failed.during == During::Data;
            let spared = is_running(at) && at.sends == Sends::Spool && !is_empty;
            !spared || (found == SenderDisposition::Drop) == OVER.contains(&failed.code)
        });
    }

    /// What a receiver refuses before Ready, it leaves as it was; a sender that dropped its record
    /// could never continue.
    #[test]
    fn no_refusal_before_ready_ends_a_transfer_that_had_begun() {
        check_all(|at, failed, found| {
            let spared = is_running(at) && failed.during != During::Data;
            !spared || (found == SenderDisposition::Drop) == OVER.contains(&failed.code)
        });
    }

    /// A receiver that lost its state, or was set up again, may yet be restored from a backup.
    #[test]
    fn an_unknown_ticket_suspends_what_had_begun() {
        check_all(|at, failed, found| {
            let is_it = is_running(at) && failed.code == Code::TicketUnknown && failed.during != During::Data;
            !is_it || found == SenderDisposition::Suspend
        });
    }

    /// Without a spool, both sides go by the code once data flows.
    #[test]
    fn after_ready_both_sides_keep_or_drop_the_same() {
        check_all(|at, failed, found| {
            let by_code = is_running(at) && at.sends != Sends::Spool && failed.during == During::Data;
            !by_code
                || OVER.contains(&failed.code)
                || (found != SenderDisposition::Drop) == failed.code.keeps_transfer()
        });
    }

    #[test]
    fn what_nobody_has_begun_leaves_nothing() {
        check_all(|at, _, found| {
            let nothing = at.stage == SenderStage::Prepared && at.contact == Contact::None;
            !nothing || matches!(found, SenderDisposition::Drop | SenderDisposition::Retry)
        });
    }

    #[test]
    fn only_what_may_help_is_tried_again_and_never_against_a_persons_will() {
        check_all(|at, failed, found| {
            let tries = found == SenderDisposition::Retry;
            let allowed = failed.code.retry_may_help() && failed.raised_by != RaisedBy::PeerOperator;
            let crowded_out = failed.code == Code::Interrupted && failed.during == During::Arrival;
            let first_begin = at.contact == Contact::None
                && failed.raised_by.is_peer()
                && (at.stage == SenderStage::Prepared || failed.during == During::Beginning);
            !tries || allowed && (!first_begin || crowded_out)
        });
    }

    /// N13: a receiver that has not noticed yet that the link is lost over which Begin was sent
    /// says that the transfer is busy. It may have noted this sender's digest secret: the sender
    /// asks again, and keeps what it is known by.
    #[test]
    fn a_busy_receiver_that_begin_was_sent_to_is_asked_again() {
        let at = Standing { stage: SenderStage::Begun, ..Standing::found(SenderStage::Prepared, Replay::Always) };
        let failed = |during| Failed { code: Code::TransferBusy, raised_by: RaisedBy::Peer, during };
        assert_eq!(sender_disposition(at, failed(During::Exchange)), SenderDisposition::Retry);
        // The answer to this very Begin: another sender is known by its digest secret.
        assert_eq!(sender_disposition(at, failed(During::Beginning)), SenderDisposition::Drop);
    }

    /// N1 to N10: a lost link is no end while the grant lasts.
    #[test]
    fn a_lost_link_is_tried_again() {
        check_all(|at, failed, found| {
            let lost = failed.code == Code::Interrupted && failed.raised_by != RaisedBy::PeerOperator;
            !(lost && is_running(at)) || found == SenderDisposition::Retry
        });
    }

    /// Only what asks the receiver to continue is ever sent in another way; and a source is never
    /// read unasked of which a person was told that it is not needed any more.
    #[test]
    fn what_the_receiver_lacks_is_sent_in_another_way_once() {
        check_all(|at, failed, found| match found {
            SenderDisposition::ReadSource => {
                failed.code == Code::ResumeImpossible && at.sends == Sends::Receipt && at.asks == Asks::Continue
            }
            SenderDisposition::RunAnew => {
                failed.code == Code::ResumeImpossible && at.replay == Replay::Anew && at.asks == Asks::Continue
            }
            _ => true,
        });
    }
}
