//! The keys of a transfer and how they are derived (`docs/protocol.md`, section 5.3). The labels of
//! all derived keys are in this file.
//!
//! ```text
//! EpochSecret ──HKDF-SHA256-Expand──▶ data key of (part, generation)    seals chunks, one epoch
//!             └─HKDF-SHA256-Expand──▶ key commitment     public, checked before a chunk is opened
//! DigestSecret ──BLAKE3 derive_key──▶ keys of chunk hash, roots, row digest        one transfer
//!              └─BLAKE3 derive_key──▶ check             shows that a connection has this secret
//! ```
//!
//! HKDF is RFC 5869; the expand step alone is used because the input is already a uniform 32-byte
//! key (section 3.3). AES-GCM and Poly1305 do not commit to a key, so the epoch does: HMAC-SHA256
//! is collision resistant in its key at one fixed length, and data keys are derived from the
//! committed secret.

use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    limits::CHUNKS_PER_KEY,
    random::{Random, secret},
};

const LABEL_DATA_KEY: &[u8] = b"sealift/1 data key";
const LABEL_KEY_COMMITMENT: &[u8] = b"sealift/1 key commitment";
const CONTEXT_CHUNK_HASH: &str = "sealift/1 2026-11 chunk hash";
const CONTEXT_PART_ROOT: &str = "sealift/1 2026-11 part root";
const CONTEXT_TRANSFER_ROOT: &str = "sealift/1 2026-11 transfer root";
const CONTEXT_ROW_DIGEST: &str = "sealift/1 2026-11 row digest";
const CONTEXT_DIGEST_CHECK: &str = "sealift/1 2026-11 digest secret check";
const CONTEXT_SOURCE_TAG: &str = "sealift/1 2026-11 source tag";

/// The public commitment to an epoch's secret, 32 bytes.
pub type KeyCommitment = [u8; 32];

/// The secret from which the data keys of one epoch are derived.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EpochSecret(pub(crate) [u8; 32]);

/// The secret under which a transfer's plaintext is hashed; the same in all its epochs.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DigestSecret(pub(crate) [u8; 32]);

/// A key of one suite for at most [`CHUNKS_PER_KEY`] chunks of one part.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct DataKey(pub(crate) [u8; 32]);

impl EpochSecret {
    /// 32 random bytes, drawn for each epoch.
    pub fn generate(random: &mut dyn Random) -> Self {
        Self(*secret::<32>(random))
    }

    /// The key that seals the chunk `index` of `part`. A new one is derived every
    /// [`CHUNKS_PER_KEY`] chunks.
    pub(crate) fn data_key(&self, transfer: TransferId, epoch: Epoch, part: PartIndex, index: ChunkIndex) -> DataKey {
        let generation = (index.0 / CHUNKS_PER_KEY) as u32;
        let (epoch, part, generation) = (epoch.0.to_be_bytes(), part.0.to_be_bytes(), generation.to_be_bytes());
        DataKey(self.expand(&[LABEL_DATA_KEY, &transfer.0, &epoch, &part, &generation]))
    }

    /// The commitment to this secret as the one of this transfer and epoch.
    pub fn commitment(&self, transfer: TransferId, epoch: Epoch) -> KeyCommitment {
        self.expand(&[LABEL_KEY_COMMITMENT, &transfer.0, &epoch.0.to_be_bytes()])
    }

    fn expand(&self, info: &[&[u8]]) -> [u8; 32] {
        let mut out = [0; 32];
        Prk::new_less_safe(HKDF_SHA256, &self.0)
            .expand(info, HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut out))
            .expect("32 bytes are one block of HKDF-SHA256");
        out
    }
}

impl DigestSecret {
    /// 32 random bytes, drawn once for each transfer.
    pub fn generate(random: &mut dyn Random) -> Self {
        Self(*secret::<32>(random))
    }

    /// The secret from bytes that were stored sealed or with mode 0600. A sender needs it to resume
    /// after a restart.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, to be stored with mode 0600 or sealed.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// A value that is equal for two connections with the same secret, and reveals nothing about
    /// it.
    pub fn check(&self) -> [u8; 32] {
        blake3::derive_key(CONTEXT_DIGEST_CHECK, &self.0)
    }

    /// A keyed hash of the source's URL, for the sender's record. Without this secret no guess can
    /// be compared with it.
    pub fn source_tag(&self, source: &str) -> [u8; 32] {
        let key = blake3::derive_key(CONTEXT_SOURCE_TAG, &self.0);
        *blake3::keyed_hash(&key, source.as_bytes()).as_bytes()
    }

    pub(crate) fn chunk_hash_key(&self) -> [u8; 32] {
        blake3::derive_key(CONTEXT_CHUNK_HASH, &self.0)
    }

    pub(crate) fn part_root_key(&self) -> [u8; 32] {
        blake3::derive_key(CONTEXT_PART_ROOT, &self.0)
    }

    pub(crate) fn transfer_root_key(&self) -> [u8; 32] {
        blake3::derive_key(CONTEXT_TRANSFER_ROOT, &self.0)
    }

    pub(crate) fn row_digest_key(&self) -> [u8; 32] {
        blake3::derive_key(CONTEXT_ROW_DIGEST, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault X20: the key changes exactly at the limit, and never comes back.
    #[test]
    fn data_keys_rotate_at_the_chunk_limit() {
        let secret = EpochSecret([9; 32]);
        let key = |part, index| secret.data_key(TransferId([1; 16]), Epoch(2), PartIndex(part), ChunkIndex(index)).0;
        assert_eq!(key(3, 0), key(3, CHUNKS_PER_KEY - 1));
        assert_ne!(key(3, 0), key(3, CHUNKS_PER_KEY));
        assert_ne!(key(3, 0), key(4, 0));
        assert_ne!(key(3, CHUNKS_PER_KEY), key(3, 2 * CHUNKS_PER_KEY));
    }

    #[test]
    fn commitments_tell_secrets_and_places_apart() {
        let at = |secret, epoch| EpochSecret([secret; 32]).commitment(TransferId([1; 16]), Epoch(epoch));
        assert_eq!(at(1, 1), at(1, 1));
        assert_ne!(at(1, 1), at(2, 1));
        assert_ne!(at(1, 1), at(1, 2));
    }

    /// Issue 10, item 6: two transfers of one source have nothing on disk that can be compared.
    #[test]
    fn a_source_tag_is_of_one_transfer() {
        let tag = |secret, source: &str| DigestSecret([secret; 32]).source_tag(source);
        assert_eq!(tag(1, "sqlite:/srv/ehr.db"), tag(1, "sqlite:/srv/ehr.db"));
        assert_ne!(tag(1, "sqlite:/srv/ehr.db"), tag(2, "sqlite:/srv/ehr.db"));
        assert_ne!(tag(1, "sqlite:/srv/ehr.db"), tag(1, "sqlite:/srv/ehr2.db"));
    }
}
