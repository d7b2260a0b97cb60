//! What a loader's exit says about its load: the rule by which a receiver decides whether another
//! loader may be fed. Pure: the receiver observes, this decides.
//!
//! A loader is given the end of its input when everything is verified, and commits because of it.
//! Between its commit and its exit it can fail in many ways: the connection to its server breaks
//! (`psql` ends with 2, `pg_restore` and `mariadb` with 1, which is what they say to any error), or
//! a command behind it in a shell script fails. So an exit code other than 0 says that nothing was
//! committed only where the loader had not read all of its input, or where that very code of that
//! very program says so.

use crate::disposition::Event;

/// How much of its input a loader had read when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Nothing,
    Part,
    /// All of it, and it was told that this is all.
    Whole,
}

/// How a loader ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoaderExit {
    /// Exit code 0.
    Success,
    /// An exit code by which this program states that it has rolled everything back.
    RolledBack,
    /// Any other exit code, or a signal.
    Other,
}

/// What happened to the transfer when its loader ended.
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

    /// B1, E1: a loader that had everything is followed by another only if it states that it has
    /// rolled back; and only one that had everything and ended well makes a receipt.
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
