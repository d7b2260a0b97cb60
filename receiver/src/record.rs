//! What a receiver keeps of an unfinished transfer, so that the same command resumes it after
//! a crash.

use minicbor::{Decode, Encode};
use sealift_agent::{
    failure::Outcome, permit::Permit, random::SystemRandom, state::StateDir, transfer_dir::TransferDir,
};
use sealift_protocol::{
    close::Code,
    disposition::Stage,
    envelope::SealingKey,
    error::Error,
    grant::SignedGrant,
    id::{Epoch, TransferId},
    manifest::Plan,
    receive::ReceiverTransfer,
};
use zeroize::Zeroize;

use crate::{
    ending::{Ending, KeepsEnding},
    load::Load,
    runner::LoadRecord,
};

/// The record, and its folder.
pub struct Record {
    pub dir: TransferDir,
    pub kept: Kept,
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Kept {
    /// The target's URL: what is staged for it has to be found again. It is as secret as this
    /// folder.
    #[n(0)]
    pub target: String,
    /// Of a `listen`: where its ticket says that this receiver is. `None` for a target of `serve`.
    #[n(1)]
    pub port: Option<u16>,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    sealing_key: Vec<u8>,
    #[n(3)]
    pub epoch: Epoch,
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub digest_check: Option<[u8; 32]>,
    /// What is being loaded, once something is.
    #[n(5)]
    pub plan: Option<Plan>,
    #[n(6)]
    pub started_ms: u64,
    #[n(7)]
    pub ending: Ending,
    #[n(8)]
    pub grant: SignedGrant,
    /// There is a journal: if there is not, it was removed. Not set while one is made or
    /// destroyed.
    #[n(9)]
    pub journal_made: bool,
}

impl Kept {
    pub fn stage(&self) -> Stage {
        self.ending.stage
    }

    /// Once a sender has begun, until the grant's `finish_before`.
    pub fn permit(&self) -> Permit {
        Permit::of(&self.grant.grant, self.stage().is_begun())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.sealing_key.zeroize();
    }
}

impl LoadRecord for Record {
    fn finds_again(&self, load: &Load) -> bool {
        load.transfer().has_anything()
    }

    fn target(&self) -> &str {
        &self.kept.target
    }

    fn into_dir(self) -> TransferDir {
        self.dir
    }
}

impl KeepsEnding for Record {
    fn stage(&self) -> Stage {
        self.kept.ending.stage
    }

    fn ending(&mut self) -> &mut Ending {
        &mut self.kept.ending
    }

    fn keep(&self) -> Outcome {
        self.dir.keep(&self.kept)
    }
}

impl Record {
    /// Begins the record of a transfer that is permitted just now: into the target of a `listen` at
    /// `port`, or of `serve`.
    pub fn begin(state: &StateDir, grant: SignedGrant, target: &str, port: Option<u16>) -> Outcome<Self> {
        let dir = TransferDir::open(state, grant.grant.transfer)?;
        let sealing_key = SealingKey::generate(&mut SystemRandom::default()).expose().to_vec();
        let kept = Kept {
            target: target.to_owned(),
            port,
            sealing_key,
            epoch: Epoch(0),
            digest_check: None,
            plan: None,
            started_ms: 0,
            ending: Ending::default(),
            grant,
            journal_made: false,
        };
        let record = Self { dir, kept };
        record.keep()?;
        Ok(record)
    }

    /// The record of a transfer that an earlier process left, if no process runs it now.
    pub fn open(state: &StateDir, transfer: TransferId) -> Outcome<Option<Self>> {
        let dir = TransferDir::open(state, transfer)?;
        Ok(dir.record::<Kept>()?.map(|kept| Self { dir, kept }))
    }

    pub fn permit(&self) -> Permit {
        self.kept.permit()
    }

    pub fn transfer(&self) -> TransferId {
        self.kept.grant.grant.transfer
    }

    pub fn sealing_key(&self) -> Outcome<SealingKey> {
        Ok(SealingKey::from_bytes(&self.kept.sealing_key)?)
    }

    /// The state machine as the record knows it; what is in the target is for the target to say.
    pub fn state_machine(&self) -> Outcome<ReceiverTransfer> {
        let plan = self.kept.plan.clone().ok_or(Error::new(Code::Internal, "nothing was begun"))?;
        let mut transfer = ReceiverTransfer::new(self.kept.grant.clone(), plan);
        transfer.handle_earlier(self.kept.epoch, self.kept.digest_check);
        Ok(transfer)
    }
}
