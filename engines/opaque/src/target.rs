//! Targets that take bytes: a loader, standard output, or a file for those who typed the danger.

use std::{
    fs::File,
    io::{IsTerminal, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use sealift_engine_api::{
    Abandoned, Commit, Durability, Finding, FinishedLoad, LeftAt, LoadFailure, PartSink, PreparedLoad, ProvenLoad,
    Readiness, Recovery, StagedLoad, StopToken, Target, TargetCapabilities, TargetLoad, Writers,
};
use sealift_host::{place::cannot_write, stdout::standard_output_is_null};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::Digests,
    disposition::Asks,
    failure::{Failure, Outcome},
    id::{PartIndex, TransferId},
    manifest::{Evidence, Plan, Proof},
    receive::WholePart,
};

use crate::{
    engine,
    file::FileTarget,
    loader::{Loader, Tail},
    preflight, program,
};

/// Takes one opaque part.
pub enum OpaqueTarget {
    Standard(Arc<File>),
    File(FileTarget),
    Exec { words: Vec<String>, show_output: bool },
}

impl OpaqueTarget {
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
        Ok(Self::Standard(Arc::new(File::from(out))))
    }

    /// A plain file: the caller has seen to it that the user typed the danger.
    pub fn file(path: &Path) -> Outcome<Self> {
        FileTarget::new(path).map(Self::File)
    }

    pub fn exec(words: Vec<String>, show_output: bool) -> Self {
        Self::Exec { words, show_output }
    }
}

impl Recovery for OpaqueTarget {
    fn publish(&self, transfer: TransferId) -> Outcome {
        match self {
            Self::File(file) => file.publish(transfer),
            _ => Ok(()),
        }
    }

    fn forget(&self, transfer: TransferId) {
        if let Self::File(file) = self {
            file.forget(transfer);
        }
    }

    fn abandon(&self, transfer: TransferId, left_at: LeftAt) -> Outcome<Abandoned> {
        match (self, left_at) {
            (Self::File(file), _) => file.abandon(transfer, left_at),
            // A loader, or the reader of standard output, has what it was given.
            (_, LeftAt::ReceiptSigned) => Ok(Abandoned::Published),
            (_, LeftAt::Loading) => Ok(Abandoned::Dropped),
        }
    }

    fn staged(&self, transfer: TransferId) -> Option<PathBuf> {
        match self {
            Self::File(file) => file.staged(transfer),
            _ => None,
        }
    }
}

impl Target for OpaqueTarget {
    fn capabilities(&self, _plan: &Plan) -> TargetCapabilities {
        match self {
            // What went into a pipe is gone.
            Self::Standard(_) => TargetCapabilities { durability: Durability::Nothing, commit: Commit::Observable },
            Self::File(_) => TargetCapabilities { durability: Durability::SyncedChunks, commit: Commit::Observable },
            // A loader commits at its end, and not with what it was given.
            Self::Exec { .. } => TargetCapabilities { durability: Durability::Journal, commit: Commit::Unobservable },
        }
    }

    fn check(&self, readiness: Readiness) -> Outcome<Vec<Finding>> {
        match self {
            Self::File(file) => file.check(readiness),
            Self::Standard(_) => Ok(Vec::new()),
            Self::Exec { words, .. } => {
                let path = program::find(&words[0], Code::TargetFailed)?;
                Ok(vec![preflight::program(&path)])
            }
        }
    }

    fn prepare(
        &self,
        transfer: TransferId,
        plan: &Plan,
        asks: Asks,
        stop: Arc<dyn StopToken>,
    ) -> Outcome<PreparedLoad> {
        if plan.engine.name != engine().name {
            let what = "the sender sends a database, and this target takes the bytes of a dump";
            let next = "Name a database of that kind as the target here, or let the sender send a dump: --source exec:COMMAND or file:PATH.";
            return Err(Failure::new(Code::PlanRefused, what, next));
        }
        engine().check_same(&plan.engine)?;
        stop.check()?;
        match self {
            Self::Standard(out) => Ok(PreparedLoad::empty(Writing(Arc::clone(out)))),
            Self::File(file) => file.prepare(transfer, plan, asks, stop),
            Self::Exec { words, show_output } => {
                let loader = Arc::new(Loader::start(words, *show_output)?);
                let weak = Arc::downgrade(&loader);
                stop.wakes(Box::new(move || {
                    if let Some(loader) = weak.upgrade() {
                        loader.kill();
                    }
                }));
                Ok(PreparedLoad::empty(Feeding(loader)))
            }
        }
    }
}

/// A loader that is being fed. Nothing of what it has is durable before its end.
struct Feeding(Arc<Loader>);

impl Drop for Feeding {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl StagedLoad for Feeding {
    fn abandon(self: Box<Self>) {}
}

impl TargetLoad for Feeding {
    fn writers(&self) -> Arc<dyn Writers> {
        Arc::clone(&self.0) as Arc<dyn Writers>
    }

    fn prove(self: Box<Self>, _digests: &Digests) -> Result<Box<dyn ProvenLoad>, LoadFailure> {
        match self.0.finish() {
            Ok(()) => Ok(Box::new(FinishedLoad(Evidence::bare(Proof::LoaderExit)))),
            Err(failure) => Err(LoadFailure::new(failure, self)),
        }
    }
}

impl Writers for Loader {
    fn begin(&self, part: PartIndex, _digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        Ok(Box::new(Fed { loader: self, part, input: self.input()?, tail: Tail::default() }))
    }
}

struct Fed<'a> {
    loader: &'a Loader,
    part: PartIndex,
    input: File,
    tail: Tail,
}

impl PartSink for Fed<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.loader.feed(&mut self.input, &mut self.tail, chunk.plain().clone())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        self.loader.keep_tail(self.tail);
        Ok(vec![self.part])
    }
}

/// Standard output that is being written.
struct Writing(Arc<File>);

impl StagedLoad for Writing {
    fn abandon(self: Box<Self>) {}
}

impl TargetLoad for Writing {
    fn writers(&self) -> Arc<dyn Writers> {
        Arc::new(Writing(Arc::clone(&self.0)))
    }

    fn prove(self: Box<Self>, _digests: &Digests) -> Result<Box<dyn ProvenLoad>, LoadFailure> {
        Ok(Box::new(FinishedLoad(Evidence::bare(Proof::Written))))
    }
}

impl Writers for Writing {
    fn begin(&self, part: PartIndex, _digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        Ok(Box::new(Written { out: &self.0, part }))
    }
}

struct Written<'a> {
    out: &'a File,
    part: PartIndex,
}

impl PartSink for Written<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.out.write_all(chunk.plain()).map_err(|error| cannot_write("standard output", &error))
    }

    fn finish(mut self: Box<Self>, _whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        self.out.flush().map_err(|error| cannot_write("standard output", &error))?;
        Ok(vec![self.part])
    }
}
