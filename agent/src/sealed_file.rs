//! A sealed log in a file of its own: one process at a time, appended, synced, and in the end
//! destroyed. The format and what its bytes mean are `sealift_protocol::sealed_log`'s; here are
//! only the file and its failures.
//!
//! Everything here blocks: call it where blocking is allowed.

mod folder;

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::fcntl::{Flock, PosixFadviseAdvice, posix_fadvise};
use sealift_protocol::{
    close::Code,
    error::Error,
    sealed_log::{
        Ending, EnvelopePlaces, LogBytes, LogHeader, LogId, LogPlace, LogReader, LogWriter, ReadError, ReadStep, Record,
    },
};

use self::folder::{Folder, failed};
use crate::failure::{Failure, Outcome, explain};

/// A log that this process holds. After the first failure of the file it refuses everything but to
/// be destroyed: what a failed sync wrote may be lost although the next one succeeds.
pub struct SealedFile {
    folder: Folder,
    name: String,
    file: Arc<Flock<File>>,
    writer: LogWriter,
    bytes_max: u64,
    unsynced: bool,
    failure: Option<Failure>,
}

/// A log that was there.
pub struct Opened {
    pub log: SealedFile,
    /// What was cut off because a crash had torn it; the caller enters it in the audit log as
    /// `journal.repaired`.
    pub repaired: Option<Repaired>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repaired {
    pub kept_bytes: u64,
    pub cut_bytes: u64,
}

impl SealedFile {
    /// Makes a new log of at most `bytes_max` bytes. A crash leaves all of it, header and name, or
    /// nothing under `name`.
    pub fn create(folder: &Path, name: &str, header: LogHeader, bytes_max: u64) -> Outcome<Self> {
        let folder = Folder::open(folder)?;
        let path = folder.path_of(name);
        let fail = |error| failed(&path, &error);
        let exists = || {
            let next = "It belongs to an unfinished transfer. Resume that one, or abandon it.";
            Failure::new(Code::Preflight, format!("{} exists already", path.display()), next)
        };
        if folder.has(name).map_err(fail)? {
            return Err(exists());
        }
        let beside = beside(name);
        folder.unlink(&beside).map_err(fail)?;
        let file = folder.create(&beside)?;
        let begun = file
            .write_all_at(&header.to_bytes(), 0)
            .and_then(|()| file.sync_all())
            .and_then(|()| folder.rename(&beside, name))
            .and_then(|()| folder.sync());
        if let Err(error) = begun {
            // What is left of it is removed by the next attempt.
            let _ = folder.unlink(&beside);
            return Err(fail(error));
        }
        if !folder.names(name, &file).map_err(fail)? {
            return Err(exists());
        }
        let name = name.to_owned();
        let file = Arc::new(file);
        let writer = LogWriter::new(header);
        Ok(Self { folder, name, file, writer, bytes_max, unsynced: false, failure: None })
    }

    /// Opens the log `id` under `name`, or says that there is none. Every record is read, checked
    /// and shown to `seen`; a torn tail is cut off; and what was shown is durable once this has
    /// returned `Ok`, and not before.
    pub fn open(
        folder: &Path,
        name: &str,
        id: &LogId,
        bytes_max: u64,
        mut seen: impl FnMut(&Record) -> Outcome,
    ) -> Outcome<Option<Opened>> {
        let folder = Folder::open(folder)?;
        let path = folder.path_of(name);
        let fail = |error| failed(&path, &error);
        let Some(file) = folder.open_file(name)? else { return Ok(None) };
        read_from_disk(&file).map_err(fail)?;
        let file = Arc::new(file);
        let bytes = file.metadata().map_err(fail)?.len();
        let mut reader = LogReader::open(Placed { file: file.clone(), bytes }).map_err(|error| unread(&path, error))?;
        reader.header().expect(id).map_err(|error| wrong(&path, error))?;
        let ending = loop {
            match reader.step().map_err(|error| unread(&path, error))? {
                ReadStep::Record(record) => seen(&record)?,
                ReadStep::End(ending) => break ending,
            }
        };
        let kept_bytes = reader.offset();
        let repaired = match ending {
            Ending::Whole => None,
            Ending::Torn => {
                file.set_len(kept_bytes).and_then(|()| file.sync_all()).map_err(fail)?;
                Some(Repaired { kept_bytes, cut_bytes: bytes - kept_bytes })
            }
            Ending::Damaged => return Err(damaged(&path, kept_bytes)),
        };
        let name = name.to_owned();
        let writer = reader.into_writer();
        let log = Self { folder, name, file, writer, bytes_max, unsynced: false, failure: None };
        Ok(Some(Opened { log, repaired }))
    }

    pub fn header(&self) -> &LogHeader {
        self.writer.header()
    }

    /// Bytes that the log has.
    pub fn bytes(&self) -> u64 {
        self.writer.offset()
    }

    /// Writes records behind the last. Where they do not fit the budget, none is written, and the
    /// log stays usable.
    pub fn append(&mut self, records: &[Record]) -> Outcome {
        self.sound()?;
        let path = self.folder.path_of(&self.name);
        let mut bytes = self.bytes() + LogWriter::MARK_BYTES;
        for record in records {
            bytes += self.writer.bytes_of(record).map_err(|error| wrong(&path, error))?;
        }
        if bytes > self.bytes_max {
            let (what, hints) = explain(Code::LogFull);
            let what = format!("{what} ({}): it may have {} bytes", path.display(), self.bytes_max);
            return Err(Failure::new(Code::LogFull, what, hints));
        }
        self.unsynced |= !records.is_empty();
        records.iter().try_for_each(|record| self.write(record))
    }

    /// Makes everything that was appended durable, and marks it so.
    pub fn sync(&mut self) -> Outcome {
        self.sound()?;
        self.still_there()?;
        if !self.unsynced {
            return Ok(());
        }
        let synced = self.file.sync_data();
        self.keep(synced)?;
        self.writer.synced();
        self.unsynced = false;
        self.write(&Record::Mark)
    }

    /// Reads every record that was appended until now, from the first, while others may be
    /// appended.
    pub fn replay(&self) -> Outcome<Replay> {
        self.sound()?;
        let path = self.folder.path_of(&self.name);
        let placed = Placed { file: self.file.clone(), bytes: self.bytes() };
        let reader = LogReader::open(placed).map_err(|error| unread(&path, error))?;
        Ok(Replay { path, reader, over: false })
    }

    /// As `replay`, from where an earlier one stood.
    pub fn replay_from(&self, place: LogPlace) -> Outcome<Replay> {
        let mut replay = self.replay()?;
        replay.reader.go_to(place);
        Ok(replay)
    }

    /// Destroys the key envelopes, then the file. If it is interrupted, [`destroy`] finishes it.
    pub fn destroy(self) -> Outcome {
        shred(&self.folder, &self.name, &self.file)
    }

    fn write(&mut self, record: &Record) -> Outcome {
        let mut offset = self.bytes();
        let encoded = self.writer.encode(record).map_err(|error| wrong(&self.folder.path_of(&self.name), error))?;
        for piece in encoded.pieces() {
            let written = self.file.write_all_at(piece, offset);
            self.keep(written)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Fails if the file no longer has a name: what is written to it then is gone when this process
    /// ends.
    fn still_there(&mut self) -> Outcome {
        let there = self.folder.names(&self.name, &self.file);
        if self.keep(there)? {
            return Ok(());
        }
        let what = format!("{} was removed or replaced while it was in use", self.folder.path_of(&self.name).display());
        let failure = Failure::new(Code::LogDamaged, what, explain(Code::LogDamaged).1);
        Err(self.failure.insert(failure).clone())
    }

    fn sound(&self) -> Outcome {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn keep<T>(&mut self, result: std::io::Result<T>) -> Outcome<T> {
        result.map_err(|error| self.failure.insert(failed(&self.folder.path_of(&self.name), &error)).clone())
    }
}

/// What is read after this is what a crash would leave. A process that was killed leaves whole
/// records that were never synced; and after a sync that failed, Linux keeps in memory, as if it
/// were on the disk, what never got there.
fn read_from_disk(file: &File) -> std::io::Result<()> {
    file.sync_all()?;
    Ok(posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

/// The records of a log, one at a time.
pub struct Replay {
    path: PathBuf,
    reader: LogReader<Placed>,
    over: bool,
}

impl Replay {
    /// Behind the record that came last.
    pub fn place(&self) -> LogPlace {
        self.reader.place()
    }
}

impl Iterator for Replay {
    type Item = Outcome<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let step = self.reader.step();
        self.over = !matches!(step, Ok(ReadStep::Record(_)));
        match step {
            Ok(ReadStep::Record(record)) => Some(Ok(record)),
            Ok(ReadStep::End(Ending::Whole)) => None,
            // All of it was whole when it was written or opened.
            Ok(ReadStep::End(_)) => Some(Err(damaged(&self.path, self.reader.offset()))),
            Err(error) => Some(Err(unread(&self.path, error))),
        }
    }
}

/// Destroys the log under `name`, whatever state it is in, and what an interrupted
/// [`SealedFile::create`] left. Where there is none, that is done already.
pub fn destroy(folder: &Path, name: &str) -> Outcome {
    destroy_if(folder, name, |_| Ok(()))
}

/// As [`destroy`], but leaves a whole log alone that is another's: its owner may need
/// it.
pub fn destroy_own(folder: &Path, name: &str, id: &LogId) -> Outcome {
    destroy_if(folder, name, |header| header.expect(id))
}

fn destroy_if(folder: &Path, name: &str, check: impl Fn(&LogHeader) -> Result<(), Error>) -> Outcome {
    let folder = Folder::open(folder)?;
    let path = folder.path_of(name);
    folder.unlink(&beside(name)).map_err(|error| failed(&path, &error))?;
    let gone = removed(name);
    if let Some(file) = folder.open_file(&gone)? {
        erase(&folder, &gone, &Arc::new(file))?;
    }
    let Some(file) = folder.open_file(name)? else { return Ok(()) };
    let file = Arc::new(file);
    let bytes = file.metadata().map_err(|error| failed(&path, &error))?.len();
    // Of one that has no header nothing usable is left.
    if let Ok(reader) = LogReader::open(Placed { file: file.clone(), bytes }) {
        check(reader.header()).map_err(|error| wrong(&path, error))?;
    }
    shred(&folder, name, &file)
}

/// The name first: what still has its own is whole.
fn shred(folder: &Folder, name: &str, file: &Arc<Flock<File>>) -> Outcome {
    let path = folder.path_of(name);
    let fail = |error| failed(&path, &error);
    if folder.names(name, file).map_err(fail)? {
        let gone = removed(name);
        folder.rename(name, &gone).and_then(|()| folder.sync()).map_err(fail)?;
        return erase(folder, &gone, file);
    }
    erase(folder, name, file)
}

/// Envelopes first: whatever stops this half way, no key is left to what is. The disk may keep old
/// blocks; those hold nothing but what is sealed to a key that is destroyed elsewhere.
fn erase(folder: &Folder, name: &str, file: &Arc<Flock<File>>) -> Outcome {
    let path = folder.path_of(name);
    let fail = |error| failed(&path, &error);
    let bytes = file.metadata().map_err(fail)?.len();
    for place in EnvelopePlaces::new(Placed { file: file.clone(), bytes }) {
        let place = place.map_err(fail)?;
        file.write_all_at(&vec![0; (place.end - place.start) as usize], place.start).map_err(fail)?;
    }
    file.sync_data().and_then(|()| file.set_len(0)).and_then(|()| file.sync_all()).map_err(fail)?;
    if folder.names(name, file).map_err(fail)? {
        folder.unlink(name).and_then(|()| folder.sync()).map_err(fail)?;
        return Ok(());
    }
    if folder.has(name).map_err(fail)? {
        let next = "The log itself is destroyed. Look at what stands in its place, and remove it yourself.";
        return Err(Failure::new(
            Code::LogDamaged,
            format!("{} was replaced while it was in use", path.display()),
            next,
        ));
    }
    Ok(())
}

/// Where a log lies that is being destroyed.
fn removed(name: &str) -> String {
    format!("{name}.removed")
}

/// Where a log lies until it has its header.
fn beside(name: &str) -> String {
    format!("{name}.partial")
}

/// The first bytes of a file.
struct Placed {
    file: Arc<Flock<File>>,
    bytes: u64,
}

impl LogBytes for Placed {
    type Error = std::io::Error;

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
}

fn wrong(path: &Path, error: Error) -> Failure {
    let failure = Failure::from(error);
    Failure { what: format!("{}: {}", path.display(), failure.what), check: None, ..failure }
}

fn unread(path: &Path, error: ReadError<std::io::Error>) -> Failure {
    match error {
        ReadError::Source(error) => failed(path, &error),
        ReadError::Log(error) => wrong(path, error),
    }
}

fn damaged(path: &Path, offset: u64) -> Failure {
    let (what, hints) = explain(Code::LogDamaged);
    Failure::new(Code::LogDamaged, format!("{what} ({}, from byte {offset} on)", path.display()), hints)
}
