//! An archive: a transfer that is carried on a disk instead of sent. It is a sealed log of kind
//! archive, whose records are, but for marks:
//!
//! ```text
//! statement Offer     grant, plan, the sender's key; the grant is signed by that key
//! epoch               the one key envelope, sealed to the receiver's standing key
//! statement Begin     the sender's signature over header, Offer and epoch
//! chunk …             part after part in the order of the plan, each from its first chunk to its last
//! statement Finish    the manifest, signed
//! ```
//!
//! Begin is what it is on the link: with it the sender vouches for the keys, before anything is
//! opened with them, and by them for every chunk. Who the sender is, only its fingerprint says,
//! which reaches the receiver's operator out of band. Here is what both sides share, and how an
//! archive begins; how it is read is [`crate::receive`]'s.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::{
    close::Code,
    codec,
    digest::Digests,
    envelope::{KeyEnvelope, SealingPublicKey},
    error::{Error, Result},
    fingerprint::Fingerprint,
    grant::SignedGrant,
    id::Epoch,
    key::{DigestSecret, EpochSecret},
    limits::CONTROL_BYTES_MAX,
    manifest::{Plan, SignedManifest},
    random::Random,
    seal::{EpochKeys, Suite},
    sealed_log::{EpochRecord, LogHeader, Record},
    sign::{PublicKey, Purpose, Signature, Signer},
    transcript::Transcript,
};

pub const ARCHIVE_VERSION: u16 = 1;

/// What the grant of an archive calls its target: the one that the receiver's operator names when
/// it is loaded.
pub const ARCHIVE_TARGET: &str = "load";

/// An archive has one epoch: nothing is ever added to it.
pub const ARCHIVE_EPOCH: Epoch = Epoch(1);

/// A receiver's standing public keys: what archives are sealed to, and the key of its identity,
/// which vouches for that and signs the receipts of their loads.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ReceiverKey {
    #[n(0)]
    sealing: SealingPublicKey,
    #[n(1)]
    identity: PublicKey,
    #[n(2)]
    signature: Signature,
}

impl ReceiverKey {
    pub fn sign(sealing: SealingPublicKey, identity: &dyn Signer) -> Self {
        let signature = identity.sign(Purpose::SealingKey, &codec::encode(&sealing));
        Self { sealing, identity: identity.public_key(), signature }
    }

    /// The key to seal to, once the identity with [`Self::fingerprint`] is seen to have signed it;
    /// else `IdentityRefused`.
    pub fn sealing(&self) -> Result<&SealingPublicKey> {
        let signed = codec::encode(&self.sealing);
        self.identity.verify(Purpose::SealingKey, &signed, &self.signature, Code::IdentityRefused)?;
        Ok(&self.sealing)
    }

    /// Of the receiver's identity: it stands for both keys.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.identity)
    }
}

/// What is to come, and who says so.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ArchiveOffer {
    #[n(0)]
    pub version: u16,
    /// Signed by the sender itself: it permits the receiver to load this, once, until the grant
    /// ends.
    #[n(1)]
    pub grant: SignedGrant,
    #[n(2)]
    pub plan: Plan,
    #[n(3)]
    pub sender_key: PublicKey,
}

/// A statement of an archive.
#[expect(clippy::large_enum_variant, reason = "one at a time: it is decoded, and taken apart at once")]
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Statement {
    #[n(1)]
    Offer(#[n(0)] Box<ArchiveOffer>),
    #[n(2)]
    Begin(#[n(0)] Signature),
    #[n(3)]
    Finish(#[n(0)] SignedManifest),
}

impl Statement {
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes, CONTROL_BYTES_MAX, "statement of an archive")
    }

    pub fn to_record(&self) -> Record {
        Record::Statement(codec::encode(self).into())
    }
}

/// What stands before the chunks, and the keys that seal them.
pub struct Opening {
    pub records: [Record; 3],
    pub keys: Arc<EpochKeys>,
}

impl Opening {
    /// Begins the archive that has this header.
    pub fn make(
        header: &LogHeader,
        offer: ArchiveOffer,
        suite: Suite,
        digest_secret: &DigestSecret,
        to: &SealingPublicKey,
        signer: &dyn Signer,
        random: &mut dyn Random,
    ) -> Result<Self> {
        if offer.sender_key != signer.public_key() || offer.grant.grant.transfer != header.id.transfer {
            return Err(Error::new(Code::Internal, "offer of an archive"));
        }
        let transfer = header.id.transfer;
        let offer = Statement::Offer(Box::new(offer));
        let mut transcript = Transcript::of_archive(header);
        transcript.absorb(&codec::encode(&offer));
        let info = transcript.hash();
        let secret = EpochSecret::generate(random);
        let epoch = EpochRecord {
            epoch: ARCHIVE_EPOCH,
            suite,
            envelope: KeyEnvelope::seal(&secret, digest_secret, to, &info, ARCHIVE_EPOCH, random)?,
            info,
            commitment: secret.commitment(transfer, ARCHIVE_EPOCH),
        };
        transcript.absorb(&codec::encode(&epoch));
        let begin = Statement::Begin(signer.sign(Purpose::Archive, &transcript.hash()));
        let keys = EpochKeys::new(suite, transfer, ARCHIVE_EPOCH, secret, Digests::new(digest_secret));
        let records = [offer.to_record(), Record::Epoch(Box::new(epoch)), begin.to_record()];
        Ok(Self { records, keys: Arc::new(keys) })
    }
}
