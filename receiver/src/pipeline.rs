//! Runs one transfer over one connection: `⇒ one stream a part → headers checked → workers → writer
//! → target`, and the control stream beside them. All state is that of `protocol::receive`; here is
//! only what moves bytes.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use sealift_agent::{
    budget::{Budget, LaneBudget, Room},
    control::{ControlReader, ControlWriter, MESSAGE_TIMEOUT},
    failure::{Failure, Outcome},
    link::{Link, stream::StreamIn},
    report::Report,
    workers::chunks_at_work,
};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    error::Error,
    frame::ChunkHeader,
    hint::{Hint, Restart},
    message::Message,
    receive::{Arrived, Awaited, PartStream, ReceiverSession},
    sealed_log::Record,
};
use tokio::time::timeout;

use crate::{activity::Activity, load::Load, workers::Workers, writer::ChunkInMemory};

/// For the rest of a frame whose header has come. A frame of 4 MiB takes this long at 64 kbit/s.
const FRAME_TIMEOUT: Duration = Duration::from_secs(600);

/// What one connection's run is made of.
pub struct Pipeline<'a> {
    link: &'a Link,
    report: &'a Report,
    load: &'a Load,
    workers: &'a Workers,
    budget: &'a Budget,
    session: RefCell<ReceiverSession>,
    activity: &'a Activity,
}

impl<'a> Pipeline<'a> {
    pub fn new(
        link: &'a Link,
        report: &'a Report,
        load: &'a Load,
        workers: &'a Workers,
        budget: &'a Budget,
        session: ReceiverSession,
        activity: &'a Activity,
    ) -> Self {
        Self { link, report, load, workers, budget, session: RefCell::new(session), activity }
    }

    /// Receives everything that is missing; returns when all parts are in the target and the
    /// manifest fits them. Not cancel-safe: frames that were read are lost, and an acknowledgement
    /// may have been sent in part. The connection ends with it.
    pub async fn run(&self, writer: &mut ControlWriter, control: &mut ControlReader) -> Outcome {
        let listening = self.listen(control);
        tokio::pin!(listening);
        let failed = tokio::select! {
            biased;
            failed = &mut listening => return Err(failed),
            failed = self.load.watch(self.report) => return Err(failed),
            failed = self.link.unanswered() => return Err(failed),
            never = self.report.keep_reporting() => match never {},
            failed = self.receive_parts() => failed,
            failed = self.acknowledge(writer) => failed,
            complete = self.load.complete() => return complete,
        };
        if failed.code != Code::Interrupted {
            return Err(failed);
        }
        // A sender that gives up resets its streams; the reason comes on the control stream.
        Err(timeout(MESSAGE_TIMEOUT, listening).await.unwrap_or(failed))
    }

    pub fn into_session(self) -> ReceiverSession {
        self.session.into_inner()
    }

    /// Takes streams as they come, as many as are allowed at once. Not cancel-safe: frames that
    /// were read are lost.
    async fn receive_parts(&self) -> Failure {
        let mut lanes = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.link.accept_part() => match accepted {
                    Ok(stream) => lanes.push(self.receive_part(stream)),
                    Err(failure) => return failure,
                },
                Some(done) = lanes.next() => if let Err(failure) = done {
                    return failure;
                },
            }
        }
    }

    /// One lane: a part's frames, checked in order, opened side by side, written in order. Not
    /// cancel-safe: frames that were read are lost.
    async fn receive_part(&self, mut stream: StreamIn) -> Outcome {
        let mut arriving = PartStream::default();
        let Some(Arrived::Part(part)) = self.next(&mut arriving, &mut stream).await? else {
            return Err(Error::new(Code::Internal, "a stream without its header").into());
        };
        let writer = self.load.writer(part).await?;
        let lane = self.budget.open_lane().await?;
        let opened = self.opened(arriving, stream, lane).buffered(chunks_at_work());
        let mut chunks = Box::pin(opened.map(|opened| self.journaled(opened)).buffered(chunks_at_work()));
        while let Some(opened) = chunks.next().await {
            let VerifiedFrame { chunk, held, frame_bytes, .. } = opened.map_err(|failure| failure.at_part(part))?;
            let plain_bytes = chunk.plain().len() as u64;
            {
                let _at_work = self.activity.at_work();
                let chunk = ChunkInMemory { chunk, held };
                self.load.take(&writer, chunk, self.load.journal.is_some()).await;
            }
            self.report.count(|totals| {
                totals.rows = self.load.rows();
                totals.moved(part, plain_bytes, frame_bytes);
            });
        }
        Ok(())
    }

    /// Frames off the stream, each opened on the pool. Ends after a clean end of the stream behind
    /// the last chunk.
    fn opened(
        &self,
        arriving: PartStream,
        stream: StreamIn,
        lane: LaneBudget,
    ) -> impl stream::Stream<Item = impl Future<Output = Outcome<VerifiedFrame>> + '_> + '_ {
        stream::unfold(Some((arriving, stream, lane)), move |incoming| async move {
            let (mut arriving, mut stream, lane) = incoming?;
            match self.next_frame(&mut arriving, &mut stream, &lane).await {
                Ok(Some(frame)) => Some((Ok(frame), Some((arriving, stream, lane)))),
                Ok(None) => None,
                Err(failure) => Some((Err(failure), None)),
            }
        })
        .map(move |frame: Outcome<Frame>| async move {
            let Frame { header, body, mut held } = frame?;
            let keys = self.session.borrow().keys_of(header.epoch).clone();
            // Opening is in place: what the journal is to have as it came is copied before.
            let sealed = self.load.journal.as_ref().map(|_| Bytes::copy_from_slice(&body));
            let chunk = self.workers.open(header, body, keys).await?;
            held.shrink(chunk.plain().len());
            let record = sealed.map(|sealed| Record::Chunk { header, sealed });
            Ok(VerifiedFrame { chunk, held, frame_bytes: header.frame_bytes() as u64, record })
        })
    }

    /// Hands a verified chunk to the journal, if there is one, in the order of the calls; resolves
    /// when it is durable.
    fn journaled(&self, opened: Outcome<VerifiedFrame>) -> impl Future<Output = Outcome<VerifiedFrame>> + use<> {
        let opened = opened.map(|mut opened| {
            let durable = opened.record.take().and_then(|record| Some(self.load.journal.as_ref()?.append(record)));
            (opened, durable)
        });
        async move {
            let (opened, durable) = opened?;
            if let Some(durable) = durable {
                durable.await?;
            }
            Ok(opened)
        }
    }

    /// The next sealed chunk; `None` at the end of the stream. Not cancel-safe.
    async fn next_frame(
        &self,
        arriving: &mut PartStream,
        stream: &mut StreamIn,
        lane: &LaneBudget,
    ) -> Outcome<Option<Frame>> {
        let mut held = None;
        loop {
            if let Awaited::Sealed(header) = arriving.awaited() {
                held = Some(lane.take(header.sealed_bytes() + header.plain_bytes as usize).await?);
            }
            match self.next(arriving, stream).await? {
                Some(Arrived::Frame(header, body)) => {
                    let held = held.ok_or_else(|| Error::new(Code::Internal, "a chunk without its header"))?;
                    return Ok(Some(Frame { header, body, held }));
                }
                Some(Arrived::Part(_) | Arrived::Header) => {}
                None => return Ok(None),
            }
        }
    }

    /// What comes next on a part's stream; `None` at its end. Not cancel-safe: what has arrived of
    /// it would be lost.
    async fn next(&self, arriving: &mut PartStream, stream: &mut StreamIn) -> Outcome<Option<Arrived>> {
        let wanted = arriving.awaited_bytes();
        let mut bytes = BytesMut::with_capacity(wanted);
        let filled = fill(stream, &mut bytes, wanted, self.activity);
        match arriving.awaited() {
            Awaited::StreamHeader => timeout(MESSAGE_TIMEOUT, filled).await.map_err(|_| slow("stream header"))?,
            // The source may take its time for a chunk. A link that is dead is noticed by itself.
            Awaited::ChunkHeader => filled.await,
            Awaited::Sealed(_) => timeout(FRAME_TIMEOUT, filled).await.map_err(|_| slow("chunk"))?,
        }?;
        let mut session = self.session.borrow_mut();
        if bytes.len() < wanted {
            arriving.handle_end(bytes.len(), &mut session)?;
            return Ok(None);
        }
        Ok(Some(arriving.handle(bytes, &mut session, &self.load.transfer())?))
    }

    /// Acknowledges what is there; several steps of one part become one message. Not cancel-safe:
    /// an acknowledgement may have been sent in part, or not at all.
    async fn acknowledge(&self, writer: &mut ControlWriter) -> Failure {
        loop {
            let notified = self.load.moved.notified();
            loop {
                let due = self.session.borrow_mut().poll_ack(&mut self.load.transfer_mut());
                let Some(ack) = due else { break };
                if let Err(failure) = writer.send(&ack).await {
                    return failure;
                }
            }
            self.activity.set_finishing(self.load.transfer().is_finishing());
            notified.await;
        }
    }

    /// Takes the messages of the sender while data flows: its manifest, once. Not cancel-safe: part
    /// of a message may be lost.
    async fn listen(&self, control: &mut ControlReader) -> Failure {
        loop {
            match control.next().await {
                Ok(Some(Message::Finish(manifest))) => {
                    let mut session = self.session.borrow_mut();
                    if let Err(error) = session.handle_finish(&mut self.load.transfer_mut(), manifest) {
                        return error.into();
                    }
                    self.load.moved.notify_waiters();
                }
                Ok(Some(_)) => return Error::new(Code::ProtocolViolation, "message while data flows").into(),
                Ok(None) => {
                    return Failure::new(
                        Code::Interrupted,
                        "the sender ended the exchange",
                        Hint::StartAgain(Restart::Resumes),
                    );
                }
                Err(failure) => return failure,
            }
        }
    }
}

/// A sealed chunk, as it came.
struct Frame {
    header: ChunkHeader,
    body: BytesMut,
    held: Room,
}

/// A verified chunk, and what the journal is to have of it.
struct VerifiedFrame {
    chunk: VerifiedChunk,
    held: Room,
    frame_bytes: u64,
    record: Option<Record>,
}

fn slow(check: &'static str) -> Failure {
    Error::new(Code::TooSlow, check).into()
}

/// Appends what arrives to `bytes` until they are `wanted`, or the stream has ended. Not cancel
/// safe with `bytes` of its own: they would be lost.
async fn fill(stream: &mut StreamIn, bytes: &mut BytesMut, wanted: usize, activity: &Activity) -> Outcome {
    while bytes.len() < wanted {
        let room = wanted - bytes.len();
        let received = stream.recv(&mut (&mut *bytes).limit(room)).await?;
        if received == 0 {
            break;
        }
        activity.handle_arrived(received, Instant::now());
    }
    Ok(())
}
