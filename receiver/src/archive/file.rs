//! The archive's file: read from its first record to its last, and nothing forgiven.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sealift_agent::{
    budget::{LANE_BYTES, LaneBudget, Room},
    failure::{Failure, Outcome, explain},
};
use sealift_protocol::{
    close::Code,
    id::TransferId,
    sealed_log::{Ending, KeyFingerprint, LogBytes, LogHeader, LogKind, LogReader, ReadError, ReadStep, Record},
};
use tokio::sync::mpsc;

use crate::standing_key::StandingKey;

/// Records that wait, sealed, for a worker: one is read while the next is ready.
const RECORDS_WAITING: usize = 2;

const COPY_AGAIN: &str =
    "Copy it again, whole, from the disk that it came on; if that does not help, have it made again.";

/// What the reader yields; `None` is the whole end of the archive.
pub type Records = mpsc::Receiver<Outcome<Option<RecordInMemory>>>;

/// A record, and what it takes of the budget.
pub struct RecordInMemory {
    pub record: Record,
    pub room: Room,
}

/// An archive for this receiver.
pub struct Archive {
    path: PathBuf,
    reader: LogReader<BoundedFile>,
}

impl Archive {
    /// Opens a file and checks its header: that it is an archive, and for this receiver.
    pub fn open(path: &Path, key: &StandingKey) -> Outcome<Self> {
        let unreadable = |error| unreadable(path, &error);
        // A FIFO must not make this wait.
        let flags = nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?;
        if !found.is_file() {
            let what = format!("the archive {} is not a plain file", path.display());
            return Err(Failure::new(Code::SourceFailed, what, "Copy what is to be loaded into a file first."));
        }
        let reader = LogReader::open(BoundedFile { file, bytes: found.len() }).map_err(|error| match error {
            ReadError::Source(error) => unreadable(error),
            ReadError::Log(error) => {
                let what = format!("{} is no archive of Sealift, or its beginning is damaged", path.display());
                Failure::new(error.code, what, COPY_AGAIN)
            }
        })?;
        check_header(path, reader.header(), key)?;
        Ok(Self { path: path.to_owned(), reader })
    }

    pub fn header(&self) -> &LogHeader {
        self.reader.header()
    }

    pub fn transfer(&self) -> TransferId {
        self.header().id.transfer
    }

    /// Reads on a thread of its own, while there is room for a record and what it holds. `None`
    /// comes last, after all of it was read and found whole.
    pub fn read(mut self, budget: LaneBudget) -> Records {
        let (out, records) = mpsc::channel(RECORDS_WAITING);
        tokio::task::spawn_blocking(move || {
            loop {
                let record = self.next_within(&budget);
                let over = !matches!(record, Ok(Some(_)));
                if out.blocking_send(record).is_err() || over {
                    return;
                }
            }
        });
        records
    }

    fn next_within(&mut self, budget: &LaneBudget) -> Outcome<Option<RecordInMemory>> {
        // How long it is, is known when it is read.
        let mut room = budget.take_blocking(LANE_BYTES)?;
        let Some(record) = self.next()? else { return Ok(None) };
        let bytes = match &record {
            Record::Chunk { header, sealed } => sealed.len() + header.plain_bytes as usize,
            Record::Statement(bytes) => bytes.len(),
            Record::Epoch(_) | Record::Mark => 0,
        };
        room.shrink(bytes);
        Ok(Some(RecordInMemory { record, room }))
    }

    fn next(&mut self) -> Outcome<Option<Record>> {
        let broken = |path: &Path, error| match error {
            ReadError::Source(error) => unreadable(path, &error),
            ReadError::Log(error) => Failure::from(error),
        };
        match self.reader.step().map_err(|error| broken(&self.path, error))? {
            ReadStep::Record(record) => Ok(Some(record)),
            ReadStep::End(Ending::Whole) => Ok(None),
            // Nothing is ever added to an archive: what a crash would leave of one is no excuse
            // here.
            ReadStep::End(Ending::Torn) if self.reader.is_cut().map_err(|error| broken(&self.path, error))? => {
                Err(cut_short())
            }
            ReadStep::End(_) => {
                let what = format!("the archive is damaged from byte {} on", self.reader.offset());
                Err(Failure::new(Code::LogDamaged, what, COPY_AGAIN))
            }
        }
    }
}

fn check_header(path: &Path, header: &LogHeader, key: &StandingKey) -> Outcome {
    let foreign =
        |what: &str, next: &str| Err(Failure::new(Code::LogForeign, format!("{} {what}", path.display()), next));
    let next = "Archives are made with: sealift-sender seal.";
    match header.id.kind {
        LogKind::Journal => return foreign("is the journal of a receiver, and no archive", next),
        LogKind::Spool => return foreign("is the spool of a sender, and no archive", next),
        LogKind::Archive => {}
    }
    if header.id.key != KeyFingerprint::of(&key.sealing.public_key()) {
        let next = "Load it on the host, and with the --state-dir, whose `sealift-receiver key` it was sealed to; or have it \
                    made again for this one.";
        return foreign("was sealed to another receiver's key", next);
    }
    Ok(())
}

/// The file ends before the archive does.
pub fn cut_short() -> Failure {
    Failure::new(Code::PartTruncated, "the archive ends too early: it was cut short", COPY_AGAIN)
}

/// What a failure means where there is no peer. Texts that name a place already stay as they are.
pub fn reword(failure: Failure) -> Failure {
    const AGAIN: &str = "Have the archive made again.";
    const CHANGED: &str = "What was sealed was changed on its way, or in this host's memory. Copy it again; if that does not \
                           help, find out by whom.";
    let usual = explain(failure.code).0;
    let (what, hint) = match failure.code {
        Code::UserInterrupt => {
            return Failure { hints: "Give the same command again to load it.".into(), ..failure };
        }
        Code::IdentityRefused => (
            "the archive was sealed by another sender",
            "Compare what is given with --from with what `sealift-sender seal` printed, out of band. If they are the same, do \
             not load this archive.",
        ),
        Code::TranscriptMismatch => ("the sender has not signed what this archive begins with", CHANGED),
        Code::VersionUnsupported | Code::ProtocolViolation | Code::LimitExceeded => {
            ("the archive is not built as this version of Sealift builds one", AGAIN)
        }
        Code::SuiteUnsupported => ("the archive's cipher suite is not allowed here", "Use --suite auto."),
        Code::GrantExpired => ("the archive may no longer be loaded", AGAIN),
        Code::GrantInvalid | Code::GrantForeign => ("the archive's grant is not for this receiver and archive", AGAIN),
        Code::PartTruncated => ("the archive ends too early, or a part of it does", COPY_AGAIN),
        code if code.exit_code() == 6 && code != Code::TargetMismatch => (usual, CHANGED),
        _ => return failure,
    };
    match failure.check {
        Some(check) => Failure { what: format!("{what} ({check})"), hints: hint.into(), ..failure },
        None => failure,
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let what = format!("the archive {} cannot be read", path.display());
    Failure::io(Code::SourceFailed, what, error, "Check the path, that this user may read it, and the disk.")
}

/// A file of which no more is read than it had when it was opened.
struct BoundedFile {
    file: File,
    bytes: u64,
}

impl LogBytes for BoundedFile {
    type Error = std::io::Error;

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
}
