//! The end of a transfer at its receiver: the load is proven, its receipt is signed, and it is published. Killed anywhere in
//! between, the next process finishes it.

use std::sync::Arc;

use sealift_agent::{
    clock::now_ms,
    expiry::Expiry,
    failure::{Failure, Outcome, explain},
    host,
    link::Link,
    shutdown::Shutdown,
};
use sealift_protocol::{
    close::Code,
    disposition::{Disposition, Event, Stage, disposition},
    id::PartIndex,
    manifest::SignedReceipt,
    receive::{ReceiptFacts, Session, WholePart},
};
use tokio::sync::mpsc;

use super::{Receiving, failed, unless_ended};
use crate::{
    ending::{KeepsEnding, Publishing, await_loader, in_doubt, prove},
    load::Load,
    reception::{Heard, turn_away},
};

impl<'a> Receiving<'a> {
    /// Ends the load, proves it from the target, and signs what was found.
    pub(super) async fn settle(
        &mut self,
        link: &Link,
        session: &Session,
        heard: &mut mpsc::Receiver<Heard>,
        shutdown: &mut Shutdown,
        called_off: &mut Option<Link>,
    ) -> Outcome<SignedReceipt> {
        tracing::info!(transfer = %self.record.transfer(), "everything arrived; proving it from the target");
        let load = self.load.as_ref().ok_or_else(|| failed("no load"))?;
        let report = self.setting.report;
        let expiry = self.expiry.clone();
        let proving = prove(&mut self.record, load, session.keys().digests().clone());
        let proven = match load.sink.ends_unseen() {
            true => {
                let mut pending = Outside { expiry: Some(expiry), shutdown: Some(shutdown), heard, called_off };
                await_loader(report, proving, async || pending.next().await).await
            }
            false => unless_ended(proving, &expiry, heard, shutdown, called_off).await,
        };
        let evidence = proven.map_err(|failure| self.without_proof(failure, called_off.is_some()))?;
        let facts = ReceiptFacts {
            evidence,
            link: Some(link.evidence()),
            started_ms: self.record.kept.started_ms,
            finished_ms: now_ms(),
            software: format!("sealift-receiver {}", env!("CARGO_PKG_VERSION")),
            target_host: host::name(),
            audit_head: self.setting.audit.head()?,
        };
        let load = self.load.as_ref().ok_or_else(|| failed("no load"))?;
        Ok(load.transfer().receipt(session, facts, self.setting.identity)?)
    }

    /// The load is not proven: it is in doubt, or it failed.
    fn without_proof(&self, failure: Failure, called_off: bool) -> Failure {
        if self.stage() == Stage::InDoubt {
            return self.doubt(failure);
        }
        // The loader has failed by itself, and the sender had abandoned the transfer meanwhile.
        if called_off && disposition(self.stage(), Event::AbandonedBySender) == Disposition::Drop {
            let (what, hints) = explain(Code::Abandoned);
            return Failure::new(Code::Abandoned, what, hints);
        }
        failure
    }

    /// What the load is published with.
    pub(super) fn publishing(&self) -> Outcome<Publishing<'a>> {
        let sink = self.load.as_ref().map(|load| Arc::clone(&load.sink));
        let sink = sink.map_or_else(|| (self.setting.open_sink)(), Ok)?;
        let (state, audit) = (self.setting.state, self.setting.audit);
        Ok(Publishing { state, audit, transfer: self.record.transfer(), sink, uses_archive: false })
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

    /// A loader that ended early, by itself and with exit code 0, may have committed what it had read: the next process is
    /// not to feed another.
    pub(super) fn note_doubt(&mut self, failure: Failure) -> Failure {
        if failure.code != Code::InDoubt || failure.raised_by.is_peer() {
            return failure;
        }
        match self.record.advance(Stage::InDoubt) {
            Ok(()) => self.doubt(failure),
            Err(failure) => failure,
        }
    }

    /// Feeding another loader could load everything twice.
    pub(super) fn doubt(&self, failure: Failure) -> Failure {
        in_doubt(self.setting.report, self.record.transfer(), failure)
    }
}

/// What may happen while a loader ends. Each kind comes once.
struct Outside<'a> {
    expiry: Option<Expiry>,
    shutdown: Option<&'a mut Shutdown>,
    heard: &'a mut mpsc::Receiver<Heard>,
    called_off: &'a mut Option<Link>,
}

impl Outside<'_> {
    /// Cancel-safe, but for refusals on their way to senders that come while the transfer is busy.
    async fn next(&mut self) -> Event {
        let Self { expiry, shutdown, heard, called_off } = self;
        let expired = async {
            match expiry {
                Some(expiry) => expiry.passed().await,
                None => std::future::pending().await,
            }
        };
        let stopped = async {
            match shutdown {
                Some(shutdown) => shutdown.requested().await,
                None => std::future::pending().await,
            }
        };
        let abandoned = async {
            match called_off.is_none() {
                true => turn_away(heard).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = expired => {
                *expiry = None;
                Event::TimeRanOut
            }
            _ = stopped => {
                *shutdown = None;
                Event::StopRequested
            }
            by = abandoned => match by {
                Ok(by) => {
                    **called_off = Some(by.link);
                    Event::AbandonedBySender
                }
                // Nobody hears senders any more: the loader is waited for all the same.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
