//! Chunks that were changed, moved or cut: every one is refused, with its own code.

use std::thread;

use bytes::{Bytes, BytesMut};
use sealift_protocol::{
    chunk::{Chunk, Sealed, VerifiedChunk},
    close::Code,
    compress::{Compression, Packer, Unpacker},
    digest::Digests,
    error::Result,
    frame::ChunkHeader,
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    key::{DigestSecret, EpochSecret},
    limits::{CHUNK_HEADER_BYTES, CHUNK_INDEX_MAX, CHUNKS_PER_KEY},
    random::{Nonces, Random},
    seal::{EpochKeys, Suite, open, seal},
};
use sealift_tests::wire::Seeded;

const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
const TRANSFER: TransferId = TransferId([1; 16]);
const EPOCH: Epoch = Epoch(5);

fn keys_of(suite: Suite, transfer: TransferId, epoch: Epoch, secret_seed: u64) -> EpochKeys {
    let mut random = Seeded::new("keys", secret_seed);
    let secret = EpochSecret::generate(&mut random);
    EpochKeys::new(suite, transfer, epoch, secret, Digests::new(&DigestSecret::from_bytes([3; 32])))
}

fn keys(suite: Suite) -> EpochKeys {
    keys_of(suite, TRANSFER, EPOCH, 1)
}

fn chunk(index: u64, last: bool, plain: Vec<u8>) -> Chunk {
    Chunk::new(PartIndex(2), ChunkIndex(index), last, Bytes::from(plain))
}

fn sealed_with(keys: &EpochKeys, compression: Compression, chunk: &Chunk) -> Result<Sealed> {
    let nonce = Nonces::new(Seeded::new("nonce", chunk.index.0)).draw()?;
    seal(Packer::new(compression)?.pack(chunk.clone(), keys.digests()), keys, nonce)
}

/// What a receiver does with a frame of the wire, once it has checked that its place is right.
fn opened(frame: &[u8], expected: &ChunkHeader, keys: &EpochKeys, unpacker: &mut Unpacker) -> Result<VerifiedChunk> {
    let header = ChunkHeader::from_bytes(frame[..CHUNK_HEADER_BYTES].try_into().unwrap())?;
    if (header.part, header.index) != (expected.part, expected.index) {
        // `ReceiverSession::handle_header` checks these; whatever it says, the tag covers them,
        // too.
        assert_eq!(
            code(open(&header, BytesMut::from(&frame[CHUNK_HEADER_BYTES..]), keys, unpacker)),
            Code::ChunkForged
        );
    }
    let body = &frame[CHUNK_HEADER_BYTES..];
    if header.sealed_bytes() != body.len() {
        // On a stream the next frame's bytes would be taken for this one's, or the stream would end
        // inside it.
        let mut body = BytesMut::from(body);
        body.resize(header.sealed_bytes().min(body.len() * 2), 0);
        return open(&header, body, keys, unpacker);
    }
    open(&header, BytesMut::from(body), keys, unpacker)
}

fn code<T>(result: Result<T>) -> Code {
    result.err().map_or(Code::Done, |error| error.code)
}

/// Flips each bit of `bits` in turn and counts what is accepted.
fn accepted_flips(sealed: &Sealed, keys: &EpochKeys, bits: std::ops::Range<usize>) -> usize {
    let mut unpacker = Unpacker::new().unwrap();
    let mut frame = sealed.frame.to_vec();
    let mut accepted = 0;
    for bit in bits {
        frame[bit / 8] ^= 1 << (bit % 8);
        accepted += usize::from(opened(&frame, &sealed.header, keys, &mut unpacker).is_ok());
        frame[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(opened(&frame, &sealed.header, keys, &mut unpacker).is_ok(), "unchanged, it opens");
    accepted
}

fn flip_every_bit(suite: Suite, compression: Compression, plain: Vec<u8>) {
    let keys = keys(suite);
    let sealed = sealed_with(&keys, compression, &chunk(3, true, plain)).unwrap();
    let bits = sealed.frame.len() * 8;
    let half = bits / 2;
    let accepted: usize = thread::scope(|scope| {
        let other = scope.spawn(|| accepted_flips(&sealed, &keys, half..bits));
        accepted_flips(&sealed, &keys, 0..half) + other.join().unwrap()
    });
    assert_eq!(accepted, 0, "of {bits} flipped bits");
}

/// Fault X1: every bit of a sealed frame of 64 KiB: header, nonce, sealed bytes and tag.
#[test]
fn every_bit_of_64_kib_with_aes_256_gcm() {
    flip_every_bit(Suite::Aes256Gcm, Compression::Off, Seeded::new("plain", 1).bytes(64 << 10));
}

/// Fault X1, for the other suite: every bit of a frame of 4 KiB.
#[test]
fn every_bit_of_4_kib_with_chacha20_poly1305() {
    flip_every_bit(Suite::ChaCha20Poly1305, Compression::Off, Seeded::new("plain", 2).bytes(4 << 10));
}

/// Fault X1: compressed frames, both suites.
#[test]
fn every_bit_of_a_compressed_frame() {
    for suite in SUITES {
        let half_random = [Seeded::new("plain", 3).bytes(1500), vec![0; 6000]].concat();
        flip_every_bit(suite, Compression::Level(1), half_random);
    }
}

#[test]
fn a_chunk_comes_out_as_it_went_in() {
    for suite in SUITES {
        for compression in [Compression::Off, Compression::Level(1), Compression::Level(19)] {
            let keys = keys(suite);
            for plain in [vec![], vec![1], vec![7; 100_000], Seeded::new("plain", 4).bytes(70_000)] {
                let sealed = sealed_with(&keys, compression, &chunk(0, true, plain.clone())).unwrap();
                assert_eq!(sealed.frame.len(), sealed.header.frame_bytes());
                let got = opened(&sealed.frame, &sealed.header, &keys, &mut Unpacker::new().unwrap()).unwrap();
                assert_eq!((got.plain(), got.is_last()), (&Bytes::from(plain), true));
            }
        }
    }
}

/// Fault X3: a frame of another epoch, transfer, suite or key, each with its own code.
#[test]
fn frames_from_elsewhere_are_refused() {
    for (suite, other_suite) in [(SUITES[0], SUITES[1]), (SUITES[1], SUITES[0])] {
        let mine = keys(suite);
        let check = |theirs: EpochKeys| {
            let sealed = sealed_with(&theirs, Compression::Off, &chunk(0, true, vec![1; 100])).unwrap();
            code(opened(&sealed.frame, &sealed.header, &mine, &mut Unpacker::new().unwrap()))
        };
        assert_eq!(check(keys(suite)), Code::Done);
        assert_eq!(check(keys_of(suite, TransferId([2; 16]), EPOCH, 1)), Code::ChunkForeign);
        assert_eq!(check(keys_of(suite, TRANSFER, Epoch(6), 1)), Code::ChunkForeign);
        assert_eq!(check(keys_of(other_suite, TRANSFER, EPOCH, 1)), Code::ChunkForeign);
        assert_eq!(check(keys_of(suite, TRANSFER, EPOCH, 2)), Code::ChunkForged, "another secret");
    }
}

/// Fault X3: even with its header rewritten to fit, a chunk opens in its own place alone.
#[test]
fn a_rewritten_header_does_not_move_a_chunk() {
    type Rewrite = fn(&mut ChunkHeader);
    let rewrites: [(&str, Rewrite); 8] = [
        ("part", |header| header.part.0 += 1),
        ("index", |header| header.index.0 += 1),
        ("index in the next key's range", |header| header.index.0 += CHUNKS_PER_KEY),
        ("last, set", |header| header.last = true),
        ("transfer", |header| header.transfer = TransferId([9; 16])),
        ("epoch", |header| header.epoch.0 += 1),
        ("nonce", |header| header.nonce[0] ^= 1),
        ("codec", |header| header.codec = sealift_protocol::chunk::Codec::Zstd),
    ];
    for suite in SUITES {
        for (name, rewrite) in rewrites {
            let sealed = sealed_with(&keys(suite), Compression::Off, &chunk(0, false, vec![1; 100])).unwrap();
            let mut header = sealed.header;
            rewrite(&mut header);
            let body = BytesMut::from(&sealed.frame[CHUNK_HEADER_BYTES..]);
            // The reader is given the keys of wherever the header says it belongs: the same secret,
            // all else moved.
            let theirs = keys_of(suite, header.transfer, header.epoch, 1);
            assert_eq!(code(open(&header, body, &theirs, &mut Unpacker::new().unwrap())), Code::ChunkForged, "{name}");
        }
    }
}

/// Fault X8: a sender that holds the keys and lies about the plaintext's length.
#[test]
fn lengths_that_lie_are_refused_after_the_tag_too() {
    let keys = keys(Suite::Aes256Gcm);
    let plain = vec![0; 10_000];
    let honest = sealed_with(&keys, Compression::Level(1), &chunk(0, true, plain)).unwrap();
    for plain_bytes in [honest.header.packed_bytes + 1, 9_999, 10_001, 1 << 22] {
        let lie = ChunkHeader { plain_bytes, ..honest.header };
        let frame = [&lie.to_bytes()[..], &honest.frame[CHUNK_HEADER_BYTES..]].concat();
        assert_eq!(
            code(opened(&frame, &lie, &keys, &mut Unpacker::new().unwrap())),
            Code::ChunkForged,
            "{plain_bytes}"
        );
    }
    let short = BytesMut::from(&honest.frame[CHUNK_HEADER_BYTES..honest.frame.len() - 1]);
    assert_eq!(code(open(&honest.header, short, &keys, &mut Unpacker::new().unwrap())), Code::ChunkMalformed);
}

/// Fault X11: past the last index nothing is sealed; up to it everything is.
#[test]
fn the_highest_index_is_the_last_that_is_sealed() {
    let keys = keys(Suite::Aes256Gcm);
    let at = |index| code(sealed_with(&keys, Compression::Off, &chunk(index, false, vec![1])));
    assert_eq!(at(CHUNK_INDEX_MAX), Code::Done);
    assert_eq!(at(CHUNK_INDEX_MAX + 1), Code::LimitExceeded);
    assert_eq!(at(u64::MAX), Code::LimitExceeded);
}

/// Fault X20: at the limit of a key the next one seals, both ways, up to the end of the counter.
#[test]
fn keys_rotate_without_a_gap() {
    for suite in SUITES {
        let keys = keys(suite);
        let mut unpacker = Unpacker::new().unwrap();
        for edge in [CHUNKS_PER_KEY, 2 * CHUNKS_PER_KEY, CHUNK_INDEX_MAX + 1 - CHUNKS_PER_KEY, CHUNK_INDEX_MAX] {
            for index in [edge - 1, edge, (edge + 1).min(CHUNK_INDEX_MAX)] {
                let sealed = sealed_with(&keys, Compression::Off, &chunk(index, false, vec![4; 10])).unwrap();
                assert!(opened(&sealed.frame, &sealed.header, &keys, &mut unpacker).is_ok(), "{index}");
            }
        }
    }
}

/// Fault X14: the same nonce forced at any later draw stops the sealing there.
#[test]
fn a_nonce_that_comes_twice_stops_the_sealing() {
    struct StuckAfter(Seeded, u32);
    impl Random for StuckAfter {
        fn fill(&mut self, out: &mut [u8]) {
            match self.1 {
                0 => out.fill(9),
                _ => {
                    self.1 -= 1;
                    self.0.fill(out);
                }
            }
        }
    }
    for good in 0..20 {
        let mut nonces = Nonces::new(StuckAfter(Seeded::new("nonces", good.into()), good));
        let drawn = (0..40).take_while(|_| nonces.draw().is_ok()).count();
        assert_eq!(drawn as u32, good, "the first of the repeated ones is the last that is used");
        assert_eq!(code(nonces.draw()), Code::RandomBroken);
    }
}
