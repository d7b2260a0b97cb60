//! Where a spool lies: how it is made, found again and destroyed.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::Path,
};

use minicbor::{Decode, Encode};
use sealift_agent::{
    budget::LaneBudget,
    failure::{Failure, Outcome},
    random::SystemRandom,
    sealed_file::{Repaired, SealedFile, destroy_own},
};
use sealift_protocol::{
    close::Code,
    id::TransferId,
    manifest::{Plan, SignedManifest},
    sealed_log::{KeyFingerprint, LogHeader, LogId, LogKind, Record},
    send::{Spool as Keys, SpoolContents, WholeSpool},
};
use tokio::sync::watch;

use super::{Progress, Spool, of_spool};

/// The spool's file in the folder of its transfer.
const NAME: &str = "spool";

/// Where a spool lies, and what of it is not in it. Kept in the record of the transfer until the
/// spool is gone.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Place {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    folder: Vec<u8>,
    #[n(1)]
    transfer: TransferId,
    /// Fingerprint of the receiver's key.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    key: [u8; 32],
    #[n(3)]
    pub plan: Plan,
    /// It was there: if it is not, its disk is missing. Not set while it is made or destroyed.
    #[n(4)]
    pub made: bool,
}

/// What an earlier process left.
#[derive(Default)]
pub struct Found {
    /// None if its source had not ended: what is missing is nowhere.
    pub whole: Option<Whole>,
    /// A crash had torn it.
    pub repaired: Option<Repaired>,
}

/// A spool that an earlier process had filled.
pub struct Whole {
    pub spool: Spool,
    pub keys: Keys,
    pub manifest: SignedManifest,
}

impl Place {
    pub fn new(parent: &Path, transfer: TransferId, key: KeyFingerprint, plan: Plan) -> Outcome<Self> {
        let parent = std::path::absolute(parent).map_err(|error| unusable(parent, &error))?;
        let folder = parent.join(transfer.to_string());
        Ok(Self { folder: folder.as_os_str().as_bytes().to_vec(), transfer, key: key.0, plan, made: false })
    }

    pub fn folder(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.folder))
    }

    fn id(&self) -> LogId {
        LogId { kind: LogKind::Spool, transfer: self.transfer, key: KeyFingerprint(self.key) }
    }

    /// Makes the spool and keeps in it what opens it: durable when this returns.
    pub fn create(&self, keys: &Keys, bytes_max: u64) -> Outcome<SealedFile> {
        let folder = self.folder();
        prepare(folder)?;
        destroy_own(folder, NAME, &self.id())?;
        let header = LogHeader::new(self.id(), &mut SystemRandom::default());
        let begin = || {
            let mut log = SealedFile::create(folder, NAME, header, bytes_max)?;
            log.append(&[Record::Epoch(keys.epoch.clone())])?;
            log.sync()?;
            Ok(log)
        };
        begin().map_err(of_spool)
    }

    /// Opens what an earlier process left, and reads all of it. Blocks for as long as that takes.
    /// The frames that are sent of it take their bytes from `budget`.
    pub fn open(&self, bytes_max: u64, budget: LaneBudget) -> Outcome<Found> {
        let mut contents = SpoolContents::default();
        let opened = match is_there(self.folder())? {
            true => SealedFile::open(self.folder(), NAME, &self.id(), bytes_max, |record| Ok(contents.handle(record)?)),
            false => Ok(None),
        };
        let opened = match opened.map_err(not_as_left)? {
            Some(opened) => opened,
            None if self.made => return Err(self.missing()),
            None => return Ok(Found::default()),
        };
        let repaired = opened.repaired;
        let Some(WholeSpool { epoch, frames, manifest }) = contents.whole() else {
            return Ok(Found { whole: None, repaired });
        };
        let keys = Keys { epoch, key: KeyFingerprint(self.key) };
        let (_, progress) = watch::channel(Progress { frames, ended: Some(Ok(manifest.clone())) });
        Ok(Found { whole: Some(Whole { spool: Spool::new(opened.log, progress, budget), keys, manifest }), repaired })
    }

    /// Removes the spool, its envelope first, and its folder. Where there is none, that is done
    /// already.
    pub fn destroy(&self) -> Outcome {
        let folder = self.folder();
        if !is_there(folder)? {
            return Ok(());
        }
        destroy_own(folder, NAME, &self.id())?;
        fs::remove_dir(folder).map_err(|error| unusable(folder, &error))
    }

    /// Bytes that the spool takes.
    pub fn held_bytes(&self) -> u64 {
        fs::symlink_metadata(self.folder().join(NAME)).map_or(0, |found| found.len())
    }

    fn missing(&self) -> Failure {
        let what = format!("the spool of this transfer is not in {}", self.folder().display());
        let next = "Bring back its disk, and give the same command again; or type --restart to read the source again.";
        Failure::new(Code::Preflight, what, next)
    }
}

/// Makes a folder that no other user can enter, if it is not there, so that a crash does not lose
/// it.
pub fn prepare(folder: &Path) -> Outcome {
    let make = || -> io::Result<()> {
        let folder = std::path::absolute(folder)?;
        let missing: Vec<&Path> = folder.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        missing.iter().filter_map(|made| made.parent()).try_for_each(|parent| File::open(parent)?.sync_all())
    };
    make().map_err(|error| unusable(folder, &error))
}

/// Without looking through a link; what cannot be looked at is not taken for nothing.
fn is_there(path: &Path) -> Outcome<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unusable(path, &error)),
    }
}

fn unusable(folder: &Path, error: &io::Error) -> Failure {
    let what = format!("the spool's folder {} cannot be used", folder.display());
    Failure::io(Code::Preflight, what, error, "Give --spool a folder that this user may write to.")
}

/// It is left as it is found: a person may want to look at it first.
fn not_as_left(failure: Failure) -> Failure {
    let hint = match failure.code {
        Code::LogDamaged => {
            "Its disk is not to be trusted. Type --restart to read the source again, with --spool on another disk; or \
             abandon this transfer."
        }
        Code::LogForeign => {
            "Put back the file that belongs there; or, once this one is elsewhere, type --restart to read the source again."
        }
        _ => return failure,
    };
    Failure { hints: hint.into(), ..failure }
}
