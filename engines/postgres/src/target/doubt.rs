//! A commit whose answer was lost.
//!
//! Whether it took place is not guessed: the server process that had it is ended, so that it cannot
//! commit any more, and then the server says what became of its transaction.

use std::{
    thread,
    time::{Duration, Instant},
};

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::PartIndex,
    receive::WholePart,
};

use super::{
    ledger, read_back,
    session::{Backend, Session},
    shared::SharedLoad,
};
use crate::{
    client::{At, Connection, End, Result},
    fail_point::{PART_COMMITTED, PART_WRITTEN, hit},
};

/// How long the server may take to come back and to end the process.
const RESOLVE_WITHIN: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Became {
    Committed,
    Aborted,
    /// Its process has not ended.
    Open,
}

/// Commits the transaction of a part. Returns the connection, or `None` if it was lost and the
/// commit took place all the same.
fn commit(
    shared: &SharedLoad,
    mut connection: Connection,
    backend: &Backend,
    transaction: i64,
    part: PartIndex,
    what: &str,
) -> Outcome<Option<Connection>> {
    shared.check_stop()?;
    match connection.batch("COMMIT") {
        Ok(()) => Ok(Some(connection)),
        Err(error) if error.is_lost() => {
            drop(connection);
            match resolve(shared, backend, transaction, part)? {
                true => Ok(None),
                false => Err(error.at(End::Target, &format!("{what}: committing"))),
            }
        }
        Err(error) => Err(error.at(End::Target, &format!("{what}: committing"))),
    }
}

/// Writes the rest of a part's line in the ledger, commits its transaction, and gives the session
/// back, unless it was lost and the commit took place all the same.
pub fn complete(shared: &SharedLoad, session: Session, whole: &WholePart, rows: u64, what: &str) -> Outcome {
    let Session { mut connection, backend } = session;
    let transaction = ledger::complete(&mut connection, whole, rows, None).at(End::Target, what)?;
    hit(PART_WRITTEN);
    let connection = commit(shared, connection, &backend, transaction, whole.part, what)?;
    hit(PART_COMMITTED);
    shared.note_committed(whole.part);
    if let Some(connection) = connection {
        shared.give_back(Session { connection, backend });
    }
    read_back::note_committed(shared, whole.part);
    Ok(())
}

/// Whether the transaction took place.
fn resolve(shared: &SharedLoad, backend: &Backend, transaction: i64, part: PartIndex) -> Outcome<bool> {
    let deadline = Instant::now() + RESOLVE_WITHIN;
    loop {
        shared.check_stop()?;
        // It may be starting up again.
        if let Ok(mut session) = shared.session() {
            match ask(&mut session, backend, transaction, part) {
                Ok(Became::Committed) => return Ok(true),
                Ok(Became::Aborted) => return Ok(false),
                Ok(Became::Open) | Err(_) => {}
            }
        }
        if Instant::now() > deadline {
            let what = "the answer to a COMMIT was lost, and the server does not say what became of it";
            let next = "Start again when the server is there: the ledger in the target decides.";
            return Err(Failure::new(Code::TargetFailed, what, next));
        }
        thread::sleep(PAUSE);
    }
}

fn ask(session: &mut Session, backend: &Backend, transaction: i64, part: PartIndex) -> Result<Became> {
    let connection = &mut session.connection;
    let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
               WHERE pid = $1 AND backend_start::pg_catalog.text = $2";
    if !connection.query(sql, &[&backend.pid, &backend.start])?.is_empty() {
        return Ok(Became::Open);
    }
    let row = connection.query_one("SELECT pg_catalog.txid_status($1)", &[&transaction])?;
    let status: Option<&str> = row.try_get(0)?;
    Ok(match status {
        Some("committed") => Became::Committed,
        Some("aborted") => Became::Aborted,
        Some(_) => Became::Open,
        // So long ago that the server has forgotten: the line is there exactly if it committed.
        None if ledger::is_committed(connection, part)? => Became::Committed,
        None => Became::Aborted,
    })
}
