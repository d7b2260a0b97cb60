//! Where a transfer's data comes from.

pub mod opaque;
pub mod sqlite;

use sealift_agent::failure::Outcome;
use sealift_protocol::{id::PartIndex, manifest::Plan};

use crate::part::PartWriter;

/// Something that can be read from beginning to end as parts of a plan, as of one moment.
///
/// Every method may block; all are called from one thread of their own.
pub trait Source: Send {
    /// Says what there is, and takes the snapshot that every later read sees. Fails with `SourceUnsuitable` if anything in
    /// it could not be moved exactly, before a byte is sent.
    fn plan(&mut self) -> Outcome<Plan>;

    /// Whether `read` may be called again for a part, by this process or by another, and gives the same bytes as long as
    /// what it reads has not changed. That it has not is not taken on trust: what is read again is proven by its digest.
    fn can_repeat(&self) -> bool;

    /// Writes one part into `out`, whole. Returns only when the source vouches for it: a program that feeds it has
    /// ended with exit code 0.
    fn read(&mut self, part: PartIndex, out: &mut PartWriter<'_>) -> Outcome;
}
