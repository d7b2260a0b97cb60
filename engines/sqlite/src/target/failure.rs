//! What the engine's errors mean to a person. Its own messages are not used: they quote names, and
//! text of statements.

use rusqlite::{Error, ErrorCode, ffi};
use sealift_protocol::{close::Code, failure::Failure};

use crate::{Cause, MOVE_IMAGE, Refused};

/// The engine failed at `object`: the staging file, or a table of it.
pub fn failed(error: &Error, object: &str) -> Failure {
    let fail = |what: String, next: &str| Failure::new(Code::TargetFailed, what, next);
    // However often it is tried.
    let impossible = |what: String, next: &str| Failure::new(Code::LoadImpossible, what, next);
    let number = error.sqlite_error().map_or(0, |error| error.extended_code);
    if matches!(error, Error::SqlInputError { .. }) {
        return needs_more(object);
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Failure::new(
            Code::TargetFull,
            format!("the disk is full at {object}"),
            "Make room on the target host and start again.",
        ),
        Some(ErrorCode::OperationInterrupted) => gave_up(),
        Some(ErrorCode::ConstraintViolation) => impossible(
            format!("a row does not keep a constraint of {object}: {}", constraint(number)),
            &format!(
                "The source holds rows that break its own schema, as SQLite itself compares and computes. {MOVE_IMAGE}"
            ),
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => fail(
            format!("another program has the staging file locked, at {object}"),
            "Keep backup and indexing programs away from the target's folder and start again.",
        ),
        Some(ErrorCode::TooBig) => {
            fail(format!("a value is too large for SQLite, at {object}"), "Give the receiver a higher --row-bytes-max.")
        }
        Some(ErrorCode::OutOfMemory) => {
            fail(format!("there is not enough memory for {object}"), "Give the receiver more memory.")
        }
        Some(ErrorCode::TypeMismatch) => impossible(
            format!("a rowid of {object} is not an integer"),
            "The source holds rows that break its own schema. Correct them there and start again.",
        ),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => impossible(
            format!("the staged database is damaged at {object}"),
            "Another program or a bad disk changed it. Check the disk and start again.",
        ),
        Some(ErrorCode::SystemIoFailure | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => fail(
            format!("the disk refused {object}, with SQLite's result code {number}"),
            "Check the target's folder: its disk, its quota, and the system's log.",
        ),
        _ => fail(
            format!("SQLite failed at {object} with result code {number}"),
            "See https://sqlite.org/rescode.html for the number.",
        ),
    }
}

/// A row cannot be inserted into `table`. A function may fail for a value: of a generated column,
/// or of an index on an expression.
pub fn row_failed(error: &Error, table: &str) -> Failure {
    if error.sqlite_error_code() != Some(ErrorCode::Unknown) {
        return failed(error, table);
    }
    let what = format!("an expression in the definition of {table} fails for one of its rows");
    let next =
        format!("SQLite cannot compute it from what the source holds. Correct the row or the definition. {MOVE_IMAGE}");
    Failure::new(Code::LoadImpossible, what, next)
}

/// A statement that this engine does not understand: the schema was made by a program that had
/// added to it.
fn needs_more(object: &str) -> Failure {
    let next = format!("It may need a function or collation of the application that made it. {MOVE_IMAGE}");
    Failure::new(Code::LoadImpossible, format!("SQLite does not accept a definition of {object}"), next)
}

/// A definition from the source was refused, by the rules here or by the engine.
pub fn definition_failed(refused: Refused) -> Failure {
    let Refused { name, cause } = refused;
    match cause {
        Cause::DoesMore => {
            let next = "Look at its definition in the source's sqlite_schema: it is not what it should be.";
            Failure::new(Code::LoadImpossible, format!("the definition of {name} would do more than define it"), next)
        }
        Cause::NotUnderstood => needs_more(&name),
        Cause::MakesOther => {
            let what = format!("SQLite makes something else of the definition of {name} than the source has");
            Failure::new(Code::LoadImpossible, what, MOVE_IMAGE)
        }
        Cause::Engine(error) => failed(&error, &name),
    }
}

/// The transfer ended while this was under way.
pub fn gave_up() -> Failure {
    Failure::new(Code::Interrupted, "the load was given up", "")
}

fn constraint(number: i32) -> &'static str {
    match number {
        ffi::SQLITE_CONSTRAINT_CHECK => "CHECK",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "NOT NULL",
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY => "PRIMARY KEY",
        ffi::SQLITE_CONSTRAINT_UNIQUE => "UNIQUE",
        ffi::SQLITE_CONSTRAINT_ROWID => "rowid",
        ffi::SQLITE_CONSTRAINT_DATATYPE => "type of a STRICT table",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "FOREIGN KEY",
        _ => "another kind",
    }
}
