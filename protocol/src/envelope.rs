//! The key envelope: an epoch's secrets, sealed to the receiver's key with HPKE (RFC 9180) in base
//! mode. The KEM is X-Wing (X25519 with ML-KEM-768, draft-connolly-cfrg-xwing-kem-10), so that a
//! recorded connection or a kept sealed log cannot be opened by a later quantum computer. HPKE's
//! base mode does not authenticate the sender: Begin is signed for that.

use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable,
    aead::ChaCha20Poly1305,
    kdf::HkdfSha256,
    kem::XWing,
    rand_core::{TryCryptoRng, TryRng},
    single_shot_open, single_shot_seal_with_rng,
};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::{
    bytes::hex,
    close::Code,
    error::{Error, Result},
    id::Epoch,
    key::{DigestSecret, EpochSecret},
    random::{Random, secret},
    transcript::TranscriptHash,
};

/// The one suite of key envelopes: KEM X-Wing, KDF HKDF-SHA256, AEAD ChaCha20-Poly1305, by their
/// IANA numbers.
pub const ENVELOPE_SUITE: [u16; 3] = [0x647a, 0x0001, 0x0003];

const INFO_LABEL: &[u8] = b"sealift/1 key envelope\0";

/// An epoch's secret and the transfer's digest secret, sealed to one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyEnvelope {
    /// KEM, KDF, AEAD; [`ENVELOPE_SUITE`].
    #[n(0)]
    pub suite: [u16; 3],
    /// The encapsulated key of X-Wing, 1,120 bytes.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub encapsulated: Vec<u8>,
    /// The ciphertext of epoch secret and digest secret, with its tag: 80 bytes.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

/// The private half of a sealing key: 32 bytes, from which X-Wing expands the rest.
pub struct SealingKey(<XWing as Kem>::PrivateKey);

/// The public half, 1216 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct SealingPublicKey(#[cbor(with = "minicbor::bytes")] pub Vec<u8>);

impl SealingKey {
    /// A new key pair, derived from 64 random bytes (`docs/protocol.md`, section 5.3).
    pub fn generate(random: &mut dyn Random) -> Self {
        Self(XWing::derive_keypair(&*secret::<64>(random)).0)
    }

    /// The key from bytes that [`SealingKey::expose`] returned, which opens a journal after a
    /// restart. Fails with `Preflight` if they are no key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = |_| Error::new(Code::Preflight, "sealing key");
        <XWing as Kem>::PrivateKey::from_bytes(bytes).map(Self).map_err(damaged)
    }

    /// The 32 secret bytes, to be stored with mode 0600.
    pub fn expose(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.to_bytes().to_vec())
    }

    /// The half that goes into Accept, or into a receiver key file.
    pub fn public_key(&self) -> SealingPublicKey {
        SealingPublicKey(XWing::sk_to_pk(&self.0).to_bytes().to_vec())
    }
}

/// Bytes of an X-Wing public key: ML-KEM-768's encapsulation key, then X25519's public key.
const ML_KEM_KEY_BYTES: usize = 1184;
const X25519_KEY_BYTES: usize = 32;

/// The u coordinates of small order on curve25519 and its twist, below 2^255; and p and p + 1,
/// which are 0 and 1 in another encoding (RFC 7748, 6.1: with each, the shared secret is zero
/// whatever the sender's key).
const SMALL_ORDER_U: [[u8; 32]; 7] = [
    hex("0000000000000000000000000000000000000000000000000000000000000000"),
    hex("0100000000000000000000000000000000000000000000000000000000000000"),
    hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    hex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    hex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
];

impl SealingPublicKey {
    /// Checks the length, and that neither half is a key under which any party could open what is
    /// sealed to it.
    fn check(&self) -> Result<()> {
        let refused = |check| Err(Error::new(Code::ProtocolViolation, check));
        let halves = self.0.split_at_checked(ML_KEM_KEY_BYTES);
        let Some((ml_kem, x25519)) = halves.filter(|(_, x25519)| x25519.len() == X25519_KEY_BYTES) else {
            return refused("sealing public key");
        };
        if ml_kem.iter().all(|byte| *byte == 0) {
            return refused("sealing public key of zeros");
        }
        let mut u: [u8; X25519_KEY_BYTES] = x25519.try_into().expect("its length was checked");
        u[31] &= 0x7f;
        if SMALL_ORDER_U.contains(&u) { refused("sealing public key of small order") } else { Ok(()) }
    }
}

impl KeyEnvelope {
    /// Seals both secrets so that they open only with `to` and only under the same `info` and
    /// `epoch`. Fails with `ProtocolViolation` if `to` has the wrong length, or is zero or of small
    /// order.
    pub fn seal(
        epoch_secret: &EpochSecret,
        digest_secret: &DigestSecret,
        to: &SealingPublicKey,
        info: &TranscriptHash,
        epoch: Epoch,
        random: &mut dyn Random,
    ) -> Result<Self> {
        to.check()?;
        let to = <XWing as Kem>::PublicKey::from_bytes(&to.0)
            .map_err(|_| Error::new(Code::ProtocolViolation, "sealing public key"))?;
        let mut secrets = Zeroizing::new([0; 64]);
        secrets[..32].copy_from_slice(&epoch_secret.0);
        secrets[32..].copy_from_slice(&digest_secret.0);
        let (encapsulated, sealed) = single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeS::Base,
            &to,
            &[INFO_LABEL, info].concat(),
            &*secrets,
            &epoch.0.to_be_bytes(),
            &mut HpkeRandom(random),
        )
        .map_err(|_| Error::new(Code::Internal, "key envelope cannot be sealed"))?;
        Ok(Self { suite: ENVELOPE_SUITE, encapsulated: encapsulated.to_bytes().to_vec(), sealed })
    }

    /// Opens what [`KeyEnvelope::seal`] made. Another suite is `SuiteUnsupported`; what does not
    /// open is `KeyCommitment`.
    pub fn open(&self, key: &SealingKey, info: &TranscriptHash, epoch: Epoch) -> Result<(EpochSecret, DigestSecret)> {
        let refused = Error::new(Code::KeyCommitment, "key envelope does not open");
        if self.suite != ENVELOPE_SUITE {
            return Err(Error::new(Code::SuiteUnsupported, "key envelope suite"));
        }
        let encapsulated = <XWing as Kem>::EncappedKey::from_bytes(&self.encapsulated).map_err(|_| refused)?;
        let secrets = single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeR::Base,
            &key.0,
            &encapsulated,
            &[INFO_LABEL, info].concat(),
            &self.sealed,
            &epoch.0.to_be_bytes(),
        )
        .map(Zeroizing::new)
        .map_err(|_| refused)?;
        let (epoch_secret, digest_secret) = secrets.split_at_checked(32).ok_or(refused)?;
        Ok((
            EpochSecret(epoch_secret.try_into().map_err(|_| refused)?),
            DigestSecret(digest_secret.try_into().map_err(|_| refused)?),
        ))
    }
}

/// [`Random`] under the trait that the hpke crate asks for.
struct HpkeRandom<'a>(&'a mut dyn Random);

impl TryRng for HpkeRandom<'_> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> std::result::Result<(), Self::Error> {
        self.0.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for HpkeRandom<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, A3: keys that are zero or of small order, in every encoding, are refused in either
    /// half.
    #[test]
    fn sealing_keys_that_anybody_could_open_are_refused() {
        let good = SealingPublicKey([vec![7; ML_KEM_KEY_BYTES], vec![9; X25519_KEY_BYTES]].concat());
        assert_eq!(good.check(), Ok(()));
        let refused = |key: Vec<u8>| {
            assert_eq!(SealingPublicKey(key).check().unwrap_err().code, Code::ProtocolViolation);
        };
        refused([vec![0; ML_KEM_KEY_BYTES], vec![9; X25519_KEY_BYTES]].concat());
        for u in SMALL_ORDER_U {
            for high_bit in [0, 0x80] {
                let mut u = u;
                u[31] |= high_bit;
                refused([vec![7; ML_KEM_KEY_BYTES], u.to_vec()].concat());
            }
        }
        refused(good.0[1..].to_vec());
    }
}
