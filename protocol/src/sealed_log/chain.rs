//! Heads and checks.

use super::record::{HEADER_CHECKED_BYTES, LogHeader, RecordType, array};
use crate::limits::{LOG_CHECK_BYTES, LOG_HEAD_BYTES};

pub(super) const HEAD_MAGIC: [u8; 4] = *b"SLr1";

const HEAD_CHECKED_BYTES: usize = 20;
const HEAD_CHECK_BYTES: usize = LOG_HEAD_BYTES - HEAD_CHECKED_BYTES;

const CONTEXT_CHECKS: &str = "sealift/1 2026-11 sealed log checks";

/// A whole BLAKE3 hash, so that the check of the last record identifies everything in the log. A
/// shorter one would save nothing, compared to a chunk.
pub(super) type RecordCheck = [u8; LOG_CHECK_BYTES];

/// The head of a record, without its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: RecordType,
    pub(super) body_bytes: u32,
    pub(super) synced: u64,
}

impl Head {
    /// Decodes a head and checks everything but its check, which needs the log's key.
    pub(super) fn from_bytes(bytes: &[u8; LOG_HEAD_BYTES]) -> Option<Self> {
        let kind = RecordType::from_byte(bytes[4])?;
        let head = Self {
            kind,
            body_bytes: u32::from_be_bytes(array(&bytes[8..12])),
            synced: u64::from_be_bytes(array(&bytes[12..20])),
        };
        let fits = head.body_bytes as usize <= kind.body_bytes_max();
        (fits && head.unchecked()[..] == bytes[..HEAD_CHECKED_BYTES]).then_some(head)
    }

    fn unchecked(&self) -> [u8; HEAD_CHECKED_BYTES] {
        let mut out = [0; HEAD_CHECKED_BYTES];
        out[..4].copy_from_slice(&HEAD_MAGIC);
        out[4] = self.kind as u8;
        out[8..12].copy_from_slice(&self.body_bytes.to_be_bytes());
        out[12..].copy_from_slice(&self.synced.to_be_bytes());
        out
    }

    /// Bytes of the record: head, body and check.
    pub(super) fn record_bytes(&self) -> u64 {
        (LOG_HEAD_BYTES + LOG_CHECK_BYTES) as u64 + u64::from(self.body_bytes)
    }
}

/// The chain of checks of one log: the key that its header gives, and the check of the last record.
#[derive(Clone)]
pub(super) struct CheckChain {
    key: [u8; 32],
    last: RecordCheck,
}

impl CheckChain {
    pub(super) fn new(header: &LogHeader) -> Self {
        let bytes = header.to_bytes();
        let (checked, check) = bytes.split_at(HEADER_CHECKED_BYTES);
        Self { key: blake3::derive_key(CONTEXT_CHECKS, checked), last: array(check) }
    }

    /// The bytes of `head`.
    pub(super) fn head(&self, head: &Head) -> [u8; LOG_HEAD_BYTES] {
        let unchecked = head.unchecked();
        let check = blake3::keyed_hash(&self.key, &unchecked);
        let mut out = [0; LOG_HEAD_BYTES];
        out[..HEAD_CHECKED_BYTES].copy_from_slice(&unchecked);
        out[HEAD_CHECKED_BYTES..].copy_from_slice(&check.as_bytes()[..HEAD_CHECK_BYTES]);
        out
    }

    /// Decodes a head of this log, at any place.
    pub(super) fn read_head(&self, bytes: &[u8; LOG_HEAD_BYTES]) -> Option<Head> {
        Head::from_bytes(bytes).filter(|head| self.head(head) == *bytes)
    }

    /// The check of the record that follows the last.
    pub(super) fn next_check(&self, head: &[u8; LOG_HEAD_BYTES], body: [&[u8]; 2]) -> RecordCheck {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&self.last).update(head).update(body[0]).update(body[1]);
        *hasher.finalize().as_bytes()
    }

    pub(super) fn advance(&mut self, check: RecordCheck) {
        self.last = check;
    }
}
