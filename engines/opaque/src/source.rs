//! Bytes that mean nothing here: standard input, a file, or what a program prints.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Seek},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use sealift_engine_api::{Finding, PartReader, Planned, RowSink, Snapshot, Source, StopToken};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::PartIndex,
    manifest::Plan,
};

use crate::{engine, preflight, program::Program};

/// One opaque part.
pub struct OpaqueSource {
    input: Input,
    findings: Vec<Finding>,
}

enum Input {
    Standard,
    File { file: File, bytes: u64, name: String, regular: bool },
    Exec(Arc<Program>),
}

impl OpaqueSource {
    pub fn standard() -> Self {
        Self { input: Input::Standard, findings: Vec::new() }
    }

    pub fn file(path: &Path) -> Outcome<Self> {
        let name = path.display().to_string();
        let unreadable = |error: &io::Error| {
            let next = "Check the path, and that this user may read the file.";
            Failure::io(Code::SourceFailed, format!("the source file {name} cannot be read"), error, next)
        };
        // A FIFO's writer is waited for when it is read, off the thread that handles signals.
        let is_fifo = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
        let flags = if is_fifo { OFlag::O_NONBLOCK } else { OFlag::empty() };
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
        let file = opened.map_err(|error| unreadable(&error))?;
        let found = file.metadata().map_err(|error| unreadable(&error))?;
        if found.is_dir() {
            let next = "Give a file; for a folder, use an archiver: 'exec:tar -c FOLDER'.";
            return Err(Failure::new(Code::SourceFailed, format!("the source {name} is a folder"), next));
        }
        let input = Input::File { file, bytes: found.len(), name, regular: found.is_file() };
        Ok(Self { input, findings: Vec::new() })
    }

    /// Runs `program` when the part is read, about which there are these findings.
    pub fn exec(program: Program, findings: Vec<Finding>) -> Self {
        Self { input: Input::Exec(Arc::new(program)), findings }
    }
}

impl Source for OpaqueSource {
    fn check(&self, _stop: Arc<dyn StopToken>) -> Outcome<Vec<Finding>> {
        let mut found = self.findings.clone();
        found.push(match &self.input {
            Input::File { bytes, name, regular: true, .. } => preflight::file(name, *bytes),
            Input::File { .. } | Input::Standard => preflight::read_once(),
            Input::Exec(program) => preflight::program(&program.find()?),
        });
        Ok(found)
    }

    fn plan(mut self: Box<Self>, stop: Arc<dyn StopToken>) -> Outcome<Planned> {
        let bytes_estimate = match &mut self.input {
            // Files below /proc have content and length 0.
            Input::File { file, bytes: 0, regular: true, .. } => matches!(file.read(&mut [0]), Ok(0)).then_some(0),
            Input::File { bytes, .. } => Some(*bytes).filter(|&bytes| bytes > 0),
            Input::Standard | Input::Exec(_) => None,
        };
        if let Input::Exec(program) = &self.input {
            let program = Arc::downgrade(program);
            stop.wakes(Box::new(move || {
                if let Some(program) = program.upgrade() {
                    program.kill();
                }
            }));
        }
        // A pipe, a terminal or a device gives its bytes once, and a program is not run twice.
        let can_repeat = matches!(self.input, Input::File { regular: true, .. });
        let snapshot = OneInput { input: Mutex::new(Some(self.input)), can_repeat };
        Ok(Planned {
            plan: Plan::opaque(engine(), bytes_estimate),
            findings: self.findings,
            snapshot: Arc::new(snapshot),
        })
    }
}

/// The input, until its one reader has it.
struct OneInput {
    input: Mutex<Option<Input>>,
    can_repeat: bool,
}

impl Snapshot for OneInput {
    fn can_repeat(&self) -> bool {
        self.can_repeat
    }

    fn reader(&self) -> Outcome<Box<dyn PartReader>> {
        let input = self.input.lock().unwrap_or_else(PoisonError::into_inner).take();
        let input = input.ok_or_else(|| Failure::new(Code::Internal, "a second reader of one input", ""))?;
        Ok(Box::new(input))
    }
}

impl PartReader for Input {
    fn read(&mut self, _part: PartIndex, out: &mut dyn RowSink) -> Outcome {
        match self {
            Self::Standard => out.read_from(&mut io::stdin().lock(), &|error| {
                Failure::io(Code::SourceFailed, "standard input cannot be read", &error, "")
            }),
            Self::File { file, name, regular, .. } => {
                let unreadable = |error| {
                    Failure::io(Code::SourceFailed, format!("the source file {name} cannot be read"), &error, "")
                };
                if !*regular {
                    await_bytes(file).map_err(unreadable)?;
                    return out.read_from(file, &unreadable);
                }
                file.rewind().map_err(unreadable)?;
                let before = file.metadata().map_err(unreadable)?;
                out.read_from(file, &unreadable)?;
                // One that is still being written is not whole, and its last chunk is not emitted
                // yet.
                let after = file.metadata().map_err(unreadable)?;
                let state = |found: &Metadata| (found.len(), found.mtime(), found.mtime_nsec());
                if state(&before) == state(&after) { Ok(()) } else { Err(written_meanwhile(name)) }
            }
            Self::Exec(program) => {
                let mut output = program.start_reading()?;
                out.read_from(&mut output, &|error| {
                    Failure::io(Code::SourceFailed, "the source program cannot be read", &error, "")
                })?;
                // Only its exit code says whether what it printed is whole.
                program.wait_success()
            }
        }
    }
}

/// Waits until there is something to read. Before a FIFO has a writer, a read would find its end.
fn await_bytes(file: &File) -> io::Result<()> {
    let mut watched = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    while let Err(errno) = poll(&mut watched, PollTimeout::NONE) {
        if errno != Errno::EINTR {
            return Err(errno.into());
        }
    }
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}

fn written_meanwhile(name: &str) -> Failure {
    let what = format!("the source file {name} was written to while it was read");
    let next = "Wait until the program that writes it is done. Then give the same command again, with --restart.";
    Failure::new(Code::SourceChanged, what, next)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    /// Keeps what it is given, a piece at a time.
    struct Kept<F: FnMut()> {
        bytes: Vec<u8>,
        after_each_piece: F,
    }

    impl<F: FnMut()> RowSink for Kept<F> {
        fn row_bytes_max(&self) -> usize {
            0
        }

        fn row(&mut self, _pieces: &[&[u8]]) -> Outcome {
            panic!("a dump has no rows");
        }

        fn long_row(&mut self, _: usize, _: &mut dyn Read, _: &dyn Fn(io::Error) -> Failure) -> Outcome {
            panic!("a dump has no rows");
        }

        fn bytes(&mut self, bytes: &[u8]) -> Outcome {
            self.bytes.extend_from_slice(bytes);
            (self.after_each_piece)();
            Ok(())
        }

        fn read_from(&mut self, reader: &mut dyn Read, failed: &dyn Fn(io::Error) -> Failure) -> Outcome {
            let mut piece = vec![0; 1 << 20];
            loop {
                match reader.read(&mut piece).map_err(failed)? {
                    0 => return Ok(()),
                    read => self.bytes(&piece[..read])?,
                }
            }
        }
    }

    struct NeverEnds;

    impl StopToken for NeverEnds {
        fn check(&self) -> Outcome {
            Ok(())
        }

        fn wakes(&self, _wake: Box<dyn FnOnce() + Send>) {}
    }

    fn snapshot(source: OpaqueSource) -> Arc<dyn Snapshot> {
        Box::new(source).plan(Arc::new(NeverEnds)).unwrap().snapshot
    }

    fn read(reader: &mut dyn PartReader) -> Vec<u8> {
        let mut kept = Kept { bytes: Vec::new(), after_each_piece: || {} };
        reader.read(PartIndex(0), &mut kept).unwrap();
        kept.bytes
    }

    /// Fault D7: what is read while it is written is no moment of it.
    #[test]
    fn a_file_that_grows_meanwhile_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump");
        fs::write(&path, vec![1; 3 << 20]).unwrap();
        let mut reader = snapshot(OpaqueSource::file(&path).unwrap()).reader().unwrap();
        let mut file = Some(fs::OpenOptions::new().append(true).open(&path).unwrap());
        let mut kept = Kept {
            bytes: Vec::new(),
            after_each_piece: || {
                if let Some(mut file) = file.take() {
                    file.write_all(b"more").unwrap();
                }
            },
        };
        let refused = reader.read(PartIndex(0), &mut kept).unwrap_err();
        assert_eq!(refused.code, Code::SourceChanged);
    }

    /// Fault C1: a file is read again from its beginning.
    #[test]
    fn a_regular_file_can_be_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump");
        let content: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
        fs::write(&path, &content).unwrap();
        let snapshot = snapshot(OpaqueSource::file(&path).unwrap());
        assert!(snapshot.can_repeat());
        let mut reader = snapshot.reader().unwrap();
        for _ in 0..2 {
            assert!(read(&mut *reader) == content);
        }
    }

    #[test]
    fn what_gives_its_bytes_once_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let writer = std::thread::spawn({
            let path = path.clone();
            move || fs::OpenOptions::new().write(true).open(path).unwrap().write_all(b"once").unwrap()
        });
        let fifo = snapshot(OpaqueSource::file(&path).unwrap());
        assert!(!fifo.can_repeat());
        assert_eq!(read(&mut *fifo.reader().unwrap()), b"once");
        writer.join().unwrap();
        assert!(!snapshot(OpaqueSource::standard()).can_repeat());
        assert!(!snapshot(OpaqueSource::file(Path::new("/dev/null")).unwrap()).can_repeat());
    }
}
