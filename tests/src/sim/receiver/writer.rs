//! The thread that writes one part, one step at a time: it does only what it was asked for just
//! now, so that a run is the same however threads are scheduled.

use std::{
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use sealift_engine_api::Writers;
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::{Digests, PartRoot},
    failure::{Failure, Outcome},
    id::PartIndex,
    receive::WholePart,
};

enum Step {
    Write(VerifiedChunk),
    Sync,
    Finish,
}

pub struct WriterThread {
    /// None once the thread is to end.
    steps: Option<mpsc::Sender<Step>>,
    done: mpsc::Receiver<Outcome<Vec<PartIndex>>>,
    thread: Option<JoinHandle<()>>,
}

impl WriterThread {
    /// Begins the part.
    pub fn start(into: Arc<dyn Writers>, root: PartRoot, part: PartIndex, digests: Digests) -> Outcome<Self> {
        let (steps, asked) = mpsc::channel();
        let (out, done) = mpsc::channel();
        let thread = thread::spawn(move || {
            let outcome = write(&*into, root, part, &digests, &asked, &out);
            // Nobody waits for it once the process is killed.
            let _ = out.send(outcome);
        });
        let writer = Self { steps: Some(steps), done, thread: Some(thread) };
        writer.wait()?;
        Ok(writer)
    }

    pub fn write(&self, chunk: VerifiedChunk) -> Outcome {
        self.step(Step::Write(chunk)).map(|_| ())
    }

    pub fn sync(&self) -> Outcome {
        self.step(Step::Sync).map(|_| ())
    }

    /// Returns the parts that are committed by it.
    pub fn finish(&self) -> Outcome<Vec<PartIndex>> {
        self.step(Step::Finish)
    }

    fn step(&self, step: Step) -> Outcome<Vec<PartIndex>> {
        let steps = self.steps.as_ref().ok_or_else(ended)?;
        steps.send(step).map_err(|_| ended())?;
        self.wait()
    }

    fn wait(&self) -> Outcome<Vec<PartIndex>> {
        self.done.recv().map_err(|_| ended())?
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.steps = None;
        let thread = self.thread.take().expect("it is joined once");
        assert!(thread.join().is_ok() || thread::panicking(), "a writer panicked");
    }
}

fn ended() -> Failure {
    Failure::new(Code::Internal, "a writer ended early", "")
}

/// Returns what the last step came to; what the earlier ones did goes to `out`.
fn write(
    into: &dyn Writers,
    mut root: PartRoot,
    part: PartIndex,
    digests: &Digests,
    asked: &mpsc::Receiver<Step>,
    out: &mpsc::Sender<Outcome<Vec<PartIndex>>>,
) -> Outcome<Vec<PartIndex>> {
    let mut sink = into.begin(part, digests)?;
    let _ = out.send(Ok(Vec::new()));
    while let Ok(step) = asked.recv() {
        match step {
            Step::Write(chunk) => {
                sink.write(&chunk)?;
                root.add(chunk.hash(), chunk.plain().len() as u64);
                let _ = out.send(Ok(Vec::new()));
            }
            Step::Sync => {
                sink.sync()?;
                let _ = out.send(Ok(Vec::new()));
            }
            Step::Finish => return sink.finish(&WholePart::of(part, &root)),
        }
    }
    Err(ended())
}
