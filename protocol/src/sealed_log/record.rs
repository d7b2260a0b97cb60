//! The header and the records of a sealed log, as values and as bytes.

use bytes::{Buf, Bytes};
use minicbor::{Decode, Encode};

use crate::{
    close::Code,
    codec,
    envelope::{KeyEnvelope, SealingKey, SealingPublicKey},
    error::{Error, Result},
    frame::ChunkHeader,
    id::{Epoch, TransferId},
    key::{DigestSecret, EpochSecret, KeyCommitment},
    limits::{
        CHUNK_HEADER_BYTES, CONTROL_BYTES_MAX, EPOCH_MAX, FRAME_BYTES_MAX, LOG_CHECK_BYTES, LOG_EPOCH_BYTES_MAX,
        LOG_HEADER_BYTES,
    },
    random::Random,
    seal::Suite,
    transcript::TranscriptHash,
};

const HEADER_MAGIC: [u8; 4] = *b"SLl1";

/// Bytes of a header that its check covers.
pub(super) const HEADER_CHECKED_BYTES: usize = LOG_HEADER_BYTES - LOG_CHECK_BYTES;

const CONTEXT_FINGERPRINT: &str = "sealift/1 2026-11 sealing key fingerprint";

/// What a log is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LogKind {
    /// The receiver's: what a fresh loader is fed from.
    Journal = 1,
    /// The sender's: what it cannot read again from its source, and cannot open either.
    Spool = 2,
    /// A transfer that is carried instead of sent.
    Archive = 3,
}

/// BLAKE3 of a sealing public key: for whom a log's envelopes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct KeyFingerprint(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

impl KeyFingerprint {
    pub fn of(key: &SealingPublicKey) -> Self {
        Self(blake3::derive_key(CONTEXT_FINGERPRINT, &key.0))
    }
}

/// Which log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId {
    pub kind: LogKind,
    pub transfer: TransferId,
    pub key: KeyFingerprint,
}

/// The first 104 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHeader {
    pub id: LogId,
    salt: [u8; 16],
}

impl LogHeader {
    pub fn new(id: LogId, random: &mut dyn Random) -> Self {
        let mut salt = [0; 16];
        random.fill(&mut salt);
        Self { id, salt }
    }

    pub fn to_bytes(&self) -> [u8; LOG_HEADER_BYTES] {
        let mut out = [0; LOG_HEADER_BYTES];
        out[..4].copy_from_slice(&HEADER_MAGIC);
        out[4] = self.id.kind as u8;
        out[8..24].copy_from_slice(&self.id.transfer.0);
        out[24..56].copy_from_slice(&self.id.key.0);
        out[56..72].copy_from_slice(&self.salt);
        let check = blake3::hash(&out[..HEADER_CHECKED_BYTES]);
        out[HEADER_CHECKED_BYTES..].copy_from_slice(check.as_bytes());
        out
    }

    pub fn from_bytes(bytes: &[u8; LOG_HEADER_BYTES]) -> Result<Self> {
        let damaged = |check| Error::new(Code::LogDamaged, check);
        if bytes[..4] != HEADER_MAGIC {
            return Err(damaged("not a sealed log of this version"));
        }
        let kind = match bytes[4] {
            1 => LogKind::Journal,
            2 => LogKind::Spool,
            3 => LogKind::Archive,
            _ => return Err(damaged("kind of sealed log")),
        };
        let id = LogId { kind, transfer: TransferId(array(&bytes[8..24])), key: KeyFingerprint(array(&bytes[24..56])) };
        let header = Self { id, salt: array(&bytes[56..72]) };
        if header.to_bytes() != *bytes {
            return Err(damaged("header of a sealed log"));
        }
        Ok(header)
    }

    /// fault-matrix S6: a log that is whole but not this one.
    pub fn expect(&self, id: &LogId) -> Result<()> {
        let foreign = |check| Err(Error::new(Code::LogForeign, check));
        match () {
            () if self.id.transfer != id.transfer => foreign("transfer of a sealed log"),
            () if self.id.key != id.key => foreign("sealing key of a sealed log"),
            () if self.id.kind != id.kind => foreign("kind of sealed log"),
            () => Ok(()),
        }
    }
}

/// Everything that is needed to open the chunks of one epoch, but the receiver's key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EpochRecord {
    #[n(0)]
    pub epoch: Epoch,
    #[n(1)]
    pub suite: Suite,
    #[n(2)]
    pub envelope: KeyEnvelope,
    /// The transcript under which the envelope was sealed.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub info: TranscriptHash,
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub commitment: KeyCommitment,
}

impl EpochRecord {
    /// Opens the envelope and judges the key commitment, as was done when it came.
    pub fn open(&self, key: &SealingKey, transfer: TransferId) -> Result<(EpochSecret, DigestSecret)> {
        let (secret, digest_secret) = self.envelope.open(key, &self.info, self.epoch)?;
        // blake3::Hash compares in constant time.
        if blake3::Hash::from(secret.commitment(transfer, self.epoch)) != blake3::Hash::from(self.commitment) {
            return Err(Error::new(Code::KeyCommitment, "key commitment"));
        }
        Ok((secret, digest_secret))
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Stands before the chunks of its epoch.
    Epoch(Box<EpochRecord>),
    /// A frame of the wire: its header, and the sealed bytes that follow it.
    Chunk { header: ChunkHeader, sealed: Bytes },
    /// A message as canonical CBOR: what an archive needs of the exchange. Its meaning is not the
    /// log's affair.
    Statement(Bytes),
    /// Everything before it was synced when it was written.
    Mark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RecordType {
    Epoch = 1,
    Chunk = 2,
    Statement = 3,
    Mark = 4,
}

impl RecordType {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Epoch, Self::Chunk, Self::Statement, Self::Mark].into_iter().find(|kind| *kind as u8 == byte)
    }

    pub(super) fn body_bytes_max(self) -> usize {
        match self {
            Self::Epoch => LOG_EPOCH_BYTES_MAX,
            Self::Chunk => FRAME_BYTES_MAX,
            Self::Statement => CONTROL_BYTES_MAX,
            Self::Mark => 0,
        }
    }
}

impl Record {
    pub(super) fn kind(&self) -> RecordType {
        match self {
            Record::Epoch(_) => RecordType::Epoch,
            Record::Chunk { .. } => RecordType::Chunk,
            Record::Statement(_) => RecordType::Statement,
            Record::Mark => RecordType::Mark,
        }
    }

    /// The body in two pieces, so that the bytes of a chunk are not copied.
    pub(super) fn body(&self) -> (Vec<u8>, Bytes) {
        match self {
            Record::Epoch(epoch) => (codec::encode(&**epoch), Bytes::new()),
            Record::Chunk { header, sealed } => (header.to_bytes().to_vec(), sealed.clone()),
            Record::Statement(bytes) => (Vec::new(), bytes.clone()),
            Record::Mark => (Vec::new(), Bytes::new()),
        }
    }

    pub(super) fn from_body(kind: RecordType, mut body: Bytes, transfer: TransferId) -> Result<Self> {
        let record = match kind {
            RecordType::Epoch => {
                Record::Epoch(Box::new(codec::decode(&body, LOG_EPOCH_BYTES_MAX, "epoch of a sealed log")?))
            }
            RecordType::Chunk => {
                let header = body.first_chunk().ok_or(Error::new(Code::ChunkMalformed, "chunk of a sealed log"))?;
                let header = ChunkHeader::from_bytes(header)?;
                body.advance(CHUNK_HEADER_BYTES);
                Record::Chunk { header, sealed: body }
            }
            RecordType::Statement => Record::Statement(body),
            RecordType::Mark => Record::Mark,
        };
        record.judge(transfer)?;
        Ok(record)
    }

    /// What both who writes and who reads a record asks of it.
    pub(super) fn judge(&self, transfer: TransferId) -> Result<()> {
        match self {
            Record::Epoch(epoch) if !(1..=EPOCH_MAX).contains(&epoch.epoch.0) => {
                Err(Error::new(Code::LimitExceeded, "epoch of a sealed log"))
            }
            Record::Chunk { header, sealed } => {
                let refuse = |code, check| Err(Error::new(code, check).at_chunk(header.part, header.index));
                match () {
                    () if header.transfer != transfer => refuse(Code::ChunkForeign, "transfer of a chunk"),
                    () if header.sealed_bytes() != sealed.len() => refuse(Code::ChunkMalformed, "sealed length"),
                    () => Ok(()),
                }
            }
            Record::Statement(bytes) if bytes.is_empty() || bytes.len() > CONTROL_BYTES_MAX => {
                Err(Error::new(Code::LimitExceeded, "statement of a sealed log"))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller slices exactly N bytes")
}
