//! Targets that take bytes: a loader, standard output, or a file for those who typed the danger.

use std::{
    fs::File,
    io::{IsTerminal, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use sealift_engine_api::{PartSink, Readiness, Sink};
use sealift_host::{place::cannot_write, stdout::standard_output_is_null};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::Digests,
    failure::{Failure, Outcome},
    id::{PartIndex, TransferId},
    manifest::{Evidence, Plan, Proof},
    receive::{Found, WholePart},
};

use crate::{
    engine,
    file::FileTarget,
    loader::{Loader, Tail},
};

/// Takes one opaque part.
pub struct OpaqueSink {
    target: Target,
}

enum Target {
    Standard(File),
    File(FileTarget),
    Exec { words: Vec<String>, show_output: bool, loader: OnceLock<Loader> },
}

impl OpaqueSink {
    fn new(target: Target) -> Self {
        Self { target }
    }

    pub fn standard() -> Outcome<Self> {
        if std::io::stdout().is_terminal() {
            let next = "Redirect standard output into a program that loads it, or use another target.";
            return Err(Failure::usage("the target is standard output, and that is a terminal", next));
        }
        if standard_output_is_null() {
            let what = "the target is standard output, and that is closed or /dev/null: all of the data would be lost";
            let next = "Redirect standard output into a program that loads it. For a drill there is --target discard:.";
            return Err(Failure::usage(what, next));
        }
        // A file of its own, since the library's handle looks for line ends in all that passes.
        let out = std::io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Failure::io(Code::TargetFailed, "standard output cannot be used", &error, ""))?;
        Ok(Self::new(Target::Standard(File::from(out))))
    }

    /// A plain file: the caller has seen to it that the user typed the danger.
    pub fn file(path: &Path) -> Outcome<Self> {
        FileTarget::new(path).map(|file| Self::new(Target::File(file)))
    }

    pub fn exec(words: Vec<String>, show_output: bool) -> Self {
        Self::new(Target::Exec { words, show_output, loader: OnceLock::new() })
    }
}

impl Sink for OpaqueSink {
    fn check(&self, readiness: Readiness) -> Outcome<Option<String>> {
        match &self.target {
            Target::File(file) => file.check(readiness),
            // A program was looked for when the sink was opened.
            Target::Standard(_) | Target::Exec { .. } => Ok(None),
        }
    }

    fn prepare(&self, transfer: TransferId, plan: &Plan, fresh: bool) -> Outcome<Vec<Found>> {
        if plan.engine.name != engine().name {
            let what = "the sender sends a database, and this target takes the bytes of a dump";
            let next = "Name a database of that kind as the target here, or let the sender send a dump: --source exec:COMMAND or file:PATH.";
            return Err(Failure::new(Code::PlanRefused, what, next));
        }
        engine().check_same(&plan.engine)?;
        match &self.target {
            Target::Standard(_) => {}
            Target::File(file) => return file.prepare(transfer, plan, fresh),
            Target::Exec { words, show_output, loader } => {
                let _ = loader.set(Loader::start(words, *show_output)?);
            }
        }
        Ok(Vec::new())
    }

    /// A loader commits at its end, and not with what it was given; what went into a pipe is gone.
    /// A file outlives the process; but a disk may lose what it had, and then it is asked for
    /// again.
    fn keeps_parts(&self) -> bool {
        false
    }

    fn wants_journal(&self) -> bool {
        matches!(self.target, Target::Exec { .. })
    }

    fn counts_when_synced(&self) -> bool {
        matches!(self.target, Target::File(_))
    }

    fn ends_unseen(&self) -> bool {
        matches!(self.target, Target::Exec { .. })
    }

    fn begin(&self, _part: PartIndex, _digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        Ok(match &self.target {
            Target::Standard(out) => Box::new(Writing { out }),
            Target::File(file) => file.begin()?,
            Target::Exec { loader, .. } => {
                let loader = loader.get().ok_or_else(|| Failure::new(Code::Internal, "no loader", ""))?;
                Box::new(Feeding { input: loader.input()?, loader, tail: Tail::default() })
            }
        })
    }

    fn prove(&self, _digests: &Digests) -> Outcome<Evidence> {
        let proof = match &self.target {
            Target::Standard(_) | Target::File(_) => Proof::Written,
            Target::Exec { loader, .. } => {
                loader.get().ok_or_else(|| Failure::new(Code::Internal, "no loader", ""))?.finish()?;
                Proof::LoaderExit
            }
        };
        Ok(Evidence::bare(proof))
    }

    fn publish(&self, transfer: TransferId) -> Outcome {
        match &self.target {
            Target::File(file) => file.publish(transfer),
            _ => Ok(()),
        }
    }

    fn forget(&self, transfer: TransferId) {
        if let Target::File(file) = &self.target {
            file.forget(transfer);
        }
    }

    fn abandon_earlier(&self, transfer: TransferId, proven: bool) -> Outcome<bool> {
        match &self.target {
            // A loader, or the reader of standard output, has what it was given.
            Target::Standard(_) | Target::Exec { .. } => Ok(proven),
            Target::File(file) => file.abandon_earlier(transfer, proven),
        }
    }

    fn staged(&self, transfer: TransferId) -> Option<PathBuf> {
        match &self.target {
            Target::File(file) => file.staged(transfer),
            _ => None,
        }
    }

    fn suspend(&self) {
        // Nothing of what a loader has is durable before its end.
        match &self.target {
            Target::File(file) => file.suspend(),
            _ => self.abandon(),
        }
    }

    fn abandon(&self) {
        match &self.target {
            Target::Standard(_) => {}
            Target::File(file) => file.abandon(),
            Target::Exec { loader, .. } => {
                if let Some(loader) = loader.get() {
                    loader.kill();
                }
            }
        }
    }
}

struct Feeding<'a> {
    loader: &'a Loader,
    input: File,
    tail: Tail,
}

impl PartSink for Feeding<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.loader.feed(&mut self.input, &mut self.tail, chunk.plain().clone())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome {
        self.loader.keep_tail(self.tail);
        Ok(())
    }
}

struct Writing<'a> {
    out: &'a File,
}

impl PartSink for Writing<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.out.write_all(chunk.plain()).map_err(|error| cannot_write("standard output", &error))
    }

    fn finish(mut self: Box<Self>, _whole: &WholePart) -> Outcome {
        self.out.flush().map_err(|error| cannot_write("standard output", &error))
    }
}
