//! What a sender keeps of an unfinished transfer, so that the same command resumes it after a
//! crash.

use std::path::PathBuf;

use minicbor::{Decode, Encode};
use sealift_agent::{
    failure::{Failure, Outcome},
    process::eprintln_safe,
    progress::HowFar,
    random::SystemRandom,
    state::StateDir,
    transfer_dir::TransferDir,
};
use sealift_protocol::{
    disposition::sender::SenderStage,
    fingerprint::Fingerprint,
    grant::Grant,
    id::{Epoch, TransferId},
    key::DigestSecret,
    manifest::{Plan, SignedManifest},
    seal::Suite,
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
    stage: SenderStage,
    /// From [`SenderStage::AllSent`] on.
    #[n(3)]
    sent: Option<Sent>,
    /// When the receiver drops what it has: nothing can be resumed then.
    #[n(4)]
    retain_until_seconds: u64,
    /// Where the source is spooled: removed before this record is.
    #[n(5)]
    spool: Option<Place>,
    /// The receiver that it was begun with.
    #[n(6)]
    receiver: Fingerprint,
    /// That a receipt may have been signed under: those of its connections. There are as many as
    /// there are suites.
    #[n(7)]
    suites: Vec<Suite>,
    /// The receiver has said that its loader may have committed.
    #[n(8)]
    in_doubt: bool,
    /// The latest that a connection was agreed on with; 0 before the first.
    #[n(9)]
    epoch: Epoch,
}

#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Sent {
    #[n(0)]
    pub plan: Plan,
    #[n(1)]
    pub manifest: SignedManifest,
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
}

/// The unfinished transfers.
pub fn unfinished(state: &StateDir) -> Outcome<Vec<Unfinished>> {
    let mut found = Vec::new();
    for transfer in TransferDir::list(state)? {
        let Some(look) = TransferDir::look::<Kept>(state, transfer)? else { continue };
        let Some(kept) = &look.record else { continue };
        let stage = match state.receipt(transfer) {
            Some(_) => SenderStage::Acknowledged,
            None => kept.stage,
        };
        let held_bytes = look.held_bytes + kept.spool.as_ref().map_or(0, Place::held_bytes);
        let spool = kept.spool.as_ref().map(|place| place.folder().to_path_buf());
        let how_far = look.how_far.filter(|_| stage != SenderStage::Prepared);
        let in_doubt = kept.in_doubt && stage != SenderStage::Acknowledged;
        found.push(Unfinished { transfer, stage, in_doubt, running: look.running, held_bytes, how_far, spool });
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
                kept.sent = None;
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
                    stage: SenderStage::Prepared,
                    sent: None,
                    retain_until_seconds: grant.retain_until_seconds,
                    spool: None,
                    receiver: grant.receiver,
                    suites: Vec::new(),
                    in_doubt: false,
                    epoch: Epoch(0),
                }
            }
        };
        let record = Self { dir, kept };
        record.dir.keep(&record.kept)?;
        Ok(record)
    }

    /// Removes the records that cannot be resumed: the grant has ended; the receipt is here, and
    /// the process that fetched it was killed before it had cleaned up; or nothing was begun, and
    /// the process that was about to was killed. What is kept of `next`, the transfer that is about
    /// to run, is not removed while its grant lasts.
    pub fn sweep(state: &StateDir, next: TransferId, now_seconds: u64) -> Outcome {
        for transfer in TransferDir::list(state)? {
            let is_over = |kept: &Kept| {
                let is_left = state.receipt(transfer).is_some() || kept.stage == SenderStage::Prepared;
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

    /// Where it is kept how far the transfer is.
    pub fn progress_file(&self) -> PathBuf {
        self.dir.progress_file()
    }

    pub fn digest_secret(&self) -> DigestSecret {
        DigestSecret::from_bytes(self.kept.digest_secret)
    }

    pub fn stage(&self) -> SenderStage {
        self.kept.stage
    }

    /// Whether a receiver may know the transfer, so that it has until `finish_before`.
    pub fn is_begun(&self) -> bool {
        self.kept.stage != SenderStage::Prepared
    }

    /// The receiver of the ticket that it was begun with.
    pub fn receiver(&self) -> Fingerprint {
        self.kept.receiver
    }

    pub fn sent(&self) -> Option<&Sent> {
        self.kept.sent.as_ref()
    }

    /// The suites that its connections were agreed on with.
    pub fn suites(&self) -> &[Suite] {
        &self.kept.suites
    }

    pub fn keep_begun(&mut self, suite: Suite) -> Outcome {
        if self.is_begun() && self.kept.suites.contains(&suite) && !self.kept.in_doubt {
            return Ok(());
        }
        self.kept.stage = self.kept.stage.max(SenderStage::Begun);
        // A receiver whose transfer is in doubt agrees to nothing.
        self.kept.in_doubt = false;
        if !self.kept.suites.contains(&suite) {
            self.kept.suites.push(suite);
        }
        self.dir.keep(&self.kept)
    }

    /// The latest epoch of its connections, those of earlier processes among them.
    pub fn epoch(&self) -> Epoch {
        self.kept.epoch
    }

    pub fn keep_epoch(&mut self, epoch: Epoch) -> Outcome {
        self.kept.epoch = epoch;
        self.dir.keep(&self.kept)
    }

    /// Whether the target may hold the load, or a part of it, by the receiver's own word.
    pub fn is_in_doubt(&self) -> bool {
        self.kept.in_doubt
    }

    pub fn keep_in_doubt(&mut self) -> Outcome {
        self.kept.in_doubt = true;
        self.dir.keep(&self.kept)
    }

    pub fn keep_sent(&mut self, sent: Sent) -> Outcome {
        self.kept.sent = Some(sent);
        self.kept.stage = SenderStage::AllSent;
        self.dir.keep(&self.kept)
    }

    /// The source is sent from its beginning: an earlier manifest is of no use any more.
    pub fn keep_unsent(&mut self) -> Outcome {
        self.kept.sent = None;
        self.kept.stage = self.kept.stage.min(SenderStage::Begun);
        self.dir.keep(&self.kept)
    }

    pub fn spool(&self) -> Option<&Place> {
        self.kept.spool.as_ref()
    }

    pub fn keep_spool(&mut self, spool: Option<Place>) -> Outcome {
        self.kept.spool = spool;
        self.dir.keep(&self.kept)
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
