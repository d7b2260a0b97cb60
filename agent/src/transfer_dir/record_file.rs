//! The record as a file: after a checksum, written whole or not at all, and overwritten when it is
//! replaced or removed.

use std::{
    fs::{self, File},
    path::Path,
};

use sealift_protocol::{close::Code, codec, limits::CONTROL_BYTES_MAX};
use zeroize::Zeroizing;

use crate::{
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    own_file::{erase_own, read_own, unusable},
    state::write_durably,
};

pub(super) const NAME: &str = "record";

/// A record holds a plan and a manifest or a receipt, each of which is a control message, and some
/// keys.
const RECORD_BYTES_MAX: usize = 2 * CONTROL_BYTES_MAX;

const CHECKSUM_BYTES: usize = 32;

/// A corrupt record would resume with another key or from another place.
const CHECKSUM_CONTEXT: &str = "sealift/1 2026-11 record checksum";

/// A record that is being written, or was when its process was killed.
const UNFINISHED_RECORD: &str = "record.partial";

/// A record that is being overwritten: what still has its own name is whole.
const REMOVED_RECORD: &str = "record.removed";

/// Keeps `record`, durable when this returns, and leaves nothing of the one before.
pub(super) fn keep<T: minicbor::Encode<()>>(folder: &Path, record: &T) -> Outcome {
    let path = folder.join(NAME);
    let body = Zeroizing::new(codec::encode(record));
    let checksum = checksum(&body);
    let mut bytes = Zeroizing::new(Vec::with_capacity(checksum.len() + body.len()));
    bytes.extend_from_slice(&checksum);
    bytes.extend_from_slice(&body);
    write_durably(&path, &bytes).map_err(|error| unusable(&path, &error))
}

pub(super) fn read<T: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()>>(folder: &Path) -> Outcome<Option<T>> {
    let path = folder.join(NAME);
    let Some(bytes) = read_own(&path, RECORD_BYTES_MAX)? else { return Ok(None) };
    let damaged = || {
        let next = "It is of no use any more. Remove its folder and start the transfer again, with a new ticket.";
        Failure::new(Code::Preflight, format!("{} is damaged", path.display()), next)
    };
    let (found, body) = bytes.split_first_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
    match *found == checksum(body) {
        true => codec::decode(body, RECORD_BYTES_MAX, "record").map(Some).map_err(|_| damaged()),
        false => Err(damaged()),
    }
}

/// Overwrites and removes it, and what was left of one.
pub(super) fn destroy(path: &Path) -> std::io::Result<()> {
    let folder = File::open(path)?;
    match fs::rename(path.join(NAME), path.join(REMOVED_RECORD)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => folder.sync_all()?,
    }
    for name in [REMOVED_RECORD, UNFINISHED_RECORD] {
        let record = path.join(name);
        if erase_own(&record)? {
            fail_point::hit(Point::RecordOverwritten);
            fs::remove_file(record)?;
        }
    }
    folder.sync_all()
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    blake3::derive_key(CHECKSUM_CONTEXT, body)
}
