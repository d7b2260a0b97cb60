//! What can go wrong in a run, and when.

use super::world::Side;
use crate::random::Random;

/// What happens from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Both directions of the connection are dead.
    Cut,
    /// What this side says arrives no longer.
    HalfOpen(Side),
    /// kill -9, of one or of both.
    Kill {
        sender: bool,
        receiver: bool,
    },
    /// The host loses its power, and of its disk whatever was not synced.
    LosePower(Side),
    /// A snapshot of the host's disk is taken, and later the host goes back to it.
    TakeSnapshot(Side),
    RollBack(Side),
    /// The wall clock of a host is set.
    ClockJump(Side, i64),
    ChangeSource,
}

/// Places in the agents at which a crash or a cut is worth more than elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    Offered,
    Accepted,
    Begun,
    Ready,
    /// Between the writing of a record and its sync.
    SenderRecordWritten,
    ReceiverRecordWritten,
    /// A chunk is about to be sent again.
    Resending,
    Proving,
    /// Between the making of a spool and its sync.
    SpoolMade,
    SpoolWritten,
    SpoolSynced,
    SpoolWhole,
    SpoolGone,
    JournalWritten,
    Journalled,
    /// Chunks are in the staging file, and not synced.
    StagedWritten,
    /// They are, and not acknowledged.
    StagedSynced,
    CommitWritten,
    /// Committed, and not acknowledged (fault N11).
    Committed,
    TargetDropped,
    FinishSaid,
    PublishWritten,
    /// Visible, and the sender has no receipt (fault N12).
    Published,
    ReceiptChecked,
    ReceiptWritten,
}

const MOMENTS: [Moment; 25] = [
    Moment::Offered,
    Moment::Accepted,
    Moment::Begun,
    Moment::Ready,
    Moment::SenderRecordWritten,
    Moment::ReceiverRecordWritten,
    Moment::Resending,
    Moment::Proving,
    Moment::SpoolMade,
    Moment::SpoolWritten,
    Moment::SpoolSynced,
    Moment::SpoolWhole,
    Moment::SpoolGone,
    Moment::JournalWritten,
    Moment::Journalled,
    Moment::StagedWritten,
    Moment::StagedSynced,
    Moment::CommitWritten,
    Moment::Committed,
    Moment::TargetDropped,
    Moment::FinishSaid,
    Moment::PublishWritten,
    Moment::Published,
    Moment::ReceiptChecked,
    Moment::ReceiptWritten,
];

/// Before any data: what is agreed on is on one host, or on both, or on none.
const EARLY: [Moment; 5] =
    [Moment::Offered, Moment::Accepted, Moment::ReceiverRecordWritten, Moment::Begun, Moment::Ready];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// After so many steps of the run.
    Step(u64),
    /// When a moment comes for this time.
    Moment(Moment, u32),
}

/// An action that is yet to come.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    pub trigger: Trigger,
    pub action: Action,
}

/// A peer that holds good keys and breaks the rules, or a relay inside TLS, which cannot exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hostile {
    /// Changes a bit of this byte.
    Corrupt(u64),
    /// Does this at the chunk with this number.
    Sender(SenderFault, u64),
    /// Does this at the acknowledgement with this number.
    Receiver(ReceiverFault, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderFault {
    Skip,
    Repeat,
    Swap,
    EndPart,
    AfterLast,
    OtherPart,
    ForeignKeys,
    AllPartsAtOnce,
    Manifest,
    RowsMiscounted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverFault {
    AckAhead,
    AckBackwards,
    Forget,
    OtherReceipt,
    ChangedRows,
    Twice,
}

const SENDER_FAULTS: [SenderFault; 10] = [
    SenderFault::Skip,
    SenderFault::Repeat,
    SenderFault::Swap,
    SenderFault::EndPart,
    SenderFault::AfterLast,
    SenderFault::OtherPart,
    SenderFault::ForeignKeys,
    SenderFault::AllPartsAtOnce,
    SenderFault::Manifest,
    SenderFault::RowsMiscounted,
];

const RECEIVER_FAULTS: [ReceiverFault; 6] = [
    ReceiverFault::AckAhead,
    ReceiverFault::AckBackwards,
    ReceiverFault::Forget,
    ReceiverFault::OtherReceipt,
    ReceiverFault::ChangedRows,
    ReceiverFault::Twice,
];

impl Hostile {
    pub fn draw(chance: &mut Random, chunks: usize) -> Self {
        let at_chunk = chance.below(chunks + 1) as u64;
        match chance.below(3) {
            0 => Hostile::Corrupt(chance.below(12_000) as u64),
            1 => Hostile::Sender(SENDER_FAULTS[chance.below(SENDER_FAULTS.len())], at_chunk),
            _ => Hostile::Receiver(RECEIVER_FAULTS[chance.below(RECEIVER_FAULTS.len())], at_chunk),
        }
    }
}

impl Trigger {
    /// Any step, the early ones as likely as the many late ones; or a moment.
    fn draw(chance: &mut Random) -> Self {
        if chance.chance(50.0) {
            let magnitude = 2 + chance.below(11);
            return Trigger::Step(chance.below(1 << magnitude) as u64);
        }
        let most = 1 + chance.below(6);
        Trigger::Moment(MOMENTS[chance.below(MOMENTS.len())], 1 + chance.below(most) as u32)
    }
}

impl Planned {
    /// Some loss of the link, or of a process with everything that it had in memory.
    pub fn outage(chance: &mut Random) -> Self {
        let trigger = Trigger::draw(chance);
        let action = match chance.below(20) {
            0..6 => Action::Cut,
            6..8 => Action::HalfOpen(Side::draw(chance)),
            8..11 => Action::Kill { sender: true, receiver: false },
            11..14 => Action::Kill { sender: false, receiver: true },
            14..16 => Action::Kill { sender: true, receiver: true },
            _ => Action::LosePower(Side::draw(chance)),
        };
        Self { trigger, action }
    }

    /// Half of the snapshots are taken before any data flows.
    pub fn snapshot(chance: &mut Random, side: Side) -> Self {
        let action = Action::TakeSnapshot(side);
        match chance.chance(50.0) {
            true => Self { trigger: Trigger::Moment(EARLY[chance.below(EARLY.len())], 1), action },
            false => Self::draw(chance, action),
        }
    }

    pub fn draw(chance: &mut Random, action: Action) -> Self {
        Self { trigger: Trigger::draw(chance), action }
    }
}
