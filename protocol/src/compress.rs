//! Packing: keyed hash and zstd, each chunk on its own. No dictionary and no shared context, so what one chunk's size
//! tells says nothing of another's content; contexts' memory is reused, their state is not.

use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe,
};

use crate::{
    chunk::{Chunk, ChunkBuffer, Codec, Packed},
    close::Code,
    digest::Digests,
    error::{Error, Result},
    limits::{CHUNK_HEADER_BYTES, TAG_BYTES},
};

/// First four bytes of a zstd frame (RFC 8878, 3.1.1); skippable and legacy frames start otherwise.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Dictionary_ID_flag, Reserved_bit and Content_Checksum_flag of the frame header descriptor (RFC 8878, 3.1.1.1.1):
/// none of them is ever set by [`Packer`], and a frame that sets one is not ours.
const ZSTD_DESCRIPTOR_UNUSED: u8 = 0b0000_1111;

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Off,
    /// zstd level, 1 to 19.
    Level(u8),
}

/// Makes [`Packed`] out of [`Chunk`]; one a thread.
pub struct Packer {
    zstd: Option<Compressor<'static>>,
    scratch: Vec<u8>,
}

impl Packer {
    pub fn new(compression: Compression) -> Result<Self> {
        let zstd = match compression {
            Compression::Off => None,
            Compression::Level(level) => Some(
                Compressor::new(level.into()).map_err(|_| Error::new(Code::Internal, "zstd context cannot be made"))?,
            ),
        };
        Ok(Self { zstd, scratch: Vec::new() })
    }

    /// Hashes the chunk and compresses it where that makes it shorter.
    pub fn pack(&mut self, chunk: Chunk, digests: &Digests) -> Packed {
        let plain = chunk.plain();
        let plain_bytes = plain.len() as u32;
        let hash = digests.chunk_hash(plain);
        let (codec, packed) = match self.compress(plain) {
            Some(packed) => (Codec::Zstd, ChunkBuffer::from(packed)),
            None => (Codec::Stored, chunk.buffer),
        };
        let packed_bytes = packed.plain_bytes() as u32;
        let mut frame = packed.0;
        // The last of a part may fill little of its buffer.
        frame.shrink_to(frame.len() + TAG_BYTES);
        frame[CHUNK_HEADER_BYTES..ChunkBuffer::ROOM_BYTES].copy_from_slice(&hash);
        Packed { part: chunk.part, index: chunk.index, last: chunk.last, codec, plain_bytes, packed_bytes, hash, frame }
    }

    /// The compressed bytes, if they are fewer than the plain ones.
    fn compress(&mut self, plain: &[u8]) -> Option<&[u8]> {
        let zstd = self.zstd.as_mut()?;
        let room = plain.len().checked_sub(1)?;
        if self.scratch.len() < room {
            self.scratch.resize(room, 0);
        }
        // The only error is "does not fit", which means that compression gains nothing.
        let packed_bytes = zstd.compress_to_buffer(plain, &mut self.scratch[..room]).ok()?;
        Some(&self.scratch[..packed_bytes])
    }
}

/// Undoes [`Packer`]; one a thread.
pub struct Unpacker(Decompressor<'static>);

impl Unpacker {
    pub fn new() -> Result<Self> {
        Decompressor::new().map(Self).map_err(|_| Error::new(Code::Internal, "zstd context cannot be made"))
    }

    /// Unpacks exactly one frame of exactly `plain_bytes`. One-pass decompression writes straight into a buffer of that
    /// size and allocates no window, whatever window the frame asks for (fault-matrix X9).
    pub(crate) fn unpack(&mut self, packed: &[u8], plain_bytes: usize) -> Result<Vec<u8>> {
        let refused = |check| Error::new(Code::ChunkUnpack, check);
        if packed.len() < 5 || packed[..4] != ZSTD_MAGIC || packed[4] & ZSTD_DESCRIPTOR_UNUSED != 0 {
            return Err(refused("not a plain zstd frame"));
        }
        match zstd_safe::get_frame_content_size(packed) {
            Ok(Some(size)) if size == plain_bytes as u64 => {}
            _ => return Err(refused("zstd content size")),
        }
        if zstd_safe::find_frame_compressed_size(packed) != Ok(packed.len()) {
            return Err(refused("more or less than one zstd frame"));
        }
        let mut plain = Vec::with_capacity(plain_bytes);
        match self.0.decompress_to_buffer(packed, &mut plain) {
            Ok(written) if written == plain_bytes => Ok(plain),
            _ => Err(refused("zstd frame does not unpack")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(plain: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(plain, 3).expect("compresses")
    }

    #[test]
    fn unpacks_what_was_packed() {
        let plain = b"patient ".repeat(1000);
        assert_eq!(Unpacker::new().unwrap().unpack(&frame(&plain), plain.len()), Ok(plain));
    }

    /// fault-matrix X9: bombs, second frames, skippable frames, junk, checksums, lies about the length.
    #[test]
    fn hostile_frames_are_refused() {
        let plain = vec![0; 100_000];
        let good = frame(&plain);
        let mut unpacker = Unpacker::new().unwrap();
        let mut refused = |name: &str, packed: &[u8], plain_bytes: usize| {
            let code = unpacker.unpack(packed, plain_bytes).map_err(|error| error.code);
            assert_eq!(code, Err(Code::ChunkUnpack), "{name}");
        };
        refused("bomb: claims less than it holds", &good, 10);
        refused("claims more than it holds", &good, 100_001);
        refused("two frames", &[&good[..], &good[..]].concat(), plain.len());
        refused("trailing junk", &[&good[..], &[0]].concat(), plain.len());
        refused("cut short", &good[..good.len() - 1], plain.len());
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
        refused("skippable frame", &skippable, 4);
        refused("skippable, then a frame", &[&skippable[..], &good[..]].concat(), plain.len());
        refused("legacy 0.7 magic", &[0x27, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0, 0], 4);
        refused("empty", &[], 0);
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.set_pledged_src_size(Some(plain.len() as u64)).unwrap();
        std::io::copy(&mut &plain[..], &mut encoder).unwrap();
        refused("checksum", &encoder.finish().unwrap(), plain.len());
        let mut unsized_frame = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        std::io::copy(&mut &plain[..], &mut unsized_frame).unwrap();
        refused("no content size", &unsized_frame.finish().unwrap(), plain.len());
    }
}
