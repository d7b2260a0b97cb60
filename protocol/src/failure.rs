//! Failures as operators read them: what happened, where, and what to do next. A text is made of
//! words fixed in the source, names of objects, numbers and kinds of error; it never holds a value
//! of a row, a key, or another program's message.

use std::{fmt, io};

use crate::{
    close::Code,
    disposition::RaisedBy,
    error::Error,
    fingerprint::Fingerprint,
    hint::{Hint, Hints, Restart},
    id::{ChunkIndex, PartIndex},
    printable::printable,
};

/// A failure that ends a transfer or a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code, which also decides the exit code of the process.
    pub code: Code,
    /// What happened, and to what.
    pub what: String,
    /// What to do next.
    pub hints: Hints,
    /// The check that failed, if `what` is made of the table's text for the code and that check.
    pub check: Option<&'static str>,
    /// The part concerned, if one is.
    pub part: Option<PartIndex>,
    /// The chunk concerned, if one is; `part` is then set, too.
    pub chunk: Option<ChunkIndex>,
    /// With `TicketBound`: the fingerprint of the sender that the ticket is bound to.
    pub bound: Option<Box<Fingerprint>>,
    /// How many of the hints were printed already; `None` if the failure was not printed.
    pub hints_printed: Option<usize>,
    /// Which side found it.
    pub raised_by: RaisedBy,
}

/// The result of a command or of a step of a transfer.
pub type Outcome<T = ()> = Result<T, Failure>;

/// The code under which an outcome is recorded; [`Code::Done`] for success.
pub fn code_of<T>(outcome: &Outcome<T>) -> Code {
    outcome.as_ref().err().map_or(Code::Done, |failure| failure.code)
}

impl Failure {
    /// A failure of this side, without a place.
    pub fn new(code: Code, what: impl Into<String>, hints: impl Into<Hints>) -> Self {
        Self {
            code,
            what: what.into(),
            hints: hints.into(),
            check: None,
            part: None,
            chunk: None,
            bound: None,
            hints_printed: None,
            raised_by: RaisedBy::ThisSide,
        }
    }

    /// A mistake in arguments or configuration.
    pub fn usage(what: impl Into<String>, hints: impl Into<Hints>) -> Self {
        Self::new(Code::Usage, what, hints)
    }

    /// A failed operation on a file or socket. The text has the kind of the error alone.
    pub fn io(code: Code, what: impl Into<String>, error: &io::Error, hints: impl Into<Hints>) -> Self {
        Self::new(code, format!("{}: {}", what.into(), io_reason(error)), hints)
    }

    /// Adds the hint that nothing is visible in the target, to an interruption. The caller knows
    /// that from the stage of the transfer; it does not follow from the code.
    pub fn while_nothing_is_visible(mut self) -> Self {
        if matches!(self.code, Code::Interrupted | Code::UserInterrupt) {
            self.hints.lead_with(Hint::NothingVisible);
        }
        self
    }

    /// Adds the part concerned.
    pub fn at_part(mut self, part: PartIndex) -> Self {
        self.part = Some(part);
        self
    }
}

/// The reason of an I/O error: the system's text for its number, or its kind.
pub fn io_reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        // Its display is the system's own text for the number, and the number.
        Some(number) => {
            let text = io::Error::from_raw_os_error(number).to_string();
            text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text).to_lowercase()
        }
        None => error.kind().to_string(),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.what))?;
        if let Some(part) = self.part {
            write!(f, " (part {part}")?;
            if let Some(chunk) = self.chunk {
                write!(f, ", chunk {chunk}")?;
            }
            f.write_str(")")?;
        }
        if !self.hints.is_empty() {
            write!(f, "\n  {}", printable(&self.hints.to_string()))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (what, hints) = explain(error.code);
        let what = format!("{what} ({})", error.check);
        let Error { part, chunk, check, .. } = error;
        Self { part, chunk, check: Some(check), ..Self::new(error.code, what, hints) }
    }
}

/// The text of a code, and what to do about it.
pub fn explain(code: Code) -> (&'static str, Hints) {
    let (what, hint) = table(code);
    let hints = match code {
        Code::Interrupted | Code::UserInterrupt => Hint::StartAgain(Restart::Resumes).into(),
        _ => hint.into(),
    };
    (what, hints)
}

/// The texts of all codes and their hints. The hint of an interruption is a value that code looks
/// at, and so is not in this table.
fn table(code: Code) -> (&'static str, &'static str) {
    const TAMPERED: &str = "No chunk that fails a check is loaded. If it happens again, have the path between the hosts and \
                            both hosts' memory examined: this is damage or tampering, not a busy network.";
    const PEER_BUG: &str = "Check that both sides run the same version of Sealift, and that the other side is one.";
    const NEW_TICKET: &str = "Start the receiver again and use the ticket that it prints.";
    match code {
        Code::Done => ("done", ""),
        Code::Unreachable => (
            "the receiver does not answer",
            "Check that it is running, that the address in the ticket is reachable from here, and that UDP passes.",
        ),
        Code::VersionUnsupported => {
            ("the two agents share no protocol version", "Install the same version on both hosts.")
        }
        Code::SuiteUnsupported => ("the two agents share no cipher suite", "Use --suite auto on both sides."),
        Code::IdentityRefused => (
            "the other side does not have the key that it is known by",
            "Compare the fingerprints that `identity` prints on both hosts, out of band; then use a new ticket.",
        ),
        Code::ProofRefused => (
            "the ticket's proof is wrong",
            "The ticket was altered, or is another receiver's: start the receiver again and use the ticket that it prints. \
             If that happens twice, tickets are altered on their way.",
        ),
        Code::TicketBound => (
            "the ticket is bound to another sender",
            "If that is not a sender of yours, the ticket was copied: abandon the transfer at the receiver and \
             make a new ticket. To resume from here, give this sender the --state-dir of the one that began.",
        ),
        Code::TicketUnknown => {
            ("the receiver knows no such ticket: its transfer is over, or the receiver has lost its state", NEW_TICKET)
        }
        Code::TranscriptMismatch => (
            "a signature does not belong to this connection",
            "The connection may be intercepted. Do not use this path until you know.",
        ),
        Code::ProtocolViolation => ("the other side broke the protocol", PEER_BUG),
        Code::LimitExceeded => ("a limit was exceeded", PEER_BUG),
        Code::TooSlow => ("the other side took too long to hear or to answer", "Try again on a better link."),
        Code::GrantInvalid => ("the ticket is damaged, or this receiver did not make it", NEW_TICKET),
        Code::GrantExpired => (
            "the ticket has expired",
            "Compare `date -u` on both hosts. If the clocks are right, start the receiver again and use the ticket that it \
             prints; if one is wrong, put it right and give the same command again.",
        ),
        Code::GrantNotYetValid => (
            "the ticket is not valid yet",
            "Compare `date -u` on both hosts, and put the wrong one right; then give the same command again.",
        ),
        Code::ClocksApart => (
            "the clocks of the two hosts are more than a minute apart",
            "Compare `date -u` on both, and put the wrong one right; then give the same command again.",
        ),
        Code::GrantUsed => ("the one transfer of this ticket has been done", NEW_TICKET),
        Code::GrantForeign => ("the ticket is for another sender, receiver, transfer or target", NEW_TICKET),
        Code::TransferBusy => (
            "another connection or another process runs this transfer",
            "If it is yours, stop it, or let it end. A link that was just lost holds the transfer for up to ten seconds: \
             then give the same command again.",
        ),
        Code::TargetBusy => (
            "another transfer into the same target was begun and has not ended",
            "Let it end; or, on the target host, see `sealift-receiver status` and end it with `sealift-receiver abandon`. \
             The ticket stays good.",
        ),
        Code::ReceiverBusy => (
            "the receiver runs as many transfers as it takes at once",
            "Give the same command again when one of them has ended, or raise transfers_max in the receiver's \
             configuration. The ticket stays good.",
        ),
        Code::PlanRefused => (
            "the receiver cannot load what the sender wants to send",
            "Source and target must be of one kind: a database into a database of the same engine, a dump into a loader.",
        ),
        Code::ChunkForged => ("a chunk is not what the sender sealed", TAMPERED),
        Code::ChunkOrder => ("a chunk came out of order", TAMPERED),
        Code::ChunkForeign => ("a chunk belongs to another transfer", TAMPERED),
        Code::ChunkMalformed => ("a chunk's header is not valid", TAMPERED),
        Code::ChunkUnpack => ("a chunk does not unpack to what was announced", TAMPERED),
        Code::ChunkHash => ("a chunk's content does not match its hash", TAMPERED),
        Code::PartTruncated => ("a part ended before its last chunk", TAMPERED),
        Code::KeyCommitment => ("the keys are not the ones that were committed to", TAMPERED),
        Code::ManifestMismatch => ("what arrived is not what the sender says it sent", TAMPERED),
        Code::TargetMismatch => (
            "read again from the target, the data is not what was sent",
            "The load was dropped. Look for triggers, disks or other programs that change rows in the target.",
        ),
        Code::AckImpossible => ("the receiver acknowledged what was never sent", PEER_BUG),
        Code::RowMalformed => ("a part's bytes are no rows of its table", PEER_BUG),
        Code::LogDamaged => (
            "a sealed log is not what was written",
            "Its disk or its file system is not to be trusted. Abandon this transfer and start a new one on another disk.",
        ),
        Code::LogForeign => (
            "a sealed log belongs to another transfer or another key",
            "Put back the file that belongs there, or abandon this transfer and start a new one.",
        ),
        Code::SourceFailed => ("the source could not be read", "See the sender's own message."),
        Code::SourceUnsuitable => ("the source cannot be moved as it is", "See the sender's own message."),
        Code::TargetFailed => ("the target could not be written", "See the receiver's own message."),
        Code::TargetNotEmpty => {
            ("the target exists and is not empty", "Choose another target, or remove this one yourself.")
        }
        Code::TargetFull => ("the target's disk is full", "Make room on the target host and start again."),
        Code::LoaderFailed => ("the loader failed", "See the receiver's own message."),
        Code::SourceChanged => (
            "the source is not what was sent of it before",
            "Nothing is lost: bring back the source as it was, or type --restart on the sender to send it as it is now.",
        ),
        Code::SourceEmpty => (
            "the source has nothing to move",
            "Nothing was loaded. See the sender's own message; --allow-empty there says that this is meant.",
        ),
        Code::LoadImpossible => (
            "the target cannot take what the source holds",
            "What was staged is removed, and the transfer is over. See the receiver's own message.",
        ),
        Code::Interrupted => ("the link was lost, or the other process ended", ""),
        Code::UserInterrupt => ("stopped by a person", ""),
        Code::Abandoned => ("the transfer was abandoned", "Nothing of it is left. Start again with a new ticket."),
        Code::ResumeImpossible => (
            "what the receiver lacks cannot be read again from the source",
            "Start the sender again with the same ticket: it sends everything again.",
        ),
        Code::InDoubt => (
            "the loader's end was not seen or came too early, and whether it committed is not known",
            "Nothing is loaded again by itself. The receiver's operator looks into the target and states what it holds, with \
             `sealift-receiver resolve`; then give the same command again.",
        ),
        Code::StatedLoaded => (
            "the receiver's operator states that the load is in the target; no receipt proves it",
            "Nothing has to be sent again. The statement is in the receiver's audit log; keep both sides' logs with it.",
        ),
        Code::LogFull => (
            "a sealed log has no room left",
            "Nothing is lost. Make room on the disk of --state-dir, or allow the log more, and give the same command again.",
        ),
        Code::LogFailed => (
            "a sealed log cannot be read or written",
            "Nothing that was acknowledged is lost. Examine the disk of --state-dir, then give the same command again.",
        ),
        Code::Usage => ("the command is not right", "See --help."),
        Code::Preflight => ("a check before the start failed", "See the message above."),
        Code::AuditUnwritable => ("the audit log cannot be written", "Check --state-dir: space, owner and mode."),
        Code::RandomBroken => (
            "this host's random numbers repeat",
            "Nothing may be sealed here. Have the host's virtualisation and kernel examined.",
        ),
        Code::Internal => ("an error in Sealift itself", "Please report it with the output of --version."),
    }
}
