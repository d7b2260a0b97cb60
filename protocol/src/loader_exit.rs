//! What a loader's exit says about its load: the rule by which a receiver decides whether another
//! loader may be started.
//!
//! A loader sees the end of its input once everything is verified, and commits because of it.
//! Between its commit and its exit it can fail in many ways: the connection to its server breaks
//! (`psql` then exits with 2, `pg_restore` and `mariadb` with 1, as for any error), or a later
//! command of a shell script fails. So an exit code other than 0 shows that nothing was committed
//! only if the loader had not read all of its input, or if this program documents that meaning for
//! this code.

use crate::disposition::Event;

/// How much of its input a loader had read when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It had not read a byte.
    Nothing,
    /// Some of it.
    Part,
    /// All of it, and it has seen the end.
    Whole,
}

/// How a loader ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoaderExit {
    /// Exit code 0.
    Success,
    /// An exit code that this program documents as: everything was rolled back.
    RolledBack,
    /// Any other exit code, or a signal.
    Other,
}

/// The event that the end of a loader is to the transfer.
pub fn loader_ended(taken: Taken, exit: LoaderExit) -> Event {
    match (taken, exit) {
        (Taken::Whole, LoaderExit::Success) => Event::LoaderSucceeded,
        // It may have committed what it had read.
        (Taken::Nothing | Taken::Part, LoaderExit::Success) => Event::LoaderUnknown,
        (_, LoaderExit::RolledBack) => Event::LoaderFailed,
        (Taken::Whole, LoaderExit::Other) => Event::LoaderUnknown,
        (Taken::Nothing | Taken::Part, LoaderExit::Other) => Event::LoaderFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disposition::{Disposition, Stage, disposition};

    const TAKEN: [Taken; 3] = [Taken::Nothing, Taken::Part, Taken::Whole];
    const EXITS: [LoaderExit; 3] = [LoaderExit::Success, LoaderExit::RolledBack, LoaderExit::Other];

    /// Issue 9, B1; fault E1: after a loader that had everything, another is started only if the
    /// exit says that everything was rolled back; and only a loader that had everything and
    /// succeeded leads to a receipt.
    #[test]
    fn only_what_is_known_decides() {
        for taken in TAKEN {
            for exit in EXITS {
                let done = disposition(Stage::Ending, loader_ended(taken, exit));
                let loads = exit == LoaderExit::RolledBack || exit == LoaderExit::Other && taken != Taken::Whole;
                assert_eq!(done == Disposition::Load, loads, "{taken:?}, {exit:?}: {done:?}");
                let proven = taken == Taken::Whole && exit == LoaderExit::Success;
                assert_eq!(done == Disposition::SignReceipt, proven, "{taken:?}, {exit:?}: {done:?}");
                assert_eq!(done == Disposition::AskOperator, !loads && !proven, "{taken:?}, {exit:?}: {done:?}");
            }
        }
    }
}
