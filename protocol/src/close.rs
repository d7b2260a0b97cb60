//! The one namespace of outcomes: what a `Refuse` carries, what a QUIC connection is closed with,
//! and what a process exits with. A code is a number and never a text, so nothing a peer writes
//! reaches a terminal or a log.

use minicbor::{Decode, Encode};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, exit $exit:literal, $word:literal;)*) => {
        /// Why a transfer ended. The high half of the number says whose affair it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(index_only)]
        #[repr(u16)]
        pub enum Code {
            $($(#[$doc])* #[n($number)] $name = $number,)*
        }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The exit code of a process that ends for this reason (design.md, 9).
            pub fn exit_code(self) -> u8 {
                match self { $(Code::$name => $exit,)* }
            }

            /// The word for logs and `--json`.
            pub fn word(self) -> &'static str {
                match self { $(Code::$name => $word,)* }
            }

            /// The code with this number, as read from a QUIC close frame.
            pub fn from_number(number: u64) -> Option<Self> {
                match number { $($number => Some(Code::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// Everything arrived, was verified, loaded, and proven from the target. Not 0: that is what a
    /// QUIC implementation closes with when a connection is dropped without a word.
    Done = 1, exit 0, "done";

    // The peer, or who it says it is.
    /// The peer could not be reached, or fell silent before anything was agreed.
    Unreachable = 0x100, exit 4, "unreachable";
    /// No protocol version in common.
    VersionUnsupported = 0x101, exit 4, "version_unsupported";
    /// No suite in common, or the one chosen was not offered.
    SuiteUnsupported = 0x102, exit 4, "suite_unsupported";
    /// The peer's certificate was refused: wrong authority, time, role, name or use.
    IdentityRefused = 0x103, exit 4, "identity_refused";
    /// A signature does not fit this connection's transcript: a splice or a man in the middle.
    TranscriptMismatch = 0x104, exit 4, "transcript_mismatch";
    /// A message out of turn, not canonical, or of unknown kind.
    ProtocolViolation = 0x105, exit 4, "protocol_violation";
    /// A length, count or rate over its bound.
    LimitExceeded = 0x106, exit 4, "limit_exceeded";
    /// The peer took longer than the protocol allows before data flowed.
    TooSlow = 0x107, exit 4, "too_slow";
    /// The proof of a ticket is wrong: the secret, the grant or a key is not the one that the
    /// receiver issued it for.
    ProofRefused = 0x108, exit 4, "proof_refused";

    // What may be done.
    /// The grant is damaged, forged, or signed by somebody who is not trusted here.
    GrantInvalid = 0x200, exit 7, "grant_invalid";
    GrantExpired = 0x201, exit 7, "grant_expired";
    GrantNotYetValid = 0x202, exit 7, "grant_not_yet_valid";
    /// The grant's one transfer has been done.
    GrantUsed = 0x203, exit 7, "grant_used";
    /// The grant is for another sender, receiver, transfer or target.
    GrantForeign = 0x204, exit 7, "grant_foreign";
    /// Another connection, process or sender has the transfer.
    TransferBusy = 0x205, exit 7, "transfer_busy";
    /// The plan asks for what the receiver does not allow, or cannot load.
    PlanRefused = 0x206, exit 7, "plan_refused";
    /// The clocks of the two hosts are too far apart.
    ClocksApart = 0x207, exit 7, "clocks_apart";
    /// Another transfer that has not ended has the target.
    TargetBusy = 0x208, exit 7, "target_busy";
    /// The receiver runs as many transfers as it takes.
    ReceiverBusy = 0x209, exit 7, "receiver_busy";
    /// The ticket is bound to the key of another sender.
    TicketBound = 0x20a, exit 7, "ticket_bound";
    /// The receiver has issued no such ticket, or the transfer is over.
    TicketUnknown = 0x20b, exit 7, "ticket_unknown";

    // What arrived is not what was sent.
    /// Authentication of a sealed chunk failed.
    ChunkForged = 0x300, exit 6, "chunk_forged";
    /// A chunk came twice, too early, or after the last.
    ChunkOrder = 0x301, exit 6, "chunk_order";
    /// A chunk of another transfer, epoch or part.
    ChunkForeign = 0x302, exit 6, "chunk_foreign";
    /// A header that no sender writes: unknown codec or flag, lengths out of bounds.
    ChunkMalformed = 0x303, exit 6, "chunk_malformed";
    /// The packed bytes do not unpack to exactly the length that was authenticated.
    ChunkUnpack = 0x304, exit 6, "chunk_unpack";
    /// The keyed hash of the plaintext is not the one that was sealed with it.
    ChunkHash = 0x305, exit 6, "chunk_hash";
    /// A part's stream ended before its last chunk.
    PartTruncated = 0x306, exit 6, "part_truncated";
    /// The epoch's keys are not the ones committed to, or the envelope does not open.
    KeyCommitment = 0x307, exit 6, "key_commitment";
    /// The manifest's counts or roots are not those of what arrived.
    ManifestMismatch = 0x308, exit 6, "manifest_mismatch";
    /// Read again from the target, a table is not what was sent.
    TargetMismatch = 0x309, exit 6, "target_mismatch";
    /// An acknowledgement or receipt for something that was never sent.
    AckImpossible = 0x30a, exit 6, "ack_impossible";
    /// Bytes of a part that are no rows of its table.
    RowMalformed = 0x30b, exit 6, "row_malformed";
    /// A sealed log is not what was written: bit rot, or a file that is no log, or one that was put
    /// in its place.
    LogDamaged = 0x30c, exit 6, "log_damaged";
    /// A sealed log of another transfer, sealing key or kind.
    LogForeign = 0x30d, exit 6, "log_foreign";

    // The two databases.
    SourceFailed = 0x400, exit 8, "source_failed";
    /// The source cannot be moved as it is; nothing was sent.
    SourceUnsuitable = 0x401, exit 8, "source_unsuitable";
    TargetFailed = 0x402, exit 8, "target_failed";
    TargetNotEmpty = 0x403, exit 8, "target_not_empty";
    TargetFull = 0x404, exit 8, "target_full";
    /// The loader ended before its input did, or with an exit code other than 0.
    LoaderFailed = 0x405, exit 8, "loader_failed";
    /// Read again, the source is not what was sent of it before; nothing of it was sent.
    SourceChanged = 0x406, exit 8, "source_changed";
    /// There was nothing to move, and nobody had said that there may be nothing.
    SourceEmpty = 0x407, exit 8, "source_empty";
    /// The target cannot take what the source holds, however often it is tried; what was staged is
    /// dropped.
    LoadImpossible = 0x408, exit 8, "load_impossible";

    // Stopped.
    /// The link was lost, or a process went away.
    Interrupted = 0x500, exit 5, "interrupted";
    /// Somebody pressed Ctrl-C, or asked the process to end.
    UserInterrupt = 0x501, exit 130, "user_interrupt";
    /// A sealed log has no room left, on its disk or in its budget; what is in it stays.
    LogFull = 0x502, exit 5, "log_full";
    /// A sealed log could not be read, written or made durable.
    LogFailed = 0x503, exit 5, "log_failed";
    /// What the receiver lacks cannot be read again.
    ResumeImpossible = 0x504, exit 5, "resume_impossible";
    /// Somebody ended the transfer for good; what was staged is gone.
    Abandoned = 0x505, exit 5, "abandoned";
    /// The loader had everything and its exit is not known, or it ended well before it had
    /// everything: the load, or a part of it, may be there.
    InDoubt = 0x506, exit 5, "in_doubt";
    /// In doubt, and the receiver's operator states that the load is there. There is no receipt.
    StatedLoaded = 0x507, exit 1, "stated_loaded";

    // This host.
    Usage = 0x600, exit 2, "usage";
    Preflight = 0x601, exit 3, "preflight";
    AuditUnwritable = 0x602, exit 9, "audit_unwritable";
    /// Random bytes repeated: nothing is sealed on a host whose randomness is broken.
    RandomBroken = 0x603, exit 1, "random_broken";
    Internal = 0x604, exit 1, "internal";
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// Whether it is about the peer, what it may do, or what it says.
    pub fn is_of_peer(self) -> bool {
        self != Code::GrantExpired && (0x100..0x400).contains(&self.number())
    }

    /// Whether the same command, given again, may end better without anybody changing anything.
    pub fn retry_may_help(self) -> bool {
        matches!(self, Code::Interrupted | Code::Unreachable | Code::TooSlow) || self.is_busy()
    }

    /// Whether it ends by itself, once something else has ended.
    pub fn is_busy(self) -> bool {
        matches!(self, Code::TransferBusy | Code::TargetBusy | Code::ReceiverBusy)
    }

    /// Whether a clock decided it, so that both clocks have to be shown.
    pub fn is_of_clock(self) -> bool {
        matches!(self, Code::GrantExpired | Code::GrantNotYetValid | Code::ClocksApart)
    }

    /// Whether what a receiver has of a transfer is kept when it ends for this reason, so that the
    /// transfer can go on later. What was found to be false, or may no longer be had, is dropped.
    pub fn keeps_transfer(self) -> bool {
        self.retry_may_help()
            || matches!(
                self,
                Code::UserInterrupt
                    | Code::GrantExpired
                    | Code::GrantNotYetValid
                    | Code::ClocksApart
                    | Code::SourceChanged
                    | Code::ResumeImpossible
                    | Code::InDoubt
                    | Code::TargetFailed
                    | Code::TargetFull
                    | Code::LoaderFailed
                    | Code::LogFull
                    | Code::LogFailed
                    | Code::AuditUnwritable
                    | Code::Preflight
                    | Code::Internal
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_read_back() {
        for pair in Code::ALL.windows(2) {
            assert!(pair[0].number() < pair[1].number());
        }
        for &code in Code::ALL {
            assert_eq!(Code::from_number(code.number().into()), Some(code));
        }
        assert_eq!(Code::from_number(u64::MAX), None);
        // A connection that was dropped says nothing.
        assert_eq!(Code::from_number(0), None);
    }

    #[test]
    fn only_done_exits_zero() {
        for &code in Code::ALL {
            assert_eq!(code.exit_code() == 0, code == Code::Done, "{}", code.word());
        }
    }
}
