//! What a receiver keeps of an archive that is being loaded: no key, and nothing that the archive could say again.

use minicbor::{Decode, Encode};
use sealift_agent::{
    failure::{Failure, Outcome},
    state::StateDir,
    transfer_dir::{Area, TransferDir},
};
use sealift_protocol::{
    close::Code,
    id::TransferId,
    manifest::{Plan, Proof, SignedReceipt},
};

/// The record, and its folder.
pub struct Record {
    pub dir: TransferDir,
    pub kept: Kept,
    /// What an earlier process had kept.
    pub earlier: Option<Kept>,
}

#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Kept {
    /// The target's URL: what is staged for it has to be found again.
    #[n(0)]
    pub target: String,
    /// All of it is proven; it is shown under its final name, or will be.
    #[n(1)]
    pub receipt: Option<SignedReceipt>,
    /// It is shown, and nothing needs to be done for that again.
    #[n(2)]
    pub published: bool,
    /// A loader was told that its input is whole. Whether it committed, only its exit code says.
    #[n(3)]
    pub settling: bool,
    /// Known once a place was made for it in the target.
    #[n(4)]
    pub plan: Option<Plan>,
}

impl Kept {
    fn new(target: &str) -> Self {
        Self { target: target.to_owned(), receipt: None, published: false, settling: false, plan: None }
    }
}

impl Record {
    /// Goes on with the load of `transfer` that an earlier process began, or begins one.
    pub fn open(state: &StateDir, transfer: TransferId, target: &str) -> Outcome<Self> {
        let dir = TransferDir::open_in(state, Area::Loads, transfer)?;
        match dir.record::<Kept>()? {
            Some(kept) if kept.target == target => Ok(Self { dir, earlier: Some(kept.clone()), kept }),
            Some(kept) if kept.receipt.is_some() || kept.settling => {
                let next = "Give the same --target as before: the load is as good as done there.";
                Err(Failure::usage("this archive is loaded into another target", next))
            }
            Some(kept) => Ok(Self { dir, kept: Kept::new(target), earlier: Some(kept) }),
            None => {
                if let Err(used) = check_unused(state, transfer) {
                    dir.destroy()?;
                    return Err(used);
                }
                Ok(Self { dir, kept: Kept::new(target), earlier: None })
            }
        }
    }

    /// Makes what was changed durable.
    pub fn keep(&self) -> Outcome {
        self.dir.keep(&self.kept)
    }
}

/// A grant is good for one load (fault-matrix T4). A drill that discarded everything was none.
fn check_unused(state: &StateDir, transfer: TransferId) -> Outcome {
    match state.receipt(transfer) {
        Some((receipt, path)) if receipt.receipt.proof != Proof::Discarded => {
            let what = format!("this archive was loaded already; its receipt is {}", path.display());
            Err(Failure::new(Code::GrantUsed, what, "To load the source once more, have it sealed once more."))
        }
        _ => Ok(()),
    }
}
