//! Whether a pooler is between this host and the server, and whether it gives each transaction
//! another session.
//!
//! A server tells a client the number of the process that serves it, for requests to cancel
//! (`BackendKeyData`). A pooler answers such requests itself, and so makes up a number: the process
//! that answers (`pg_backend_pid`) is then another one. A pooler of sessions does no harm. One of
//! transactions is recognised by two sessions: while one has a transaction open, the other is
//! served by another process than before, or waits.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use sealift_engine_api::Finding;

use super::survey::Survey;
use crate::client::{Connection, Result};

/// What a query here returns in one row.
const ROW_BYTES_MAX: usize = 1 << 20;

/// A trivial query that takes longer waits for the end of another session's transaction.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

pub fn look(survey: &mut Survey<'_>) -> Result {
    if serving(survey.connection)? == survey.connection.announced_pid() {
        return Ok(());
    }
    survey.push(match shares_transactions(survey)? {
        true => {
            let what = "the address leads to a pooler that gives each transaction another session";
            let next = "Give the address of the server itself, or of a pooler with pool_mode = session: snapshots, locks and \
                        settings are of one session.";
            Finding::error("pooler", what, next)
        }
        false => {
            let what = "the address leads to a pooler, or something else that stands for the server";
            let next = "The server's own address is surer: what ends a session there ends the transfer.";
            Finding::warning("pooler", what, next)
        }
    });
    Ok(())
}

fn serving(connection: &mut Connection) -> Result<i32> {
    Ok(connection.query_one("SELECT pg_catalog.pg_backend_pid()", &[])?.try_get(0)?)
}

fn shares_transactions(survey: &Survey<'_>) -> Result<bool> {
    let open = || Connection::open(survey.connection.address(), survey.end, ROW_BYTES_MAX);
    let (mut one, mut other) = (open()?, open()?);
    let before = serving(&mut one)?;
    // The session that has served last is the first that is given away.
    other.batch("BEGIN; SELECT 1")?;
    let interrupt = one.interrupt()?;
    let (answered, answer) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if answer.recv_timeout(ANSWER_WITHIN) == Err(RecvTimeoutError::Timeout) {
            interrupt.interrupt();
        }
    });
    let after = serving(&mut one);
    drop(answered);
    let _ = watch.join();
    let _ = other.batch("ROLLBACK");
    Ok(after.map_or(true, |after| after != before))
}
