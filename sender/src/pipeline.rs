//! Runs one transfer over one connection: `source → chunks → workers → one stream a part ⇒`, and
//! the control stream beside them. All state is that of `protocol::send`; here is only what moves
//! bytes.

use std::future::Future;

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use sealift_agent::{
    audit::AuditLog,
    clock::now_seconds,
    control::{ControlReader, ControlWriter},
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    identity::Identity,
    link::{Link, stream::StreamOut},
    random::SystemRandom,
    report::Report,
};
use sealift_protocol::{
    chunk::Sealed,
    close::Code,
    disposition::Asks,
    frame::{ChunkHeader, StreamHeader},
    id::{ChunkIndex, PartIndex},
    manifest::{SignedManifest, SignedReceipt},
    message::Message,
    sealed_log::KeyFingerprint,
    send::{Accepted, Beginning, ExpectedReceiver, LaneStep, SenderSession, SenderTransfer, SpoolLane, SpooledStep},
};
use tokio::sync::Notify;

use crate::{arrivals::SentChunk, outgoing::Outgoing, spool::Spool};

/// What one connection's run is made of.
pub struct Pipeline<'a> {
    pub link: &'a Link,
    pub outgoing: &'a Outgoing,
    pub report: &'a Report,
    pub identity: &'a Identity,
    pub audit: &'a AuditLog,
    session: SenderSession,
    /// Notified whenever an acknowledgement or the end of a part may let something go on.
    moved: Notify,
}

/// What one offer asks for, and what it expects of the answer.
#[derive(Clone, Copy)]
pub struct OfferTerms {
    pub asks: Asks,
    /// The key that the ticket says the data keys are to be sealed to.
    pub sealing_key: KeyFingerprint,
}

/// The exchange before any data: Offer, Accept, Begin, Ready. `begin` records the connection; until
/// then the receiver cannot know whose transfer it is. Not cancel-safe: messages may have been sent
/// or received in part. The connection ends with it.
pub async fn negotiate(
    outgoing: &Outgoing,
    terms: OfferTerms,
    link: &Link,
    identity: &Identity,
    writer: &mut ControlWriter,
    control: &mut ControlReader,
    begin: impl FnOnce(Accepted) -> Outcome<(Beginning, Message)>,
) -> Outcome<SenderSession> {
    let mut random = SystemRandom::default();
    let expected = ExpectedReceiver { receiver_key: link.peer, sealing_key: terms.sealing_key };
    let (offering, offer) = outgoing.transfer().offer(&link.channel, expected, terms.asks, now_seconds(), &mut random);
    let offer_bytes = writer.send(&offer).await?;
    let Message::Accept(accept) = control.expect(offer_bytes).await? else { return Err(out_of_turn("Accept")) };
    let accepted = offering.handle_accept(&outgoing.transfer(), accept, identity, &mut random)?;
    outgoing.transfer_mut().handle_agreed(accepted.suite());
    let (beginning, begin) = begin(accepted)?;
    let begin_bytes = writer.send(&begin).await?;
    let Message::Ready(ready) = control.expect(begin_bytes).await? else { return Err(out_of_turn("Ready")) };
    Ok(beginning.handle_ready(ready)?)
}

fn out_of_turn(check: &'static str) -> Failure {
    sealift_protocol::error::Error::new(Code::ProtocolViolation, check).into()
}

impl<'a> Pipeline<'a> {
    /// The connection stands: resumes what earlier ones left.
    pub fn new(
        link: &'a Link,
        outgoing: &'a Outgoing,
        report: &'a Report,
        identity: &'a Identity,
        audit: &'a AuditLog,
        session: SenderSession,
    ) -> Outcome<Self> {
        let arrived = outgoing.resume(&session)?;
        outgoing.sealer.set_keys(session.keys.clone());
        let pipeline = Self { link, outgoing, report, identity, audit, session, moved: Notify::new() };
        match (outgoing.transfer().next_part(), outgoing.transfer().manifest()) {
            (None, Some(sent)) => report.count(|totals| totals.complete(&sent.manifest)),
            _ => pipeline.count_arrived(&arrived),
        }
        Ok(pipeline)
    }

    /// Sends everything and returns the checked receipt. `finish` records the manifest. Not
    /// cancel-safe: messages may have been sent or received in part. The connection ends with it;
    /// chunks that were read are kept for the next.
    pub async fn run(
        &self,
        writer: &mut ControlWriter,
        control: &mut ControlReader,
        mut finish: impl FnMut(SignedManifest) -> Outcome<Message>,
    ) -> Outcome<SignedReceipt> {
        let sending = async {
            self.send_parts().await?;
            if let Some(spool) = self.outgoing.spool() {
                let manifest = spool.manifest().await?;
                self.outgoing.transfer_mut().handle_earlier(manifest);
            }
            let audit_head = self.audit.head()?;
            let manifest = self.when(|transfer| transfer.poll_manifest(self.identity, audit_head)).await;
            writer.send(&finish(manifest)?).await.map(|_| ())
        };
        let listening = self.listen(control);
        tokio::pin!(sending, listening);
        // The receiver's word counts for more than a broken stream, which is often only its
        // consequence.
        tokio::select! {
            biased;
            receipt = &mut listening => receipt,
            dead = self.link.unanswered() => Err(dead),
            never = self.report.keep_reporting() => match never {},
            sent = &mut sending => match sent {
                Ok(()) => tokio::select! {
                    receipt = listening => receipt,
                    dead = self.link.unanswered() => Err(dead),
                    never = self.report.keep_reporting() => match never {},
                },
                Err(failure) if failure.code == Code::Interrupted => self.reason(failure, listening).await,
                Err(failure) => Err(failure),
            },
        }
    }

    /// A stream broke: waits a moment for the receiver's reason.
    async fn reason(
        &self,
        failure: Failure,
        listening: impl Future<Output = Outcome<SignedReceipt>>,
    ) -> Outcome<SignedReceipt> {
        match tokio::time::timeout(sealift_agent::control::MESSAGE_TIMEOUT, listening).await {
            Ok(Err(reason)) => Err(reason),
            Ok(Ok(_)) | Err(_) => Err(failure),
        }
    }

    /// Starts parts in the order of the plan, as lanes become free and the sections before them are
    /// verified. Not cancel-safe: the streams of its parts are reset; chunks that were read are
    /// kept.
    async fn send_parts(&self) -> Outcome {
        let mut lanes = FuturesUnordered::new();
        loop {
            let notified = self.moved.notified();
            loop {
                let started = self.outgoing.transfer_mut().poll_start(&self.session);
                let Some(part) = started else { break };
                lanes.push(self.send_part(part));
            }
            if lanes.is_empty() && self.outgoing.transfer().next_part().is_none() {
                return Ok(());
            }
            tokio::select! {
                Some(done) = lanes.next() => done?,
                () = notified => {}
            }
        }
    }

    /// One lane: first what an earlier connection lost, then what is read. Not cancel-safe: the
    /// stream is reset; chunks that were read are kept.
    async fn send_part(&self, part: PartIndex) -> Outcome {
        if let Some(spool) = self.outgoing.spool() {
            return self.send_spooled(part, &spool).await;
        }
        let lane = self.outgoing.lane(part).await?;
        let mut lane = lane.lock().await;
        let mut out = self.stream_of(part);
        loop {
            let notified = self.moved.notified();
            let draw = || self.outgoing.sealer.nonces.borrow_mut().draw();
            let step = self.outgoing.transfer_mut().poll_lane(&mut lane.rules, &self.session, draw)?;
            match step {
                LaneStep::Resend(sealed) => {
                    self.report.count(|totals| totals.resent_bytes += sealed.frame.len() as u64);
                    out.write(sealed.frame).await?;
                }
                LaneStep::Send(sealed) => self.send_chunk(sealed, &mut out).await?,
                LaneStep::Proven { index, plain_bytes } => self.count_held(part, index, plain_bytes),
                LaneStep::AwaitWindow => notified.await,
                LaneStep::Read => match lane.read().await? {
                    Some(read) => lane.rules.handle_read(read),
                    None => {
                        let summary = lane.summary().await?;
                        self.outgoing.transfer_mut().handle_source_end(&mut lane.rules, summary);
                        self.count_arrived(&[]);
                    }
                },
                LaneStep::End => break,
            }
        }
        self.moved.notify_waiters();
        out.finish()?;
        fail_point::hit(Point::PartSent);
        Ok(())
    }

    /// One lane, from the spool: its frames as they lie there, from the first that the receiver
    /// does not have. Not cancel-safe: the stream is reset.
    async fn send_spooled(&self, part: PartIndex, spool: &Spool) -> Outcome {
        let mut out = self.stream_of(part);
        // From what an earlier process sent to what the receiver has, frames are counted, not sent.
        let first = self.outgoing.arrived(part).min(self.outgoing.transfer().held(part));
        let mut frames = spool.read_from(SpoolLane::new(first.next_index()));
        while let Some(frame) = frames.next().await? {
            let header = frame.header;
            match self.when_spooled_may_go(&header).await? {
                SpooledStep::Held => self.count_held(part, header.index, header.plain_bytes.into()),
                _ => {
                    self.count_sent(&header);
                    out.write(Bytes::copy_from_slice(&header.to_bytes())).await?;
                    out.write(frame.sealed.clone()).await?;
                    fail_point::hit(Point::ChunkSent);
                }
            }
        }
        self.moved.notify_waiters();
        out.finish()?;
        fail_point::hit(Point::PartSent);
        Ok(())
    }

    /// What becomes of a frame of a spool, once its window has room. Cancel-safe.
    async fn when_spooled_may_go(&self, header: &ChunkHeader) -> Outcome<SpooledStep> {
        let step = self.when(|transfer| match transfer.poll_spooled(header, &self.session) {
            Ok(SpooledStep::AwaitWindow) => None,
            step => Some(step),
        });
        Ok(step.await?)
    }

    fn stream_of(&self, part: PartIndex) -> PartStream<'_> {
        PartStream { link: self.link, header: self.outgoing.transfer().stream_header(part), stream: None }
    }

    async fn send_chunk(&self, sealed: Sealed, out: &mut PartStream<'_>) -> Outcome {
        self.count_sent(&sealed.header);
        out.write(sealed.frame).await?;
        fail_point::hit(Point::ChunkSent);
        Ok(())
    }

    fn count_sent(&self, header: &ChunkHeader) {
        let is_first = self.outgoing.handle_sent(header);
        if !is_first {
            self.report.count(|totals| totals.resent_bytes += header.frame_bytes() as u64);
        }
    }

    /// A chunk is at the receiver already.
    fn count_held(&self, part: PartIndex, index: ChunkIndex, plain_bytes: u64) {
        if let Some(rows) = self.outgoing.handle_held(part, index) {
            self.report.count(|totals| {
                totals.held(part, plain_bytes);
                totals.rows += rows;
            });
        }
    }

    /// The receiver has acknowledged these, and perhaps the end of a part with them.
    fn count_arrived(&self, arrived: &[SentChunk]) {
        let parts = self.outgoing.transfer().parts_verified();
        self.report.count(|totals| {
            totals.parts = parts;
            for chunk in arrived {
                totals.moved(chunk.part, chunk.plain_bytes, chunk.frame_bytes);
                totals.rows += chunk.rows;
            }
        });
    }

    /// Waits until `poll` returns a value. Cancel-safe.
    async fn when<T>(&self, mut poll: impl FnMut(&mut SenderTransfer) -> Option<T>) -> T {
        loop {
            let notified = self.moved.notified();
            if let Some(ready) = poll(&mut self.outgoing.transfer_mut()) {
                return ready;
            }
            notified.await;
        }
    }

    /// Takes the messages of the receiver up to its receipt, and checks that. Not cancel-safe: part
    /// of a message may be lost.
    async fn listen(&self, control: &mut ControlReader) -> Outcome<SignedReceipt> {
        loop {
            match control.next().await? {
                Some(Message::Ack(ack)) => {
                    let arrived = self.outgoing.handle_ack(&ack)?;
                    self.count_arrived(&arrived);
                    self.moved.notify_waiters();
                }
                Some(Message::Receipt(receipt)) => {
                    self.outgoing.transfer().handle_receipt(&receipt, &self.session)?;
                    return Ok(*receipt);
                }
                Some(_) => return Err(out_of_turn("message while data flows")),
                None => return Err(Failure::new(Code::Interrupted, "the receiver ended the exchange", "")),
            }
        }
    }
}

/// A part's stream, opened with the first chunk that is sent. Dropped without [`Self::finish`], it
/// is reset, so that the receiver does not take a part that was given up for one that was cut
/// short.
struct PartStream<'a> {
    link: &'a Link,
    header: StreamHeader,
    stream: Option<StreamOut>,
}

impl PartStream<'_> {
    async fn write(&mut self, mut frame: Bytes) -> Outcome {
        let out = match &mut self.stream {
            Some(out) => out,
            None => {
                let out = self.stream.insert(self.link.open_part(self.header.part).await?);
                out.send(&mut Bytes::copy_from_slice(&self.header.to_bytes())).await?;
                out
            }
        };
        out.send(&mut frame).await
    }

    fn finish(mut self) -> Outcome {
        match self.stream.take() {
            Some(mut out) => out.finish(),
            None => Ok(()),
        }
    }
}

impl Drop for PartStream<'_> {
    fn drop(&mut self) {
        // A reset after the end would still take back what has not arrived.
        if let Some(mut out) = self.stream.take() {
            out.reset(Code::Interrupted);
        }
    }
}
