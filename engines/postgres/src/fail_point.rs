//! The places at which a test has an agent die while it loads a database.

use sealift_engine_api::FailPoint;
pub use sealift_host::fail_point::hit;

pub const ALL: &[FailPoint] = &[
    STAGED,
    SCHEMA_MADE,
    PART_WRITTEN,
    PART_COMMITTED,
    DEFINITION_MADE,
    POST_DATA_MADE,
    PROVEN,
    PUBLISHING,
    LEDGER_DROPPED,
    RENAMED,
    FORGOTTEN,
];

pub const STAGED: FailPoint =
    FailPoint { name: "postgres-staged", what: "the staging database is made, and nothing is in it" };
pub const SCHEMA_MADE: FailPoint =
    FailPoint { name: "postgres-schema-made", what: "the schema part is committed, and nothing was acknowledged" };
pub const PART_WRITTEN: FailPoint =
    FailPoint { name: "postgres-part-written", what: "a part is written, its transaction is open" };
pub const PART_COMMITTED: FailPoint =
    FailPoint { name: "postgres-part-committed", what: "a part is committed, and nothing was acknowledged" };
pub const DEFINITION_MADE: FailPoint =
    FailPoint { name: "postgres-definition-made", what: "one definition that comes after the rows is committed" };
pub const POST_DATA_MADE: FailPoint =
    FailPoint { name: "postgres-post-data-made", what: "the finish part is committed, and nothing was acknowledged" };
pub const PROVEN: FailPoint =
    FailPoint { name: "postgres-proven", what: "everything was read again, there is no receipt" };
pub const PUBLISHING: FailPoint =
    FailPoint { name: "postgres-publishing", what: "the mark says that it is published, the ledger is still there" };
pub const LEDGER_DROPPED: FailPoint =
    FailPoint { name: "postgres-ledger-dropped", what: "the ledger is gone, the load has its staging name" };
pub const RENAMED: FailPoint =
    FailPoint { name: "postgres-renamed", what: "the load has its final name, the mark is there" };
pub const FORGOTTEN: FailPoint = FailPoint { name: "postgres-forgotten", what: "the mark is removed" };
