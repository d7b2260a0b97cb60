//! What a sender keeps of an unfinished transfer, so that the same command goes on with it after a crash.

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
    fingerprint::Fingerprint,
    grant::Grant,
    id::TransferId,
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
    /// The receiver may have something of it.
    #[n(2)]
    begun: bool,
    /// All of it was sent, and the receiver may have loaded it.
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
    /// That a receipt may have been signed under: those of its connections. There are as many as there are suites.
    #[n(7)]
    suites: Vec<Suite>,
}

#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Sent {
    #[n(0)]
    pub plan: Plan,
    #[n(1)]
    pub manifest: SignedManifest,
}

/// How far a transfer has come, as its sender knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Prepared,
    Begun,
    AllSent,
    /// It has its receipt; what is kept is what a process left that was killed in its clean-up.
    Done,
}

impl Stage {
    pub fn word(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Begun => "begun",
            Self::AllSent => "all_sent",
            Self::Done => "done",
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Self::Prepared => "prepared, nothing was sent",
            Self::Begun => "begun",
            Self::AllSent => "all of it was sent; the receipt is missing",
            Self::Done => "done, the receipt is here; the next push clears up what is left",
        }
    }
}

/// What `status` tells of a transfer.
pub struct Unfinished {
    pub transfer: TransferId,
    pub stage: Stage,
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
        let stage = match kept {
            _ if state.receipt(transfer).is_some() => Stage::Done,
            Kept { sent: Some(_), .. } => Stage::AllSent,
            Kept { begun: true, .. } => Stage::Begun,
            _ => Stage::Prepared,
        };
        let held_bytes = look.held_bytes + kept.spool.as_ref().map_or(0, Place::held_bytes);
        let spool = kept.spool.as_ref().map(|place| place.folder().to_path_buf());
        let how_far = look.how_far.filter(|_| stage != Stage::Prepared);
        found.push(Unfinished { transfer, stage, running: look.running, held_bytes, how_far, spool });
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
                    begun: false,
                    sent: None,
                    retain_until_seconds: grant.retain_until_seconds,
                    spool: None,
                    receiver: grant.receiver,
                    suites: Vec::new(),
                }
            }
        };
        let record = Self { dir, kept };
        record.dir.keep(&record.kept)?;
        Ok(record)
    }

    /// Removes the records that nothing goes on with: the grant has ended; the receipt is here, and the process that fetched
    /// it was killed before it had cleaned up; or nothing was begun, and the process that was about to was killed.
    /// What is kept of `next`, the transfer that is about to run, is its own affair while its grant lasts.
    pub fn sweep(state: &StateDir, next: TransferId, now_seconds: u64) -> Outcome {
        for transfer in TransferDir::list(state)? {
            let is_over = |kept: &Kept| {
                let is_left = state.receipt(transfer).is_some() || !kept.begun;
                kept.retain_until_seconds <= now_seconds || is_left && transfer != next
            };
            // Looked at first, so that whoever starts it at this moment finds it free. One that cannot be read is for its
            // own transfer to complain about.
            let Ok(Some(look)) = TransferDir::look::<Kept>(state, transfer) else { continue };
            if look.running || !look.record.as_ref().is_some_and(is_over) {
                continue;
            }
            let Ok(Some(dir)) = TransferDir::try_open(state, transfer) else { continue };
            let is_over = dir.record::<Kept>().is_ok_and(|kept| kept.as_ref().is_some_and(is_over));
            // Its spool may lie on another disk: what is wrong there is no reason not to run this transfer.
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

    /// Whether an earlier process, or an earlier connection of this one, got as far as data.
    pub fn is_begun(&self) -> bool {
        self.kept.begun
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
        if self.kept.begun && self.kept.suites.contains(&suite) {
            return Ok(());
        }
        self.kept.begun = true;
        if !self.kept.suites.contains(&suite) {
            self.kept.suites.push(suite);
        }
        self.dir.keep(&self.kept)
    }

    pub fn keep_sent(&mut self, sent: Option<Sent>) -> Outcome {
        self.kept.sent = sent;
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
