//! Sealing and opening of chunks.
//!
//! `seal` encrypts hash and packed plaintext under the epoch's key for this part, with the whole
//! header as additional data. `open` alone makes a [`VerifiedChunk`]: it authenticates, unpacks
//! within the authenticated bound, and compares the keyed hash, in that order, each step with an
//! error of its own.

use aws_lc_rs::aead::{self, AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use bytes::{Bytes, BytesMut};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::AeadInOut};

pub use crate::suite::{Suite, SuiteNumber};
use crate::{
    chunk::{Codec, Packed, Sealed, VerifiedChunk},
    close::Code,
    compress::Unpacker,
    digest::Digests,
    error::{Error, Result},
    frame::ChunkHeader,
    id::{Epoch, TransferId},
    key::{DataKey, EpochSecret},
    limits::{CHUNK_HASH_BYTES, CHUNK_HEADER_BYTES, CHUNK_INDEX_MAX, TAG_BYTES},
    random::Nonce,
};

/// The keys that seal and open the chunks of one epoch.
pub struct EpochKeys {
    suite: Suite,
    transfer: TransferId,
    epoch: Epoch,
    secret: EpochSecret,
    digests: Digests,
}

impl EpochKeys {
    /// The keys of one epoch; data keys are derived as they are needed.
    pub fn new(suite: Suite, transfer: TransferId, epoch: Epoch, secret: EpochSecret, digests: Digests) -> Self {
        Self { suite, transfer, epoch, secret, digests }
    }

    /// The hash keys of the transfer.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// The AEAD of the epoch.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn data_key(&self, header: &ChunkHeader) -> DataKey {
        self.secret.data_key(self.transfer, self.epoch, header.part, header.index)
    }
}

/// Seals a packed chunk in its own buffer. Fails with `LimitExceeded` after [`CHUNK_INDEX_MAX`].
pub fn seal(packed: Packed, keys: &EpochKeys, nonce: Nonce) -> Result<Sealed> {
    if packed.index.0 > CHUNK_INDEX_MAX {
        return Err(Error::new(Code::LimitExceeded, "chunk index").at_chunk(packed.part, packed.index));
    }
    let mut nonce = nonce.0;
    if keys.suite == Suite::Aes256Gcm {
        nonce[12..].fill(0);
    }
    let header = ChunkHeader {
        suite: keys.suite,
        codec: packed.codec,
        last: packed.last,
        transfer: keys.transfer,
        epoch: keys.epoch,
        part: packed.part,
        index: packed.index,
        plain_bytes: packed.plain_bytes,
        packed_bytes: packed.packed_bytes,
        nonce,
    };
    let header_bytes = header.to_bytes();
    let mut frame = packed.frame;
    let tag = encrypt(&keys.data_key(&header), &header, &header_bytes, &mut frame[CHUNK_HEADER_BYTES..])
        .map_err(|()| Error::new(Code::Internal, "sealing failed").at_chunk(packed.part, packed.index))?;
    frame[..CHUNK_HEADER_BYTES].copy_from_slice(&header_bytes);
    frame.extend_from_slice(&tag);
    Ok(Sealed { header, frame: frame.into(), hash: packed.hash })
}

/// Decrypts a chunk that was sent and not acknowledged when a connection was lost, and seals it
/// again for another epoch.
pub fn reseal(sealed: &Sealed, old: &EpochKeys, new: &EpochKeys, nonce: Nonce) -> Result<Sealed> {
    let header = sealed.header;
    let failed = |()| Error::new(Code::Internal, "a kept chunk does not open").at_chunk(header.part, header.index);
    let body = BytesMut::from(&sealed.frame[CHUNK_HEADER_BYTES..]);
    let opened = decrypt(&old.data_key(&header), &header, body).map_err(failed)?;
    let mut frame = Vec::with_capacity(header.frame_bytes());
    frame.resize(CHUNK_HEADER_BYTES, 0);
    frame.extend_from_slice(&opened);
    let packed = Packed {
        part: header.part,
        index: header.index,
        last: header.last,
        codec: header.codec,
        plain_bytes: header.plain_bytes,
        packed_bytes: header.packed_bytes,
        hash: sealed.hash,
        frame,
    };
    seal(packed, new, nonce)
}

/// Opens the bytes that follow `header`. The caller has checked already that this header is the
/// next one. Fails with `ChunkForeign`, `ChunkMalformed`, `ChunkForged`, `ChunkUnpack` or
/// `ChunkHash`.
pub fn open(header: &ChunkHeader, body: BytesMut, keys: &EpochKeys, unpacker: &mut Unpacker) -> Result<VerifiedChunk> {
    let refuse = |code, check| Error::new(code, check).at_chunk(header.part, header.index);
    if header.suite != keys.suite || header.transfer != keys.transfer || header.epoch != keys.epoch {
        return Err(refuse(Code::ChunkForeign, "suite, transfer or epoch"));
    }
    if body.len() != header.sealed_bytes() {
        return Err(refuse(Code::ChunkMalformed, "sealed length"));
    }
    let opened = decrypt(&keys.data_key(header), header, body).map_err(|()| refuse(Code::ChunkForged, "tag"))?;
    let hash: [u8; CHUNK_HASH_BYTES] = opened[..CHUNK_HASH_BYTES].try_into().expect("sealed_bytes counts the hash");
    let packed = opened.slice(CHUNK_HASH_BYTES..);
    let plain = match header.codec {
        Codec::Stored => packed,
        Codec::Zstd => unpacker
            .unpack(&packed, header.plain_bytes as usize)
            .map(Bytes::from)
            .map_err(|error| error.at_chunk(header.part, header.index))?,
    };
    // blake3::Hash compares in constant time.
    if blake3::Hash::from_bytes(keys.digests.chunk_hash(&plain)) != blake3::Hash::from_bytes(hash) {
        return Err(refuse(Code::ChunkHash, "plaintext hash"));
    }
    Ok(VerifiedChunk::vouch(header, plain, hash))
}

fn encrypt(key: &DataKey, header: &ChunkHeader, aad: &[u8], text: &mut [u8]) -> Result<[u8; TAG_BYTES], ()> {
    match header.suite {
        Suite::Aes256Gcm => {
            let tag = aes(key)?.seal_in_place_separate_tag(aes_nonce(header), Aad::from(aad), text).map_err(|_| ())?;
            tag.as_ref().try_into().map_err(|_| ())
        }
        Suite::ChaCha20Poly1305 => XChaCha20Poly1305::new(&key.0.into())
            .encrypt_inout_detached(&XNonce::from(header.nonce), aad, text.into())
            .map(Into::into)
            .map_err(|_| ()),
    }
}

/// Decrypts `body`, which ends with the tag, and returns it without the tag.
fn decrypt(key: &DataKey, header: &ChunkHeader, mut body: BytesMut) -> Result<Bytes, ()> {
    let aad = header.to_bytes();
    let tag = body.split_off(body.len() - TAG_BYTES);
    match header.suite {
        Suite::Aes256Gcm => {
            body.unsplit(tag);
            let text_bytes =
                aes(key)?.open_in_place(aes_nonce(header), Aad::from(&aad), &mut body).map_err(|_| ())?.len();
            body.truncate(text_bytes);
        }
        Suite::ChaCha20Poly1305 => {
            let tag: [u8; TAG_BYTES] = tag[..].try_into().map_err(|_| ())?;
            XChaCha20Poly1305::new(&key.0.into())
                .decrypt_inout_detached(&XNonce::from(header.nonce), &aad, (&mut body[..]).into(), &tag.into())
                .map_err(|_| ())?;
        }
    }
    Ok(body.freeze())
}

fn aes(key: &DataKey) -> Result<LessSafeKey, ()> {
    UnboundKey::new(&AES_256_GCM, &key.0).map(LessSafeKey::new).map_err(|_| ())
}

fn aes_nonce(header: &ChunkHeader) -> aead::Nonce {
    let nonce: [u8; 12] = header.nonce[..12].try_into().expect("a nonce has 24 bytes");
    aead::Nonce::assume_unique_for_key(nonce)
}
