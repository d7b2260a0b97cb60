//! What an audit log can say: a closed list of events with typed fields (docs/audit.md). They hold
//! identifiers, counts, hashes, codes, times and names of objects. The only free text is the
//! purpose of a grant.

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{IpAddr, SocketAddr},
};

use sealift_protocol::{
    close::Code,
    fingerprint::Fingerprint,
    grant::Grant,
    id::Epoch,
    link_facts::{CipherSuite, KeyExchangeGroup, LinkFacts, TlsVersion, Transport},
    manifest::{Engine, Proof, ReceiverTrust, SignedReceipt},
    seal::Suite,
};
use serde::{Serialize, Serializer};

use crate::{
    clock::utc_text,
    failure::{Outcome, code_of},
    refusals::{Counts, RefusalCause},
};

/// One event, before it happens.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event")]
pub enum Entry {
    /// A process of the sender is about to run a transfer.
    #[serde(rename = "transfer.begin")]
    SendBegin {
        #[serde(serialize_with = "written::text")]
        receiver: Fingerprint,
        #[serde(serialize_with = "written::trust")]
        receiver_trust: ReceiverTrust,
        source: Name,
        #[serde(serialize_with = "written::engine")]
        engine: Engine,
        target: Name,
        purpose: Purpose,
    },
    /// The receiver is about to open the target of a transfer's first good offer, or of an archive.
    #[serde(rename = "transfer.begin")]
    LoadBegin {
        #[serde(serialize_with = "written::text")]
        sender: Fingerprint,
        into: Name,
        #[serde(serialize_with = "written::engine")]
        engine: Engine,
        purpose: Purpose,
    },
    #[serde(rename = "transfer.connect")]
    TransferConnect {
        address: SocketAddr,
        #[serde(flatten)]
        peer: Peer,
        #[serde(serialize_with = "written::suite")]
        suite: Suite,
        #[serde(serialize_with = "written::epoch")]
        epoch: Epoch,
        #[serde(flatten)]
        link: LinkNames,
    },
    #[serde(rename = "transfer.publish")]
    TransferPublish(ReceiptFields),
    #[serde(rename = "transfer.end")]
    TransferEnd {
        #[serde(serialize_with = "written::code")]
        outcome: Code,
        #[serde(flatten)]
        receipt: Option<ReceiptFields>,
    },
    #[serde(rename = "transfer.abandon")]
    TransferAbandon {
        #[serde(flatten)]
        by: AbandonedBy,
        /// The record of the transfer cannot be read.
        #[serde(skip_serializing_if = "is_false")]
        unreadable: bool,
    },
    /// What the operator states about a transfer that is in doubt.
    #[serde(rename = "transfer.resolve")]
    TransferResolve { statement: Statement },
    #[serde(rename = "transfer.expire")]
    TransferExpire {},
    #[serde(rename = "identity.make")]
    IdentityMake {
        #[serde(serialize_with = "written::text")]
        fingerprint: Fingerprint,
    },
    /// An authority's certificate takes the place of the one that the agent showed before.
    #[serde(rename = "identity.certify")]
    IdentityCertify {
        #[serde(serialize_with = "written::text")]
        fingerprint: Fingerprint,
        name: Name,
    },
    #[serde(rename = "ticket.issue")]
    TicketIssue {
        target: Name,
        purpose: Purpose,
        #[serde(serialize_with = "written::time")]
        begin_before: u64,
        #[serde(serialize_with = "written::time")]
        finish_before: u64,
        #[serde(serialize_with = "written::time")]
        retain_until: u64,
    },
    #[serde(rename = "ticket.bind")]
    TicketBind {
        #[serde(serialize_with = "written::text")]
        sender: Fingerprint,
        address: SocketAddr,
    },
    #[serde(rename = "ticket.refuse")]
    TicketRefuse {
        #[serde(serialize_with = "written::code")]
        reason: Code,
        #[serde(serialize_with = "written::text")]
        sender: Fingerprint,
        address: SocketAddr,
        #[serde(serialize_with = "written::optional_text", skip_serializing_if = "Option::is_none")]
        bound: Option<Fingerprint>,
    },
    #[serde(rename = "archive.begin")]
    ArchiveBegin {
        #[serde(serialize_with = "written::text")]
        receiver: Fingerprint,
        source: Name,
        #[serde(serialize_with = "written::engine")]
        engine: Engine,
        purpose: Purpose,
    },
    #[serde(rename = "archive.publish")]
    ArchivePublish {
        #[serde(serialize_with = "written::text")]
        sender: Fingerprint,
    },
    #[serde(rename = "archive.end")]
    ArchiveEnd {
        #[serde(serialize_with = "written::code")]
        outcome: Code,
    },
    #[serde(rename = "archive.use")]
    ArchiveUse {
        #[serde(serialize_with = "written::time")]
        until: u64,
    },
    #[serde(rename = "key.make")]
    KeyMake {
        #[serde(serialize_with = "written::text")]
        fingerprint: Fingerprint,
    },
    #[serde(rename = "serve.start")]
    ServeStart { targets: usize },
    #[serde(rename = "serve.stop")]
    ServeStop { drained: bool },
    #[serde(rename = "connections.refused")]
    ConnectionsRefused {
        total: u64,
        #[serde(serialize_with = "written::causes")]
        causes: BTreeMap<RefusalCause, u64>,
        addresses: BTreeMap<IpAddr, u64>,
        elsewhere: u64,
    },
    #[serde(rename = "journal.repaired")]
    JournalRepaired { kept_bytes: u64, cut_bytes: u64 },
    #[serde(rename = "spool.repaired")]
    SpoolRepaired { kept_bytes: u64, cut_bytes: u64 },
    #[serde(rename = "audit.repaired")]
    AuditRepaired(AuditRepair),
    #[serde(rename = "clock.step")]
    ClockStep { seconds: i64 },
    #[serde(rename = "source.empty_allowed")]
    SourceEmptyAllowed {},
    /// An error of a preflight was accepted, by its name.
    #[serde(rename = "finding.waived")]
    FindingWaived { name: Name },
    #[serde(rename = "danger.plaintext_file")]
    DangerPlaintextFile {
        #[serde(skip_serializing_if = "Option::is_none")]
        target: Option<Name>,
    },
    #[serde(rename = "danger.show_program_output")]
    DangerShowProgramOutput {
        #[serde(skip_serializing_if = "Option::is_none")]
        target: Option<Name>,
    },
}

impl Entry {
    pub fn ticket_issue(grant: &Grant) -> Self {
        Self::TicketIssue {
            target: Name::new(&grant.target),
            purpose: Purpose::new(&grant.purpose),
            begin_before: grant.begin_before_seconds,
            finish_before: grant.finish_before_seconds,
            retain_until: grant.retain_until_seconds,
        }
    }

    pub fn abandoned_by_operator() -> Self {
        Self::TransferAbandon { by: AbandonedBy::Operator, unreadable: false }
    }

    /// A process ends its part of a transfer, without a receipt that the entry has to vouch for.
    pub fn transfer_end<T>(outcome: &Outcome<T>) -> Self {
        Self::TransferEnd { outcome: code_of(outcome), receipt: None }
    }

    pub fn connections_refused(counts: Counts) -> Self {
        let Counts { total, causes, addresses, elsewhere } = counts;
        Self::ConnectionsRefused { total, causes, addresses, elsewhere }
    }
}

/// The name of a source or a target: what its operator calls it, or a URL without what may be
/// secret in it, as its engine shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Name(String);

impl Name {
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
}

/// Why a transfer is made, in the words of the person who permitted it.
#[derive(Clone, Debug, Serialize)]
pub struct Purpose(String);

impl Purpose {
    pub fn new(purpose: impl Into<String>) -> Self {
        Self(purpose.into())
    }
}

/// The other agent of a connection.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    Sender(#[serde(serialize_with = "written::text")] Fingerprint),
    Receiver(#[serde(serialize_with = "written::text")] Fingerprint),
}

/// [`LinkFacts`] by their names.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LinkNames {
    #[serde(serialize_with = "written::text")]
    transport: Transport,
    #[serde(serialize_with = "written::text")]
    tls_version: TlsVersion,
    #[serde(serialize_with = "written::text")]
    group: KeyExchangeGroup,
    #[serde(serialize_with = "written::text")]
    cipher_suite: CipherSuite,
}

impl From<LinkFacts> for LinkNames {
    fn from(facts: LinkFacts) -> Self {
        let LinkFacts { transport, tls_version, group, cipher_suite } = facts;
        Self { transport, tls_version, group, cipher_suite }
    }
}

/// Who ended a transfer for good.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum AbandonedBy {
    /// Whose uid stands in the entry.
    Operator,
    Sender {
        #[serde(serialize_with = "written::text")]
        sender: Fingerprint,
    },
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Statement {
    Loaded,
    NotLoaded,
}

/// What was done to the end of a log whose last append was cut off.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditRepair {
    /// A newline.
    AddedBytes(u64),
    CutBytes(u64),
}

/// What both logs keep of a receipt: whose it is, what it counts, and the hash of its file, by
/// which a log vouches for it.
#[derive(Clone, Debug, Serialize)]
pub struct ReceiptFields {
    /// As `b3sum` prints it of the receipt's file.
    #[serde(serialize_with = "written::text")]
    pub receipt: blake3::Hash,
    #[serde(serialize_with = "written::text")]
    pub sender: Fingerprint,
    #[serde(serialize_with = "written::text")]
    pub receiver: Fingerprint,
    #[serde(serialize_with = "written::trust")]
    pub receiver_trust: ReceiverTrust,
    #[serde(serialize_with = "written::suite")]
    pub suite: Suite,
    #[serde(serialize_with = "written::proof")]
    pub proof: Proof,
    pub parts: u64,
    pub chunks: u64,
    pub rows: u64,
    pub plain_bytes: u64,
}

impl ReceiptFields {
    pub fn of(signed: &SignedReceipt) -> Self {
        let receipt = &signed.receipt;
        let manifest = &receipt.manifest.manifest;
        let sum = |counts: &mut dyn Iterator<Item = u64>| counts.fold(0, u64::saturating_add);
        Self {
            receipt: receipt_hash(signed),
            sender: Fingerprint::of(&receipt.sender_key),
            receiver: Fingerprint::of(&receipt.receiver_key),
            receiver_trust: manifest.origin.receiver_trust,
            suite: receipt.suite,
            proof: receipt.evidence.proof,
            parts: manifest.parts.len() as u64,
            chunks: sum(&mut manifest.parts.iter().map(|part| part.chunks.0)),
            rows: sum(&mut manifest.tables.iter().map(|table| table.rows)),
            plain_bytes: sum(&mut manifest.parts.iter().map(|part| part.plain_bytes)),
        }
    }
}

/// The hash of the receipt's file.
pub fn receipt_hash(signed: &SignedReceipt) -> blake3::Hash {
    blake3::Hash::from_bytes(signed.hash())
}

fn is_false(value: &bool) -> bool {
    !value
}

/// How typed fields are written.
mod written {
    use super::*;

    pub fn text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn optional_text<S: Serializer>(value: &Option<impl Display>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    /// Seconds since 1970 as `date -u` writes them.
    pub fn time<S: Serializer>(seconds: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&utc_text(*seconds))
    }

    pub fn causes<S: Serializer>(causes: &BTreeMap<RefusalCause, u64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(causes.iter().map(|(cause, count)| (cause.as_str(), count)))
    }

    pub fn code<S: Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(code.as_str())
    }

    pub fn engine<S: Serializer>(engine: &Engine, serializer: S) -> Result<S::Ok, S::Error> {
        // What a peer has sent is a name, or no engine.
        serializer.serialize_str(if engine.check().is_ok() { &engine.name } else { "unknown" })
    }

    pub fn trust<S: Serializer>(trust: &ReceiverTrust, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(trust.as_str())
    }

    pub fn suite<S: Serializer>(suite: &Suite, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(suite.name())
    }

    pub fn proof<S: Serializer>(proof: &Proof, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(proof.as_str())
    }

    pub fn epoch<S: Serializer>(epoch: &Epoch, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(epoch.0.into())
    }
}
