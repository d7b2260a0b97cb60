//! The closed list of findings. Names do not change once they are released.

use sealift_engine_api::{FindingKind, Waiver};

const fn never(name: &'static str) -> FindingKind {
    FindingKind::new(name)
}

const fn by_name(name: &'static str) -> FindingKind {
    FindingKind::waivable(name, Waiver::ByName)
}

const fn danger(name: &'static str) -> FindingKind {
    FindingKind::waivable(name, Waiver::Danger)
}

/// Everything that a source or a target can be found to be. `docs/postgres.md` says of each what it
/// means.
pub const FINDINGS: &[FindingKind] = &[
    never("access-methods"),
    never("clock-skew"),
    never("collation-versions"),
    by_name("connections"),
    never("content"),
    never("createdb"),
    never("extension-versions"),
    never("extensions"),
    never("extensions-available"),
    never("extensions-present"),
    never("filtered"),
    never("filtered-is-referenced"),
    never("foreign-tables"),
    never("free-space"),
    danger("fsync-off"),
    danger("full-page-writes-off"),
    never("large-objects"),
    never("left-out"),
    never("left-out-is-needed"),
    never("locale"),
    never("locked-tables"),
    by_name("locks"),
    never("logs-quote-values"),
    never("long-transactions"),
    never("names"),
    never("not-carried"),
    never("not-visible"),
    never("pg-dump"),
    never("pg-dump-advisory"),
    never("pooler"),
    never("prepared-transactions"),
    never("privileges-beyond-need"),
    never("public-schema"),
    never("replication"),
    never("replication-slots"),
    never("role-memberships"),
    never("roles-missing"),
    never("row-level-security"),
    never("search-path"),
    never("security-labels"),
    never("server"),
    never("server-version"),
    never("session-timeouts"),
    never("snapshot"),
    never("snapshot-held"),
    never("standby"),
    never("subscriptions"),
    never("superuser-needed"),
    never("tablespaces-left-out"),
    never("template-collation"),
    never("unlogged-tables"),
    never("unreadable"),
    never("user-mappings"),
    never("wal-settings"),
    by_name("xid-age"),
];
