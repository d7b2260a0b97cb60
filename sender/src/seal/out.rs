//! Where an archive goes: a file that has its name only once it is whole and durable, or standard
//! output.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use sealift_agent::{
    failure::{Failure, Outcome},
    output::{Output, rename_new},
};
use sealift_protocol::{
    close::Code,
    sealed_log::{LogHeader, LogWriter, Record},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// What is written between two syncs: little enough that a slow disk is noticed where it stands,
/// and not at the end.
const SYNC_EVERY_BYTES: u64 = 64 << 20;

/// Records that wait for the disk: one is written while the next is ready.
const RECORDS_WAITING: usize = 2;

/// An archive that is being written. Dropped before its end, it leaves nothing behind.
pub struct ArchiveOut {
    to: To,
    /// What `--out` says.
    named: String,
    writer: LogWriter,
    synced: u64,
}

enum To {
    Stream(File),
    File { file: Flock<File>, partial: Partial },
}

/// The name of a file that is not whole; removed when dropped.
struct Partial(Option<PathBuf>);

impl Partial {
    /// Gives the file its own name, durably.
    fn rename(mut self, to: &Path) -> io::Result<()> {
        if let Some(from) = &self.0 {
            rename_new(from, to)?;
        }
        self.0 = None;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Checks `--out` before anything is read: a file must not be there yet, and a stream must not be a
/// terminal.
pub fn check(named: &str) -> Outcome<Output> {
    let out = Output::find("--out", named)?;
    if out.is_taken() {
        return Err(exists(Path::new(named)));
    }
    if out.is_standard() && io::stdout().is_terminal() {
        return Err(is_terminal());
    }
    Ok(out)
}

fn is_terminal() -> Failure {
    Failure::usage("the archive would go to a terminal", "Give --out a file, or redirect the output.")
}

impl ArchiveOut {
    /// Opens the stream, or makes the file under another name, and writes the header. Waits for the
    /// reader of a FIFO.
    pub fn create(named: &str, header: LogHeader) -> Outcome<Self> {
        let to = match check(named)?.open_stream()? {
            Some(stream) if stream.is_terminal() => return Err(is_terminal()),
            Some(stream) => To::Stream(stream),
            None => {
                let path = PathBuf::from(named);
                let name = path.file_name().ok_or_else(|| Failure::usage("--out names no file", ""))?;
                let partial = path.with_file_name(format!(".{}.sealift-partial", name.to_string_lossy()));
                let file = create_partial(&partial)?;
                To::File { file, partial: Partial(Some(partial)) }
            }
        };
        let mut made = Self { to, named: named.to_owned(), writer: LogWriter::new(header), synced: 0 };
        made.put(&header.to_bytes())?;
        Ok(made)
    }

    fn write(&mut self, record: &Record) -> Outcome {
        let encoded = self.writer.encode(record)?;
        encoded.pieces().into_iter().try_for_each(|piece| self.put(piece))?;
        if self.writer.offset() - self.synced >= SYNC_EVERY_BYTES { self.sync() } else { Ok(()) }
    }

    /// Makes durable what there is, and marks it: behind a mark, damage is distinguished from an
    /// end that is missing.
    fn sync(&mut self) -> Outcome {
        let To::File { file, .. } = &self.to else { return Ok(()) };
        file.sync_data().map_err(|error| self.failed(&error))?;
        self.writer.synced();
        self.synced = self.writer.offset();
        let mark = self.writer.encode(&Record::Mark)?;
        mark.pieces().into_iter().try_for_each(|piece| self.put(piece))
    }

    /// All of it was written: makes it durable and gives it its name.
    pub fn finish(mut self) -> Outcome {
        self.sync()?;
        let path = Path::new(&self.named);
        match self.to {
            // A pipe cannot be synced; a file behind standard output can.
            To::Stream(file) if file.metadata().is_ok_and(|found| found.is_file()) => file.sync_all(),
            To::Stream(_) => Ok(()),
            To::File { file, partial } => file.sync_all().and_then(|()| partial.rename(path)),
        }
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(path),
            _ => unwritable(&self.named, &error),
        })
    }

    fn put(&mut self, bytes: &[u8]) -> Outcome {
        let written = match &mut self.to {
            To::Stream(file) => file.write_all(bytes),
            To::File { file, .. } => file.write_all(bytes),
        };
        written.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        unwritable(&self.named, error)
    }
}

/// The thread that writes: a disk that is busy keeps nothing else waiting.
pub struct Writing {
    queue: mpsc::Sender<Record>,
    thread: JoinHandle<Outcome<ArchiveOut>>,
    may_block: bool,
}

impl Writing {
    pub fn start(mut out: ArchiveOut) -> Self {
        let may_block = matches!(out.to, To::Stream(_));
        let (queue, mut records) = mpsc::channel(RECORDS_WAITING);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(record) = records.blocking_recv() {
                out.write(&record)?;
            }
            Ok(out)
        });
        Self { queue, thread, may_block }
    }

    /// Passes a record to the thread; waits while the disk is busy. `false` if the thread has
    /// ended: why, `finish` says.
    pub async fn append(&self, record: Record) -> bool {
        self.queue.send(record).await.is_ok()
    }

    /// Waits until everything that was appended is written.
    pub async fn finish(self) -> Outcome<ArchiveOut> {
        drop(self.queue);
        self.thread.await.map_err(|_| Failure::new(Code::Internal, "the archive's thread ended early", ""))?
    }

    /// Gives up: what was written is removed when this returns. Why the thread had ended, if it
    /// had.
    pub async fn abandon(self) -> Option<Failure> {
        if self.may_block && !self.thread.is_finished() {
            // The reader of that pipe may never read on.
            return None;
        }
        self.finish().await.err()
    }
}

/// What a run that was killed left under this name is abandoned, unless a process still writes it.
fn create_partial(partial: &Path) -> Outcome<Flock<File>> {
    let shown = partial.display().to_string();
    let open = |options: &mut OpenOptions| {
        options.write(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC).open(partial)
    };
    match open(OpenOptions::new().create(false)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unwritable(&shown, &error)),
        Ok(left) => {
            let found = left.metadata().map_err(|error| unwritable(&shown, &error))?;
            if !found.is_file() || found.uid() != nix::unistd::geteuid().as_raw() {
                let next = "Look at who put it there, and remove it yourself.";
                return Err(Failure::new(Code::TargetFailed, format!("{shown} is not what Sealift made"), next));
            }
            let _lock = lock(left, &shown)?;
            fs::remove_file(partial).map_err(|error| unwritable(&shown, &error))?;
        }
    }
    let file = open(OpenOptions::new().create_new(true)).map_err(|error| unwritable(&shown, &error))?;
    lock(file, &shown)
}

fn lock(file: File, shown: &str) -> Outcome<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        let what = format!("{shown} is being written by another process");
        Failure::new(Code::TargetFailed, what, "Wait for it, or give --out another name.")
    })
}

fn exists(path: &Path) -> Failure {
    let next = "Choose another name, or remove it yourself: nothing is ever overwritten.";
    Failure::new(Code::TargetNotEmpty, format!("{} exists", path.display()), next)
}

fn unwritable(path: &str, error: &io::Error) -> Failure {
    let what = format!("the archive {path} cannot be written");
    let full =
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge);
    match full {
        true => Failure::io(
            Code::TargetFull,
            what,
            error,
            "Nothing was left there. Make room, or give --out a file on a larger disk, and start again.",
        ),
        false => Failure::io(Code::TargetFailed, what, error, "Check the folder, and that this user may write there."),
    }
}
