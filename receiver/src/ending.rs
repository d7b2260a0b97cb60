//! The end of a load, over a link or of an archive: proven from the target, its receipt kept, and shown. Killed anywhere in
//! between, the next process finishes it; where it cannot know what a loader did, it says so and loads nothing twice.

use std::sync::Arc;

use minicbor::{Decode, Encode};
use sealift_agent::{
    audit::AuditLog,
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    report::Finished,
    state::StateDir,
};
use sealift_protocol::{
    close::Code,
    digest::Digests,
    id::TransferId,
    manifest::{LoadedPart, Proof, SignedReceipt},
};

use crate::{
    load::{Load, blocking},
    sink::Sink,
};

/// How far the end has come: part of what is kept of an unfinished load.
#[derive(Clone, Default, Encode, Decode)]
#[cbor(map)]
pub struct Ending {
    /// All of it is proven; it is shown under its final name, or will be.
    #[n(0)]
    pub receipt: Option<SignedReceipt>,
    /// It is shown, and nothing needs to be done for that again.
    #[n(1)]
    pub published: bool,
    /// A loader was told that its input is whole. Whether it committed, only its exit code says.
    #[n(2)]
    pub settling: bool,
}

/// What is kept of an unfinished load, whatever else that is.
pub trait KeepsEnding {
    fn ending(&mut self) -> &mut Ending;
    /// Makes what was changed durable.
    fn keep(&self) -> Outcome;
}

impl Ending {
    /// How far it has come, in a word; `None` while it is being loaded.
    pub fn stage(&self) -> Option<&'static str> {
        match self {
            Self { published: true, .. } => Some("published"),
            Self { receipt: Some(_), .. } => Some("proven"),
            Self { settling: true, .. } => Some("settling"),
            _ => None,
        }
    }
}

/// Ends the load, and proves it from the target.
pub async fn prove(record: &mut impl KeepsEnding, load: &Load, digests: Digests) -> Outcome<(Proof, Vec<LoadedPart>)> {
    if load.sink.ends_unseen() {
        record.ending().settling = true;
        record.keep()?;
    }
    fail_point::hit(Point::Settling);
    let proven = load.blocking(move |sink| sink.prove(&digests)).await;
    // A loader that ended badly by itself has committed nothing, and may be fed again.
    if matches!(&proven, Err(failure) if failure.code == Code::LoaderFailed && !failure.undecided) {
        record.ending().settling = false;
        record.keep()?;
    }
    proven
}

/// Where rows lie in the clear when a load has stopped, if they do: the person who is told that it failed is told that, too.
pub fn tell_staged(failure: Failure, sink: &dyn Sink, transfer: TransferId) -> Failure {
    let stays = match sink.staged(transfer) {
        Some(path) => format!(
            "What is loaded so far stays in {}, in the clear and for this user alone; sealift-receiver abandon {transfer} \
             removes it.",
            path.display()
        ),
        None if failure.code == Code::LoadImpossible => "What was loaded so far is removed.".to_owned(),
        None => return failure,
    };
    let next = if failure.next.is_empty() { stays } else { format!("{} {stays}", failure.next) };
    Failure { next, ..failure }
}

/// What a load is shown with.
pub struct Publishing<'a> {
    pub state: &'a StateDir,
    pub audit: &'a AuditLog,
    pub transfer: TransferId,
    pub sink: Arc<dyn Sink>,
}

impl Publishing<'_> {
    /// Keeps the receipt that was just signed, and shows the load under its final name: both, or neither.
    pub async fn publish(&self, record: &mut impl KeepsEnding, receipt: SignedReceipt) -> Outcome<Finished> {
        record.ending().receipt = Some(receipt);
        fail_point::hit(Point::ReceiptSigned);
        record.keep()?;
        fail_point::hit(Point::ReceiptKept);
        self.publish_kept(record).await
    }

    /// The same from the kept receipt on, in this process or after it was killed in the middle of that.
    pub async fn publish_kept(&self, record: &mut impl KeepsEnding) -> Outcome<Finished> {
        let transfer = self.transfer;
        let no_receipt = || Failure::new(Code::Internal, "no receipt", "");
        let receipt = record.ending().receipt.clone().ok_or_else(no_receipt)?;
        let receipt_path = self.state.keep_receipt(transfer, &receipt)?;
        if !record.ending().published {
            self.audit.append("transfer.publish", Some(transfer), &[])?;
            if let Err(failure) = blocking(&self.sink, move |sink| sink.publish(transfer)).await {
                let _ = std::fs::remove_file(&receipt_path);
                return Err(failure);
            }
            fail_point::hit(Point::Published);
            record.ending().published = true;
            record.keep()?;
        }
        let forget = move |sink: &dyn Sink| {
            sink.forget(transfer);
            Ok(())
        };
        blocking(&self.sink, forget).await?;
        fail_point::hit(Point::Forgotten);
        Ok(Finished { receipt, receipt_path })
    }
}
