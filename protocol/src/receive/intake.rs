//! The one order in which a verified chunk becomes part of a load: appended to the journal,
//! durable there, handed to the target, counted, acknowledged. Where there is no journal, the first
//! two steps are left out. Drivers carry out what [`Intake::poll`] says, and report it.

use std::collections::VecDeque;

use super::ReceiverTransfer;
use crate::sealed_log::Record;

/// What of a load outlives the process that writes it, and in which unit. Only that is never asked
/// for again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A part that the target has finished, and nothing of a part before: one that was not finished
    /// is written again from its beginning. The target finds the finished ones again.
    Parts,
    /// The first chunks of a part, up to the last sync; the target finds them again. A chunk does
    /// not count as verified before it is synced, so that a sender which can give its bytes once is
    /// never asked for what it has forgotten. A disk may lose it all the same, and then it is asked
    /// for again.
    SyncedChunks,
    /// Nothing of what the target has; a new process feeds it afresh. What is verified is kept in a
    /// journal.
    Journal,
    /// Nothing. All of it is sent again.
    #[default]
    Nothing,
}

/// When a target of [`Durability::SyncedChunks`] is asked to sync.
#[derive(Debug)]
pub struct Syncing {
    synced_bytes: u64,
    unsynced_bytes_max: u64,
}

impl Syncing {
    /// Of a part of which so many bytes are durable. The sender's window waits for what is not, so
    /// that this is bounded.
    pub fn new(synced_bytes: u64, unsynced_bytes_max: u64) -> Self {
        Self { synced_bytes, unsynced_bytes_max }
    }

    /// Whether to sync, when so many bytes of the part are written: when nothing waits to be
    /// written behind them, or too much of them is unsynced.
    pub fn is_due(&self, written_bytes: u64, more_waits: bool) -> bool {
        !more_waits || written_bytes - self.synced_bytes >= self.unsynced_bytes_max
    }

    /// So many bytes of the part are durable.
    pub fn handle_synced(&mut self, bytes: u64) {
        self.synced_bytes = bytes;
    }
}

/// What is done next with a part's chunks.
#[derive(Debug)]
pub enum IntakeStep<C> {
    /// Append the record to the journal. Records become durable in the order of these steps; each
    /// is reported with [`Intake::handle_journaled`].
    Append(Record),
    /// Hand the chunk to the part's writer; then it is counted with
    /// [`ReceiverTransfer::handle_taken`].
    Write(C),
}

/// The verified chunks of one part on one connection, until the target has them. `C` is what the
/// driver holds of a chunk.
#[derive(Debug)]
pub struct Intake<C> {
    has_journal: bool,
    /// Verified, oldest first.
    waiting: VecDeque<Waiting<C>>,
    /// The first of them that are appended, and that are durable.
    appended: usize,
    journaled: usize,
}

#[derive(Debug)]
struct Waiting<C> {
    chunk: C,
    /// Until it is appended.
    record: Option<Record>,
}

impl<C> Intake<C> {
    /// The chunks of a part of `transfer`, whose target was prepared.
    pub fn new(transfer: &ReceiverTransfer) -> Self {
        Self { has_journal: transfer.has_journal(), waiting: VecDeque::new(), appended: 0, journaled: 0 }
    }

    /// How many chunks wait for the journal or the target. The driver bounds them.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no chunk waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next chunk is verified. `record` is what it was opened from; it is not used without a
    /// journal.
    pub fn handle_verified(&mut self, chunk: C, record: Option<Record>) {
        debug_assert!(record.is_some() || !self.has_journal, "what a journal is to have was not kept");
        self.waiting.push_back(Waiting { chunk, record });
    }

    /// The oldest record that was appended and not reported yet is durable.
    pub fn handle_journaled(&mut self) {
        debug_assert!(self.journaled < self.appended, "only what was appended becomes durable");
        self.journaled += 1;
    }

    /// What is to be done now; `None` until something else has happened.
    pub fn poll(&mut self) -> Option<IntakeStep<C>> {
        if let Some(record) = self.poll_append() {
            return Some(IntakeStep::Append(record));
        }
        self.poll_write().map(IntakeStep::Write)
    }

    fn poll_append(&mut self) -> Option<Record> {
        if !self.has_journal {
            return None;
        }
        let record = self.waiting.get_mut(self.appended)?.record.take()?;
        self.appended += 1;
        Some(record)
    }

    fn poll_write(&mut self) -> Option<C> {
        if self.has_journal {
            self.journaled = self.journaled.checked_sub(1)?;
            self.appended -= 1;
        }
        self.waiting.pop_front().map(|waiting| waiting.chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intake(has_journal: bool) -> Intake<u32> {
        Intake { has_journal, waiting: VecDeque::new(), appended: 0, journaled: 0 }
    }

    /// What there is to do now: `Err` for an append.
    fn steps(intake: &mut Intake<u32>) -> Vec<Result<u32, ()>> {
        let steps = std::iter::from_fn(|| intake.poll());
        steps
            .map(|step| match step {
                IntakeStep::Append(_) => Err(()),
                IntakeStep::Write(chunk) => Ok(chunk),
            })
            .collect()
    }

    #[test]
    fn a_chunk_is_durable_in_the_journal_before_it_is_handed_to_the_target() {
        let mut intake = intake(true);
        intake.handle_verified(0, Some(Record::Mark));
        intake.handle_verified(1, Some(Record::Mark));
        assert_eq!(steps(&mut intake), [Err(()), Err(())], "appended in order, and nothing is handed over");
        intake.handle_journaled();
        assert_eq!(steps(&mut intake), [Ok(0)]);
        intake.handle_verified(2, Some(Record::Mark));
        assert_eq!(steps(&mut intake), [Err(())]);
        intake.handle_journaled();
        intake.handle_journaled();
        assert_eq!(steps(&mut intake), [Ok(1), Ok(2)]);
        assert!(intake.is_empty());
    }

    #[test]
    fn without_a_journal_a_chunk_is_handed_over_at_once() {
        let mut intake = intake(false);
        intake.handle_verified(0, None);
        intake.handle_verified(1, Some(Record::Mark));
        assert_eq!(steps(&mut intake), [Ok(0), Ok(1)]);
    }
}
