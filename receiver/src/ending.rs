//! The end of a load, over a link or of an archive: proven from the target, its receipt kept, and
//! published. Killed anywhere in between, the next process finishes it; where it cannot know what a
//! loader did, the load is in doubt, and nothing is loaded until the operator has stated what the
//! target holds. What is done about what is decided in [`sealift_protocol::disposition`].

use std::{mem, sync::Arc, time::Duration};

use minicbor::{Decode, Encode};
use sealift_agent::{
    audit::{
        AuditLog,
        entry::{Entry, ReceiptFields},
    },
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    report::{Finished, Report, Resume},
    state::StateDir,
    units::human_duration,
};
use sealift_engine_api::{Commit, Recovery, Target};
use sealift_protocol::{
    close::Code,
    digest::Digests,
    disposition::{Disposition, Event, Stage, disposition},
    id::TransferId,
    manifest::{Evidence, Proof, SignedReceipt},
};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::{
    archive::used,
    held::Held,
    load::{Load, blocking},
};

/// How long a loader that has everything is waited for once the receiver is asked to stop. Deferred
/// checks, a synchronous standby or a slow disk hold up a COMMIT for seconds; what takes longer
/// than this is for the operator.
pub const LOADER_WAIT_MAX: Duration = Duration::from_secs(120);

/// How far the end has come: part of what is kept of an unfinished load.
#[derive(Clone, Default, Encode, Decode)]
#[cbor(map)]
pub struct Ending {
    /// From [`Stage::ReceiptSigned`] on.
    #[n(0)]
    pub receipt: Option<SignedReceipt>,
    #[n(1)]
    pub stage: Stage,
}

/// What is kept of an unfinished load, whatever else that is.
pub trait KeepsEnding {
    fn stage(&self) -> Stage;

    fn ending(&mut self) -> &mut Ending;

    /// Makes what was changed durable.
    fn keep(&self) -> Outcome;

    /// Goes on to `stage`, durable when this returns. Where that fails, the record on the disk may
    /// be of either stage, and this process stays at the earlier one.
    fn advance(&mut self, stage: Stage) -> Outcome {
        let earlier = mem::replace(&mut self.ending().stage, stage);
        self.keep().inspect_err(|_| self.ending().stage = earlier)
    }
}

/// Ends the load, and proves it from the target. Cancel-safe only where the commit is
/// [observable](Commit::Observable).
pub async fn prove(record: &mut impl KeepsEnding, load: &Load, digests: Digests) -> Outcome<Evidence> {
    if load.commit() == Commit::Unobservable {
        record.advance(Stage::InDoubt)?;
    }
    fail_point::hit(Point::LoadEnding);
    let proven = load.prove(digests).await;
    if let (Commit::Unobservable, Err(failure)) = (load.commit(), &proven) {
        let event = match failure.code {
            Code::LoaderFailed => Event::LoaderFailed,
            _ => Event::LoaderUnknown,
        };
        if disposition(Stage::Ending, event) == Disposition::Load {
            record.advance(Stage::Loading)?;
        }
    }
    proven
}

/// Adds to a failure where rows are left in the clear, if they are.
pub fn with_staged(mut failure: Failure, target: &dyn Recovery, transfer: TransferId) -> Failure {
    let stays = match target.staged(transfer) {
        Some(path) => format!(
            "What is loaded so far stays in {}, in the clear and for this user alone; sealift-receiver abandon {transfer} \
             removes it.",
            path.display()
        ),
        None if failure.code == Code::LoadImpossible => "What was loaded so far is removed.".to_owned(),
        None => return failure,
    };
    failure.hints.push(stays);
    failure
}

/// Waits for a loader that has everything, whatever happens meanwhile; `outside` resolves with what
/// does, once for each event. Fails with [`Code::InDoubt`] if a stop was requested and the loader
/// takes too long. `outside` has to be cancel-safe.
pub async fn await_loader<T>(
    report: &Report,
    proving: impl Future<Output = Outcome<T>>,
    mut outside: impl AsyncFnMut() -> Event,
) -> Outcome<T> {
    tokio::pin!(proving);
    let mut wait_until = None;
    loop {
        let wait_exceeded = async {
            match wait_until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
            Event::WaitExceeded
        };
        let event = tokio::select! {
            biased;
            proven = &mut proving => return proven,
            event = wait_exceeded => event,
            event = outside() => event,
        };
        if disposition(Stage::Ending, event) != Disposition::AwaitLoader {
            return Err(Failure::new(Code::InDoubt, "the loader had everything, and did not end in time", ""));
        }
        if event == Event::StopRequested {
            wait_until = wait_until.or(Some(Instant::now() + LOADER_WAIT_MAX));
        }
        say_waiting(report, event);
    }
}

fn say_waiting(report: &Report, event: Event) {
    let (word, text) = match event {
        Event::StopRequested => (
            "stop_requested",
            format!(
                "asked to stop. The loader has all of its input and is ending: waiting for it, for {} at most, since only \
                 its exit says whether it committed. A second signal ends this at once and leaves the transfer in doubt.",
                human_duration(LOADER_WAIT_MAX)
            ),
        ),
        Event::TimeRanOut => {
            ("expired", "the time has run out while the loader is ending; its exit still counts.".to_owned())
        }
        Event::Revoked => {
            ("revoked", "the grant was revoked while the loader is ending; its exit still counts.".to_owned())
        }
        Event::AbandonedBySender => (
            "abandoned",
            "the sender abandons the transfer while the loader is ending; its exit decides what becomes of it."
                .to_owned(),
        ),
        _ => return,
    };
    report.event("awaiting_loader", &[("because", json!(word))]);
    report.say(&format!("receiver: {text}"));
}

/// The message and the event of a load that is in doubt.
pub fn in_doubt(report: &Report, transfer: TransferId, failure: Failure) -> Failure {
    let what = format!("{}; whether it committed is not known", failure.what);
    report.resume(Resume::InDoubt, &what);
    let hint = format!(
        "Look into the target, once nothing of the loader is at work there any more. Then state what you found: \
         `sealift-receiver resolve {transfer} --loaded` if all of the load is there; `--not-loaded` if nothing is, after \
         which the same commands load it again. A loader that is not all-or-nothing, or that ended before it had read all \
         of its input, may leave a part: remove that first, and state --not-loaded."
    );
    Failure { code: Code::InDoubt, what, hints: hint.into(), ..failure }
}

/// The same for what an earlier process has left.
pub fn found_in_doubt(report: &Report, transfer: TransferId) -> Failure {
    let what = "an earlier receiver ended while its loader was ending";
    in_doubt(report, transfer, Failure::new(Code::InDoubt, what, ""))
}

/// The operator has stated that the load is there.
pub fn stated_loaded(what: &str) -> Failure {
    let next = "There is no receipt: nothing was proven. The statement is in the audit log.";
    Failure::new(Code::StatedLoaded, what, next)
}

/// What a load is published with.
pub struct Publishing<'a> {
    pub state: &'a StateDir,
    pub audit: &'a AuditLog,
    pub transfer: TransferId,
    pub target: Arc<dyn Target>,
    /// What this process has proven. None where an earlier one had.
    pub held: Option<Held>,
    /// It is loaded from an archive, which is good for one load.
    pub uses_archive: bool,
}

impl Publishing<'_> {
    /// Keeps the receipt that was just signed, and shows the load under its final name: both, or
    /// neither.
    pub async fn publish(&self, record: &mut impl KeepsEnding, receipt: SignedReceipt) -> Outcome<Finished> {
        record.ending().receipt = Some(receipt);
        fail_point::hit(Point::ReceiptSigned);
        record.advance(Stage::ReceiptSigned)?;
        fail_point::hit(Point::ReceiptKept);
        self.publish_kept(record).await
    }

    /// The same from the kept receipt on, in this process or after it was killed in the middle of
    /// that.
    pub async fn publish_kept(&self, record: &mut impl KeepsEnding) -> Outcome<Finished> {
        let transfer = self.transfer;
        let no_receipt = || Failure::new(Code::Internal, "no receipt", "");
        let receipt = record.ending().receipt.clone().ok_or_else(no_receipt)?;
        let receipt_path = self.state.keep_receipt(transfer, &receipt)?;
        if record.ending().stage != Stage::Published {
            if self.uses_archive && receipt.receipt.evidence.proof != Proof::Discarded {
                used::note(self.state, self.audit, transfer, receipt.receipt.grant.grant.finish_before_seconds)?;
            }
            self.audit.append(Some(transfer), &Entry::TransferPublish(ReceiptFields::of(&receipt)))?;
            if let Err(failure) = self.show().await {
                let _ = std::fs::remove_file(&receipt_path);
                used::forget(self.state, transfer)?;
                return Err(failure);
            }
            fail_point::hit(Point::Published);
            record.advance(Stage::Published)?;
        }
        let target = Arc::clone(&self.target);
        blocking(move || {
            target.forget(transfer);
            Ok(())
        })
        .await?;
        fail_point::hit(Point::Forgotten);
        Ok(Finished { receipt, receipt_path })
    }

    /// Shows the load under its final name.
    async fn show(&self) -> Outcome {
        let target = Arc::clone(&self.target);
        let transfer = self.transfer;
        match self.held.clone() {
            Some(held) => blocking(move || held.publish()).await,
            None => blocking(move || target.publish(transfer)).await,
        }
    }
}
