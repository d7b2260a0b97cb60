//! The tickets that this receiver has issued: which sender each is bound to, and what an unbound
//! one is worth.
//!
//! A ticket is two files in the folder of its transfer, each written once. `ticket-secret` is there
//! until the first valid proof; `ticket-sender` from then on. The second is durable before the
//! first is destroyed, so that whatever is killed in between, the ticket is bound to one sender and
//! to no other.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

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
    ticket_proof::{ProvenOn, TicketProof, TicketSecret},
};
use zeroize::Zeroizing;

use crate::record::Kept;

/// CBOR of 32 bytes.
const FILE_BYTES_MAX: usize = 64;

/// Refused holders of a ticket that are entered in the audit log by name; more of them in one
/// process are only counted.
const NAMED_REFUSALS_MAX: usize = 64;

/// The tickets in one state directory.
#[derive(Clone)]
pub struct TicketBook {
    state: StateDir,
    audit: AuditLog,
    /// Held while a proof is checked, so that of two senders with the same ticket one is first, and
    /// one thread at a time waits for the disk.
    checking: Arc<tokio::sync::Mutex<()>>,
    refused: Arc<Mutex<Vec<(TransferId, Fingerprint)>>>,
}

/// Whose proof it is, and on which connection it came.
#[derive(Clone, Copy)]
struct Presented {
    proof: TicketProof,
    sender: Fingerprint,
    receiver: Fingerprint,
    exporter: [u8; 32],
    address: SocketAddr,
}

impl Presented {
    fn on(&self, grant_hash: [u8; 32]) -> ProvenOn<'_> {
        ProvenOn { exporter: &self.exporter, sender: self.sender, receiver: self.receiver, grant_hash }
    }
}

/// What a sender that holds a ticket has shown.
#[derive(Clone, Copy, Debug)]
pub struct Proven {
    pub transfer: TransferId,
    /// The transfer has begun, under this ticket or an earlier one.
    pub begun: bool,
}

impl TicketBook {
    /// Finishes what a process left that was killed while it bound a ticket: the secret of a bound
    /// ticket goes at once.
    pub fn open(state: &StateDir, audit: &AuditLog) -> Outcome<Self> {
        let state = state.clone();
        let audit = audit.clone();
        let book = Self { state, audit, checking: Arc::default(), refused: Arc::default() };
        for transfer in TransferDir::list(&book.state)? {
            // One that cannot be read excludes no other; `check` refuses its senders.
            if let Ok(Some(_)) = book.bound(transfer) {
                book.destroy_secret(transfer)?;
            }
        }
        Ok(book)
    }

    /// Makes the secret of a ticket for a transfer whose record is there; what is bound already
    /// stays bound.
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

    /// Checks a proof that came over `link`. The first valid one of a ticket binds it, durably, and
    /// destroys the secret. Waits for the disk on a thread of its own, which goes on where this is
    /// cancelled.
    pub async fn admit(&self, proof: TicketProof, link: &Link, own: &Identity, now_seconds: u64) -> Outcome<Proven> {
        let presented = Presented {
            proof,
            sender: link.peer_fingerprint(),
            receiver: own.fingerprint(),
            exporter: link.channel.exporter,
            address: link.remote_address(),
        };
        let book = self.clone();
        let turn = Arc::clone(&self.checking).lock_owned().await;
        let admitting = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let admitted = book.check(&presented, now_seconds);
            if let Err(failure) = &admitted {
                book.note_refusal(&presented, failure)?;
            }
            admitted
        });
        admitting.await.map_err(|_| Failure::new(Code::Internal, "the check of a proof ended early", ""))?
    }

    fn check(&self, presented: &Presented, now_seconds: u64) -> Outcome<Proven> {
        let Presented { proof, sender, .. } = *presented;
        let transfer = proof.transfer;
        let refused = |code, check| Err(Error::new(code, check).into());
        let looked = TransferDir::look::<Kept>(&self.state, transfer)?;
        let Some(kept) = looked.and_then(|look| look.record) else {
            return match self.state.receipt(transfer) {
                Some(_) => refused(Code::GrantUsed, "transfer"),
                None => refused(Code::TicketUnknown, "ticket"),
            };
        };
        let proven = Proven { transfer, begun: kept.stage().is_begun() };
        if kept.grant.grant.sender.is_some_and(|expected| expected != sender) {
            return refused(Code::IdentityRefused, "fingerprint of the sender");
        }
        if let Some(bound) = self.bound(transfer)? {
            if bound == sender {
                return Ok(proven);
            }
            return Err(Failure { bound: Some(Box::new(bound)), ..Error::new(Code::TicketBound, "sender").into() });
        }
        let Some(secret) = self.read::<TicketSecret>(transfer, TICKET_SECRET)? else {
            return refused(Code::TicketUnknown, "ticket");
        };
        proof.verify(&secret, presented.on(kept.grant.hash_with_signature()))?;
        kept.grant.grant.check_time(now_seconds, proven.begun)?;
        self.bind(presented)?;
        Ok(proven)
    }

    fn bind(&self, presented: &Presented) -> Outcome {
        let Presented { proof: TicketProof { transfer, .. }, sender, address, .. } = *presented;
        self.audit.append(Some(transfer), &Entry::TicketBind { sender, address })?;
        self.write(transfer, TICKET_SENDER, &sender)?;
        fail_point::hit(Point::TicketBound);
        self.destroy_secret(transfer)
    }

    /// A later holder of a ticket is entered once: it may come as often as it likes.
    fn note_refusal(&self, presented: &Presented, failure: &Failure) -> Outcome {
        if !matches!(failure.code, Code::TicketBound | Code::ProofRefused | Code::IdentityRefused) {
            return Ok(());
        }
        let Presented { proof: TicketProof { transfer, .. }, sender, address, .. } = *presented;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let known = (transfer, sender);
        if refused.contains(&known) || refused.len() >= NAMED_REFUSALS_MAX {
            return Ok(());
        }
        refused.push(known);
        drop(refused);
        let entry =
            Entry::TicketRefuse { reason: failure.code, sender, address, bound: failure.bound.as_deref().copied() };
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
