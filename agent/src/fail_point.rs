//! The places at which a test has an agent die; [`sealift_host::fail_point`] is how.

use sealift_host::fail_point::FailPoint;

use crate::role::Role;

pub use sealift_host::fail_point::PANIC_PAYLOAD;

macro_rules! points {
    ($($point:ident = $side:ident, $name:literal, $what:literal;)+) => {
        /// Where an agent can be made to die.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $(#[doc = $what] $point,)+
        }

        impl Point {
            /// Every point, in the order of a transfer.
            pub const ALL: &[Point] = &[$(Point::$point),+];

            /// What `SEALIFT_FAIL_POINT` calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Point::$point => $name,)+ }
            }

            /// The agent that comes to it.
            pub const fn side(self) -> Role {
                match self { $(Point::$point => Role::$side,)+ }
            }

            /// What is done when it is reached, and what is not.
            pub const fn what(self) -> &'static str {
                match self { $(Point::$point => $what,)+ }
            }
        }
    };
}

// One line a point: its name in code, the side that comes to it, its name in the environment, what
// it is.
points! {
    RecordKept = Sender, "record-kept", "the sender has a record, nothing was sent to the receiver";
    BeginKept = Sender, "begin-kept", "the record says that it was begun, Begin was not sent";
    Agreed = Sender, "agreed", "the connection is agreed on, the record does not say so yet";
    SpoolMade = Sender, "spool-made", "the spool has what opens it, nothing of the source was read";
    SpoolWritten = Sender, "spool-written", "chunks are in the spool and not synced";
    SpoolSynced = Sender, "spool-synced", "chunks are durable in the spool, they may not have been sent";
    SpoolWhole = Sender, "spool-whole", "all of the source is durable in the spool, with its manifest";
    SpoolGone = Sender, "spool-gone", "the spool is removed, the record still names it";
    ChunkSealed = Sender, "chunk-sealed", "a chunk is sealed, nothing of it was sent";
    ChunkSent = Sender, "chunk-sent", "a chunk was handed to the link";
    PartSent = Sender, "part-sent", "all of a part was handed to the link";
    ManifestKept = Sender, "manifest-kept", "the manifest is kept and was not sent";
    ReceiptChecked = Sender, "receipt-checked", "the receipt is checked and not kept yet";
    ReceiptDelivered = Sender, "receipt-delivered", "both sides have the receipt, the sender's record is still there";
    RecordGone = Sender, "record-gone", "the receipt is kept and the sender's record removed";
    Invited = Receiver, "invited", "the receiver has a record, nobody has the ticket";
    TicketBound = Receiver, "ticket-bound", "the ticket is bound to its sender, its secret is still there";
    EpochKept = Receiver, "epoch-kept", "the record says which epoch it is, the sender waits";
    ReadyDue = Receiver, "ready-due", "everything is made, no data was asked for";
    ChunkOpened = Receiver, "chunk-opened", "a chunk is opened, the target has not seen it";
    ChunkTaken = Receiver, "chunk-taken", "a chunk was handed to the target and not acknowledged";
    JournalWritten = Receiver, "journal-written", "chunks are in the journal and not synced";
    JournalSynced = Receiver, "journal-synced", "chunks are durable in the journal, nothing is acknowledged";
    PartFinished = Receiver, "part-finished", "the target has finished a part, nothing is acknowledged";
    LoadEnding = Receiver, "load-ending", "all is there and not proven";
    ReceiptSigned = Receiver, "receipt-signed", "the receipt is signed and not kept";
    ReceiptKept = Receiver, "receipt-kept", "the receipt is kept, the load is not shown";
    Published = Receiver, "published", "the load is shown, the record does not say so yet";
    Forgotten = Receiver, "forgotten", "the load is shown, and nothing but the record is left";
    ReceiptDue = Receiver, "receipt-due", "the receipt is to be sent";
    ReceiptFetched = Receiver, "receipt-fetched", "both sides have the receipt, the receiver's record is still there";
    RecordWritten = Receiver, "record-written", "a file that may hold keys is written and has not got its name";
    RecordReplaced = Receiver, "record-replaced", "such a file has its name, the one before is not overwritten yet";
    RecordOverwritten = Receiver, "record-overwritten", "the keys of the record are gone, its file is not";
    RecordRemoving = Receiver, "record-removing", "the keys are gone, the folder is not";
}

/// Dies here, if that was asked for.
#[inline]
pub fn hit(point: Point) {
    sealift_host::fail_point::hit(FailPoint { name: point.name(), what: point.what() });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
        assert!(Point::ALL.iter().all(|point| !point.what().is_empty() && !point.name().contains(':')));
    }
}
