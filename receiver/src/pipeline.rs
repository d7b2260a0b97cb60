//! Runs one transfer over one connection: `⇒ one stream a part → headers checked → workers →
//! journal, if there is one → writer → target`, and the control stream beside them. All state is
//! that of `protocol::receive`; here is only what moves bytes.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{
    StreamExt, stream,
    stream::{FuturesOrdered, FuturesUnordered},
};
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
    receive::{Arrived, Awaited, Intake, IntakeStep, PartStream, ReceiverSession},
    sealed_log::Record,
};
use tokio::time::timeout;

use crate::{
    activity::Activity,
    load::Load,
    workers::Workers,
    writer::{ChunkInMemory, PartWriter},
};

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

    /// Takes streams as they come, as many as are allowed at once. Those for which there is no lane
    /// yet wait behind their headers. Not cancel-safe: frames that were read are lost.
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

    /// One lane: a part's frames, checked in order, opened side by side, and passed on as
    /// [`Intake`] says. Not cancel-safe: frames that were read are lost.
    async fn receive_part(&self, mut stream: StreamIn) -> Outcome {
        let mut arriving = PartStream::default();
        let Some(Arrived::Part(part)) = self.next(&mut arriving, &mut stream).await? else {
            return Err(Error::new(Code::Internal, "a stream without its header").into());
        };
        // Lanes are taken in the order of the plan. A part that waits for one has no thread yet.
        self.load.turn(part).await;
        let lane = self.budget.open_lane().await?;
        let writer = self.load.writer(part).await?;
        let mut opened = Box::pin(self.opened(arriving, stream, lane).buffered(chunks_at_work()));
        let mut intake = Intake::new(&self.load.transfer());
        let mut journaling = FuturesOrdered::new();
        // How the stream ended. What came before is passed on first.
        let mut ended = None;
        loop {
            while let Some(step) = intake.poll() {
                match step {
                    IntakeStep::Append(record) => journaling.push_back(self.load.journal()?.append(record)),
                    IntakeStep::Write(frame) => self.write(&writer, frame).await,
                }
            }
            let has_room = intake.len() < chunks_at_work();
            tokio::select! {
                biased;
                Some(journaled) = journaling.next() => {
                    journaled?;
                    intake.handle_journaled();
                }
                next = opened.next(), if ended.is_none() && has_room => match next.transpose() {
                    Ok(Some((frame, record))) => intake.handle_verified(frame, record),
                    Ok(None) => ended = Some(Ok(())),
                    Err(failure) => ended = Some(Err(failure.at_part(part))),
                },
                else => return ended.unwrap_or(Ok(())),
            }
        }
    }

    /// Gives a chunk to its writer. Not cancel-safe: the chunk is lost.
    async fn write(&self, writer: &PartWriter, frame: VerifiedFrame) {
        let VerifiedFrame { chunk, mut held, frame_bytes } = frame;
        let part = chunk.part();
        let plain_bytes = chunk.plain().len() as u64;
        // What the journal was given is written.
        held.shrink(chunk.plain().len());
        {
            let _at_work = self.activity.at_work();
            self.load.write(writer, ChunkInMemory { chunk, held }).await;
        }
        self.report.count(|totals| {
            totals.rows = self.load.rows();
            totals.moved(part, plain_bytes, frame_bytes);
        });
    }

    /// Frames off the stream, each opened on the pool. Ends after a clean end of the stream behind
    /// the last chunk.
    fn opened(
        &self,
        arriving: PartStream,
        stream: StreamIn,
        lane: LaneBudget,
    ) -> impl stream::Stream<Item = impl Future<Output = Outcome<(VerifiedFrame, Option<Record>)>> + '_> + '_ {
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
            let sealed = self.load.transfer().has_journal().then(|| Bytes::copy_from_slice(&body));
            let sealed_bytes = sealed.as_ref().map_or(0, Bytes::len);
            let chunk = self.workers.open(header, body, keys).await?;
            held.shrink(chunk.plain().len() + sealed_bytes);
            let record = sealed.map(|sealed| Record::Chunk { header, sealed });
            Ok((VerifiedFrame { chunk, held, frame_bytes: header.frame_bytes() as u64 }, record))
        })
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
                let copies = 1 + usize::from(self.load.transfer().has_journal());
                held = Some(lane.take(copies * header.sealed_bytes() + header.plain_bytes as usize).await?);
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

/// A verified chunk, and what it takes.
struct VerifiedFrame {
    chunk: VerifiedChunk,
    held: Room,
    frame_bytes: u64,
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
