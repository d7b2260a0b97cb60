//! The proof of a ticket: the first message of a connection, with which a sender proves that it
//! holds the ticket's secret, on this connection and with this key (`docs/ticket.md`).
//!
//! | bytes | |
//! |---|---|
//! | 0–3 | `"SLp1"` |
//! | 4–19 | ticket: the transfer it is for |
//! | 20–51 | HMAC-SHA-256 (RFC 2104) under the secret |
//!
//! The HMAC is over a label, the TLS exporter, both fingerprints and the hash of the grant.
//! A proof is bound to the TLS exporter and to both keys, so it is of no use on any other
//! connection. The first valid one binds the ticket to the sender's key, and the receiver erases
//! the secret. From then on the handshake alone authenticates the sender, and the HMAC is not
//! checked.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use minicbor::{Decode, Encode};
use zeroize::Zeroize;

use crate::{
    close::Code,
    error::{Error, Result},
    fingerprint::Fingerprint,
    id::TransferId,
    random::Random,
};

/// The length of the message, which is fixed and has no prefix.
pub const TICKET_PROOF_BYTES: usize = 52;

const MAGIC: &[u8; 4] = b"SLp1";
const LABEL: &[u8] = b"sealift/1 ticket proof\0";

/// The one-time secret of a ticket: 256 random bits.
#[derive(Clone, Encode, Decode)]
#[cbor(transparent)]
pub struct TicketSecret(#[cbor(with = "minicbor::bytes")] [u8; 32]);

impl Drop for TicketSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret")
    }
}

impl TicketSecret {
    /// A new secret, drawn for one ticket.
    pub fn generate(random: &mut dyn Random) -> Self {
        let mut secret = [0; 32];
        random.fill(&mut secret);
        Self(secret)
    }
}

/// What a proof is bound to.
#[derive(Clone, Copy, Debug)]
pub struct ProvenOn<'a> {
    /// The TLS exporter of the connection (RFC 9266).
    pub exporter: &'a [u8; 32],
    /// The sender's fingerprint.
    pub sender: Fingerprint,
    /// The receiver's fingerprint.
    pub receiver: Fingerprint,
    /// [`crate::grant::SignedGrant::hash_with_signature`] of the ticket's grant.
    pub grant_hash: [u8; 32],
}

impl ProvenOn<'_> {
    fn to_bytes(self) -> Vec<u8> {
        [LABEL, self.exporter, &self.sender.0, &self.receiver.0, &self.grant_hash].concat()
    }
}

/// The message, 52 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicketProof {
    /// The transfer that the ticket is for.
    pub transfer: TransferId,
    mac: [u8; 32],
}

impl TicketProof {
    /// The proof of a ticket that is not bound yet.
    pub fn make(transfer: TransferId, secret: &TicketSecret, on: ProvenOn<'_>) -> Self {
        let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, &secret.0), &on.to_bytes());
        Self { transfer, mac: tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes") }
    }

    /// The proof of a ticket that is bound already, with an empty MAC: the handshake has
    /// authenticated the sender.
    pub fn bound(transfer: TransferId) -> Self {
        Self { transfer, mac: [0; 32] }
    }

    /// The message: magic, transfer, MAC.
    pub fn to_bytes(&self) -> [u8; TICKET_PROOF_BYTES] {
        let mut bytes = [0; TICKET_PROOF_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..20].copy_from_slice(&self.transfer.0);
        bytes[20..].copy_from_slice(&self.mac);
        bytes
    }

    /// Whether a proof may begin with these bytes, however few they are.
    pub fn may_begin_with(bytes: &[u8]) -> bool {
        bytes.iter().zip(MAGIC).all(|(byte, expected)| byte == expected)
    }

    /// Fails with `ProtocolViolation` if the magic is wrong.
    pub fn from_bytes(bytes: &[u8; TICKET_PROOF_BYTES]) -> Result<Self> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(Error::new(Code::ProtocolViolation, "proof of a ticket"))?;
        let (transfer, mac) = rest.split_at(16);
        let transfer = TransferId(transfer.try_into().expect("split at 16"));
        Ok(Self { transfer, mac: mac.try_into().expect("52 bytes less 20") })
    }

    /// Checks in constant time that the sender holds `secret`; fails with `ProofRefused`.
    pub fn verify(&self, secret: &TicketSecret, on: ProvenOn<'_>) -> Result<()> {
        hmac::verify(&hmac::Key::new(HMAC_SHA256, &secret.0), &on.to_bytes(), &self.mac)
            .map_err(|_| Error::new(Code::ProofRefused, "proof of a ticket"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u8);

    impl Random for Counting {
        fn fill(&mut self, out: &mut [u8]) {
            self.0 += 1;
            out.fill(self.0);
        }
    }

    fn on(exporter: &[u8; 32]) -> ProvenOn<'_> {
        ProvenOn { exporter, sender: Fingerprint([2; 32]), receiver: Fingerprint([3; 32]), grant_hash: [4; 32] }
    }

    /// Issue 9, A1: a proof is valid for one secret, connection, pair of keys in their roles, and
    /// grant.
    #[test]
    fn a_proof_is_bound_to_all_that_it_is_made_on() {
        let secret = TicketSecret::generate(&mut Counting(0));
        let proof = TicketProof::make(TransferId([9; 16]), &secret, on(&[1; 32]));
        assert_eq!(TicketProof::from_bytes(&proof.to_bytes()), Ok(proof));
        assert_eq!(proof.verify(&secret, on(&[1; 32])), Ok(()));

        let refused = |secret: &TicketSecret, on: ProvenOn<'_>| {
            assert_eq!(proof.verify(secret, on).unwrap_err().code, Code::ProofRefused);
        };
        let good = on(&[1; 32]);
        refused(&TicketSecret::generate(&mut Counting(1)), good);
        refused(&secret, on(&[5; 32]));
        refused(&secret, ProvenOn { sender: Fingerprint([5; 32]), ..good });
        refused(&secret, ProvenOn { receiver: Fingerprint([5; 32]), ..good });
        refused(&secret, ProvenOn { sender: good.receiver, receiver: good.sender, ..good });
        refused(&secret, ProvenOn { grant_hash: [5; 32], ..good });
    }

    #[test]
    fn every_altered_bit_of_a_proof_is_refused() {
        let secret = TicketSecret::generate(&mut Counting(0));
        let exporter = [1; 32];
        let proof = TicketProof::make(TransferId([9; 16]), &secret, on(&exporter)).to_bytes();
        for bit in 0..8 * TICKET_PROOF_BYTES {
            let mut altered = proof;
            altered[bit / 8] ^= 1 << (bit % 8);
            match TicketProof::from_bytes(&altered) {
                // The HMAC does not cover the transfer, which selects the secret.
                Ok(altered) if altered.transfer != TransferId([9; 16]) => {}
                Ok(altered) => assert!(altered.verify(&secret, on(&exporter)).is_err(), "bit {bit}"),
                Err(error) => assert_eq!(error.code, Code::ProtocolViolation),
            }
        }
    }
}
