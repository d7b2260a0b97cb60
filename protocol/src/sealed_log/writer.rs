//! Writing a sealed log.

use bytes::Bytes;

use super::{
    chain::{CheckChain, Head, RecordCheck},
    record::{LogHeader, Record},
};
use crate::{
    close::Code,
    error::{Error, Result},
    limits::{LOG_CHECK_BYTES, LOG_HEAD_BYTES, LOG_HEADER_BYTES},
};

/// Encodes records, each for its place. The caller writes every record at [`LogWriter::offset`], in
/// the order in which they were encoded, and reports when they are durable.
#[derive(Clone)]
pub struct LogWriter {
    header: LogHeader,
    chain: CheckChain,
    offset: u64,
    synced: u64,
}

/// An encoded record, in pieces, so that a chunk need not be copied.
pub struct Encoded {
    /// The head, and what was encoded of the body.
    front: Vec<u8>,
    body: Bytes,
    check: RecordCheck,
}

impl Encoded {
    /// The bytes to write, one piece after the other.
    pub fn pieces(&self) -> [&[u8]; 3] {
        [&self.front, &self.body, &self.check]
    }
}

impl LogWriter {
    /// Bytes of a mark.
    pub const MARK_BYTES: u64 = (LOG_HEAD_BYTES + LOG_CHECK_BYTES) as u64;

    /// A writer for a log that holds its header, already durable, and nothing else.
    pub fn new(header: LogHeader) -> Self {
        let chain = CheckChain::new(&header);
        Self::at(header, chain, LOG_HEADER_BYTES as u64)
    }

    /// A writer for a log of which everything before `offset` is durable.
    pub(super) fn at(header: LogHeader, chain: CheckChain, offset: u64) -> Self {
        Self { header, chain, offset, synced: offset }
    }

    /// The header, which is in the log already.
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// Where the next record goes: the length of the log so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The number of bytes that a record will take. Fails if the record is not allowed.
    pub fn bytes_of(&self, record: &Record) -> Result<u64> {
        record.check(self.header.id.transfer)?;
        let (front, body) = record.body();
        Ok((LOG_HEAD_BYTES + front.len() + body.len() + LOG_CHECK_BYTES) as u64)
    }

    /// Encodes the next record. Fails if the record is not allowed: with `ChunkForeign`,
    /// `ChunkMalformed` or `LimitExceeded`.
    pub fn encode(&mut self, record: &Record) -> Result<Encoded> {
        record.check(self.header.id.transfer)?;
        self.encode_unchecked(record)
    }

    /// Encodes without the checks, so that a test can write what no agent writes.
    pub(super) fn encode_unchecked(&mut self, record: &Record) -> Result<Encoded> {
        let (encoded, body) = record.body();
        let body_bytes = u32::try_from(encoded.len() + body.len())
            .map_err(|_| Error::new(Code::LimitExceeded, "record of a sealed log"))?;
        let head = Head { kind: record.kind(), body_bytes, synced: self.synced };
        let head_bytes = self.chain.head(&head);
        let check = self.chain.next_check(&head_bytes, [&encoded, &body]);
        self.chain.advance(check);
        self.offset += head.record_bytes();
        Ok(Encoded { front: [&head_bytes[..], &encoded].concat(), body, check })
    }

    /// Everything encoded so far is durable. The next mark states that in the log.
    pub fn synced(&mut self) {
        self.synced = self.offset;
    }
}
