//! Targets that take bytes: a loader, standard output, a file for those who typed the danger, or nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{IsTerminal, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use sealift_agent::failure::{Failure, Outcome};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::Digests,
    id::{PartIndex, TransferId},
    manifest::{Engine, LoadedPart, Plan, Proof},
    receive::WholePart,
};

use super::{PartSink, Sink};
use crate::loader::Loader;

/// Takes one opaque part; `discard:` takes any plan.
pub struct OpaqueSink {
    target: Target,
    parts: OnceLock<usize>,
}

enum Target {
    Standard(File),
    Discard,
    File { path: PathBuf, staging: PathBuf },
    Exec { words: Vec<String>, show_output: bool, loader: OnceLock<Loader> },
}

impl OpaqueSink {
    fn new(target: Target) -> Self {
        Self { target, parts: OnceLock::new() }
    }

    pub fn standard() -> Outcome<Self> {
        if std::io::stdout().is_terminal() {
            let next = "Redirect standard output into a program that loads it, or use another target.";
            return Err(Failure::usage("the target is standard output, and that is a terminal", next));
        }
        // A file of its own, since the library's handle looks for line ends in all that passes.
        let out = std::io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Failure::io(Code::TargetFailed, "standard output cannot be used", &error, ""))?;
        Ok(Self::new(Target::Standard(File::from(out))))
    }

    pub fn discard() -> Self {
        Self::new(Target::Discard)
    }

    /// A plain file: the caller has seen to it that the user typed the danger.
    pub fn file(path: &Path) -> Outcome<Self> {
        let Some(name) = path.file_name() else {
            return Err(Failure::usage(format!("the target {} names no file", path.display()), ""));
        };
        let staging = path.with_file_name(format!(".{}.sealift-staging", name.to_string_lossy()));
        Ok(Self::new(Target::File { path: path.to_owned(), staging }))
    }

    pub fn exec(words: Vec<String>, show_output: bool) -> Self {
        Self::new(Target::Exec { words, show_output, loader: OnceLock::new() })
    }
}

impl Sink for OpaqueSink {
    fn prepare(&self, _transfer: TransferId, plan: &Plan, _fresh: bool) -> Outcome<Vec<WholePart>> {
        if plan.engine != Engine::Opaque && !matches!(self.target, Target::Discard) {
            let what = "the sender sends a database, and this target takes the bytes of a dump";
            let next =
                "Give --target sqlite:PATH here, or let the sender send a dump: --source exec:COMMAND or file:PATH.";
            return Err(Failure::new(Code::PlanRefused, what, next));
        }
        let _ = self.parts.set(plan.parts.len());
        match &self.target {
            Target::Standard(_) | Target::Discard => {}
            Target::File { path, staging } => prepare_file(path, staging)?,
            Target::Exec { words, show_output, loader } => {
                let _ = loader.set(Loader::start(words, *show_output)?);
            }
        }
        Ok(Vec::new())
    }

    fn wants_journal(&self) -> bool {
        matches!(self.target, Target::File { .. } | Target::Exec { .. })
    }

    fn ends_unseen(&self) -> bool {
        matches!(self.target, Target::Exec { .. })
    }

    fn begin(&self, _part: PartIndex, _digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        Ok(match &self.target {
            Target::Discard => Box::new(Discarding),
            Target::Standard(out) => Box::new(Writing { out, what: "standard output".into() }),
            Target::File { path, staging } => {
                let out = OpenOptions::new().write(true).open(staging).map_err(|error| cannot_write(path, &error))?;
                Box::new(Writing { out: SyncedFile(out), what: format!("the target {}", path.display()) })
            }
            Target::Exec { loader, .. } => {
                let loader = loader.get().ok_or_else(|| Failure::new(Code::Internal, "no loader", ""))?;
                Box::new(Feeding { input: loader.input()?, loader })
            }
        })
    }

    fn prove(&self, _digests: &Digests) -> Outcome<(Proof, Vec<LoadedPart>)> {
        let proof = match &self.target {
            Target::Discard => Proof::Discarded,
            Target::Standard(_) | Target::File { .. } => Proof::Written,
            Target::Exec { loader, .. } => {
                loader.get().ok_or_else(|| Failure::new(Code::Internal, "no loader", ""))?.finish()?;
                Proof::LoaderExit
            }
        };
        let parts = self.parts.get().copied().unwrap_or(0);
        Ok((proof, vec![LoadedPart { rows: 0, digest: None }; parts]))
    }

    fn publish(&self, _transfer: TransferId) -> Outcome {
        let Target::File { path, staging } = &self.target else { return Ok(()) };
        // Called again after a crash: the staging file has its final name.
        if fs::symlink_metadata(staging).is_err() && fs::metadata(path).is_ok_and(|found| found.len() > 0) {
            return Ok(());
        }
        // An empty file under the final name is the one thing that may be replaced.
        if fs::metadata(path).is_ok_and(|found| found.len() == 0) {
            let _ = fs::remove_file(path);
        }
        renameat2(AT_FDCWD, staging, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE)
            .map_err(|error| cannot_write(path, &error.into()))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| cannot_write(path, &error))
    }

    fn abandon_earlier(&self, _transfer: TransferId, proven: bool) -> Outcome<bool> {
        match &self.target {
            Target::Discard => Ok(false),
            // A loader, or whoever read standard output, has what it was given.
            Target::Standard(_) | Target::Exec { .. } => Ok(proven),
            Target::File { path, staging } => match fs::remove_file(staging) {
                Ok(()) => Ok(false),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(proven && path.exists()),
                Err(error) => Err(cannot_write(staging, &error)),
            },
        }
    }

    fn staged_bytes(&self) -> u64 {
        match &self.target {
            Target::File { staging, .. } => fs::symlink_metadata(staging).map_or(0, |found| found.len()),
            _ => 0,
        }
    }

    fn suspend(&self) {
        // Nothing of an opaque load is durable before its end.
        self.abandon();
    }

    fn abandon(&self) {
        match &self.target {
            Target::Standard(_) | Target::Discard => {}
            Target::File { staging, .. } => {
                let _ = fs::remove_file(staging);
            }
            Target::Exec { loader, .. } => {
                if let Some(loader) = loader.get() {
                    loader.kill();
                }
            }
        }
    }
}

fn prepare_file(path: &Path, staging: &Path) -> Outcome {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && found.len() == 0 => {}
        Ok(_) => {
            let next = "Choose another name, or remove it yourself: nothing is ever overwritten.";
            return Err(Failure::new(Code::TargetNotEmpty, format!("the target {} exists", path.display()), next));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(cannot_write(path, &error)),
    }
    // What a killed run left under the staging name is nobody's.
    let _ = fs::remove_file(staging);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(staging);
    made.map(|_| ()).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    let what = format!("the target {} cannot be written", path.display());
    let full = matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge
    );
    match full {
        true => Failure::io(Code::TargetFull, what, error, "Make room on the target host and start again."),
        false => Failure::io(
            Code::TargetFailed,
            what,
            error,
            "Check the folder: that it exists, and that this user may write.",
        ),
    }
}

struct Discarding;

impl PartSink for Discarding {
    fn write(&mut self, _chunk: &VerifiedChunk) -> Outcome {
        Ok(())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome {
        Ok(())
    }
}

struct Feeding<'a> {
    loader: &'a Loader,
    input: File,
}

impl PartSink for Feeding<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.loader.feed(&mut self.input, chunk.plain())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome {
        Ok(())
    }
}

struct Writing<W> {
    out: W,
    what: String,
}

/// A file whose `flush` reaches the disk.
struct SyncedFile(File);

impl Write for SyncedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.sync_all()
    }
}

impl<W: Write> PartSink for Writing<W> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.out.write_all(chunk.plain()).map_err(|error| cannot_write(Path::new(&self.what), &error))
    }

    fn finish(mut self: Box<Self>, _whole: &WholePart) -> Outcome {
        self.out.flush().map_err(|error| cannot_write(Path::new(&self.what), &error))
    }
}
