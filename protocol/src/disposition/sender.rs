//! What a sender does when an attempt at its transfer fails: one pure table.
//!
//! A refusal before Ready leaves a transfer that had begun as it was, at the receiver
//! (`docs/codes.md`) and at the sender. After Ready both decide by the code. A spool that holds all
//! of its source may be the only copy, so it outlives every refusal: it is dropped once the load is
//! known to be in the target, or when an operator abandons the transfer.

mod attempt;

use minicbor::{Decode, Encode};

pub use self::attempt::Attempt;
use super::{Asks, RaisedBy};
use crate::close::Code;

/// How far a transfer is at its sender, as recorded on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum SenderStage {
    /// No receiver can have any data of it.
    #[default]
    #[n(0)]
    Prepared,
    /// Begin was sent, or was about to be: the receiver may have the digest secret.
    #[n(1)]
    Begun,
    /// All of it was sent, and the manifest is kept: the receiver may have loaded and published it.
    #[n(2)]
    AllSent,
    /// The receipt is kept. What remains is what a killed process did not remove.
    #[n(3)]
    Acknowledged,
}

impl SenderStage {
    /// Every stage, for exhaustive tests.
    pub const ALL: [SenderStage; 4] =
        [SenderStage::Prepared, SenderStage::Begun, SenderStage::AllSent, SenderStage::Acknowledged];

    /// The name in `status` and `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Begun => "begun",
            Self::AllSent => "all_sent",
            Self::Acknowledged => "done",
        }
    }
}

/// Whether the exchange was ever completed, so that both sides agree that the transfer has begun.
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
    /// Every value, for exhaustive tests.
    pub const ALL: [Contact; 3] = [Contact::None, Contact::Earlier, Contact::Made];
}

/// Where this process reads what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sends {
    /// Nowhere: an earlier process has sent everything, and only the receipt is missing.
    Receipt,
    /// From the source, or from a spool that does not hold all of it yet.
    Source,
    /// From a spool that holds all of the source.
    Spool,
}

impl Sends {
    /// Every value, for exhaustive tests.
    pub const ALL: [Sends; 3] = [Sends::Receipt, Sends::Source, Sends::Spool];
}

/// What a second reading of the source yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Nothing: the source can be read once.
    Never,
    /// The output of a program that is run again, as of a new moment.
    RunAgain,
    /// The same data while a process beside the sender holds its snapshot; after that, the same
    /// database as of a new moment, which is the same data if nobody writes to it.
    WhileSnapshotHeld,
    /// The same data, unless the source is changed.
    Always,
}

impl Replay {
    /// Every value, for exhaustive tests.
    pub const ALL: [Replay; 4] = [Replay::Never, Replay::RunAgain, Replay::WhileSnapshotHeld, Replay::Always];
}

/// The state of a transfer at its sender when an attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The recorded stage.
    pub stage: SenderStage,
    /// Whether a receiver ever sent Ready.
    pub contact: Contact,
    /// Where this process reads what it sends.
    pub sends: Sends,
    /// Whether the source can be read again.
    pub replay: Replay,
    /// What this attempt asks of what the receiver has.
    pub asks: Asks,
}

impl Standing {
    /// The state in which a new process finds a transfer.
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
    /// Soon after the first attempt to connect. A crowded receiver closes the oldest of the
    /// connections that are not authenticated yet.
    Arrival,
    /// Before Begin, or with no connection at all.
    Exchange,
    /// After Begin and before Ready.
    Beginning,
    /// After Ready.
    Data,
}

impl During {
    /// Every value, for exhaustive tests.
    pub const ALL: [During; 4] = [During::Arrival, During::Exchange, During::Beginning, During::Data];
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why it failed.
    pub code: Code,
    /// Which side found that.
    pub raised_by: RaisedBy,
    /// When it failed.
    pub during: During,
}

impl Failed {
    /// A failure at this side, outside of any connection.
    pub fn unconnected(code: Code) -> Self {
        Self { code, raised_by: RaisedBy::ThisSide, during: During::Exchange }
    }
}

/// What is done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderDisposition {
    /// Connect again after a back-off, while the grant and the command allow it.
    Retry,
    /// Open the source, which was not read so far: the receiver lacks some of what was sent before.
    ReadSource,
    /// Open the source again, as of this moment, and ask the receiver to start over.
    RunAgain,
    /// Keep the record, and the spool if it holds all of the source; end this process.
    Suspend,
    /// Remove the record and the spool: the transfer is over.
    Drop,
}

/// What a sender does about a failure: the one table.
pub fn sender_disposition(at: Standing, failed: Failed) -> SenderDisposition {
    let Failed { code, raised_by, .. } = failed;
    if ends_for_good(code) || at.stage == SenderStage::Acknowledged {
        return SenderDisposition::Drop;
    }
    if code == Code::ResumeImpossible && at.contact != Contact::None {
        return without_what_is_lacking(at);
    }
    if code == Code::SourceChanged && is_of_another_moment(at) {
        return SenderDisposition::RunAgain;
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

/// Whether the transfer is over at every stage: the load is in the target, or an operator has
/// abandoned it.
fn ends_for_good(code: Code) -> bool {
    matches!(code, Code::Done | Code::GrantUsed | Code::StatedLoaded | Code::Abandoned)
}

/// The receiver lacks what this process cannot send.
fn without_what_is_lacking(at: Standing) -> SenderDisposition {
    match (at.sends, at.replay, at.asks) {
        (Sends::Receipt, _, Asks::Continue) => SenderDisposition::ReadSource,
        // The program is run again once: a receiver that cannot use its output either is not asked
        // again.
        (_, Replay::RunAgain | Replay::WhileSnapshotHeld, Asks::Continue) => SenderDisposition::RunAgain,
        _ => SenderDisposition::Suspend,
    }
}

/// Whether a source that is not what was sent of it is one that was expected to have changed: then
/// the transfer starts over, and no operator is asked.
fn is_of_another_moment(at: Standing) -> bool {
    at.contact != Contact::None && at.replay == Replay::WhileSnapshotHeld && at.asks == Asks::Continue
}

fn is_worth_another_try(at: Standing, failed: Failed) -> bool {
    match at.contact {
        Contact::Earlier | Contact::Made => true,
        Contact::None => match failed.raised_by {
            // Begin was sent, and the receiver may have the transfer.
            RaisedBy::ThisSide => at.stage >= SenderStage::Begun,
            RaisedBy::Peer => match failed.during {
                // A crowded receiver may have room soon.
                During::Arrival if failed.code == Code::Interrupted => true,
                // The receiver may not have noticed yet that the connection that carried Begin is
                // lost.
                During::Arrival | During::Exchange => at.stage >= SenderStage::Begun,
                // A receiver that refused the first Begin would refuse it again.
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
        // The receiver may have recorded the digest secret before it refused the first Begin.
        (Contact::None, _) => code.keeps_transfer(),
        (_, During::Beginning) => true,
        // There was nothing to send, so nothing is lost.
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

    /// Fault S7: a spool of standard input may be the only copy.
    #[test]
    fn no_refusal_destroys_a_spool_that_holds_all_of_its_source() {
        check_all(|at, failed, found| {
            let is_empty = failed.code == Code::SourceEmpty && failed.during == During::Data;
            let spared = is_running(at) && at.sends == Sends::Spool && !is_empty;
            !spared || (found == SenderDisposition::Drop) == OVER.contains(&failed.code)
        });
    }

    /// A refusal before Ready leaves the transfer as it was at the receiver; a sender that dropped
    /// its record could never resume it.
    #[test]
    fn no_refusal_before_ready_ends_a_transfer_that_had_begun() {
        check_all(|at, failed, found| {
            let spared = is_running(at) && failed.during != During::Data;
            !spared || (found == SenderDisposition::Drop) == OVER.contains(&failed.code)
        });
    }

    /// A receiver that lost its state may be restored from a backup.
    #[test]
    fn an_unknown_ticket_suspends_what_had_begun() {
        check_all(|at, failed, found| {
            let is_it = is_running(at) && failed.code == Code::TicketUnknown && failed.during != During::Data;
            !is_it || found == SenderDisposition::Suspend
        });
    }

    /// Without a spool, both sides decide by the code once data flows.
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

    /// Fault N13: a receiver that has not noticed yet that the connection that carried Begin is
    /// lost answers that the transfer is busy. It may have recorded this sender's digest secret, so
    /// the sender tries again and keeps its record.
    #[test]
    fn a_busy_receiver_that_begin_was_sent_to_is_asked_again() {
        let at = Standing { stage: SenderStage::Begun, ..Standing::found(SenderStage::Prepared, Replay::Always) };
        let failed = |during| Failed { code: Code::TransferBusy, raised_by: RaisedBy::Peer, during };
        assert_eq!(sender_disposition(at, failed(During::Exchange)), SenderDisposition::Retry);
        // In answer to this Begin, it means that another sender has begun the transfer.
        assert_eq!(sender_disposition(at, failed(During::Beginning)), SenderDisposition::Drop);
    }

    /// Faults N1 to N10: after a lost link the sender tries again.
    #[test]
    fn a_lost_link_is_tried_again() {
        check_all(|at, failed, found| {
            let lost = failed.code == Code::Interrupted && failed.raised_by != RaisedBy::PeerOperator;
            !(lost && is_running(at)) || found == SenderDisposition::Retry
        });
    }

    /// Only an offer to resume is ever replaced by another way of sending; and a source that the
    /// operator was told is not needed any more is never read unasked.
    #[test]
    fn what_the_receiver_lacks_is_sent_in_another_way_once() {
        check_all(|at, failed, found| match found {
            SenderDisposition::ReadSource => {
                failed.code == Code::ResumeImpossible && at.sends == Sends::Receipt && at.asks == Asks::Continue
            }
            SenderDisposition::RunAgain => {
                let lacks = failed.code == Code::ResumeImpossible && at.replay == Replay::RunAgain;
                let is_newer = matches!(failed.code, Code::ResumeImpossible | Code::SourceChanged)
                    && at.replay == Replay::WhileSnapshotHeld;
                (lacks || is_newer) && at.asks == Asks::Continue
            }
            _ => true,
        });
    }
}
