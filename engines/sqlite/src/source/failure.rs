//! What the engine's errors mean to a person. Its own messages are not used: they quote names and
//! text of statements.

use rusqlite::{Error, ErrorCode, ffi};
use sealift_protocol::{close::Code, failure::Failure, hint::Hints};

/// The engine failed at `object`: the file, or a table of it.
pub fn failed(error: &Error, object: &str) -> Failure {
    let fail = |what: String, next: &str| Failure::new(Code::SourceFailed, what, next);
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => fail(
            format!("{object} is not an SQLite database, or it is encrypted"),
            "Check the path in --source. Another kind of file can be moved with file:PATH.",
        ),
        Some(ErrorCode::DatabaseCorrupt) => fail(
            format!("the source is damaged at {object}"),
            "Run `PRAGMA integrity_check` on it, restore it from a backup or repair it, and start again.",
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => fail(
            format!("another program keeps {object} locked"),
            "Stop the program that writes to it, or wait until it is done, and start again.",
        ),
        Some(ErrorCode::ReadOnly) => match error.sqlite_error().map_or(0, |error| error.extended_code) {
            ffi::SQLITE_READONLY_ROLLBACK | ffi::SQLITE_READONLY_RECOVERY => fail(
                format!("{object} was not closed in good order and must first be recovered"),
                "Open it once with the program it belongs to, so that SQLite can roll back what was unfinished.",
            ),
            _ => fail(
                format!("{object} is in WAL mode, and this user may not write to its folder"),
                "SQLite keeps -wal and -shm files beside such a database, also for who only reads. Let this user write to the \
                 folder; or, while nobody uses the database, have its owner run PRAGMA journal_mode=DELETE on it.",
            ),
        },
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => fail(
            format!("SQLite cannot open {object}"),
            "Check that this user may read the file. In WAL mode SQLite must also be able to write to its folder, or \
             the -wal and -shm files must be there.",
        ),
        Some(ErrorCode::SystemIoFailure) => {
            fail(format!("reading {object} failed on the disk"), "Check the disk and the system's log.")
        }
        Some(ErrorCode::OutOfMemory) => {
            fail(format!("there is not enough memory to read {object}"), "Give the sender more memory.")
        }
        _ => {
            let number = error.sqlite_error().map_or(0, |error| error.extended_code);
            fail(
                format!("SQLite failed at {object} with result code {number}"),
                "See https://sqlite.org/rescode.html for the number.",
            )
        }
    }
}

/// The source cannot be moved exactly.
pub fn unsuitable(what: impl Into<String>, hints: impl Into<Hints>) -> Failure {
    Failure::new(Code::SourceUnsuitable, what, hints)
}
