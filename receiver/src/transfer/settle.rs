//! The end of a transfer at its receiver: the load is proven, its receipt is signed, and it is shown. Killed anywhere in
//! between, the next process finishes it.

use std::{path::PathBuf, sync::Arc};

use sealift_agent::{
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    link::Link,
    report::{Finished, Resume},
};
use sealift_protocol::{
    close::Code,
    id::PartIndex,
    manifest::SignedReceipt,
    receive::{ReceiptFacts, Session, WholePart},
};

use super::{Receiving, failed, now_ms};
use crate::{
    load::{Load, blocking},
    sink::Sink,
};

impl Receiving<'_> {
    /// Ends the load, proves it from the target, and signs what was found.
    pub(super) async fn settle(&self, link: &Link, load: &Load, session: &Session) -> Outcome<SignedReceipt> {
        tracing::info!(transfer = %self.record.transfer(), "everything arrived; proving it from the target");
        let digests = session.keys().digests().clone();
        let (proof, loaded) = load.blocking(move |sink| sink.prove(&digests)).await?;
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

    /// Keeps the receipt, and shows the load under its final name: both, or neither.
    pub(super) async fn publish(&mut self, receipt: SignedReceipt) -> Outcome<Finished> {
        self.record.kept.receipt = Some(receipt);
        fail_point::hit(Point::ReceiptSigned);
        self.record.keep()?;
        fail_point::hit(Point::ReceiptKept);
        self.publish_kept().await
    }

    async fn publish_kept(&mut self) -> Outcome<Finished> {
        let receipt = self.record.kept.receipt.clone().ok_or_else(|| failed("no receipt"))?;
        let transfer = self.record.transfer();
        let sink = self.load.as_ref().map(|load| Arc::clone(&load.sink));
        let sink = sink.map_or_else(|| (self.setting.open_sink)(), Ok)?;
        let receipt_path: PathBuf = self.setting.state.keep_receipt(transfer, &receipt)?;
        if !self.record.kept.published {
            self.setting.audit.append("transfer.publish", Some(transfer), &[])?;
            if let Err(failure) = blocking(&sink, move |sink| sink.publish(transfer)).await {
                let _ = std::fs::remove_file(&receipt_path);
                return Err(failure);
            }
            fail_point::hit(Point::Published);
            self.record.kept.published = true;
            self.record.keep()?;
        }
        let forget = move |sink: &dyn Sink| {
            sink.forget(transfer);
            Ok(())
        };
        blocking(&sink, forget).await?;
        fail_point::hit(Point::Forgotten);
        Ok(Finished { receipt, receipt_path })
    }

    /// An earlier process had signed the receipt: finishes what it began, and waits for the sender to fetch it.
    pub(super) async fn publish_again(&mut self) -> Outcome {
        let finished = self.publish_kept().await?;
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

    /// Feeding another loader could load everything twice.
    pub(super) fn unknown_end(&self) -> Failure {
        let what = "the earlier receiver was killed while the loader was ending; whether it committed cannot be known";
        self.setting.report.resume(Resume::Impossible, what);
        let transfer = self.record.transfer();
        let next = format!(
            "Look into the target. If the load is there, all of it is: everything had been verified. Then, or to start over, \
             end this transfer with: sealift-receiver abandon {transfer}"
        );
        Failure::new(Code::ResumeImpossible, what, next)
    }
}
