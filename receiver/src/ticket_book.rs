//! The tickets that this receiver has issued: which sender each is bound to, and what an unbound one is worth.
//!
//! A ticket is two files in the folder of its transfer, each written once. `ticket-secret` is there until the first valid
//! proof; `ticket-sender` from then on. The second is durable before the first is destroyed, so that whatever is killed in
//! between, the ticket is bound to one sender and to no other.

use std::sync::{Mutex, PoisonError};

use sealift_agent::{
    audit::{AuditLog, entry::Entry},
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    identity::Identity,
    link::Link,
    own_file::{destroy_own, read_own},
    random::SystemRandom,
    state::{StateDir, write_durably},
    transfer_dir::{TICKET_SECRET, TICKET_SENDER, TransferDir},
};
use sealift_protocol::{
    close::Code,
    codec,
    error::Error,
    fingerprint::Fingerprint,
    id::TransferId,
    ticket_proof::{TicketProof, TicketSecret},
};
use zeroize::Zeroizing;

use crate::record::Kept;

/// CBOR of 32 bytes.
const FILE_BYTES_MAX: usize = 64;

/// Refused holders of a ticket that are entered in the audit log by name; more of them in one process are only counted.
const NAMED_REFUSALS_MAX: usize = 64;

/// The tickets in one state directory.
pub struct TicketBook {
    state: StateDir,
    audit: AuditLog,
    /// Held while a ticket is bound, so that of two senders with the same ticket one is first.
    refused: Mutex<Vec<(TransferId, Fingerprint)>>,
}

/// What a sender that holds a ticket has shown.
#[derive(Clone, Copy, Debug)]
pub struct Proven {
    pub transfer: TransferId,
    /// The transfer has begun, under this ticket or an earlier one.
    pub begun: bool,
}

impl TicketBook {
    /// Finishes what a process left that was killed while it bound a ticket: the secret of a bound ticket goes at once.
    pub fn open(state: &StateDir, audit: &AuditLog) -> Outcome<Self> {
        let book = Self { state: state.clone(), audit: audit.clone(), refused: Mutex::default() };
        for transfer in TransferDir::list(state)? {
            // One that cannot be read keeps nobody out; `check` refuses its senders.
            if let Ok(Some(_)) = book.bound(transfer) {
                book.destroy_secret(transfer)?;
            }
        }
        Ok(book)
    }

    /// Makes the secret of a ticket for a transfer whose record is there; what is bound already stays bound.
    pub fn issue(&self, transfer: TransferId) -> Outcome<Option<TicketSecret>> {
        if self.bound(transfer)?.is_some() {
            return Ok(None);
        }
        if let Some(secret) = self.read(transfer, TICKET_SECRET)? {
            return Ok(Some(secret));
        }
        let secret = TicketSecret::generate(&mut SystemRandom::default());
        self.write(transfer, TICKET_SECRET, &secret)?;
        Ok(Some(secret))
    }

    /// The one sender that the transfer is bound to.
    pub fn bound(&self, transfer: TransferId) -> Outcome<Option<Fingerprint>> {
        self.read(transfer, TICKET_SENDER)
    }

    /// Checks a proof that came over `link`. The first valid one of a ticket binds it, durably, and destroys the secret.
    /// Blocks.
    pub fn admit(&self, proof: &TicketProof, link: &Link, own: &Identity, now_seconds: u64) -> Outcome<Proven> {
        let admitted = self.check(proof, link, own, now_seconds);
        if let Err(failure) = &admitted {
            self.note_refusal(proof.transfer, link, failure)?;
        }
        admitted
    }

    fn check(&self, proof: &TicketProof, link: &Link, own: &Identity, now_seconds: u64) -> Outcome<Proven> {
        let sender = link.peer_fingerprint();
        let transfer = proof.transfer;
        let refused = |code, check| Err(Error::new(code, check).into());
        let looked = TransferDir::look::<Kept>(&self.state, transfer)?;
        let Some(kept) = looked.and_then(|look| look.record) else {
            return match self.state.receipt(transfer) {
                Some(_) => refused(Code::GrantUsed, "transfer"),
                None => refused(Code::TicketUnknown, "ticket"),
            };
        };
        let proven = Proven { transfer, begun: kept.is_begun() };
        // One at a time from here: the second of two sees what the first has bound.
        let _binding = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.grant.grant.sender.is_some_and(|expected| expected != sender) {
            return refused(Code::IdentityRefused, "fingerprint of the sender");
        }
        if let Some(bound) = self.bound(transfer)? {
            if bound == sender {
                return Ok(proven);
            }
            return Err(Failure { bound: Some(bound), ..Error::new(Code::TicketBound, "sender").into() });
        }
        let Some(secret) = self.read::<TicketSecret>(transfer, TICKET_SECRET)? else {
            return refused(Code::TicketUnknown, "ticket");
        };
        proof.verify(&secret, link.proven_on(own, kept.grant.hash()))?;
        kept.grant.grant.check_time(now_seconds, proven.begun)?;
        self.bind(transfer, sender, link)?;
        Ok(proven)
    }

    fn bind(&self, transfer: TransferId, sender: Fingerprint, link: &Link) -> Outcome {
        self.audit.append(Some(transfer), &Entry::TicketBind { sender, address: link.remote_address() })?;
        self.write(transfer, TICKET_SENDER, &sender)?;
        fail_point::hit(Point::TicketBound);
        self.destroy_secret(transfer)
    }

    /// A later holder of a ticket is entered once: it may come as often as it likes.
    fn note_refusal(&self, transfer: TransferId, link: &Link, failure: &Failure) -> Outcome {
        if !matches!(failure.code, Code::TicketBound | Code::ProofRefused | Code::IdentityRefused) {
            return Ok(());
        }
        let sender = link.peer_fingerprint();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let known = (transfer, sender);
        if refused.contains(&known) || refused.len() >= NAMED_REFUSALS_MAX {
            return Ok(());
        }
        refused.push(known);
        drop(refused);
        let entry =
            Entry::TicketRefuse { reason: failure.code, sender, address: link.remote_address(), bound: failure.bound };
        self.audit.append(Some(transfer), &entry)
    }

    fn read<T: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()>>(
        &self,
        transfer: TransferId,
        name: &str,
    ) -> Outcome<Option<T>> {
        let path = TransferDir::folder(&self.state, transfer).join(name);
        let Some(bytes) = read_own(&path, FILE_BYTES_MAX)? else { return Ok(None) };
        let decoded = codec::decode(&bytes, FILE_BYTES_MAX, "ticket");
        decoded.map(Some).map_err(|_| {
            let next = "End the transfer with `sealift-receiver abandon`, and make a new ticket.";
            Failure::new(Code::Preflight, format!("{} is damaged", path.display()), next)
        })
    }

    fn write<T: minicbor::Encode<()>>(&self, transfer: TransferId, name: &str, value: &T) -> Outcome {
        let path = TransferDir::folder(&self.state, transfer).join(name);
        write_durably(&path, &Zeroizing::new(codec::encode(value))).map_err(|error| unusable(&path, &error))
    }

    fn destroy_secret(&self, transfer: TransferId) -> Outcome {
        let path = TransferDir::folder(&self.state, transfer).join(TICKET_SECRET);
        destroy_own(&path).map_err(|error| unusable(&path, &error))
    }
}

fn unusable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    let next = "Check --state-dir: owner, mode, free space, and that the file system is not read-only.";
    Failure::io(Code::Preflight, format!("{} cannot be used", path.display()), error, next)
}
