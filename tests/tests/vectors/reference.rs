//! The derivations and the sealing once more, from the specification and with other calls.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    digest::{SHA256, digest},
    hmac,
    signature::Ed25519KeyPair,
};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, XChaCha20Poly1305, XNonce, aead::AeadInOut};
use x_wing::Decapsulate;

/// HKDF-SHA256-Expand (RFC 5869, 2.3) for 32 bytes: one block, HMAC(key, info ‖ 0x01).
pub fn expand(secret: &[u8; 32], info: &[&[u8]]) -> [u8; 32] {
    let message = [info.concat(), vec![1]].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), &message);
    tag.as_ref().try_into().unwrap()
}

pub fn data_key(secret: &[u8; 32], transfer: [u8; 16], epoch: u32, part: u32, index: u64) -> [u8; 32] {
    let generation = u32::try_from(index / 65_536).unwrap();
    let numbers = [epoch, part, generation].map(u32::to_be_bytes);
    expand(secret, &[b"sealift/1 data key", &transfer, &numbers[0], &numbers[1], &numbers[2]])
}

pub fn commitment(secret: &[u8; 32], transfer: [u8; 16], epoch: u32) -> [u8; 32] {
    expand(secret, &[b"sealift/1 key commitment", &transfer, &epoch.to_be_bytes()])
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

/// HMAC-SHA-256 from the hash alone (RFC 2104, 2), under a key that is shorter than a block.
pub fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block[..32].iter_mut().enumerate().for_each(|(at, byte)| *byte ^= key[at]);
        block
    };
    let inner = sha256(&[&padded(0x36)[..], message].concat());
    sha256(&[&padded(0x5c)[..], &inner].concat())
}

/// SHA-256 over the SubjectPublicKeyInfo of an Ed25519 key (RFC 8410, 4): a sequence of the
/// algorithm's OID and of the key as a bit string.
pub fn fingerprint(public_key: &[u8; 32]) -> [u8; 32] {
    let oid = [0x06, 3, 0x2b, 0x65, 0x70];
    let algorithm = [&[0x30, 5][..], &oid].concat();
    let bits = [&[0x03, 33, 0][..], public_key].concat();
    sha256(&[&[0x30, 42][..], &algorithm, &bits].concat())
}

/// Ed25519 over a label, then the message. The signature is the same each time (RFC 8032, 5.1.6).
pub fn sign(private_key: &[u8; 32], label: &str, message: &[u8]) -> [u8; 64] {
    let key = Ed25519KeyPair::from_seed_unchecked(private_key).unwrap();
    key.sign(&[label.as_bytes(), message].concat()).as_ref().try_into().unwrap()
}

/// A transcript, put together from bytes alone.
pub struct Transcript {
    context: &'static str,
    absorbed: Vec<u8>,
}

impl Transcript {
    pub fn new(context: &'static str) -> Self {
        Self { context, absorbed: Vec::new() }
    }

    /// The hash after this item.
    pub fn after(&mut self, item: &[u8]) -> [u8; 32] {
        self.absorbed.extend((item.len() as u64).to_be_bytes());
        self.absorbed.extend(item);
        blake3::derive_key(self.context, &self.absorbed)
    }
}

/// Opens a frame: hash and packed plaintext.
pub fn open(frame: &[u8], key: &[u8; 32]) -> (Vec<u8>, Vec<u8>) {
    let (header, body) = frame.split_at(80);
    let mut text = match header[4] {
        1 => {
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
            let nonce = Nonce::try_assume_unique_for_key(&header[48..60]).unwrap();
            let mut text = body.to_vec();
            let length = key.open_in_place(nonce, Aad::from(header), &mut text).unwrap().len();
            text.truncate(length);
            text
        }
        2 => {
            let (text, tag) = body.split_at(body.len() - 16);
            let mut text = text.to_vec();
            let nonce = XNonce::from(<[u8; 24]>::try_from(&header[48..72]).unwrap());
            let tag = <[u8; 16]>::try_from(tag).unwrap();
            XChaCha20Poly1305::new(&(*key).into())
                .decrypt_inout_detached(&nonce, header, (&mut text[..]).into(), &tag.into())
                .unwrap();
            text
        }
        suite => panic!("suite {suite}"),
    };
    let packed = text.split_off(32);
    (text, packed)
}

/// Seals a chunk hash and packed bytes, whether or not they fit each other, under a header of
/// AES-256-GCM: a whole frame.
pub fn seal(header: &[u8; 80], key: &[u8; 32], hash: &[u8], packed: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(&header[48..60]).unwrap();
    let mut text = [hash, packed].concat();
    key.seal_in_place_append_tag(nonce, Aad::from(header), &mut text).unwrap();
    [&header[..], &text].concat()
}

/// What HPKE in base mode (RFC 9180, 5.1 and 5.2) has on the way to one message.
pub struct Hpke {
    pub shared_secret: [u8; 32],
    pub key: [u8; 32],
    pub nonce: [u8; 12],
    pub plaintext: Vec<u8>,
}

/// Opens what was sealed with X-Wing, HKDF-SHA256 and ChaCha20-Poly1305.
pub fn hpke_open(private_key: [u8; 32], encapsulated: &[u8], sealed: &[u8], info: &[u8], aad: &[u8]) -> Hpke {
    const SUITE: &[u8] = &[b'H', b'P', b'K', b'E', 0x64, 0x7a, 0, 1, 0, 3];
    let hmac = |key: &[u8], parts: &[&[u8]]| -> [u8; 32] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat());
        tag.as_ref().try_into().unwrap()
    };
    let extract = |salt: &[u8], label: &[u8], ikm: &[u8]| hmac(salt, &[b"HPKE-v1", SUITE, label, ikm]);
    let expand = |secret: &[u8], label: &[u8], context: &[u8], length: u8| {
        hmac(secret, &[&[0, length], b"HPKE-v1", SUITE, label, context, &[1]])
    };
    let ciphertext = x_wing::Ciphertext::try_from(encapsulated).unwrap();
    let shared_secret: [u8; 32] = x_wing::DecapsulationKey::from(private_key).decapsulate(&ciphertext).into();
    let (psk_id_hash, info_hash) = (extract(&[0; 32], b"psk_id_hash", b""), extract(&[0; 32], b"info_hash", info));
    let context = [&[0][..], &psk_id_hash, &info_hash].concat();
    let secret = extract(&shared_secret, b"secret", b"");
    let key = expand(&secret, b"key", &context, 32);
    let nonce: [u8; 12] = expand(&secret, b"base_nonce", &context, 12)[..12].try_into().unwrap();
    let (text, tag) = sealed.split_at(sealed.len() - 16);
    let mut plaintext = text.to_vec();
    let tag = <[u8; 16]>::try_from(tag).unwrap();
    ChaCha20Poly1305::new(&key.into())
        .decrypt_inout_detached(&nonce.into(), aad, (&mut plaintext[..]).into(), &tag.into())
        .unwrap();
    Hpke { shared_secret, key, nonce, plaintext }
}

/// BLAKE3 in key-derivation mode gives the key, keyed BLAKE3 the hash.
pub fn digest_key(context: &str, digest_secret: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key(context, digest_secret)
}

/// The sum modulo 2^256 of little-endian numbers, digit by digit.
pub fn add_256(sum: &mut [u8; 32], addend: &[u8; 32]) {
    let mut carry = 0;
    for (digit, more) in sum.iter_mut().zip(addend) {
        let total = u16::from(*digit) + u16::from(*more) + carry;
        *digit = total as u8;
        carry = total >> 8;
    }
}
