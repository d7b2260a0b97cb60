//! Bytes into records, and what the end of them means.

use bytes::BytesMut;

use super::{
    chain::Chain,
    places::{LogBytes, find_head},
    record::{LogHeader, Record},
    writer::LogWriter,
};
use crate::{
    close::Code,
    error::Error,
    limits::{LOG_CHECK_BYTES, LOG_HEAD_BYTES, LOG_HEADER_BYTES},
};

/// Reads a log from its first record on; holds one record at a time.
pub struct LogReader<S> {
    source: S,
    header: LogHeader,
    chain: Chain,
    offset: u64,
    synced: u64,
}

/// A place between two records of a log, from which its reading can go on.
#[derive(Clone)]
pub struct LogPlace {
    chain: Chain,
    offset: u64,
    synced: u64,
}

/// What [`LogReader::step`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Record(Record),
    End(Ending),
}

/// What lies behind the last whole record, which ends at [`LogReader::offset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing.
    Whole,
    /// What a crash left of writes that were never synced. To be cut off.
    Torn,
    /// Rot: what stands there was synced, and is not what was written.
    Damaged,
}

/// Why a log cannot be read on.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadError<E> {
    /// The source of the bytes failed.
    Source(E),
    /// The bytes are no log, or hold what nobody may write.
    Log(Error),
}

impl<E> From<E> for ReadError<E> {
    fn from(error: E) -> Self {
        Self::Source(error)
    }
}

impl<S: LogBytes> LogReader<S> {
    /// Reads and judges the header.
    pub fn open(source: S) -> Result<Self, ReadError<S::Error>> {
        let mut bytes = [0; LOG_HEADER_BYTES];
        if source.bytes() < LOG_HEADER_BYTES as u64 {
            return Err(ReadError::Log(Error::new(Code::LogDamaged, "shorter than the header of a sealed log")));
        }
        source.read_at(0, &mut bytes)?;
        let header = LogHeader::from_bytes(&bytes).map_err(ReadError::Log)?;
        let (offset, chain) = (LOG_HEADER_BYTES as u64, Chain::new(&header));
        Ok(Self { source, header, chain, offset, synced: offset })
    }

    /// Where this reading stands.
    pub fn place(&self) -> LogPlace {
        LogPlace { chain: self.chain.clone(), offset: self.offset, synced: self.synced }
    }

    /// Goes to where an earlier reading of the same log stood: what lies before is not read again.
    pub fn go_to(&mut self, place: LogPlace) {
        (self.chain, self.offset, self.synced) = (place.chain, place.offset, place.synced);
    }

    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// Where the next record begins; after the end, where the last whole one ends.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record, or what is at the end. Asked again after the end, says the same.
    pub fn step(&mut self) -> Result<Step, ReadError<S::Error>> {
        if self.offset == self.source.bytes() {
            return Ok(Step::End(Ending::Whole));
        }
        if let Some(record) = self.record()? {
            return Ok(Step::Record(record));
        }
        // A head that was written after a sync of what is unreadable here proves that no crash took
        // it.
        let (chain, here) = (&self.chain, self.offset);
        let proof = |bytes: &_| chain.read_head(bytes).filter(|head| head.synced > here);
        Ok(Step::End(match find_head(&self.source, here + 1, proof)? {
            Some(_) => Ending::Damaged,
            None => Ending::Torn,
        }))
    }

    /// Whether what stands behind the last whole record is the beginning of one, which the end of
    /// the log cuts off: of what is never written on, the end is missing then, and what is there is
    /// not rot.
    pub fn is_cut(&self) -> Result<bool, ReadError<S::Error>> {
        let left = self.source.bytes() - self.offset;
        let mut head = [0; LOG_HEAD_BYTES];
        if left < LOG_HEAD_BYTES as u64 {
            return Ok(true);
        }
        self.source.read_at(self.offset, &mut head)?;
        Ok(self.chain.read_head(&head).is_some_and(|head| head.record_bytes() > left))
    }

    /// Goes on writing where the last whole record ends. Whoever calls this has cut off what was
    /// behind it, and has synced the rest.
    pub fn into_writer(self) -> LogWriter {
        LogWriter::at(self.header, self.chain, self.offset)
    }

    /// The record at `offset`, if a whole one stands there.
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
