//! The places at which a test has an agent die while it loads a database.

use sealift_engine_api::FailPoint;
pub use sealift_host::fail_point::hit;

pub const ALL: &[FailPoint] = &[
    STAGED,
    PART_WRITTEN,
    PART_SHARED,
    PART_COMMITTED,
    IMAGE_SYNCED,
    IMAGE_NOTED,
    MARKED,
    PROVEN,
    LEDGER_DROPPING,
    LEDGER_DROPPED,
    RENAMED,
    FORGETTING,
    FORGOTTEN,
    REMOVING,
];

pub const STAGED: FailPoint = FailPoint { name: "sqlite-staged", what: "the staging file is made and empty" };
pub const PART_WRITTEN: FailPoint =
    FailPoint { name: "sqlite-part-written", what: "a part is written, its transaction is open" };
pub const PART_SHARED: FailPoint =
    FailPoint { name: "sqlite-part-shared", what: "a part is written, its transaction is open for the next one" };
pub const PART_COMMITTED: FailPoint =
    FailPoint { name: "sqlite-part-committed", what: "a part is committed, and nothing was acknowledged" };
pub const IMAGE_SYNCED: FailPoint =
    FailPoint { name: "image-synced", what: "pages of an image are durable, its ledger does not say so" };
pub const IMAGE_NOTED: FailPoint =
    FailPoint { name: "image-noted", what: "the ledger says which pages are durable, and nothing was acknowledged" };
pub const MARKED: FailPoint =
    FailPoint { name: "sqlite-marked", what: "the mark says finished, the ledger is still there" };
pub const PROVEN: FailPoint =
    FailPoint { name: "sqlite-proven", what: "everything was read again, there is no receipt" };
pub const LEDGER_DROPPING: FailPoint =
    FailPoint { name: "sqlite-ledger-dropping", what: "the ledger is dropped in a transaction that is open" };
pub const LEDGER_DROPPED: FailPoint =
    FailPoint { name: "sqlite-ledger-dropped", what: "the ledger is gone, the load has its staging name" };
pub const RENAMED: FailPoint =
    FailPoint { name: "sqlite-renamed", what: "the load has its final name alone, the mark is there" };
pub const FORGETTING: FailPoint =
    FailPoint { name: "sqlite-forgetting", what: "the mark is about to be removed, nothing else is left" };
pub const FORGOTTEN: FailPoint = FailPoint { name: "sqlite-forgotten", what: "the mark is removed" };
pub const REMOVING: FailPoint =
    FailPoint { name: "sqlite-removing", what: "the staging file is removed, what lay beside it is not" };
