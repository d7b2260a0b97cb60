//! What a sender keeps of an unfinished transfer, so that the same command resumes it after a
//! crash.

use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use sealift_agent::{
    failure::{Failure, Outcome},
    process::eprintln_safe,
    progress::HowFar,
    random::SystemRandom,
    state::StateDir,
    transfer_dir::{HeldSnapshot, TransferDir},
};
use sealift_protocol::{
    disposition::sender::SenderStage,
    fingerprint::Fingerprint,
    grant::Grant,
    id::{Epoch, TransferId},
    key::DigestSecret,
    message::Message,
    send::{Accepted, Beginning, SenderRecord, Sent},
};
use zeroize::Zeroize;

use crate::spool::Place;

/// The record, and its folder.
pub struct Record {
    dir: TransferDir,
    kept: Kept,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Kept {
    /// Of the source's URL, keyed by the secret below: another source is another transfer.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    source_tag: [u8; 32],
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    digest_secret: [u8; 32],
    #[n(2)]
    of_transfer: SenderRecord,
    /// When the receiver drops what it has: nothing can be resumed then.
    #[n(3)]
    retain_until_seconds: u64,
    /// Where the source is spooled: removed before this record is.
    #[n(4)]
    spool: Option<Place>,
    /// The receiver that it was begun with.
    #[n(5)]
    receiver: Fingerprint,
}

/// What `status` shows of a transfer.
pub struct Unfinished {
    pub transfer: TransferId,
    pub stage: SenderStage,
    /// By the receiver's own word, until it is resumed.
    pub in_doubt: bool,
    /// A process runs it now.
    pub running: bool,
    /// All that is kept of it, the spool included.
    pub held_bytes: u64,
    /// As the process that ran it last noted.
    pub how_far: Option<HowFar>,
    /// The folder of its spool.
    pub spool: Option<PathBuf>,
    /// Of its source, if a process of its own holds one.
    pub snapshot: Option<HeldSnapshot>,
}

/// The unfinished transfers.
pub fn unfinished(state: &StateDir) -> Outcome<Vec<Unfinished>> {
    let mut found = Vec::new();
    for transfer in TransferDir::list(state)? {
        let Some(look) = TransferDir::look::<Kept>(state, transfer)? else { continue };
        let Some(kept) = &look.record else { continue };
        let stage = match state.receipt(transfer) {
            Some(_) => SenderStage::Acknowledged,
            None => kept.of_transfer.stage(),
        };
        let held_bytes = look.held_bytes + kept.spool.as_ref().map_or(0, Place::held_bytes);
        let spool = kept.spool.as_ref().map(|place| place.folder().to_path_buf());
        let how_far = look.how_far.filter(|_| stage != SenderStage::Prepared);
        let in_doubt = kept.of_transfer.is_in_doubt() && stage != SenderStage::Acknowledged;
        let (running, snapshot) = (look.running, look.snapshot);
        found.push(Unfinished { transfer, stage, in_doubt, running, held_bytes, how_far, spool, snapshot });
    }
    Ok(found)
}

impl Kept {
    fn is_of(&self, source: &str) -> bool {
        self.source_tag == DigestSecret::from_bytes(self.digest_secret).source_tag(source)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.digest_secret.zeroize();
    }
}

impl Record {
    /// Opens the record of `transfer`, or begins one. One process at a time.
    pub fn open(state: &StateDir, grant: &Grant, source: &str, restart: bool) -> Outcome<Self> {
        let dir = TransferDir::open(state, grant.transfer)?;
        let kept = match dir.record::<Kept>()? {
            Some(mut kept) if kept.is_of(source) => {
                // Another ticket may give it more time.
                kept.retain_until_seconds = grant.retain_until_seconds;
                kept
            }
            Some(mut kept) if restart => {
                kept.source_tag = DigestSecret::from_bytes(kept.digest_secret).source_tag(source);
                kept.of_transfer.handle_replaced();
                kept
            }
            Some(_) => {
                let next =
                    "Give the same --source as before; or type --restart to drop what was sent and send this one.";
                return Err(Failure::usage("the transfer of this ticket was begun with another source", next));
            }
            None => {
                let digest_secret = DigestSecret::generate(&mut SystemRandom::default());
                Kept {
                    source_tag: digest_secret.source_tag(source),
                    digest_secret: *digest_secret.expose(),
                    of_transfer: SenderRecord::default(),
                    retain_until_seconds: grant.retain_until_seconds,
                    spool: None,
                    receiver: grant.receiver,
                }
            }
        };
        let mut record = Self { dir, kept };
        record.write()?;
        Ok(record)
    }

    /// Removes the records that cannot be resumed: the grant has ended; the receipt is here, and
    /// the process that fetched it was killed before it had cleaned up; or nothing was begun, and
    /// the process that was about to was killed. What is kept of `next`, the transfer that is about
    /// to run, is not removed while its grant lasts.
    pub fn sweep(state: &StateDir, next: TransferId, now_seconds: u64) -> Outcome {
        for transfer in TransferDir::list(state)? {
            let is_over = |kept: &Kept| {
                let is_left = state.receipt(transfer).is_some() || !kept.of_transfer.is_begun();
                kept.retain_until_seconds <= now_seconds || is_left && transfer != next
            };
            // Looked at first, so that a process that starts it at this moment finds it free. One
            // that cannot be read is for its own transfer to complain about.
            let Ok(Some(look)) = TransferDir::look::<Kept>(state, transfer) else { continue };
            if look.running || !look.record.as_ref().is_some_and(is_over) {
                continue;
            }
            let Ok(Some(dir)) = TransferDir::try_open(state, transfer) else { continue };
            let is_over = dir.record::<Kept>().is_ok_and(|kept| kept.as_ref().is_some_and(is_over));
            // Its spool may lie on another disk: what is wrong there is no reason not to run this
            // transfer.
            if is_over && let Err(failure) = destroy(dir) {
                eprintln_safe(&format!("sender: {transfer}: it is over, and cannot be removed: {failure}"));
            }
        }
        Ok(())
    }

    /// The folder of the transfer.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The snapshot of the source, if a process of its own holds one.
    pub fn snapshot(&self) -> Option<HeldSnapshot> {
        self.dir.snapshot()
    }

    /// Where it is kept how far the transfer is.
    pub fn progress_file(&self) -> PathBuf {
        self.dir.progress_file()
    }

    pub fn digest_secret(&self) -> DigestSecret {
        DigestSecret::from_bytes(self.kept.digest_secret)
    }

    /// How far the transfer is, and what was sent of it.
    pub fn of_transfer(&self) -> &SenderRecord {
        &self.kept.of_transfer
    }

    pub fn stage(&self) -> SenderStage {
        self.kept.of_transfer.stage()
    }

    /// Whether a receiver may know the transfer, so that it has until `finish_before`.
    pub fn is_begun(&self) -> bool {
        self.kept.of_transfer.is_begun()
    }

    /// The receiver of the ticket that it was begun with.
    pub fn receiver(&self) -> Fingerprint {
        self.kept.receiver
    }

    /// Begin, once the record names the connection that it begins.
    pub fn begin(&mut self, accepted: Accepted) -> Outcome<(Beginning, Message)> {
        self.kept.of_transfer.handle_accepted(&accepted);
        self.write_changed()?;
        Ok(self.kept.of_transfer.begin(accepted)?)
    }

    /// Keeps the epoch of a connection. Returns whether the receiver repeats one that an earlier
    /// process has seen.
    pub fn keep_epoch(&mut self, epoch: Epoch) -> Outcome<bool> {
        let is_repeated = self.kept.of_transfer.handle_epoch(epoch);
        self.write_changed()?;
        Ok(is_repeated)
    }

    pub fn keep_in_doubt(&mut self) -> Outcome {
        self.kept.of_transfer.handle_in_doubt();
        self.write_changed()
    }

    /// Finish, once the record holds what it states.
    pub fn finish(&mut self, sent: Sent) -> Outcome<Message> {
        self.kept.of_transfer.handle_all_sent(sent);
        self.write_changed()?;
        Ok(self.kept.of_transfer.finish()?)
    }

    /// The source is sent from its beginning.
    pub fn keep_unsent(&mut self) -> Outcome {
        self.kept.of_transfer.handle_unsent();
        self.write_changed()
    }

    pub fn spool(&self) -> Option<&Place> {
        self.kept.spool.as_ref()
    }

    pub fn keep_spool(&mut self, spool: Option<Place>) -> Outcome {
        self.kept.spool = spool;
        self.write()
    }

    fn write_changed(&mut self) -> Outcome {
        match self.kept.of_transfer.is_unwritten() {
            true => self.write(),
            false => Ok(()),
        }
    }

    /// Durable when it returns.
    fn write(&mut self) -> Outcome {
        self.dir.keep(&self.kept)?;
        self.kept.of_transfer.handle_written();
        Ok(())
    }

    /// The transfer is over.
    pub fn destroy(self) -> Outcome {
        destroy(self.dir)
    }
}

/// Removes all that is kept of a transfer: the spool first, since only the record says where it is.
pub fn destroy(dir: TransferDir) -> Outcome {
    // A record that cannot be read is of no use, and says nothing about a spool.
    if let Ok(Some(kept)) = dir.record::<Kept>()
        && let Some(spool) = &kept.spool
    {
        spool.destroy()?;
    }
    dir.destroy()
}
