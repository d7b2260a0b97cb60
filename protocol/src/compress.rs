//! Packing: keyed hash and zstd (RFC 8878), each chunk by itself. There is no dictionary and no
//! shared context, so the size of one chunk reveals nothing about the content of another. The
//! memory of a context is reused, its state is not.

use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe,
};

use crate::{
    chunk::{Chunk, ChunkBuffer, Codec, Packed},
    close::Code,
    digest::Digests,
    error::{Error, Result},
    limits::{CHUNK_HEADER_BYTES, CHUNK_PLAIN_BYTES_MAX, TAG_BYTES},
};

/// First four bytes of a zstd frame (RFC 8878, 3.1.1); skippable and legacy frames start otherwise.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Dictionary_ID_flag, Reserved_bit and Content_Checksum_flag of the frame header descriptor (RFC
/// 8878, 3.1.1.1.1): none of them is ever set by [`Packer`], and a frame that sets one is not ours.
const ZSTD_DESCRIPTOR_UNUSED: u8 = 0b0000_1111;

/// Single_Segment_flag: the frame has no window of its own, its content is the window.
const ZSTD_SINGLE_SEGMENT: u8 = 0b0010_0000;

/// The largest window that RFC 8878, section 3.1.1.1.2, recommends every decoder to support, and
/// the largest that zstd uses at level 19. No chunk needs a larger one.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;
const _: () = assert!(CHUNK_PLAIN_BYTES_MAX as u64 <= ZSTD_WINDOW_BYTES_MAX);

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Every chunk is stored as it is.
    Off,
    /// zstd level, 1 to 19.
    Level(u8),
}

/// Turns a [`Chunk`] into a [`Packed`]. Each thread has its own.
pub struct Packer {
    zstd: Option<Compressor<'static>>,
    scratch: Vec<u8>,
}

impl Packer {
    /// Fails with `Internal` if zstd cannot allocate its context.
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
        // The last chunk of a part may fill only a little of its buffer.
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

/// Decompresses the plaintext of a chunk. Each thread has its own.
pub struct Unpacker(Decompressor<'static>);

impl Unpacker {
    /// Fails with `Internal` if zstd cannot allocate its context.
    pub fn new() -> Result<Self> {
        Decompressor::new().map(Self).map_err(|_| Error::new(Code::Internal, "zstd context cannot be made"))
    }

    /// Unpacks exactly one frame of exactly `plain_bytes`. One-pass decompression writes straight
    /// into a buffer of that size and allocates no window, whatever window the frame asks for
    /// (fault X9).
    pub(crate) fn unpack(&mut self, packed: &[u8], plain_bytes: usize) -> Result<Vec<u8>> {
        let refused = |check| Error::new(Code::ChunkUnpack, check);
        if packed.len() < 6 || packed[..4] != ZSTD_MAGIC || packed[4] & ZSTD_DESCRIPTOR_UNUSED != 0 {
            return Err(refused("not a plain zstd frame"));
        }
        if packed[4] & ZSTD_SINGLE_SEGMENT == 0 && window_bytes(packed[5]) > ZSTD_WINDOW_BYTES_MAX {
            return Err(refused("zstd window"));
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

/// The window size that a window descriptor encodes (RFC 8878, section 3.1.1.1.2).
fn window_bytes(descriptor: u8) -> u64 {
    let base = 1 << (10 + (descriptor >> 3));
    base + base / 8 * u64::from(descriptor & 7)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::{
        id::{ChunkIndex, Epoch, PartIndex, TransferId},
        key::{DigestSecret, EpochSecret},
        random::{Nonces, Random},
        seal::{EpochKeys, Suite, open, seal},
    };

    fn frame(plain: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(plain, 3).expect("compresses")
    }

    #[test]
    fn unpacks_what_was_packed() {
        let plain = b"patient ".repeat(1000);
        assert_eq!(Unpacker::new().unwrap().unpack(&frame(&plain), plain.len()), Ok(plain));
    }

    /// Fault X9: bombs, second frames, skippable frames, junk, checksums, lies about the length.
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

    /// A frame with this descriptor, window and content size, and one block behind it.
    fn crafted(descriptor: u8, window: &[u8], content_bytes: &[u8], block: &[u8]) -> Vec<u8> {
        [&ZSTD_MAGIC, &[descriptor][..], window, content_bytes, block].concat()
    }

    /// The last block, as it is.
    fn raw(plain: &[u8]) -> Vec<u8> {
        let header = (plain.len() as u32) << 3 | 1;
        [&header.to_le_bytes()[..3], plain].concat()
    }

    /// The last block: so many times one byte.
    fn run(bytes: u32) -> Vec<u8> {
        let header = bytes << 3 | 1 << 1 | 1;
        [&header.to_le_bytes()[..3], &[7]].concat()
    }

    /// A sender that holds the keys seals whatever it likes.
    struct Sealing(EpochKeys, Nonces<Count>);

    struct Count(u8);

    impl Random for Count {
        fn fill(&mut self, out: &mut [u8]) {
            self.0 += 1;
            out.fill(self.0);
        }
    }

    impl Sealing {
        fn new() -> Self {
            let (secret, digests) =
                (EpochSecret::generate(&mut Count(0)), Digests::new(&DigestSecret::from_bytes([3; 32])));
            let keys = EpochKeys::new(Suite::Aes256Gcm, TransferId([1; 16]), Epoch(1), secret, digests);
            Self(keys, Nonces::new(Count(0)))
        }

        fn code(&mut self, packed: &[u8], plain: &[u8], plain_bytes: usize) -> Code {
            let hash = self.0.digests().chunk_hash(plain);
            let packed = Packed {
                part: PartIndex(0),
                index: ChunkIndex(0),
                last: true,
                codec: Codec::Zstd,
                plain_bytes: plain_bytes as u32,
                packed_bytes: packed.len() as u32,
                hash,
                frame: [&[0; CHUNK_HEADER_BYTES], &hash[..], packed].concat(),
            };
            let sealed = seal(packed, &self.0, self.1.draw().unwrap()).unwrap();
            let body = BytesMut::from(&sealed.frame[CHUNK_HEADER_BYTES..]);
            let opened = open(&sealed.header, body, &self.0, &mut Unpacker::new().unwrap());
            opened.map_or_else(|error| error.code, |_| Code::Done)
        }
    }

    /// The most memory that this process has had.
    fn peak_bytes() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// Fault X9: sealed by one who has the keys, so that nothing but the unpacking is left to
    /// refuse it; and none of it takes the memory that it asks for.
    #[test]
    fn what_a_frame_asks_for_is_not_what_it_gets() {
        const FOUR_BYTES: u8 = 0b1000_0000;
        const EIGHT_BYTES: u8 = 0b1100_0000;
        let plain = [7; 1000];
        let size = 1000_u32.to_le_bytes();
        let window = |log: u8| [(log - 10) << 3];
        let two_gib = (2_u64 << 30).to_le_bytes();
        let mut sealing = Sealing::new();
        let before = peak_bytes();
        let mut code = |packed: &[u8], plain_bytes| sealing.code(packed, &plain, plain_bytes);
        // These show that it is the one thing that is wrong with the others.
        assert_eq!(code(&crafted(FOUR_BYTES, &window(23), &size, &run(1000)), 1000), Code::Done, "8 MiB");
        assert_eq!(code(&crafted(FOUR_BYTES | ZSTD_SINGLE_SEGMENT, &[], &size, &raw(&plain)), 1000), Code::Done);
        let mut refused = |name: &str, packed: &[u8], plain_bytes: usize| {
            assert_eq!(code(packed, plain_bytes), Code::ChunkUnpack, "{name}");
        };
        refused("window of 9 MiB", &crafted(FOUR_BYTES, &[window(23)[0] | 1], &size, &run(1000)), 1000);
        refused("window of 2 GiB", &crafted(FOUR_BYTES, &window(31), &size, &run(1000)), 1000);
        refused("the largest window", &crafted(FOUR_BYTES, &[0xff], &size, &run(1000)), 1000);
        for plain_bytes in [1000, CHUNK_PLAIN_BYTES_MAX] {
            let frame = crafted(EIGHT_BYTES | ZSTD_SINGLE_SEGMENT, &[], &two_gib, &run(128 << 10));
            refused("a single segment of 2 GiB", &frame, plain_bytes);
            let frame = crafted(EIGHT_BYTES, &window(23), &two_gib, &run(128 << 10));
            refused("content of 2 GiB", &frame, plain_bytes);
        }
        refused(
            "more than was authenticated",
            &crafted(FOUR_BYTES, &window(23), &1001_u32.to_le_bytes(), &run(1001)),
            1000,
        );
        refused("more than it says", &crafted(FOUR_BYTES, &window(23), &size, &run(128 << 10)), 1000);
        refused("a block beyond its end", &crafted(FOUR_BYTES, &window(23), &size, &raw(&plain)[..900]), 1000);
        let good = crafted(FOUR_BYTES, &window(23), &size, &run(1000));
        refused("two frames", &[&good[..], &good[..]].concat(), 2000);
        refused("junk behind it", &[&good[..], b"junk"].concat(), 1000);
        // Its flag is refused; and without the flag it is junk.
        refused(
            "a bad checksum",
            &[&crafted(FOUR_BYTES | 4, &window(23), &size, &run(1000))[..], &[0; 4]].concat(),
            1000,
        );
        refused("a dictionary", &crafted(FOUR_BYTES | 1, &[&window(23)[..], &[9]].concat(), &size, &run(1000)), 1000);
        refused("the reserved bit", &crafted(FOUR_BYTES | 8, &window(23), &size, &run(1000)), 1000);
        for low in 0x50..=0x5f {
            let skippable = [low, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
            refused("a skippable frame before it", &[&skippable[..], &good[..]].concat(), 1000);
            refused("a skippable frame behind it", &[&good[..], &skippable[..]].concat(), 1000);
            let huge = [low, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
            refused("a skippable frame of 4 GiB", &huge, 1000);
        }
        for low in [0x1e, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27] {
            refused("a legacy frame", &[&[low][..], &good[1..]].concat(), 1000);
        }
        let grown = peak_bytes() - before;
        assert!(grown < 64 << 20, "{grown} bytes of memory");
    }
}
