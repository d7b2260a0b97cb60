//! The one namespace of outcomes: the code in a `Refuse`, in the close of a QUIC connection, and
//! behind the exit code of a process. It is a number and never a text, so that nothing that a peer
//! writes reaches a terminal or a log.

use minicbor::{Decode, Encode};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, exit $exit:literal, $word:literal;)*) => {
        /// Why a transfer ended (`docs/codes.md`). The high byte of the number groups the codes:
        /// 0x01 the peer, 0x02 permission, 0x03 integrity, 0x04 the databases, 0x05 stopped, 0x06
        /// this host.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(index_only)]
        #[repr(u16)]
        pub enum Code {
            $($(#[$doc])* #[n($number)] $name = $number,)*
        }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The exit code of a process that ends with this code (`docs/codes.md`).
            pub fn exit_code(self) -> u8 {
                match self { $(Code::$name => $exit,)* }
            }

            /// The name in logs and `--json`.
            pub fn as_str(self) -> &'static str {
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
    /// Everything arrived, was verified, loaded and proven from the target. Not 0, with which a
    /// QUIC implementation closes a connection that was dropped without a code.
    Done = 1, exit 0, "done";

    // The peer and its identity.
    /// The peer could not be reached, or stopped answering before anything was agreed.
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

    // Permission.
    /// The grant is damaged, forged, or signed by a key that is not trusted here.
    GrantInvalid = 0x200, exit 7, "grant_invalid";
    /// The grant's time to begin, or to finish, has passed.
    GrantExpired = 0x201, exit 7, "grant_expired";
    /// The grant's *not before* is more than the allowed clock skew ahead.
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

    // Integrity: what arrived is not what was sent.
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
    /// The bytes of a part do not decode as rows of its table.
    RowMalformed = 0x30b, exit 6, "row_malformed";
    /// A sealed log is corrupt: bit rot, or a file that is no sealed log.
    LogDamaged = 0x30c, exit 6, "log_damaged";
    /// A sealed log of another transfer, sealing key or kind.
    LogForeign = 0x30d, exit 6, "log_foreign";

    // The two databases.
    /// The source could not be opened or read, or its program failed.
    SourceFailed = 0x400, exit 8, "source_failed";
    /// The source cannot be moved as it is; nothing was sent.
    SourceUnsuitable = 0x401, exit 8, "source_unsuitable";
    /// The target could not be opened, written or read back.
    TargetFailed = 0x402, exit 8, "target_failed";
    /// The target exists already and is not empty. It is left as it was.
    TargetNotEmpty = 0x403, exit 8, "target_not_empty";
    /// The disk of the target has no room left.
    TargetFull = 0x404, exit 8, "target_full";
    /// The loader ended before its input did, or with an exit code other than 0.
    LoaderFailed = 0x405, exit 8, "loader_failed";
    /// Read again, the source is not what was sent of it before; nothing of it was sent.
    SourceChanged = 0x406, exit 8, "source_changed";
    /// There was nothing to move, and the plan does not allow an empty source.
    SourceEmpty = 0x407, exit 8, "source_empty";
    /// The target cannot take what the source holds, however often it is tried; what was staged is
    /// dropped.
    LoadImpossible = 0x408, exit 8, "load_impossible";

    // Stopped.
    /// The link was lost, or a process went away.
    Interrupted = 0x500, exit 5, "interrupted";
    /// A signal asked the process to end, such as Ctrl-C.
    UserInterrupt = 0x501, exit 130, "user_interrupt";
    /// A sealed log has no room left, on its disk or in its budget; what is in it stays.
    LogFull = 0x502, exit 5, "log_full";
    /// A sealed log could not be read, written or made durable.
    LogFailed = 0x503, exit 5, "log_failed";
    /// What the receiver lacks cannot be read again.
    ResumeImpossible = 0x504, exit 5, "resume_impossible";
    /// An operator abandoned the transfer; what was staged is removed.
    Abandoned = 0x505, exit 5, "abandoned";
    /// The loader had all of its input and its exit is not known, or it ended with success before
    /// it had all: the load, or a part of it, may be in the target.
    InDoubt = 0x506, exit 5, "in_doubt";
    /// In doubt, and the receiver's operator states that the load is there. There is no receipt.
    StatedLoaded = 0x507, exit 1, "stated_loaded";

    // This host.
    /// An argument or the configuration is wrong.
    Usage = 0x600, exit 2, "usage";
    /// A check before the transfer failed: a file, its owner or mode, an address, a key.
    Preflight = 0x601, exit 3, "preflight";
    /// The audit log cannot be written or made durable, so nothing more is done.
    AuditUnwritable = 0x602, exit 9, "audit_unwritable";
    /// Random bytes repeated: nothing is sealed on a host whose randomness is broken.
    RandomBroken = 0x603, exit 1, "random_broken";
    /// A bug in Sealift.
    Internal = 0x604, exit 1, "internal";
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// Whether the reason lies with the peer: its identity, its permission, or the bytes that it
    /// sent.
    pub fn is_of_peer(self) -> bool {
        self != Code::GrantExpired && (0x100..0x400).contains(&self.number())
    }

    /// Whether the same command may succeed if it is simply given again.
    pub fn retry_may_help(self) -> bool {
        matches!(self, Code::Interrupted | Code::Unreachable | Code::TooSlow) || self.is_busy()
    }

    /// Whether the condition passes once another connection or transfer has ended.
    pub fn is_busy(self) -> bool {
        matches!(self, Code::TransferBusy | Code::TargetBusy | Code::ReceiverBusy)
    }

    /// Whether it follows from a clock, so that both hosts' clocks have to be shown.
    pub fn is_of_clock(self) -> bool {
        matches!(self, Code::GrantExpired | Code::GrantNotYetValid | Code::ClocksApart)
    }

    /// Whether a receiver keeps what it has of a transfer that ends with this code, so that it can
    /// be resumed. What failed a check, or is no longer permitted, is dropped.
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
            assert_eq!(code.exit_code() == 0, code == Code::Done, "{}", code.as_str());
        }
    }
}
