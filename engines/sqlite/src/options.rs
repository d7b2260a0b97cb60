//! With which options the embedded engine was compiled.
//!
//! `.cargo/config.toml` of the workspace sets them in `LIBSQLITE3_FLAGS`, which `libsqlite3-sys`
//! reads. Cargo looks for that file from the folder in which it is called: `cargo install --git`
//! and a build from another folder do not see it. What is missing would show only when a schema
//! needs it, so it is looked for before anything else.

use rusqlite::Connection;
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

/// Options that `libsqlite3-sys` does not set by itself, as `PRAGMA compile_options` spells them.
const NEEDED: [&str; 5] = [
    // `sqlite_dbpage`, which reads and writes a database page by page.
    "ENABLE_DBPAGE_VTAB",
    // A virtual table that the shell of sqlite.org has; its shadow tables are those of an r-tree.
    "ENABLE_GEOPOLY",
    // `floor`, `power`, `sqrt` and so on, which Debian's SQLite, Python's and the shell of
    // sqlite.org have.
    "ENABLE_MATH_FUNCTIONS",
    // By which several connections see one snapshot of a database in WAL mode.
    "ENABLE_SNAPSHOT",
    // By default, the hash table in which the engine looks up names has at most 64 buckets, to
    // avoid large allocations: with 10,000 tables each look-up would compare 150 names.
    "MALLOC_SOFT_LIMIT=0",
];

/// Fails if the engine in this program lacks an option that transfers rely on.
pub fn check_options() -> Outcome {
    let present = present().map_err(|_| {
        Failure::new(
            Code::Preflight,
            "the SQLite in this program does not say how it was built",
            "Build Sealift again.",
        )
    })?;
    let missing = missing(&present);
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("the SQLite in this program was built without {}", missing.join(", "));
    let next = "Build Sealift in its own folder (`cargo build --release --locked`), where .cargo/config.toml sets \
                LIBSQLITE3_FLAGS; `cargo install` from elsewhere does not see that file.";
    Err(Failure::new(Code::Preflight, what, next))
}

fn present() -> rusqlite::Result<Vec<String>> {
    let connection = Connection::open_in_memory()?;
    let mut statement = connection.prepare("SELECT compile_options FROM pragma_compile_options")?;
    let options = statement.query_map([], |row| row.get(0))?;
    options.collect()
}

fn missing(present: &[String]) -> Vec<String> {
    let is_present = |option: &str| present.iter().any(|present| present == option);
    NEEDED.iter().filter(|option| !is_present(option)).map(|option| format!("SQLITE_{option}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, B3: the engine has what Debian's, Python's and the official shell's have for
    /// schemas.
    #[test]
    fn the_engine_was_built_with_what_it_needs() {
        assert_eq!(check_options(), Ok(()));
        let connection = Connection::open_in_memory().unwrap();
        let all =
            "SELECT acos(1), acosh(1), asin(0), asinh(0), atan(0), atan2(0, 1), atanh(0), ceil(1), ceiling(1), cos(0),
            cosh(0), degrees(0), exp(0), floor(0), ln(1), log(1), log(2, 4), log10(1), log2(1), mod(5, 3), pi(),
            pow(2, 2), power(2, 2), radians(0), sin(0), sinh(0), sqrt(4), tan(0), tanh(0), trunc(1)";
        connection.query_row(all, [], |_| Ok(())).unwrap();
        connection.execute_batch("CREATE VIRTUAL TABLE g USING geopoly(name)").unwrap();
        connection.query_row("SELECT count(*) FROM sqlite_dbpage", [], |_| Ok(())).unwrap();
    }

    #[test]
    fn what_is_missing_is_named() {
        let present = ["ENABLE_FTS5", "ENABLE_GEOPOLY"].map(str::to_owned);
        assert_eq!(
            missing(&present),
            [
                "SQLITE_ENABLE_DBPAGE_VTAB",
                "SQLITE_ENABLE_MATH_FUNCTIONS",
                "SQLITE_ENABLE_SNAPSHOT",
                "SQLITE_MALLOC_SOFT_LIMIT=0"
            ]
        );
    }
}
