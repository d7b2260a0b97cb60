//! A session in the staging database.

use sealift_protocol::failure::Outcome;

use crate::{
    client::{At, Connection, End, Error, Result},
    preflight::logs,
    session,
};

/// Beside what both ends set: a commit is on the disk when it returns, definitions are made in the
/// database's own tablespace whatever the role's settings are, and bodies of functions are taken as
/// they are, since they may refer to what comes later.
const LOADING: &str = "SET synchronous_commit = on; SET default_tablespace = ''; \
    SET default_table_access_method = heap; SET check_function_bodies = off; SET client_min_messages = error";

/// What superusers may set, and those who were granted it: that triggers and rules are as for other
/// users, and that the server's log quotes no statement and no row.
const OF_SUPERUSERS: &str = "SET session_replication_role = origin; SET log_min_messages = panic; SET log_min_error_statement = panic; \
    SET log_statement = none; SET log_min_duration_statement = -1; SET log_min_duration_sample = -1; SET log_duration = off; \
    SET log_parameter_max_length_on_error = 0";

/// One session, and what it is known by on the server.
pub struct Session {
    pub connection: Connection,
    pub backend: Backend,
}

/// A server process. Its number may be given again; with the start it is unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub pid: i32,
    /// As the server prints it.
    pub start: String,
}

impl Session {
    pub fn set_up(mut connection: Connection) -> Outcome<Self> {
        let backend = set_up(&mut connection).at(End::Target, "setting up a session in the target")?;
        Ok(Self { connection, backend })
    }
}

fn set_up(connection: &mut Connection) -> Result<Backend> {
    let settings = session::set_up(connection.server_version());
    connection.batch(&format!("{settings}{LOADING}"))?;
    let sql = "SELECT pid, backend_start::pg_catalog.text FROM pg_catalog.pg_stat_activity \
               WHERE pid = pg_catalog.pg_backend_pid()";
    let row = connection.query_one(sql, &[])?;
    let backend = Backend { pid: row.try_get(0)?, start: row.try_get(1)? };
    let row = connection.query_one("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user", &[])?;
    set_up_superuser(connection, row.try_get(0)?)?;
    Ok(backend)
}

/// A version may lack one of these settings.
fn set_up_superuser(connection: &mut Connection, is_superuser: bool) -> Result {
    for setting in OF_SUPERUSERS.split("; ") {
        let name = setting.split(' ').nth(1).unwrap_or_default();
        if !logs::may_set(connection, is_superuser, name)? {
            continue;
        }
        match connection.batch(setting) {
            Err(Error::Server { sqlstate, .. }) if sqlstate == "42704" => {}
            other => other?,
        }
    }
    Ok(())
}
