//! A database that arrives as its pages, [`crate::image`].
//!
//! The pages are written into the staging file in their order, each once. What is durable of them
//! is noted in a [`ledger`] beside the file, since inside there is no place that is not the
//! source's; the file is synced first, so that the ledger never says more than is there. `prove`
//! reads every page again and lets the engine look at the database ([`check`]); `publish` gives the
//! file the target's name.
//!
//! The engine opens the file for the checks alone, read-only and as immutable: it makes no `-wal`
//! or `-shm` beside it, whatever the header says of the journal mode.

mod check;
pub mod ledger;
mod pages;
mod prove;

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
};

use sealift_protocol::{
    failure::Outcome,
    id::PartIndex,
    receive::{FoundPrefix, WholePart},
};

use self::ledger::ImageLedger;
pub use self::{pages::PagesLoad, prove::prove};
use super::{
    ledger::{Bond, corrupt},
    staging::{Identity, Staging},
};

/// The one part of an image.
pub const IMAGE_PART: PartIndex = PartIndex(0);

/// A staging file that pages are written into, and what is durable of it.
pub struct Image {
    file: File,
    ledger: ImageLedger,
    /// Of every chunk that is noted.
    hashes: Vec<u8>,
    durable_bytes: u64,
    pub whole: Option<WholePart>,
}

impl Image {
    /// Begins in the empty staging file that was just made.
    pub fn create(staging: &Staging, identity: Identity, bond: Bond) -> Outcome<Self> {
        let make = || {
            let ledger = ImageLedger::create(&staging.image_ledger(), bond, identity)?;
            staging.place.sync_folder()?;
            Ok((open(staging, identity)?, ledger))
        };
        let (file, ledger) = make().map_err(|error: io::Error| staging.refused("made", &error))?;
        Ok(Self { file, ledger, hashes: Vec::new(), durable_bytes: 0, whole: None })
    }

    /// Resumes what an earlier process left.
    pub fn resume(staging: &Staging, identity: Identity, mut ledger: ImageLedger) -> Outcome<Self> {
        let file = open(staging, identity).map_err(|error| staging.refused("opened", &error))?;
        let noted = ledger.take_noted();
        let durable_bytes = match (&noted.whole, &noted.prefix) {
            (Some(whole), _) => whole.plain_bytes,
            (None, Some(prefix)) => prefix.plain_bytes,
            (None, None) => 0,
        };
        let held_bytes = file.metadata().map_err(|error| staging.refused("looked at", &error))?.len();
        // The pages were durable before the ledger said so.
        if held_bytes < durable_bytes || (noted.whole.is_some() && held_bytes != durable_bytes) {
            return Err(corrupt());
        }
        let hashes = noted.prefix.map(|prefix| prefix.hashes).unwrap_or_default();
        Ok(Self { file, ledger, hashes, durable_bytes, whole: noted.whole })
    }

    /// What is durable, while it is not all.
    pub fn prefix(&self) -> Option<FoundPrefix> {
        let noted = self.ledger.last().filter(|_| self.whole.is_none())?;
        let WholePart { part, chunks, plain_bytes, root } = noted;
        Some(FoundPrefix { part, chunks, plain_bytes, root, hashes: self.hashes.clone() })
    }

    /// Whether there is anything to resume.
    pub fn has_anything(&self) -> bool {
        self.ledger.last().is_some()
    }
}

fn open(staging: &Staging, identity: Identity) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NOFOLLOW).open(staging.file())?;
    if Identity::of(&file.metadata()?) == identity { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}
