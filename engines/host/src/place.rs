//! The place of a target that is a file: what can be found out about it before there is a
//! ticket, and how a load gets the target's name. A file of no bytes that was made beforehand is
//! the one thing that may be replaced; its owner, group, mode, access list and other extended
//! attributes are kept.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::statvfs::statvfs,
    unistd::{Gid, Group, Uid, User, geteuid},
};
use sealift_engine_api::Readiness;
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

use crate::{rename::rename_new, units::human_bytes};

/// What a disk must have room for, and a user's quota and limits allow, or there is no use in a
/// ticket.
const ROOM_BYTES_MIN: usize = 64 << 10;

/// The owner may read and write it.
const OWN_MODE: u32 = 0o600;

/// Read, write and execute of everybody, and the three bits above them.
const MODE_BITS: u32 = 0o7777;

/// The names of the files that SQLite keeps beside a database. A program that opens the database
/// applies what is in them, or removes them.
const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// What the names of files hold that are staged beside a target or an archive.
const STAGED: [&str; 2] = [".sealift-staging", ".sealift-partial"];

/// Why nothing that is to stay may have this name: another program, or this one, would take it for
/// its own.
pub fn name_of_another(path: &Path) -> Option<String> {
    if let Some(database) = database_of_side_file(path) {
        let database = database.display();
        return Some(format!("has the name of a side file of {database}, which would take it for its own"));
    }
    let name = path.file_name()?.to_string_lossy();
    let is_staged = name.starts_with('.') && STAGED.iter().any(|staged| name.contains(staged));
    is_staged.then(|| "has the name of a file in which Sealift stages what is not whole".to_owned())
}

/// The file beside this one that such a name belongs to, if it is one and that is there.
fn database_of_side_file(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.as_bytes();
    let of = |side: &&str| Some(path.with_file_name(OsStr::from_bytes(name.strip_suffix(side.as_bytes())?)));
    let is_there = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir());
    SIDE_FILES.iter().filter_map(of).find(is_there)
}

/// Where a target lies.
pub struct TargetPlace {
    pub folder: PathBuf,
    pub path: PathBuf,
}

impl TargetPlace {
    /// A file in a folder that exists. Nothing is touched.
    pub fn new(target: &Path) -> Outcome<Self> {
        let next = "The target has to be a file in a folder that exists.";
        let shown = target.display();
        let name = target.file_name().filter(|_| !target.as_os_str().as_bytes().ends_with(b"/"));
        let Some(name) = name else {
            return Err(Failure::new(Code::TargetFailed, format!("the target {shown} names no file"), next));
        };
        // Canonical, so that what happens to links or the working folder later does not lead
        // elsewhere.
        let folder = std::path::absolute(target)
            .and_then(|target| fs::canonicalize(target.parent().unwrap_or(Path::new("/"))))
            .map_err(|error| {
                let what = format!("the folder of the target {shown} cannot be used");
                Failure::io(Code::TargetFailed, what, &error, next)
            })?;
        if !folder.is_dir() {
            let what = format!("the target {shown} lies in {}, which is not a folder", folder.display());
            return Err(Failure::new(Code::TargetFailed, what, next));
        }
        Ok(Self { path: folder.join(name), folder })
    }

    /// What was made beforehand under the target's name: nothing, or a file of no bytes. Anything
    /// else is somebody's.
    pub fn made_beforehand(&self) -> Outcome<Option<Metadata>> {
        let shown = self.path.display();
        if let Some(why) = name_of_another(&self.path) {
            return Err(Failure::new(
                Code::TargetNotEmpty,
                format!("the target {shown} {why}"),
                "Choose another target.",
            ));
        }
        let found = match fs::symlink_metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.cannot_write(&error)),
        };
        let (what, next) = match found.file_type() {
            kind if kind.is_dir() => {
                ("is a folder", "Give the path of the file itself, as in FOLDER/NAME; it need not exist yet.")
            }
            kind if kind.is_symlink() => {
                ("is a symbolic link", "Give the path that it leads to, or remove the link yourself.")
            }
            kind if kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket() => {
                ("is a device, a FIFO or a socket", "Give the path of a file; it need not exist yet.")
            }
            _ if found.len() > 0 => (
                "exists and is not empty",
                "Choose another target, or remove it yourself: nothing is ever overwritten.",
            ),
            _ if found.nlink() > 1 => (
                "is an empty file that has a second name",
                "Remove it yourself: under its other name it would stay empty.",
            ),
            _ if found.mode() & OWN_MODE != OWN_MODE => {
                ("is a file that its owner may not read and write", "Change its mode, or remove it yourself.")
            }
            _ => return Ok(Some(found)),
        };
        Err(Failure::new(Code::TargetNotEmpty, format!("the target {shown} {what}"), next))
    }

    /// Makes a file with the longest name that a load will need, fills it a little, gives it the
    /// owner that the target will have, and removes it. What it finds cannot be asked for: file
    /// systems that are full, read-only, squashed or special say so only when they are written.
    /// `uses` may try the file out further.
    pub fn try_out(&self, longest: &Path, readiness: Readiness, uses: impl FnOnce(&Path) -> Outcome) -> Outcome {
        self.check_names(longest)?;
        let probe = match make_probe(longest) {
            // One that was left by a process that was killed here.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_probe(longest) => {
                let _ = fs::remove_file(longest);
                make_probe(longest)
            }
            made => made,
        };
        let probe = probe.map_err(|error| self.cannot_write(&error))?;
        let tried = self.fill(&probe, longest, readiness).and_then(|()| uses(longest));
        drop(probe);
        let removed = fs::remove_file(longest);
        tried?;
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.cannot_write(&error)),
            _ => Ok(()),
        }
    }

    fn fill(&self, mut probe: &File, longest: &Path, readiness: Readiness) -> Outcome {
        let written = probe.write_all(&[0; ROOM_BYTES_MIN]).and_then(|()| probe.sync_all());
        written.map_err(|error| self.cannot_write(&error))?;
        if readiness < Readiness::Name {
            return Ok(());
        }
        let Some(found) = self.made_beforehand()? else { return Ok(()) };
        self.keep_owner(longest, &found).map_err(|error| {
            let what = format!(
                "the target {} was made beforehand for {}, which this user cannot give to a file",
                self.path.display(),
                owner_and_mode(&found)
            );
            let next = "Remove the empty file, and the target will belong to the receiver's own user with mode 0600; or run \
                        the receiver as the user that it belongs to.";
            Failure::io(Code::TargetFailed, what, &error, next)
        })
    }

    /// The file system's own limit, where it tells one. What is made will say so otherwise.
    fn check_names(&self, longest: &Path) -> Outcome {
        let name_bytes = |path: &Path| path.file_name().map_or(0, |name| name.as_bytes().len());
        let Ok(bytes_max) = statvfs(&self.folder).map(|found| found.name_max() as usize) else { return Ok(()) };
        let own = name_bytes(&self.path);
        let longest = name_bytes(longest);
        if longest <= bytes_max {
            return Ok(());
        }
        let fitting = bytes_max.saturating_sub(longest - own);
        let what = format!("the name of the target is too long: it has {own} bytes, and up to {fitting} can be used");
        let next = format!(
            "Names in {} may have {bytes_max} bytes, and the files that a load has beside its target are named after it. \
             Choose a shorter name.",
            self.folder.display()
        );
        Err(Failure::new(Code::TargetFailed, what, next))
    }

    /// Whose the target will be, and what room there is, for the person who starts the receiver.
    pub fn describe(&self) -> Outcome<String> {
        let owner = match self.made_beforehand()? {
            Some(found) => {
                let kept = owner_and_mode(&found);
                format!("keeps the owner and mode of the empty file that is there, and its extended attributes: {kept}")
            }
            None => format!("will belong to {}, who alone may read it (mode 0600)", user_name(geteuid())),
        };
        let room = match self.room_bytes() {
            Some(bytes) => format!("; {} are free there", human_bytes(bytes)),
            None => String::new(),
        };
        Ok(format!("the target {} {owner}{room}.", self.path.display()))
    }

    /// Room for this user on the target's disk.
    pub fn room_bytes(&self) -> Option<u64> {
        let found = statvfs(&self.folder).ok()?;
        // The types of these differ from system to system.
        #[allow(clippy::unnecessary_cast)]
        Some((found.blocks_available() as u64).saturating_mul(found.fragment_size() as u64))
    }

    /// Gives `staged` the target's name, if that is still free. The caller syncs it before, and the
    /// folder after.
    pub fn show(&self, staged: &Path) -> Outcome {
        let shown = match self.made_beforehand()? {
            Some(found) => self.keep_owner(staged, &found).and_then(|()| fs::rename(staged, &self.path)),
            None => rename_new(staged, &self.path),
        };
        shown.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => self.made_beforehand().err().unwrap_or_else(|| self.cannot_write(&error)),
            _ => self.cannot_write(&error),
        })
    }

    /// Gives a file the owner, group, mode and extended attributes of the one that it is to
    /// replace.
    fn keep_owner(&self, staged: &Path, found: &Metadata) -> io::Result<()> {
        let open = |path: &Path| OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path);
        let file = open(staged)?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (found.uid(), found.gid()) {
            fchown(&file, Some(found.uid()), Some(found.gid()))?;
        }
        // After it: a change of owner clears some of them. And before an access list, whose mask
        // they would change.
        file.set_permissions(Permissions::from_mode(found.mode() & MODE_BITS))?;
        keep_attributes(&open(&self.path)?, &file)?;
        file.sync_all()
    }

    pub fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    pub fn cannot_write(&self, error: &io::Error) -> Failure {
        cannot_write(&format!("the target {}", self.path.display()), error)
    }
}

/// What is said of a target that cannot be written.
pub fn cannot_write(name: &str, error: &io::Error) -> Failure {
    let what = format!("{name} cannot be written");
    let full =
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge);
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

fn make_probe(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(OWN_MODE).open(path)
}

fn is_probe(path: &Path) -> bool {
    let euid = geteuid();
    // As root it may have been given another owner already.
    let own = |found: &Metadata| found.uid() == euid.as_raw() || euid.is_root();
    let ours = |found: Metadata| found.is_file() && own(&found) && found.nlink() == 1;
    fs::symlink_metadata(path).is_ok_and(|found| found.len() <= ROOM_BYTES_MIN as u64 && ours(found))
}

/// The most that Linux lets a list of extended attributes, and the value of one, have (limits.h,
/// XATTR_LIST_MAX and XATTR_SIZE_MAX).
const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;

/// Those that the kernel keeps for a security module, which labels a new file by its own rules.
const LABELS: &[u8] = b"security.";

/// Gives a file the extended attributes of another, its access list (acl(5)) among them.
fn keep_attributes(of: &File, staged: &File) -> io::Result<()> {
    let mut names = vec![0; ATTRIBUTES_BYTES_MAX];
    let length = match rustix::fs::flistxattr(of, names.as_mut_slice()) {
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        listed => listed?,
    };
    let mut value = vec![0; ATTRIBUTES_BYTES_MAX];
    for name in names[..length].split(|byte| *byte == 0) {
        if name.is_empty() || name.starts_with(LABELS) {
            continue;
        }
        let length = rustix::fs::fgetxattr(of, name, value.as_mut_slice())?;
        rustix::fs::fsetxattr(staged, name, &value[..length], rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

fn owner_and_mode(found: &Metadata) -> String {
    let gid = Gid::from_raw(found.gid());
    let group = Group::from_gid(gid).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name);
    format!("{}:{group}, mode {:04o}", user_name(Uid::from_raw(found.uid())), found.mode() & MODE_BITS)
}

fn user_name(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}
