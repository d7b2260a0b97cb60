//! What a receiver does when a connection ends before its receipt was delivered, or a load before
//! there is a receipt: one pure table.
//!
//! An offer shows the key that the ticket is bound to, and not yet the digest secret of the sender
//! that began the transfer. So a connection that fails before Ready does not end a transfer that
//! had begun. After Ready the sender is known to be the one that began it, and both sides decide by
//! the code (`docs/codes.md`).

use super::{RaisedBy, Stage};
use crate::close::Code;

/// Where a load comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// `listen`: one sender, over any number of connections.
    Listen,
    /// `serve`: one of the senders of a receiver that keeps running.
    Serve,
    /// `load`: an archive, which can be read again from its beginning.
    Load,
}

impl Input {
    /// Every value, for exhaustive tests.
    pub const ALL: [Input; 3] = [Input::Listen, Input::Serve, Input::Load];
}

/// The state of a load when something fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loading {
    /// Where the chunks come from.
    pub input: Input,
    /// The recorded stage.
    pub stage: Stage,
}

/// The phase in which something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum While {
    /// While there was no connection.
    Waiting,
    /// Before Ready: another than the sender that began the transfer may have caused it.
    Exchange,
    /// After Ready, or while an archive is read.
    Data,
}

impl While {
    /// Every value, for exhaustive tests.
    pub const ALL: [While; 3] = [While::Waiting, While::Exchange, While::Data];
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// Why it failed.
    pub code: Code,
    /// Which side found that.
    pub raised_by: RaisedBy,
    /// When it failed.
    pub during: While,
}

/// What is done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Keep the load as it is, and wait for the sender's next connection.
    Wait,
    /// The load is published, whether or not the sender has the receipt: end with success.
    Finish,
    /// Keep what another process needs to resume, and end this one.
    Suspend,
    /// Remove what is staged and the record: the transfer is over.
    Drop,
}

/// What a receiver does about a failure: the one table.
pub fn receiver_disposition(at: Loading, why: Interruption) -> Then {
    let Interruption { code, raised_by, during } = why;
    let had_connection = at.input != Input::Load && during != While::Waiting;
    match at.stage {
        Stage::Published => published(at.input, why),
        // Only a statement of the operator ends this.
        Stage::Ending | Stage::InDoubt => Then::Suspend,
        // The statement is kept until it was sent to the sender that began the transfer.
        Stage::StatedLoaded => match at.input {
            Input::Listen | Input::Serve if code == Code::StatedLoaded => Then::Drop,
            Input::Listen | Input::Serve if had_connection && (code.is_of_peer() || code.retry_may_help()) => {
                Then::Wait
            }
            _ => Then::Suspend,
        },
        Stage::ReceiptSigned if code.keeps_transfer() => Then::Suspend,
        Stage::ReceiptSigned => Then::Drop,
        Stage::Issued | Stage::Offered | Stage::Agreed | Stage::Loading => {
            let is_expected = had_connection && is_sender_expected(at);
            if is_expected && raised_by != RaisedBy::PeerOperator && is_hopeful(at.stage, why) {
                Then::Wait
            } else if outlives_process(at, code) {
                Then::Suspend
            } else {
                Then::Drop
            }
        }
    }
}

/// Whether a receiver keeps running for the sender of a load that is not proven. A sender that
/// offers and then stalls does not occupy a slot of `serve`; it can offer again.
fn is_sender_expected(at: Loading) -> bool {
    match at.input {
        Input::Listen => at.stage >= Stage::Offered,
        Input::Serve => at.stage.is_begun(),
        Input::Load => false,
    }
}

/// Whether a failure leaves what another process can go on from, of a load that is not proven.
fn outlives_process(at: Loading, code: Code) -> bool {
    match (at.input, at.stage) {
        // Of an archive of which nothing is in the target, nothing is lost: it is read again.
        (Input::Load, Stage::Issued | Stage::Offered | Stage::Agreed) => false,
        // The ticket ends with its receiver.
        (Input::Listen, Stage::Issued) => false,
        // The sender may come back with the same ticket while that is valid.
        (Input::Listen, Stage::Offered) | (Input::Serve, Stage::Issued | Stage::Offered) => {
            code.retry_may_help() || code == Code::UserInterrupt
        }
        _ => code.keeps_transfer(),
    }
}

/// What is published stays, even if the sender fails while it fetches its receipt. The receiver
/// does not wait for a sender that has abandoned the transfer, nor once its own operator has
/// stopped it.
fn published(input: Input, why: Interruption) -> Then {
    let Interruption { code, raised_by, during } = why;
    let is_own = raised_by == RaisedBy::ThisSide;
    match code {
        _ if input == Input::Load || during == While::Waiting => {
            if code.keeps_transfer() {
                Then::Suspend
            } else {
                Then::Drop
            }
        }
        Code::Abandoned | Code::UserInterrupt => Then::Finish,
        Code::GrantExpired if is_own => Then::Finish,
        _ => Then::Wait,
    }
}

/// Whether the sender can be expected to come back, by itself or with another command.
fn is_hopeful(stage: Stage, why: Interruption) -> bool {
    let Interruption { code, raised_by, during } = why;
    let is_of_sender = match code {
        // It, or its operator, offers the transfer again.
        Code::ResumeImpossible | Code::SourceChanged => true,
        // Its spool failed.
        Code::LogFull | Code::LogFailed => raised_by.is_peer(),
        _ => during == While::Exchange && (raised_by.is_peer() || code.is_of_peer()),
    };
    code.retry_may_help() || stage.is_begun() && is_of_sender
}

#[cfg(test)]
mod tests {
    use super::{
        super::sender::{self, During, SenderDisposition, SenderStage, Standing, sender_disposition},
        *,
    };

    fn loads() -> impl Iterator<Item = Loading> {
        Input::ALL.into_iter().flat_map(|input| Stage::ALL.map(|stage| Loading { input, stage }))
    }

    fn interruptions() -> impl Iterator<Item = Interruption> {
        Code::ALL.iter().flat_map(|&code| {
            RaisedBy::ALL.into_iter().flat_map(move |raised_by| {
                While::ALL.into_iter().map(move |during| Interruption { code, raised_by, during })
            })
        })
    }

    /// Checks every load against every interruption.
    fn check_all(check: impl Fn(Loading, Interruption, Then) -> bool) {
        for at in loads() {
            for why in interruptions() {
                let then = receiver_disposition(at, why);
                assert!(check(at, why, then), "{at:?}\n{why:?}\n{then:?}");
            }
        }
    }

    /// Issue 9, A3: no holder of a ticket or certificate ends what another sender has begun.
    #[test]
    fn a_peer_that_fails_before_ready_ends_nothing() {
        check_all(|at, why, then| {
            let is_attempt =
                at.input != Input::Load && why.during == While::Exchange && why.raised_by == RaisedBy::Peer;
            let had_begun = matches!(at.stage, Stage::Agreed | Stage::Loading);
            !(is_attempt && had_begun) || then == Then::Wait
        });
    }

    /// Issue 9, B1: what is in doubt is ended only by a statement of the operator.
    #[test]
    fn what_is_in_doubt_is_never_dropped() {
        check_all(|at, _, then| !matches!(at.stage, Stage::Ending | Stage::InDoubt) || then == Then::Suspend);
    }

    /// Issue 9, B1: a statement is kept until the sender that began the transfer has received it;
    /// that of an archive is never dropped.
    #[test]
    fn a_statement_is_kept_until_its_sender_knows_it() {
        check_all(|at, why, then| {
            let sent = at.input != Input::Load && why.code == Code::StatedLoaded;
            at.stage != Stage::StatedLoaded || (then == Then::Drop) == sent
        });
    }

    /// Fault N12: once published, no sender that fetches its receipt makes the receiver fail.
    #[test]
    fn what_is_published_is_done() {
        check_all(|at, why, then| {
            let over_a_link = at.input != Input::Load && why.during != While::Waiting;
            !(at.stage == Stage::Published && over_a_link) || matches!(then, Then::Wait | Then::Finish)
        });
        check_all(|at, _, then| then != Then::Finish || at.stage == Stage::Published);
    }

    /// Faults N1 to N10: after a lost link the receiver waits, once a sender may come back.
    #[test]
    fn the_receiver_waits_after_a_lost_link() {
        check_all(|at, why, then| {
            let least = if at.input == Input::Serve { Stage::Agreed } else { Stage::Offered };
            let is_link = at.input != Input::Load && why.during != While::Waiting && at.stage >= least;
            let lost = why.code == Code::Interrupted && why.raised_by != RaisedBy::PeerOperator;
            !(is_link && lost && at.stage.shows_nothing()) || then == Then::Wait
        });
    }

    #[test]
    fn an_archive_is_never_waited_for() {
        check_all(|at, _, then| at.input != Input::Load || then != Then::Wait);
    }

    /// What no sender has begun is not kept for one: a `listen` whose ticket nobody used leaves
    /// nothing, and an archive of which nothing is in the target is read again.
    #[test]
    fn what_nobody_has_begun_is_dropped() {
        check_all(|at, _, then| {
            let is_listen = at.input == Input::Listen && at.stage == Stage::Issued;
            let is_load = at.input == Input::Load && at.stage < Stage::Loading;
            !(is_listen || is_load) || then == Then::Drop
        });
    }

    /// What is agreed on is treated as what is loaded, whichever of its chunks have arrived: a
    /// crash between the two changes nothing for its sender.
    #[test]
    fn what_is_agreed_is_kept_as_what_is_loaded() {
        check_all(|at, why, then| {
            let is_agreed = at.input != Input::Load && at.stage == Stage::Agreed;
            !is_agreed || then == receiver_disposition(Loading { stage: Stage::Loading, ..at }, why)
        });
    }

    /// A stop suspends every transfer whose sender may come back.
    #[test]
    fn a_stop_by_the_operator_suspends() {
        check_all(|at, why, then| {
            let stopped = why.code == Code::UserInterrupt && why.raised_by == RaisedBy::ThisSide;
            let may_come = at.input == Input::Serve || at.input == Input::Listen && at.stage > Stage::Issued;
            !(stopped && may_come && at.stage.shows_nothing()) || then == Then::Suspend
        });
    }

    /// After Ready both sides decide by the code, so that both can resume the transfer or neither.
    #[test]
    fn after_ready_both_sides_decide_the_same() {
        let at = Loading { input: Input::Listen, stage: Stage::Loading };
        let found = Standing::found(SenderStage::Begun, sender::Replay::Always);
        let both = [(RaisedBy::ThisSide, RaisedBy::Peer), (RaisedBy::Peer, RaisedBy::ThisSide)];
        for (&code, (here, there)) in Code::ALL.iter().flat_map(|code| both.map(|both| (code, both))) {
            let why = Interruption { code, raised_by: here, during: While::Data };
            let failed = sender::Failed { code, raised_by: there, during: During::Data };
            let drops = [
                receiver_disposition(at, why) == Then::Drop,
                sender_disposition(found, failed) == SenderDisposition::Drop,
            ];
            assert_eq!(drops[0], drops[1], "{code:?}, raised by {here:?}");
        }
    }
}
