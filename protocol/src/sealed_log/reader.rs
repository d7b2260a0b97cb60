//! Reading a sealed log, and telling how it ends.

use bytes::BytesMut;

use super::{
    chain::CheckChain,
    places::{LogBytes, find_head},
    record::{LogHeader, Record},
    writer::LogWriter,
};
use crate::{
    close::Code,
    error::Error,
    limits::{LOG_CHECK_BYTES, LOG_HEAD_BYTES, LOG_HEADER_BYTES},
};

/// Reads a log from its first record on, and holds one record at a time.
pub struct LogReader<S> {
    source: S,
    header: LogHeader,
    chain: CheckChain,
    offset: u64,
    synced: u64,
}

/// A place between two records of a log, from which reading can continue.
#[derive(Clone)]
pub struct LogPlace {
    chain: CheckChain,
    offset: u64,
    synced: u64,
}

/// The result of [`LogReader::step`].
#[derive(Debug, PartialEq, Eq)]
pub enum ReadStep {
    /// The next record, whole and allowed.
    Record(Record),
    /// There is no further whole record.
    End(Ending),
}

/// What follows the last whole record, which ends at [`LogReader::offset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing.
    Whole,
    /// The remains of writes that a crash interrupted before they were synced. They are to be cut
    /// off.
    Torn,
    /// Corruption: what is there was synced, and is not what was written.
    Damaged,
}

/// Why reading a log fails.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadError<E> {
    /// The source of the bytes failed.
    Source(E),
    /// The bytes are no log, or hold a record that no agent writes.
    Log(Error),
}

impl<E> From<E> for ReadError<E> {
    fn from(error: E) -> Self {
        Self::Source(error)
    }
}

impl<S: LogBytes> LogReader<S> {
    /// Reads and checks the header; fails with `LogDamaged`.
    pub fn open(source: S) -> Result<Self, ReadError<S::Error>> {
        let mut bytes = [0; LOG_HEADER_BYTES];
        if source.bytes() < LOG_HEADER_BYTES as u64 {
            return Err(ReadError::Log(Error::new(Code::LogDamaged, "shorter than the header of a sealed log")));
        }
        source.read_at(0, &mut bytes)?;
        let header = LogHeader::from_bytes(&bytes).map_err(ReadError::Log)?;
        let (offset, chain) = (LOG_HEADER_BYTES as u64, CheckChain::new(&header));
        Ok(Self { source, header, chain, offset, synced: offset })
    }

    /// The current place.
    pub fn place(&self) -> LogPlace {
        LogPlace { chain: self.chain.clone(), offset: self.offset, synced: self.synced }
    }

    /// Continues at a place that an earlier reading of the same log reached.
    pub fn go_to(&mut self, place: LogPlace) {
        (self.chain, self.offset, self.synced) = (place.chain, place.offset, place.synced);
    }

    /// The header, which was checked.
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// Where the next record begins or, at the end, where the last whole one ends.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record, or how the log ends. At the end, further calls return the same.
    pub fn step(&mut self) -> Result<ReadStep, ReadError<S::Error>> {
        if self.offset == self.source.bytes() {
            return Ok(ReadStep::End(Ending::Whole));
        }
        if let Some(record) = self.record()? {
            return Ok(ReadStep::Record(record));
        }
        // A head that was written after the unreadable bytes were synced proves that no crash has
        // torn them.
        let (chain, here) = (&self.chain, self.offset);
        let proof = |bytes: &_| chain.read_head(bytes).filter(|head| head.synced > here);
        Ok(ReadStep::End(match find_head(&self.source, here + 1, proof)? {
            Some(_) => Ending::Damaged,
            None => Ending::Torn,
        }))
    }

    /// Whether the last whole record is followed by the beginning of another that the end of the
    /// log cuts off. In a log that is never appended to, that means that its end is missing, and
    /// not that it is corrupt.
    pub fn is_cut(&self) -> Result<bool, ReadError<S::Error>> {
        let left = self.source.bytes() - self.offset;
        let mut head = [0; LOG_HEAD_BYTES];
        if left < LOG_HEAD_BYTES as u64 {
            return Ok(true);
        }
        self.source.read_at(self.offset, &mut head)?;
        Ok(self.chain.read_head(&head).is_some_and(|head| head.record_bytes() > left))
    }

    /// A writer that continues after the last whole record. The caller has cut off what follows it,
    /// and has synced the rest.
    pub fn into_writer(self) -> LogWriter {
        LogWriter::at(self.header, self.chain, self.offset)
    }

    /// The record at `offset`, if there is a whole one.
    fn record(&mut self) -> Result<Option<Record>, ReadError<S::Error>> {
        let left = self.source.bytes() - self.offset;
        let mut head_bytes = [0; LOG_HEAD_BYTES];
        if left < LOG_HEAD_BYTES as u64 {
            return Ok(None);
        }
        self.source.read_at(self.offset, &mut head_bytes)?;
        let Some(head) = self.chain.read_head(&head_bytes) else { return Ok(None) };
        if head.record_bytes() > left || head.synced < self.synced || head.synced > self.offset {
            return Ok(None);
        }
        let mut body = BytesMut::zeroed(head.body_bytes as usize + LOG_CHECK_BYTES);
        self.source.read_at(self.offset + LOG_HEAD_BYTES as u64, &mut body)?;
        let found = body.split_off(head.body_bytes as usize);
        let check = self.chain.next_check(&head_bytes, [&body, &[]]);
        if check[..] != found[..] {
            return Ok(None);
        }
        drop(found); // so that the body is the only owner of its bytes, and can be opened in place
        let record = Record::from_body(head.kind, body.freeze(), self.header.id.transfer).map_err(ReadError::Log)?;
        self.chain.advance(check);
        self.offset += head.record_bytes();
        self.synced = head.synced;
        Ok(Some(record))
    }
}
