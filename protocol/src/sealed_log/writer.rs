//! Records into bytes.

use bytes::Bytes;

use super::{
    chain::{Chain, Check, Head},
    record::{LogHeader, Record},
};
use crate::{
    close::Code,
    error::{Error, Result},
    limits::{LOG_CHECK_BYTES, LOG_HEAD_BYTES, LOG_HEADER_BYTES},
};

/// Turns records into bytes, each for its place. Whoever holds it writes every record at once at
/// [`LogWriter::offset`], in the order in which they were encoded, and says when they are durable.
#[derive(Clone)]
pub struct LogWriter {
    header: LogHeader,
    chain: Chain,
    offset: u64,
    synced: u64,
}

/// A record as it lies in the log, in pieces, so that nobody need copy a chunk.
pub struct Encoded {
    /// The head, and what was encoded of the body.
    front: Vec<u8>,
    body: Bytes,
    check: Check,
}

impl Encoded {
    /// What to write, one after the other.
    pub fn pieces(&self) -> [&[u8]; 3] {
        [&self.front, &self.body, &self.check]
    }
}

impl LogWriter {
    /// Bytes of a mark.
    pub const MARK_BYTES: u64 = (LOG_HEAD_BYTES + LOG_CHECK_BYTES) as u64;

    /// For a log that holds its header, already durable, and nothing else.
    pub fn new(header: LogHeader) -> Self {
        let chain = Chain::new(&header);
        Self::at(header, chain, LOG_HEADER_BYTES as u64)
    }

    /// For a log of which everything before `offset` is durable.
    pub(super) fn at(header: LogHeader, chain: Chain, offset: u64) -> Self {
        Self { header, chain, offset, synced: offset }
    }

    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// Where the next record goes: the bytes of the log until now.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Judges a record and says how many bytes it will take.
    pub fn bytes_of(&self, record: &Record) -> Result<u64> {
        record.judge(self.header.id.transfer)?;
        let (front, body) = record.body();
        Ok((LOG_HEAD_BYTES + front.len() + body.len() + LOG_CHECK_BYTES) as u64)
    }

    /// Encodes the record that comes next.
    pub fn encode(&mut self, record: &Record) -> Result<Encoded> {
        record.judge(self.header.id.transfer)?;
        self.encode_unjudged(record)
    }

    /// Apart, so that a test can write what nobody may.
    pub(super) fn encode_unjudged(&mut self, record: &Record) -> Result<Encoded> {
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

    /// Everything that was encoded until now is durable. The mark that comes next says so in the
    /// log.
    pub fn synced(&mut self) {
        self.synced = self.offset;
    }
}
