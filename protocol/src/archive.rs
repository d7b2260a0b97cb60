//! An archive: a transfer that is carried on a disk instead of sent. It is a sealed log of kind
//! archive, whose records are, but for marks:
//!
//! ```text
//! statement Offer     grant, plan, the sender's key; the grant is signed by that key
//! epoch               the one key envelope, sealed to the receiver's standing key
//! statement Begin     the sender's signature over header, Offer and epoch
//! chunk …             part after part in the order of the plan, each from its first chunk on
//! statement Finish    the manifest, signed
//! ```
//!
//! As on the link, Begin is the sender's signature over the keys. It is verified before anything is
//! opened with them, and so covers every chunk. The sender is identified by its fingerprint alone,
//! which the receiver's operator gets out of band. This module has what both sides share and writes
//! how an archive begins; [`crate::receive`] reads it.

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

/// The one version of the format, in [`ArchiveOffer::version`]; any other is `VersionUnsupported`.
pub const ARCHIVE_VERSION: u16 = 1;

/// The target in the grant of an archive. It stands for the target that the receiver's operator
/// names when the archive is loaded.
pub const ARCHIVE_TARGET: &str = "load";

/// An archive has one epoch: nothing is ever added to it.
pub const ARCHIVE_EPOCH: Epoch = Epoch(1);

/// A receiver's standing public keys: the key that archives are sealed to, and the key of its
/// identity, which signs the first and the receipts.
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
    /// Signs `sealing` with the receiver's identity (`docs/archive.md`, The receiver's key).
    pub fn sign(sealing: SealingPublicKey, identity: &dyn Signer) -> Self {
        let signature = identity.sign(Purpose::SealingKey, &codec::encode(&sealing));
        Self { sealing, identity: identity.public_key(), signature }
    }

    /// The key to seal to. Fails with `IdentityRefused` unless the identity with
    /// [`Self::fingerprint`] has signed it.
    pub fn sealing(&self) -> Result<&SealingPublicKey> {
        let signed = codec::encode(&self.sealing);
        self.identity.verify(Purpose::SealingKey, &signed, &self.signature, Code::IdentityRefused)?;
        Ok(&self.sealing)
    }

    /// The fingerprint of the receiver's identity, which stands for both keys.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.identity)
    }
}

/// The first statement: what the archive holds, and who made it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ArchiveOffer {
    /// [`ARCHIVE_VERSION`].
    #[n(0)]
    pub version: u16,
    /// Signed by the sender itself. It permits the receiver to load this archive once, before the
    /// grant ends.
    #[n(1)]
    pub grant: SignedGrant,
    /// The parts that follow, in the order in which their chunks come.
    #[n(2)]
    pub plan: Plan,
    /// The key that signed the grant, signs Begin and the manifest; compared by its fingerprint.
    #[n(3)]
    pub sender_key: PublicKey,
}

/// A message in an archive, as canonical CBOR (`docs/archive.md`, Records).
#[expect(clippy::large_enum_variant, reason = "one at a time: it is decoded, and taken apart at once")]
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Statement {
    /// The first record.
    #[n(1)]
    Offer(#[n(0)] Box<ArchiveOffer>),
    /// The sender's signature over the transcript of header, Offer and epoch record.
    #[n(2)]
    Begin(#[n(0)] Signature),
    /// The signed manifest, after the last chunk.
    #[n(3)]
    Finish(#[n(0)] SignedManifest),
}

impl Statement {
    /// Decodes the body of a statement record, of at most [`CONTROL_BYTES_MAX`] bytes; anything but
    /// canonical CBOR is `ProtocolViolation`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes, CONTROL_BYTES_MAX, "statement of an archive")
    }

    /// The statement as canonical CBOR in a record of the log.
    pub fn to_record(&self) -> Record {
        Record::Statement(codec::encode(self).into())
    }
}

/// The records before the first chunk, and the keys that seal the chunks.
pub struct Opening {
    /// Offer, epoch and Begin, to be appended in this order.
    pub records: [Record; 3],
    /// The keys of [`ARCHIVE_EPOCH`].
    pub keys: Arc<EpochKeys>,
}

impl Opening {
    /// Begins the archive that has this header. Fails with `Internal` if the offer is of another
    /// transfer or sender than header and signer, and with `ProtocolViolation` if `to` is no usable
    /// key.
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
