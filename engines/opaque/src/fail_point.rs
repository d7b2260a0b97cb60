//! The places at which a test has an agent die while it writes a file.

use sealift_engine_api::FailPoint;
pub use sealift_host::fail_point::hit;

pub const ALL: &[FailPoint] = &[FILE_WRITTEN, FILE_SYNCED, FILE_NOTED];

pub const FILE_WRITTEN: FailPoint =
    FailPoint { name: "file-written", what: "chunks are in the staging file of a file: target and not synced" };
pub const FILE_SYNCED: FailPoint =
    FailPoint { name: "file-synced", what: "chunks are durable in that staging file, its record does not say so" };
pub const FILE_NOTED: FailPoint =
    FailPoint { name: "file-noted", what: "the record says so, and nothing was acknowledged" };
