#![no_main]
//! What follows a chunk's header. From a peer without the keys: a genuine frame, changed as the
//! input says, opens only if that changed nothing. From one with them: the input is sealed as a
//! chunk's contents, and is refused, or unpacks to what it says, within its bounds. The first byte
//! chooses; the next four are the length of the plaintext that is claimed.

use std::sync::LazyLock;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Prk},
};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sealift_protocol::{
    chunk::{Chunk, Codec, Sealed},
    close::Code,
    compress::{Compression, Packer, Unpacker},
    digest::Digests,
    frame::ChunkHeader,
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    key::{DigestSecret, EpochSecret},
    limits::{CHUNK_HEADER_BYTES, CHUNK_PLAIN_BYTES_MAX},
    random::{Nonces, Random},
    seal::{EpochKeys, Suite, open, seal},
};

const TRANSFER: TransferId = TransferId([7; 16]);
const EPOCH: Epoch = Epoch(1);
const PART: PartIndex = PartIndex(1);
const INDEX: ChunkIndex = ChunkIndex(0);
const SECRET: u8 = 9;

/// Bits of the first byte.
const ZSTD: u8 = 1;
const LAST: u8 = 2;
const WRONG_HASH: u8 = 4;
const CHACHA: u8 = 8;

/// The secret first; nonces, which may not repeat, count on from it.
struct Count(u8);

impl Random for Count {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(self.0);
        self.0 += 1;
    }
}

fn keys(suite: Suite) -> EpochKeys {
    let (secret, digests) =
        (EpochSecret::generate(&mut Count(SECRET)), Digests::new(&DigestSecret::from_bytes([3; 32])));
    EpochKeys::new(suite, TRANSFER, EPOCH, secret, digests)
}

/// The keys of each suite, and a frame that was sealed with them.
static GENUINE: LazyLock<[(EpochKeys, Sealed); 2]> = LazyLock::new(|| {
    [Suite::Aes256Gcm, Suite::ChaCha20Poly1305].map(|suite| {
        let keys = keys(suite);
        let chunk = Chunk::new(PART, INDEX, true, "patient ".repeat(8));
        let packed = Packer::new(Compression::Level(1)).expect("zstd").pack(chunk, keys.digests());
        let nonce = Nonces::new(Count(0)).draw().expect("two that differ");
        let sealed = seal(packed, &keys, nonce).expect("seals");
        (keys, sealed)
    })
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&[choice, a, b, c, d], rest)) = bytes.split_first_chunk() else { return };
    forge(if choice & CHACHA == 0 { 0 } else { 1 }, choice, rest);
    contents(choice, u32::from_be_bytes([a, b, c, d]), rest);
});

/// The input is laid over the genuine frame's sealed bytes, and may make them longer or shorter.
fn forge(suite: usize, choice: u8, change: &[u8]) {
    let (keys, genuine) = &GENUINE[suite];
    let body = &genuine.frame[CHUNK_HEADER_BYTES..];
    let mut forged = BytesMut::from(body);
    for (byte, change) in forged.iter_mut().zip(change) {
        *byte ^= change;
    }
    match change.len().checked_sub(body.len()) {
        Some(surplus) => forged.extend_from_slice(&change[change.len() - surplus..]),
        None if choice & LAST == 0 => forged.truncate(change.len()),
        None => {}
    }
    let Some(packed_bytes) = forged.len().checked_sub(body.len() - genuine.header.packed_bytes as usize) else {
        return;
    };
    let changed = forged != body;
    let header = ChunkHeader { packed_bytes: packed_bytes as u32, ..genuine.header };
    let code = open(&header, forged, keys, &mut Unpacker::new().expect("zstd")).map_err(|error| error.code).err();
    assert_eq!(code, changed.then_some(Code::ChunkForged));
}

/// The key is derived and used here once more, as no code of an agent's would seal this.
fn sealed(header: &ChunkHeader, contents: &[u8]) -> BytesMut {
    let mut key = [0; 32];
    let (epoch, part, generation) = (EPOCH.0.to_be_bytes(), PART.0.to_be_bytes(), 0u32.to_be_bytes());
    let label = [b"sealift/1 data key", &TRANSFER.0[..], &epoch, &part, &generation];
    let secret = Prk::new_less_safe(HKDF_SHA256, &[SECRET; 32]);
    secret.expand(&label, HKDF_SHA256).and_then(|okm| okm.fill(&mut key)).expect("32 bytes");
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("32 bytes"));
    let nonce = Nonce::try_assume_unique_for_key(&header.nonce[..12]).expect("12 bytes");
    let mut body = contents.to_vec();
    key.seal_in_place_append_tag(nonce, Aad::from(header.to_bytes()), &mut body).expect("seals");
    BytesMut::from(&body[..])
}

fn contents(choice: u8, plain_bytes: u32, packed: &[u8]) {
    let codec = if choice & ZSTD == 0 { Codec::Stored } else { Codec::Zstd };
    let mut nonce = [0; 24];
    nonce[..12].fill(1);
    let header = ChunkHeader {
        suite: Suite::Aes256Gcm,
        codec,
        last: choice & LAST != 0,
        transfer: TRANSFER,
        epoch: EPOCH,
        part: PART,
        index: INDEX,
        plain_bytes: if codec == Codec::Stored { packed.len() as u32 } else { plain_bytes },
        packed_bytes: packed.len() as u32,
        nonce,
    };
    if ChunkHeader::from_bytes(&header.to_bytes()) != Ok(header) {
        return;
    }
    let keys = &GENUINE[0].0;
    let plain = match codec {
        Codec::Stored => Some(packed.to_vec()),
        Codec::Zstd => zstd::bulk::decompress(packed, header.plain_bytes as usize).ok(),
    };
    let mut hash = keys.digests().chunk_hash(plain.as_deref().unwrap_or_default());
    let lies = choice & WRONG_HASH != 0;
    hash[31] ^= u8::from(lies);
    let body = sealed(&header, &[&hash, packed].concat());
    match open(&header, body, keys, &mut Unpacker::new().expect("zstd")) {
        Ok(chunk) => {
            assert!(!lies && Some(&chunk.plain()[..]) == plain.as_deref() && *chunk.hash() == hash);
            assert!(chunk.plain().len() == header.plain_bytes as usize && chunk.plain().len() <= CHUNK_PLAIN_BYTES_MAX);
        }
        Err(error) => match error.code {
            Code::ChunkHash => assert!(lies),
            Code::ChunkUnpack => assert_eq!(codec, Codec::Zstd),
            code => panic!("{code:?} for what was sealed with the key"),
        },
    }
}
