//! Where a command puts what it makes: standard output, a stream, or a new file. What is written
//! goes into what the user named, or is refused; a name is replaced only if it stood for a plain
//! file of the user's own that was empty or an earlier one of the same kind (fault E6).

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    libc::{O_CLOEXEC, O_NOCTTY, O_NOFOLLOW},
    unistd::geteuid,
};
pub use sealift_host::rename::rename_new;
use sealift_host::{place::name_of_another, stdout::standard_output_is_null};
use sealift_protocol::close::Code;

use crate::{
    failure::{Failure, Outcome},
    own_file::sync_folder_of,
};

/// Permission of the group and of others to read a file, and to enter a folder.
const READ_BY_OTHERS: u32 = 0o044;
const ENTER_BY_OTHERS: u32 = 0o011;

/// What the user named with an option, as it was found.
#[derive(Clone, Debug)]
pub struct Output {
    option: &'static str,
    path: PathBuf,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// `-`, or a link to what this process has as standard output.
    Standard,
    /// A FIFO or a character device, itself or behind links such as those of `/dev/fd`.
    Stream,
    /// A plain file of this user's own that has no other name.
    Own,
    /// There is nothing yet, in a folder that exists.
    New,
}

impl Output {
    /// Finds out what `named` is, and refuses what nothing can be written into.
    pub fn find(option: &'static str, named: &str) -> Outcome<Self> {
        let path = PathBuf::from(named);
        let place = find_place(&path).map_err(|why| refused(option, &path, &why))?;
        Ok(Self { option, path, place })
    }

    pub fn is_standard(&self) -> bool {
        self.place == Place::Standard
    }

    /// Whether a file is there that a new one would replace.
    pub fn is_taken(&self) -> bool {
        self.place == Place::Own
    }

    /// What to write into, unless it is a file that is to be made. Opening a FIFO waits for its
    /// reader.
    pub fn open_stream(&self) -> Outcome<Option<File>> {
        match self.place {
            // A file of its own, since the library's handle looks for line ends in all that passes.
            Place::Standard => {
                let own = io::stdout().as_fd().try_clone_to_owned().map_err(|error| self.failed(&error))?;
                Ok(Some(File::from(own)))
            }
            Place::Stream => {
                let mut options = OpenOptions::new();
                let opened = options.write(true).custom_flags(O_CLOEXEC | O_NOCTTY).open(&self.path);
                let file = opened.map_err(|error| self.failed(&error))?;
                let found = file.metadata().map_err(|error| self.failed(&error))?;
                match is_stream(&found) {
                    true => Ok(Some(file)),
                    false => Err(self.refused("was replaced while it was opened")),
                }
            }
            Place::Own | Place::New => Ok(None),
        }
    }

    /// Writes a secret: into a stream, or as a file of mode 0600 that has its name once it is
    /// whole. Nothing that others could read is written to, and no file is replaced but an empty
    /// one and one that begins with the same line: a secret of the same kind.
    pub fn put_secret(&self, text: &str) -> Outcome {
        match self.open_stream()? {
            Some(stream) => {
                self.check_private(&stream)?;
                self.write(stream, text)
            }
            None if self.place == Place::Own && !is_earlier(&self.path, text) => {
                Err(self.refused("exists and is something else"))
            }
            None => self.put_file(text),
        }
    }

    /// Writes what is no secret. A file that is there has to hold just that, and is left as it is.
    pub fn put_public(&self, text: &str) -> Outcome {
        if let Some(stream) = self.open_stream()? {
            return self.write(stream, text);
        }
        match self.place {
            Place::Own if holds(&self.path, text) => Ok(()),
            Place::Own => Err(self.refused("exists and is something else")),
            _ => self.put_file(text),
        }
    }

    fn write(&self, mut stream: File, text: &str) -> Outcome {
        stream.write_all(text.as_bytes()).map_err(|error| self.failed(&error))
    }

    fn check_private(&self, stream: &File) -> Outcome {
        let found = stream.metadata().map_err(|error| self.failed(&error))?;
        // The parent of this process chose who reads its standard output; of a name in a folder
        // that is not known.
        let by_name = self.place == Place::Stream;
        if by_name && !is_of_user_or_root(&found) {
            return Err(self.refused("belongs to another user"));
        }
        let path = if by_name { Some(self.path.clone()) } else { fs::read_link("/proc/self/fd/1").ok() };
        // Nothing stays in a device, and /dev/null and terminals are everybody's.
        let is_open = found.mode() & READ_BY_OTHERS != 0 && (found.is_file() || found.file_type().is_fifo());
        match is_open && !path.is_some_and(|path| is_in_closed_folder(&path)) {
            true => Err(self.refused("can be read by others, and this is a secret")),
            false => Ok(()),
        }
    }

    /// Writes beside the name, so that half of it is never visible under it.
    fn put_file(&self, text: &str) -> Outcome {
        let beside = beside(&self.path);
        match lstat(&beside).map_err(|error| self.failed(&error))? {
            Some(found) if is_own_file(&found) => fs::remove_file(&beside).map_err(|error| self.failed(&error))?,
            Some(_) => {
                return Err(refused(self.option, &beside, "is in the way, and is not a file of this user's own"));
            }
            None => {}
        }
        let written = write_new(&beside, text).and_then(|()| match self.place {
            Place::Own if lstat(&self.path)?.is_some_and(|found| is_own_file(&found)) => {
                fs::rename(&beside, &self.path)
            }
            _ => rename_new(&beside, &self.path),
        });
        written.and_then(|()| sync_folder_of(&self.path)).map_err(|error| {
            let _ = fs::remove_file(&beside);
            self.failed(&error)
        })
    }

    fn refused(&self, why: &str) -> Failure {
        refused(self.option, &self.path, why)
    }

    fn failed(&self, error: &io::Error) -> Failure {
        let what = format!("{} {} cannot be written", self.option, self.path.display());
        let next = "Check that path and the space on its disk, or that the program behind the pipe is still there.";
        Failure::io(Code::Usage, what, error, next)
    }
}

/// Prints what was asked for on standard output. A reader that has read enough is no failure; a
/// disk that is full is one.
pub fn print(text: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    printed(out.write_all(text).and_then(|()| out.flush()))
}

/// What became of printing.
pub fn printed(result: io::Result<()>) -> Outcome {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let next = "Make room where it goes, or let it go elsewhere, and give the same command again.";
            Err(Failure::io(Code::Internal, "standard output cannot be written", &error, next))
        }
        _ => Ok(()),
    }
}

fn refused(option: &str, path: &Path, why: &str) -> Failure {
    let next = "Give a new name in a folder of this user's own, a FIFO that only this user may read, or - for standard \
                output. Nothing was written.";
    Failure::usage(format!("{option} {} {why}", path.display()), next)
}

fn find_place(path: &Path) -> Result<Place, String> {
    if path == Path::new("-") {
        return match standard_output_is_closed() {
            true => Err("is standard output, and that is closed".into()),
            false => Ok(Place::Standard),
        };
    }
    if let Some(why) = name_of_another(path) {
        return Err(why);
    }
    let unusable = |error: io::Error| format!("cannot be used: {}", crate::failure::io_reason(&error));
    let Some(named) = lstat(path).map_err(unusable)? else {
        return match (path.file_name(), fs::metadata(folder_of(path))) {
            (None, _) => Err("names no file".into()),
            (_, Ok(folder)) if folder.is_dir() => Ok(Place::New),
            (_, Ok(_)) => Err("is not in a folder".into()),
            (_, Err(error)) => {
                Err(format!("is in a folder that cannot be used: {}", crate::failure::io_reason(&error)))
            }
        };
    };
    let is_link = named.is_symlink();
    let found = match fs::metadata(path) {
        Err(error) if is_link && error.kind() == io::ErrorKind::NotFound => return Err("is a link to nothing".into()),
        found => found.map_err(unusable)?,
    };
    match &found {
        _ if is_link && is_standard_output(&found) => Ok(Place::Standard),
        _ if is_stream(&found) => Ok(Place::Stream),
        _ if is_link && found.is_file() => Err("is a link to a file".into()),
        _ if is_own_file(&found) => Ok(Place::Own),
        _ if found.is_file() && found.nlink() > 1 => Err("exists and has a second name".into()),
        _ if found.is_file() => Err("exists and belongs to another user".into()),
        _ if found.is_dir() => Err("is a folder".into()),
        _ if found.file_type().is_block_device() => Err("is a disk".into()),
        _ => Err("is neither a file nor a pipe".into()),
    }
}

fn is_stream(found: &Metadata) -> bool {
    found.file_type().is_fifo() || found.file_type().is_char_device()
}

fn is_own_file(found: &Metadata) -> bool {
    found.is_file() && found.uid() == geteuid().as_raw() && found.nlink() == 1
}

fn is_of_user_or_root(found: &Metadata) -> bool {
    [0, geteuid().as_raw()].contains(&found.uid())
}

fn is_standard_output(found: &Metadata) -> bool {
    let own = io::stdout().as_fd().try_clone_to_owned().map(File::from).and_then(|stdout| stdout.metadata());
    own.is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
}

/// Whether this process was started without one: Rust's runtime then opens the null device in its
/// place, for reading, too.
fn standard_output_is_closed() -> bool {
    let flags = fcntl(io::stdout(), FcntlArg::F_GETFL).map_or(OFlag::empty(), OFlag::from_bits_truncate);
    flags & OFlag::O_ACCMODE == OFlag::O_RDWR && standard_output_is_null()
}

/// Whether one of the folders above `path` is closed to other users.
fn is_in_closed_folder(path: &Path) -> bool {
    let Ok(folder) = folder_of(path).canonicalize() else { return false };
    folder.ancestors().any(|folder| {
        fs::metadata(folder).is_ok_and(|found| is_of_user_or_root(&found) && found.mode() & ENTER_BY_OTHERS == 0)
    })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
}

fn lstat(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).custom_flags(O_CLOEXEC | O_NOFOLLOW).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Whether the file is empty, or begins with the line that `text` begins with.
fn is_earlier(path: &Path, text: &str) -> bool {
    let first_line = text.split_inclusive('\n').next().unwrap_or_default().as_bytes();
    let mut found = Vec::new();
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(O_CLOEXEC | O_NOFOLLOW).open(path);
    let read = file.and_then(|file| file.take(first_line.len() as u64).read_to_end(&mut found));
    read.is_ok() && (found.is_empty() || found == first_line)
}

/// Looks no further than the text is long: what is there may be large.
fn holds(path: &Path, text: &str) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.len() == text.len() as u64)
        && fs::read(path).is_ok_and(|found| found == text.as_bytes())
}

#[cfg(test)]
mod tests;
