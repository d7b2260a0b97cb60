//! The end of a transfer at its receiver: the load is proven, its receipt is signed, and it is shown. Killed anywhere in
//! between, the next process finishes it.

use std::sync::Arc;

use sealift_agent::{
    clock::now_ms,
    failure::{Failure, Outcome},
    link::Link,
    report::Resume,
};
use sealift_protocol::{
    close::Code,
    id::PartIndex,
    manifest::SignedReceipt,
    receive::{ReceiptFacts, Session, WholePart},
};

use super::{Receiving, failed};
use crate::{
    ending::{KeepsEnding, Publishing, prove},
    load::Load,
};

impl<'a> Receiving<'a> {
    /// Ends the load, proves it from the target, and signs what was found.
    pub(super) async fn settle(&mut self, link: &Link, session: &Session) -> Outcome<SignedReceipt> {
        tracing::info!(transfer = %self.record.transfer(), "everything arrived; proving it from the target");
        let load = self.load.as_ref().ok_or_else(|| failed("no load"))?;
        let proven = prove(&mut self.record, load, session.keys().digests().clone()).await;
        let (proof, loaded) =
            proven.map_err(|failure| if failure.undecided { self.undecided(failure) } else { failure })?;
        let facts = ReceiptFacts {
            proof,
            loaded,
            tls: link.tls_description(),
            started_ms: self.record.kept.started_ms,
            finished_ms: now_ms(),
            software: format!("sealift-receiver {}", env!("CARGO_PKG_VERSION")),
        };
        Ok(load.transfer().receipt(session, facts, self.setting.identity)?)
    }

    /// What the load is shown with.
    pub(super) fn publishing(&self) -> Outcome<Publishing<'a>> {
        let sink = self.load.as_ref().map(|load| Arc::clone(&load.sink));
        let sink = sink.map_or_else(|| (self.setting.open_sink)(), Ok)?;
        let (state, audit) = (self.setting.state, self.setting.audit);
        Ok(Publishing { state, audit, transfer: self.record.transfer(), sink })
    }

    /// An earlier process had signed the receipt: finishes what it began, and waits for the sender to fetch it.
    pub(super) async fn publish_again(&mut self) -> Outcome {
        let finished = self.publishing()?.publish_kept(&mut self.record).await?;
        let mut transfer = self.record.state_machine()?;
        let parts = finished.receipt.receipt.manifest.manifest.parts.iter().zip(0..);
        for (sent, index) in parts {
            let part = PartIndex(index);
            let (chunks, plain_bytes, root) = (sent.chunks, sent.plain_bytes, sent.root);
            transfer.handle_found(WholePart { part, chunks, plain_bytes, root });
        }
        self.load = Some(Load::new((self.setting.open_sink)()?, transfer, None));
        self.finished = Some(finished);
        Ok(())
    }

    /// Stopped while a loader was ending, whoever wanted that: it may have committed.
    pub(super) fn unless_settling(&mut self, failure: Failure) -> Failure {
        let ending = &mut self.record.kept.ending;
        if failure.undecided && !ending.settling {
            // One that ended early, by itself and well: the next process is not to feed another.
            ending.settling = true;
            return self.record.keep().err().unwrap_or(failure);
        }
        if !ending.settling || ending.receipt.is_some() || failure.undecided {
            return failure;
        }
        let what = format!("{}, while the loader was ending", failure.what);
        self.undecided(Failure::new(Code::ResumeImpossible, what, ""))
    }

    /// Feeding another loader could load everything twice.
    pub(super) fn undecided(&self, failure: Failure) -> Failure {
        let what = format!("{}; whether it committed cannot be known", failure.what);
        self.setting.report.resume(Resume::Impossible, &what);
        let transfer = self.record.transfer();
        let next = format!(
            "Look into the target. If the load is there, all of it is: everything had been verified. Then, or to start over, \
             end this transfer with: sealift-receiver abandon {transfer}"
        );
        Failure { what, next, ..failure }
    }
}
