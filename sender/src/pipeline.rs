//! Runs one transfer over one connection: `source → chunks → workers → one stream a part ⇒`, and the control stream
//! beside them. All state is that of `protocol::send`; here is only what moves bytes.

use std::{cell::RefCell, future::Future};

use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use quinn::{SendStream, VarInt};
use sealift_agent::{
    failure::{Failure, Outcome},
    identity::{Identity, Role},
    link::{ControlReader, ControlWriter, Link, from_connection},
    process::chunks_at_work,
    random::SystemRandom,
    report::Report,
};
use sealift_protocol::{
    chunk::{Chunk, Sealed},
    close::Code,
    frame::StreamHeader,
    id::{ChunkIndex, PartIndex},
    manifest::SignedReceipt,
    message::Message,
    random::Nonces,
    send::{Session, Transfer},
};
use tokio::sync::{Notify, mpsc};

use crate::{
    reader::{Reader, ReadingPart},
    workers::Workers,
};

/// What one connection's run is made of.
pub struct Pipeline<'a> {
    pub link: &'a Link,
    pub reader: &'a Reader,
    pub workers: &'a Workers,
    pub report: &'a Report,
    pub identity: &'a Identity,
    transfer: RefCell<Transfer>,
    session: Session,
    nonces: RefCell<Nonces<SystemRandom>>,
    /// Told whenever an acknowledgement or the end of a part may let something go on.
    moved: Notify,
}

/// The exchange before any data: Offer, Accept, Begin, Ready.
pub async fn negotiate(
    transfer: &Transfer,
    link: &Link,
    identity: &Identity,
    writer: &mut ControlWriter,
    control: &mut ControlReader,
) -> Outcome<Session> {
    let mut random = SystemRandom::default();
    let (offering, offer) = transfer.offer(&link.channel, link.peer.key, &mut random);
    let offer_bytes = writer.send(&offer).await?;
    let Message::Accept(accept) = control.expect(offer_bytes).await? else { return Err(out_of_turn("Accept")) };
    let (beginning, begin) = offering.handle_accept(transfer, accept, identity, &mut random)?;
    let begin_bytes = writer.send(&begin).await?;
    let Message::Ready(ready) = control.expect(begin_bytes).await? else { return Err(out_of_turn("Ready")) };
    Ok(beginning.handle_ready(ready)?)
}

fn out_of_turn(check: &'static str) -> Failure {
    sealift_protocol::error::Error::new(Code::ProtocolViolation, check).into()
}

impl<'a> Pipeline<'a> {
    pub fn new(
        link: &'a Link,
        reader: &'a Reader,
        workers: &'a Workers,
        report: &'a Report,
        identity: &'a Identity,
        transfer: Transfer,
        session: Session,
    ) -> Self {
        Self {
            link,
            reader,
            workers,
            report,
            identity,
            transfer: RefCell::new(transfer),
            session,
            nonces: RefCell::new(Nonces::new(SystemRandom::default())),
            moved: Notify::new(),
        }
    }

    /// Whether the receiver may have everything, the manifest too.
    pub fn has_sent_all(&self) -> bool {
        self.transfer.borrow().manifest().is_some()
    }

    /// Sends everything and returns the checked receipt.
    pub async fn run(&self, writer: &mut ControlWriter, control: &mut ControlReader) -> Outcome<SignedReceipt> {
        let sending = async {
            self.send_parts().await?;
            let finish = self.when(|transfer| transfer.poll_finish(self.identity)).await;
            writer.send(&finish).await.map(|_| ())
        };
        let listening = self.listen(control);
        tokio::pin!(sending, listening);
        // The receiver's word counts for more than a broken stream, which is often only its consequence.
        tokio::select! {
            biased;
            receipt = &mut listening => receipt,
            sent = &mut sending => match sent {
                Ok(()) => listening.await,
                Err(failure) if failure.code == Code::Interrupted => self.reason(failure, listening).await,
                Err(failure) => Err(failure),
            },
        }
    }

    /// A stream broke: gives the receiver a moment to say why.
    async fn reason(
        &self,
        failure: Failure,
        listening: impl Future<Output = Outcome<SignedReceipt>>,
    ) -> Outcome<SignedReceipt> {
        match tokio::time::timeout(sealift_agent::link::MESSAGE_TIMEOUT, listening).await {
            Ok(Err(reason)) => Err(reason),
            Ok(Ok(_)) | Err(_) => Err(failure),
        }
    }

    /// Starts parts in the order of the plan, as lanes become free and the parts they depend on durable.
    async fn send_parts(&self) -> Outcome {
        let parts = self.transfer.borrow().plan().parts.len() as u32;
        let mut lanes = FuturesUnordered::new();
        for part in (0..parts).map(PartIndex) {
            loop {
                if self.transfer.borrow().may_start(part, &self.session) {
                    break;
                }
                tokio::select! {
                    Some(done) = lanes.next() => done?,
                    () = self.moved.notified() => {}
                }
            }
            self.transfer.borrow_mut().handle_start(part);
            let reading = self.reader.read(part, self.transfer.borrow().digests().multiset())?;
            lanes.push(self.send_part(part, reading));
        }
        while let Some(done) = lanes.next().await {
            done?;
        }
        Ok(())
    }

    /// One lane: a part's chunks, sealed side by side and sent in order.
    async fn send_part(&self, part: PartIndex, reading: ReadingPart) -> Outcome {
        let lost = |error| from_connection(Role::Sender, &error);
        let mut out = PartStream { stream: self.link.connection.open_uni().await.map_err(lost)?, finished: false };
        let header = StreamHeader { part, first: ChunkIndex(0) };
        out.stream.write_all(&header.to_bytes()).await.map_err(|error| broken_stream(&error))?;
        let mut sealed = Box::pin(self.sealed(reading.chunks).buffered(chunks_at_work()));
        while let Some(chunk) = sealed.next().await {
            self.send_chunk(chunk?, &mut out.stream).await?;
        }
        drop(sealed);
        let summary = reading
            .summary
            .await
            .map_err(|_| Failure::new(Code::Internal, "the source's thread ended early", ""))??;
        self.transfer.borrow_mut().handle_part_end(part, summary.rows, Some(summary.digest));
        self.moved.notify_waiters();
        self.report.count(|totals| {
            totals.parts += 1;
            totals.rows += summary.rows;
        });
        out.finish()
    }

    fn sealed(
        &self,
        chunks: mpsc::Receiver<Chunk>,
    ) -> impl stream::Stream<Item = impl Future<Output = Outcome<Sealed>> + '_> + '_ {
        stream::unfold(chunks, |mut chunks| async move { chunks.recv().await.map(|chunk| (chunk, chunks)) }).map(
            move |chunk| {
                let nonce = self.nonces.borrow_mut().draw();
                async move { self.workers.seal(chunk, self.session.keys.clone(), nonce?).await }
            },
        )
    }

    async fn send_chunk(&self, sealed: Sealed, out: &mut SendStream) -> Outcome {
        let frame_bytes = sealed.frame.len() as u64;
        self.when(|transfer| transfer.may_send(&sealed, &self.session).then_some(())).await;
        self.transfer.borrow_mut().handle_sealed(&sealed);
        let plain_bytes = u64::from(sealed.header.plain_bytes);
        out.write_chunk(sealed.frame).await.map_err(|error| broken_stream(&error))?;
        self.report.count(|totals| {
            totals.chunks += 1;
            totals.plain_bytes += plain_bytes;
            totals.sealed_bytes += frame_bytes;
        });
        Ok(())
    }

    /// Waits until the state machine says yes.
    async fn when<T>(&self, mut poll: impl FnMut(&mut Transfer) -> Option<T>) -> T {
        loop {
            let notified = self.moved.notified();
            if let Some(ready) = poll(&mut self.transfer.borrow_mut()) {
                return ready;
            }
            notified.await;
        }
    }

    /// Takes what the receiver says until its receipt, and checks that.
    async fn listen(&self, control: &mut ControlReader) -> Outcome<SignedReceipt> {
        loop {
            match control.next().await? {
                Some(Message::Ack(ack)) => {
                    self.transfer.borrow_mut().handle_ack(&ack)?;
                    self.moved.notify_waiters();
                }
                Some(Message::Receipt(receipt)) => {
                    self.transfer.borrow().handle_receipt(&receipt, &self.session)?;
                    return Ok(*receipt);
                }
                Some(_) => return Err(out_of_turn("message while data flows")),
                None => return Err(Failure::new(Code::Interrupted, "the receiver ended the exchange", "")),
            }
        }
    }
}

/// A part's stream. quinn ends a stream that is dropped as if all had been written; this one is reset, unless it was
/// finished, so that the receiver does not take a part that was given up for one that was cut short.
struct PartStream {
    stream: SendStream,
    finished: bool,
}

impl PartStream {
    fn finish(mut self) -> Outcome {
        self.finished = true;
        self.stream.finish().map_err(|_| Failure::new(Code::Interrupted, "a stream was closed", ""))
    }
}

impl Drop for PartStream {
    fn drop(&mut self) {
        // A reset after the end would still take back what has not arrived.
        if !self.finished {
            let _ = self.stream.reset(VarInt::from_u32(Code::Interrupted.number().into()));
        }
    }
}

fn broken_stream(error: &quinn::WriteError) -> Failure {
    match error {
        quinn::WriteError::ConnectionLost(lost) => from_connection(Role::Sender, lost),
        _ => Failure::new(Code::Interrupted, "the receiver stopped reading a part", ""),
    }
}
