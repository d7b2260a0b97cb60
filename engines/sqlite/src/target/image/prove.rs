//! Reading the pages again from the staging file.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
};

use sealift_engine_api::out_of_order;
use sealift_protocol::{
    close::Code,
    digest::Root,
    error::Error,
    failure::{Failure, Outcome},
    limits::CHUNK_PLAIN_BYTES,
    manifest::{Check, Evidence, Proof},
    receive::WholePart,
};

use super::{
    super::{Turn, staging::Identity},
    IMAGE_PART,
    check::check,
};
use crate::{
    fail_point::{MARKED, PROVEN, hit},
    image::page_bytes,
};

/// Ends the load, and says what the file holds.
pub fn prove(turn: &mut Turn<'_>) -> Outcome<Evidence> {
    let shared = turn.shared;
    let identity = shared.identity;
    let image = turn.image.take().ok_or_else(out_of_order)?;
    let whole = image.whole.ok_or_else(out_of_order)?;
    // The mark keeps others out once the ledger is closed.
    shared.staging.mark_finished(shared.bond.transfer, identity)?;
    hit(MARKED);
    drop(image);
    shared.staging.sync()?;
    let (root, page_bytes) = read_again(turn, identity, &whole).map_err(|failure| failure.at_part(IMAGE_PART))?;
    if root != whole.root {
        let next = "The load was dropped. Check the disk, and look for other programs that write there.";
        return Err(Failure::new(
            Code::TargetMismatch,
            "the pages in the staging file are not those that arrived",
            next,
        ));
    }
    let checks = check(turn, page_bytes, whole.plain_bytes / u64::from(page_bytes))?;
    if shared.plan.empty.is_none() && checks.holds_nothing() {
        return Err(Error::new(Code::SourceEmpty, "image").into());
    }
    // Still the same file, or what was read is not what would be published.
    shared.staging.check(identity)?;
    hit(PROVEN);
    let checks = vec![Check::Image(checks)];
    Ok(Evidence { bytes: Some(root), checks, ..Evidence::bare(Proof::BytesReadBack) })
}

/// The root over the file's content, cut as the chunks were, and the page size that it states.
fn read_again(turn: &Turn<'_>, identity: Identity, whole: &WholePart) -> Outcome<(Root, u32)> {
    let staging = &turn.shared.staging;
    let refused = |error: std::io::Error| staging.refused("read again", &error);
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(staging.file());
    let file: File = file.map_err(refused)?;
    let metadata = file.metadata().map_err(refused)?;
    if Identity::of(&metadata) != identity || metadata.len() != whole.plain_bytes {
        let next = "Keep other programs out of the target's folder and start again.";
        return Err(Failure::new(Code::TargetMismatch, "the staging file was changed by another program", next));
    }
    let mut buffer = vec![0; CHUNK_PLAIN_BYTES];
    let mut root = turn.digests.part_root(IMAGE_PART);
    let mut stated = None;
    while root.plain_bytes() < whole.plain_bytes {
        turn.shared.check_stop()?;
        let left = whole.plain_bytes - root.plain_bytes();
        let chunk = &mut buffer[..left.min(CHUNK_PLAIN_BYTES as u64) as usize];
        file.read_exact_at(chunk, root.plain_bytes()).map_err(refused)?;
        if stated.is_none() {
            stated = Some(page_bytes(chunk)?);
        }
        root.add(&turn.digests.chunk_hash(chunk), chunk.len() as u64);
    }
    Ok((root.root(), stated.ok_or_else(out_of_order)?))
}
