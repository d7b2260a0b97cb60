//! What ends a read or a load from outside of its engine.

use sealift_protocol::failure::Outcome;

/// Says whether a transfer has to end. Readers, writers, provers and every long call of an engine
/// ask it.
pub trait StopToken: Send + Sync {
    /// Fails if the transfer has to end, with the reason. Cheap enough for every chunk and commit,
    /// and not for every row. Not to be called under a lock that [`StopToken::wakes`] takes.
    fn check(&self) -> Outcome;

    /// Calls this once the transfer has to end, from any thread, and at once if it has to already:
    /// to end what cannot ask, such as a query, a wait or a program. A second call replaces the
    /// first.
    fn wakes(&self, wake: Box<dyn FnOnce() + Send>);
}
