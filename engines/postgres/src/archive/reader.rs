//! The primitive values of an archive.

use sealift_protocol::failure::Outcome;

use super::malformed;

/// Reads from the front of what is left.
pub struct ArchiveReader<'a> {
    rest: &'a [u8],
    int_bytes: usize,
    offset_bytes: usize,
}

impl<'a> ArchiveReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, int_bytes: 0, offset_bytes: 0 }
    }

    /// The widths of integers and offsets, which the archive itself states.
    pub fn set_widths(&mut self, int_bytes: u8, offset_bytes: u8) -> Outcome {
        if !(1..=8).contains(&int_bytes) || !(1..=8).contains(&offset_bytes) {
            return Err(malformed("width of a number"));
        }
        (self.int_bytes, self.offset_bytes) = (int_bytes.into(), offset_bytes.into());
        Ok(())
    }

    pub fn tag(&mut self, expected: &[u8]) -> Outcome {
        if self.take(expected.len())? == expected { Ok(()) } else { Err(malformed("beginning of the archive")) }
    }

    pub fn byte(&mut self) -> Outcome<u8> {
        Ok(self.take(1)?[0])
    }

    /// A sign, then the magnitude, lowest byte first.
    pub fn int(&mut self) -> Outcome<i32> {
        let is_negative = self.byte()? != 0;
        let mut magnitude = 0u64;
        for (place, &byte) in self.take(self.int_bytes)?.iter().enumerate() {
            magnitude |= u64::from(byte) << (8 * place);
        }
        let number = i32::try_from(magnitude).map_err(|_| malformed("number out of range"))?;
        Ok(if is_negative { -number } else { number })
    }

    /// A length and as many bytes; `None` for the length -1.
    pub fn string(&mut self) -> Outcome<Option<String>> {
        let Ok(length) = usize::try_from(self.int()?) else { return Ok(None) };
        let bytes = self.take(length)?;
        if bytes.contains(&0) {
            return Err(malformed("text with a zero byte"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("text that is not UTF-8"))?;
        Ok(Some(text.to_owned()))
    }

    /// A flag and a place in the archive, which has no data.
    pub fn offset(&mut self) -> Outcome {
        self.take(1 + self.offset_bytes).map(drop)
    }

    fn take(&mut self, length: usize) -> Outcome<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| malformed("archive cut short"))?;
        self.rest = rest;
        Ok(taken)
    }
}
