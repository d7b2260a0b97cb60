//! Bytes on streams and on disk.
//!
//! | what | bytes |
//! |---|---|
//! | control message | length `u32` big-endian, then canonical CBOR ([`crate::message`]) |
//! | start of a part's stream | [`StreamHeader`], 16 bytes |
//! | sealed chunk | [`ChunkHeader`], 80 bytes; then `32 + packed_bytes + 16` sealed bytes |
//!
//! All integers are big-endian. The whole chunk header is the additional data of the chunk's AEAD.

use crate::{
    close::Code,
    error::{Error, Result},
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    limits::{
        CHUNK_HASH_BYTES, CHUNK_HEADER_BYTES, CHUNK_INDEX_MAX, CHUNK_PLAIN_BYTES_MAX, CONTROL_BYTES_MAX, TAG_BYTES,
    },
    suite::Suite,
};

const CHUNK_MAGIC: [u8; 4] = *b"SLc1";
const STREAM_MAGIC: [u8; 4] = *b"SLp1";
const FLAG_LAST: u8 = 1;

/// The start of a part's stream (`docs/protocol.md`, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// The part that the stream carries.
    pub part: PartIndex,
    /// The index of the first chunk on the stream.
    pub first: ChunkIndex,
}

impl StreamHeader {
    /// Bytes of an encoded header.
    pub const BYTES: usize = 16;

    /// Magic, part, first chunk.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..4].copy_from_slice(&STREAM_MAGIC);
        out[4..8].copy_from_slice(&self.part.0.to_be_bytes());
        out[8..].copy_from_slice(&self.first.0.to_be_bytes());
        out
    }

    /// Fails with `ProtocolViolation` if the magic is wrong. Whether the part may come is for
    /// [`crate::receive::ReceiverSession::handle_stream`] to check.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self> {
        if bytes[..4] != STREAM_MAGIC {
            return Err(Error::new(Code::ProtocolViolation, "stream header"));
        }
        Ok(Self {
            part: PartIndex(u32::from_be_bytes(array(&bytes[4..8]))),
            first: ChunkIndex(u64::from_be_bytes(array(&bytes[8..]))),
        })
    }
}

/// How the plaintext is packed before it is sealed (`docs/protocol.md`, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// Not compressed.
    Stored = 0,
    /// One zstd frame (RFC 8878) with its content size, no dictionary; always shorter than the
    /// plaintext.
    Zstd = 1,
}

impl Codec {
    /// The codec with this number in a chunk header, or `None`.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Codec::Stored),
            1 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// The header of a sealed chunk, in the clear and authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The AEAD.
    pub suite: Suite,
    /// How the plaintext is packed.
    pub codec: Codec,
    /// Whether the part ends with the chunk.
    pub last: bool,
    /// The transfer that the chunk belongs to.
    pub transfer: TransferId,
    /// The epoch under whose keys it is sealed.
    pub epoch: Epoch,
    /// The part that the chunk is cut from.
    pub part: PartIndex,
    /// The chunk's place in the part, at most [`CHUNK_INDEX_MAX`].
    pub index: ChunkIndex,
    /// Bytes of plaintext, at most [`CHUNK_PLAIN_BYTES_MAX`].
    pub plain_bytes: u32,
    /// Bytes of packed plaintext: as many if stored, fewer if compressed.
    pub packed_bytes: u32,
    /// Drawn at random. AES-256-GCM uses the first 12 bytes, and the others are zero.
    pub nonce: [u8; 24],
}

impl ChunkHeader {
    /// Bytes that follow the header: hash and packed plaintext, sealed, and the tag.
    pub fn sealed_bytes(&self) -> usize {
        CHUNK_HASH_BYTES + self.packed_bytes as usize + TAG_BYTES
    }

    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> usize {
        CHUNK_HEADER_BYTES + self.sealed_bytes()
    }

    /// The 80 bytes of `docs/protocol.md`, section 6, which are also the additional data of the
    /// AEAD.
    pub fn to_bytes(&self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut out = [0; CHUNK_HEADER_BYTES];
        out[..4].copy_from_slice(&CHUNK_MAGIC);
        out[4] = self.suite as u8;
        out[5] = self.codec as u8;
        out[6] = if self.last { FLAG_LAST } else { 0 };
        out[8..24].copy_from_slice(&self.transfer.0);
        out[24..28].copy_from_slice(&self.epoch.0.to_be_bytes());
        out[28..32].copy_from_slice(&self.part.0.to_be_bytes());
        out[32..40].copy_from_slice(&self.index.0.to_be_bytes());
        out[40..44].copy_from_slice(&self.plain_bytes.to_be_bytes());
        out[44..48].copy_from_slice(&self.packed_bytes.to_be_bytes());
        out[48..72].copy_from_slice(&self.nonce);
        out
    }

    /// Decodes a header and checks everything that needs no key, so that its lengths are safe to
    /// allocate. Fails with `ChunkMalformed`.
    pub fn from_bytes(bytes: &[u8; CHUNK_HEADER_BYTES]) -> Result<Self> {
        let malformed = |check| Error::new(Code::ChunkMalformed, check);
        if bytes[..4] != CHUNK_MAGIC {
            return Err(malformed("chunk magic"));
        }
        let header = Self {
            suite: Suite::from_byte(bytes[4]).ok_or(malformed("chunk suite"))?,
            codec: Codec::from_byte(bytes[5]).ok_or(malformed("chunk codec"))?,
            last: bytes[6] == FLAG_LAST,
            transfer: TransferId(array(&bytes[8..24])),
            epoch: Epoch(u32::from_be_bytes(array(&bytes[24..28]))),
            part: PartIndex(u32::from_be_bytes(array(&bytes[28..32]))),
            index: ChunkIndex(u64::from_be_bytes(array(&bytes[32..40]))),
            plain_bytes: u32::from_be_bytes(array(&bytes[40..44])),
            packed_bytes: u32::from_be_bytes(array(&bytes[44..48])),
            nonce: array(&bytes[48..72]),
        };
        header.check()?;
        // Reserved bytes, unknown flags and unused nonce bytes are zero: a header has one encoding.
        if header.to_bytes() != *bytes {
            return Err(malformed("chunk header has reserved bits set"));
        }
        Ok(header)
    }

    fn check(&self) -> Result<()> {
        let malformed = |check| Error::new(Code::ChunkMalformed, check).at_chunk(self.part, self.index);
        if self.plain_bytes as usize > CHUNK_PLAIN_BYTES_MAX {
            return Err(malformed("plaintext length over the limit"));
        }
        if self.plain_bytes == 0 && !self.last {
            return Err(malformed("an empty chunk that is not the last"));
        }
        let packed_fits = match self.codec {
            Codec::Stored => self.packed_bytes == self.plain_bytes,
            Codec::Zstd => self.packed_bytes < self.plain_bytes,
        };
        if !packed_fits {
            return Err(malformed("packed length does not fit the codec"));
        }
        if self.index.0 > CHUNK_INDEX_MAX {
            return Err(malformed("chunk index over the limit"));
        }
        if self.suite == Suite::Aes256Gcm && self.nonce[12..] != [0; 12] {
            return Err(malformed("unused nonce bytes"));
        }
        Ok(())
    }
}

/// The length of a control message from its prefix: 0 is `ProtocolViolation`, more than
/// [`CONTROL_BYTES_MAX`] is `LimitExceeded`.
pub fn control_length(prefix: [u8; 4]) -> Result<usize> {
    match u32::from_be_bytes(prefix) as usize {
        0 => Err(Error::new(Code::ProtocolViolation, "empty control message")),
        length if length > CONTROL_BYTES_MAX => Err(Error::new(Code::LimitExceeded, "control message length")),
        length => Ok(length),
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller slices exactly N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> ChunkHeader {
        let mut nonce = [0; 24];
        nonce[..12].fill(5);
        ChunkHeader {
            suite: Suite::Aes256Gcm,
            codec: Codec::Zstd,
            last: true,
            transfer: TransferId([3; 16]),
            epoch: Epoch(1),
            part: PartIndex(2),
            index: ChunkIndex(3),
            plain_bytes: 1000,
            packed_bytes: 999,
            nonce,
        }
    }

    fn code_of(header: ChunkHeader) -> Option<Code> {
        ChunkHeader::from_bytes(&header.to_bytes()).err().map(|error| error.code)
    }

    #[test]
    fn header_reads_what_it_writes() {
        assert_eq!(ChunkHeader::from_bytes(&header().to_bytes()), Ok(header()));
    }

    /// Fault X8: lengths that lie are refused before anything is allocated.
    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let malformed = Some(Code::ChunkMalformed);
        let base = header();
        assert_eq!(code_of(ChunkHeader { plain_bytes: u32::MAX, ..base }), malformed);
        assert_eq!(code_of(ChunkHeader { packed_bytes: 1000, ..base }), malformed);
        assert_eq!(code_of(ChunkHeader { codec: Codec::Stored, ..base }), malformed);
        let empty = ChunkHeader { codec: Codec::Stored, plain_bytes: 0, packed_bytes: 0, ..base };
        assert_eq!(code_of(empty), None);
        assert_eq!(code_of(ChunkHeader { last: false, ..empty }), malformed);
        assert_eq!(code_of(ChunkHeader { index: ChunkIndex(CHUNK_INDEX_MAX + 1), ..base }), malformed);
    }

    /// Fault X1: no byte of a header can change and mean the same.
    #[test]
    fn every_header_bit_counts() {
        let bytes = header().to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(ChunkHeader::from_bytes(&changed), Ok(header()), "bit {bit}");
        }
    }

    /// Fault X18.
    #[test]
    fn control_lengths_are_bounded() {
        assert!(control_length([0; 4]).is_err());
        assert!(control_length([0xff; 4]).is_err());
        assert_eq!(control_length([0, 0, 1, 0]), Ok(256));
    }
}
