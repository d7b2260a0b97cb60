use bytes::{Bytes, BytesMut};
use sealift_protocol::{
    chunk::{Chunk, Sealed, VerifiedChunk},
    close::Code,
    compress::{Compression, Packer, Unpacker},
    digest::Digests,
    error::Result,
    frame::{ChunkHeader, StreamHeader},
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    key::DigestSecret,
    random::Nonces,
    seal::{EpochKeys, Suite, open, seal},
};
use sealift_tests::wire::Seeded;
use serde_json::{Value, json};

use super::{bad, hex, keys, reference};

fn keys_of(suite: Suite) -> EpochKeys {
    let digests = Digests::new(&DigestSecret::from_bytes(keys::DIGEST_SECRET));
    EpochKeys::new(suite, TransferId(keys::TRANSFER), Epoch(keys::EPOCH), keys::epoch_secret().0, digests)
}

fn sealed(suite: Suite, compression: Compression, index: u64, last: bool, plain: &[u8]) -> Sealed {
    let keys = keys_of(suite);
    let chunk = Chunk::new(PartIndex(1), ChunkIndex(index), last, Bytes::copy_from_slice(plain));
    let packed = Packer::new(compression).unwrap().pack(chunk, keys.digests());
    seal(packed, &keys, Nonces::new(Seeded::new("nonce", index)).draw().unwrap()).unwrap()
}

fn opened(frame: &[u8], keys: &EpochKeys) -> Result<VerifiedChunk> {
    let header = ChunkHeader::from_bytes(frame[..80].try_into().unwrap())?;
    open(&header, BytesMut::from(&frame[80..]), keys, &mut Unpacker::new()?)
}

fn good(name: &str, suite: Suite, compression: Compression, index: u64, last: bool, plain: &[u8]) -> Value {
    let sealed = sealed(suite, compression, index, last, plain);
    assert_eq!(opened(&sealed.frame, &keys_of(suite)).unwrap().plain(), plain);
    let (_, secret) = keys::epoch_secret();
    let key = reference::data_key(&secret, keys::TRANSFER, keys::EPOCH, 1, index);
    let (hash, packed) = reference::open(&sealed.frame, &key);
    let hash_key = reference::digest_key("sealift/1 2026-11 chunk hash", &keys::DIGEST_SECRET);
    assert_eq!(hash, blake3::keyed_hash(&hash_key, plain).as_bytes());
    json!({
        "name": name,
        "suite": suite.name(),
        "codec": sealed.header.codec as u8,
        "last": last,
        "part": 1,
        "chunk": index,
        "plain": hex(plain),
        "packed": hex(&packed),
        "data_key": hex(key),
        "hash": hex(hash),
        "frame": hex(&sealed.frame),
    })
}

pub fn vectors() -> Value {
    let text = b"Sealift ".repeat(16);
    let mut cases = Vec::new();
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        cases.push(good("stored", suite, Compression::Off, 0, false, b"one small chunk"));
        cases.push(good("zstd", suite, Compression::Level(1), 1, false, &text));
        cases.push(good("empty, the last of its part", suite, Compression::Off, 2, true, b""));
        cases.push(good("under the second key of its part", suite, Compression::Off, 65_536, true, b"x"));
    }
    json!({ "note": "keys and secrets are those of keys.json", "good": cases, "bad": bad_frames(), "unpacking": unpacking(), "streams": streams() })
}

fn bad_frames() -> Vec<Value> {
    let keys = keys_of(Suite::Aes256Gcm);
    let good = sealed(Suite::Aes256Gcm, Compression::Off, 0, false, b"one small chunk").frame.to_vec();
    let packed = sealed(Suite::Aes256Gcm, Compression::Level(1), 1, false, &b"Sealift ".repeat(16)).frame.to_vec();
    let with = |place: usize, value: u8| {
        let mut frame = good.clone();
        frame[place] = value;
        frame
    };
    let end = good.len() - 1;
    let cases: Vec<(&str, Vec<u8>, Code)> = vec![
        ("wrong magic", with(0, b'X'), Code::ChunkMalformed),
        ("unknown suite", with(4, 3), Code::ChunkMalformed),
        ("suite of another session", with(4, 2), Code::ChunkForeign),
        ("unknown codec", with(5, 2), Code::ChunkMalformed),
        ("codec says zstd, lengths say stored", with(5, 1), Code::ChunkMalformed),
        ("unknown flag", with(6, 2), Code::ChunkMalformed),
        ("reserved byte 7 set", with(7, 1), Code::ChunkMalformed),
        ("another transfer", with(8, 0), Code::ChunkForeign),
        ("another epoch", with(27, 4), Code::ChunkForeign),
        ("another part", with(31, 2), Code::ChunkForged),
        ("chunk index over the limit", with(34, 1), Code::ChunkMalformed),
        ("another chunk index", with(39, 1), Code::ChunkForged),
        ("plaintext over the limit", with(40, 1), Code::ChunkMalformed),
        ("unused nonce byte set", with(60, 1), Code::ChunkMalformed),
        ("another nonce", with(48, good[48] ^ 1), Code::ChunkForged),
        ("reserved byte 72 set", with(72, 1), Code::ChunkMalformed),
        ("marked as the last", with(6, 1), Code::ChunkForged),
        ("first sealed bit flipped", with(80, good[80] ^ 1), Code::ChunkForged),
        ("last bit of the tag flipped", with(end, good[end] ^ 1), Code::ChunkForged),
        ("a byte short", good[..end].to_vec(), Code::ChunkMalformed),
        ("a byte long", [&good[..], &[0]].concat(), Code::ChunkMalformed),
        (
            "claims another plaintext length",
            {
                let mut frame = packed.clone();
                frame[43] += 1;
                frame
            },
            Code::ChunkForged,
        ),
    ];
    let mut frames: Vec<Value> =
        cases.into_iter().map(|(defect, frame, code)| bad(defect, &frame, code, opened(&frame, &keys))).collect();
    // Sealed as it should be, over what it should not.
    let header = |frame: &[u8]| <[u8; 80]>::try_from(&frame[..80]).unwrap();
    let (_, secret) = keys::epoch_secret();
    let key = reference::data_key(&secret, keys::TRANSFER, keys::EPOCH, 1, 0);
    let (hash, plain) = reference::open(&good, &key);
    assert_eq!(reference::seal(&header(&good), &key, &hash, &plain), good);
    let hashed = reference::seal(&header(&good), &key, &[7; 32], &plain);
    frames.push(bad("sealed with another hash", &hashed, Code::ChunkHash, opened(&hashed, &keys)));
    let changed = reference::seal(&header(&good), &key, &hash, &vec![7; plain.len()]);
    frames.push(bad("sealed with other bytes than were hashed", &changed, Code::ChunkHash, opened(&changed, &keys)));
    let (hash, zstd) = reference::open(&packed, &key);
    let garbage = reference::seal(&header(&packed), &key, &hash, &vec![7; zstd.len()]);
    frames.push(bad("sealed with what does not unpack", &garbage, Code::ChunkUnpack, opened(&garbage, &keys)));
    frames
}

/// Packed bytes of a hundred equal ones: good, and bad ones that are sealed as they should be.
fn unpacking() -> Value {
    // A frame of one block of a repeated byte (RFC 8878, 3.1.1): magic, descriptor, what that
    // announces, the block.
    let frame = |descriptor: u8, announced: &[u8], count: u32| {
        let block = (count << 3 | 0b011).to_le_bytes();
        [&[0x28, 0xb5, 0x2f, 0xfd, descriptor][..], announced, &block[..3], b"p"].concat()
    };
    let keys = keys_of(Suite::Aes256Gcm);
    let plain = [b'p'; 100];
    let (_, secret) = keys::epoch_secret();
    let key = reference::data_key(&secret, keys::TRANSFER, keys::EPOCH, 1, 0);
    let hash_key = reference::digest_key("sealift/1 2026-11 chunk hash", &keys::DIGEST_SECRET);
    let hash = blake3::keyed_hash(&hash_key, &plain);
    let template = sealed(Suite::Aes256Gcm, Compression::Level(1), 0, true, &plain).header;
    let sealed = |packed: &[u8]| {
        let header = ChunkHeader { packed_bytes: packed.len() as u32, ..template };
        reference::seal(&header.to_bytes(), &key, hash.as_bytes(), packed)
    };
    let good = frame(0x20, &[100], 100);
    assert_eq!(opened(&sealed(&good), &keys).unwrap().plain(), &plain[..]);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0][..], &good].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("no frame", b"plain text".to_vec()),
        ("a byte short", good[..good.len() - 1].to_vec()),
        ("a zero behind the frame", [&good[..], &[0]].concat()),
        ("two frames", [&good[..], &good[..]].concat()),
        ("an empty frame behind it", [&good[..], &frame(0x20, &[0], 0)[..]].concat()),
        ("a skippable frame before it", skippable),
        ("fewer bytes than the header says", frame(0x20, &[99], 99)),
        ("more bytes than the header says", frame(0x20, &[101], 101)),
        ("a content size that lies", frame(0x20, &[100], 99)),
        ("no content size", frame(0x00, &[0x00], 100)),
        ("a dictionary named", frame(0x21, &[1, 100], 100)),
        ("a checksum announced", [&frame(0x24, &[100], 100)[..], &[0; 4]].concat()),
        ("reserved bit set", frame(0x28, &[100], 100)),
        ("a window of 16 MiB", frame(0x80, &[0x70, 100, 0, 0, 0], 100)),
    ];
    let refused = |(defect, packed): &(&str, Vec<u8>)| {
        let frame = sealed(packed);
        let mut vector = bad(defect, &frame, Code::ChunkUnpack, opened(&frame, &keys));
        vector["packed"] = hex(packed).into();
        vector
    };
    let bad: Vec<Value> = cases.iter().map(refused).collect();
    json!({ "plain": hex(plain), "good": { "packed": hex(&good), "bytes": hex(sealed(&good)) }, "bad": bad })
}

fn streams() -> Value {
    let header = StreamHeader { part: PartIndex(258), first: ChunkIndex(0) }.to_bytes();
    let mut wrong = header;
    wrong[3] = b'2';
    json!({
        "good": [{ "part": 258, "first": 0, "bytes": hex(header) }],
        "bad": [bad("wrong magic", wrong, Code::ProtocolViolation, StreamHeader::from_bytes(&wrong))],
    })
}
