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

/// The use of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LogKind {
    /// The receiver's, from which a new loader is fed.
    Journal = 1,
    /// The sender's, of a source that can be read only once. The sender cannot open it after a
    /// restart.
    Spool = 2,
    /// A transfer carried on a disk.
    Archive = 3,
}

/// BLAKE3 of a sealing public key, which identifies the receiver that can open a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct KeyFingerprint(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

impl KeyFingerprint {
    /// The fingerprint of a sealing key, under a derivation context of its own.
    pub fn of(key: &SealingPublicKey) -> Self {
        Self(blake3::derive_key(CONTEXT_FINGERPRINT, &key.0))
    }
}

/// The identity of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId {
    /// Journal, spool or archive.
    pub kind: LogKind,
    /// The transfer whose chunks it holds.
    pub transfer: TransferId,
    /// The sealing key that its envelopes are sealed to.
    pub key: KeyFingerprint,
}

/// The first 104 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// Which log it is.
    pub id: LogId,
    salt: [u8; 16],
}

impl LogHeader {
    /// The header of a new log, with a random salt.
    pub fn new(id: LogId, random: &mut dyn Random) -> Self {
        let mut salt = [0; 16];
        random.fill(&mut salt);
        Self { id, salt }
    }

    /// The 104 bytes of `docs/sealed-log.md`.
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

    /// Decodes a header; fails with `LogDamaged` if it is none, or its check is wrong.
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

    /// Fails with `LogForeign` if it is the header of another log (fault S6).
    pub fn expect(&self, id: &LogId) -> Result<()> {
        let foreign = |check| Err(Error::new(Code::LogForeign, check));
        if self.id.transfer != id.transfer {
            return foreign("transfer of a sealed log");
        }
        if self.id.key != id.key {
            return foreign("sealing key of a sealed log");
        }
        if self.id.kind != id.kind {
            return foreign("kind of sealed log");
        }
        Ok(())
    }
}

/// Everything that is needed to open the chunks of one epoch, except the receiver's key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EpochRecord {
    /// The epoch of the chunks that follow.
    #[n(0)]
    pub epoch: Epoch,
    /// Their AEAD.
    #[n(1)]
    pub suite: Suite,
    /// The secrets of the epoch, sealed to the receiver.
    #[n(2)]
    pub envelope: KeyEnvelope,
    /// The transcript under which the envelope was sealed.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub info: TranscriptHash,
    /// The commitment to the epoch secret.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub commitment: KeyCommitment,
}

impl EpochRecord {
    /// Opens the envelope and checks the key commitment, as on the link; fails with
    /// `KeyCommitment`.
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
    /// The keys of an epoch, before its chunks.
    Epoch(Box<EpochRecord>),
    /// A sealed chunk, as on the wire.
    Chunk {
        /// The header, decoded.
        header: ChunkHeader,
        /// Hash, packed plaintext and tag, as sealed.
        sealed: Bytes,
    },
    /// A message as canonical CBOR, 1 to [`CONTROL_BYTES_MAX`] bytes. The log does not interpret
    /// it.
    Statement(Bytes),
    /// States that everything before it was synced when it was written.
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
        record.check(transfer)?;
        Ok(record)
    }

    /// The rules of a record, for writing and for reading.
    pub(super) fn check(&self, transfer: TransferId) -> Result<()> {
        match self {
            Record::Epoch(epoch) if !(1..=EPOCH_MAX).contains(&epoch.epoch.0) => {
                Err(Error::new(Code::LimitExceeded, "epoch of a sealed log"))
            }
            Record::Chunk { header, sealed } => {
                let refuse = |code, check| Err(Error::new(code, check).at_chunk(header.part, header.index));
                if header.transfer != transfer {
                    return refuse(Code::ChunkForeign, "transfer of a chunk");
                }
                if header.sealed_bytes() != sealed.len() {
                    return refuse(Code::ChunkMalformed, "sealed length");
                }
                Ok(())
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
