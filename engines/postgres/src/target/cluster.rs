//! The server of a target, seen from one of its maintenance databases: the databases of loads are
//! made, marked, renamed and dropped from there.

use std::{
    thread,
    time::{Duration, Instant},
};

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::TransferId,
};

use super::{
    mark::{Mark, Stage},
    properties::{self, Roles},
};
use crate::{
    client::{Address, At, Connection, End, Error},
    document::Database,
    session,
    sql::{literal, quote},
};

/// Databases that every server has. A managed one may lock one of them.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// What a query of the catalogue may return in one row.
const ROW_BYTES_MAX: usize = 64 << 20;

/// How long sessions may take to end once they were told to.
const SESSIONS_END: Duration = Duration::from_secs(30);

/// How long the session of a receiver that died may keep its lock.
const LOCK_WAIT: Duration = Duration::from_secs(15);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// `NAMEDATALEN` less its terminator: the server would cut a longer name short.
const DATABASE_NAME_BYTES_MAX: usize = 63;

/// The staging names of loads.
const STAGING_PREFIX: &str = "sealift_staging_";

/// The connection limit of a database whose `DROP DATABASE` was interrupted
/// (`DATCONNLIMIT_INVALID_DB`).
const INVALID_DATABASE: i32 = -2;

/// Part of the key of a load's lock, `sealift` in letters: other programs use advisory locks, too.
const LOCK_SPACE: u64 = 0x7365_616c_6966_7400;

/// Ends the sessions in a database that this role may end, and returns a row for each that is
/// there. The server itself ends those of autovacuum before it drops or renames a database.
const END_SESSIONS: &str = "\
    SELECT CASE WHEN own.rolsuper \
            OR NOT other.rolsuper AND (pg_catalog.pg_has_role(other.oid, 'USAGE') \
                OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE')) \
        THEN pg_catalog.pg_terminate_backend(session.pid) END \
    FROM pg_catalog.pg_stat_activity session \
        JOIN pg_catalog.pg_roles other ON other.oid = session.usesysid \
        JOIN pg_catalog.pg_roles own ON own.rolname = current_user \
    WHERE session.datname = $1 AND session.pid <> pg_catalog.pg_backend_pid()";

/// A session in a maintenance database.
pub struct Cluster {
    connection: Connection,
}

/// A database of the server.
pub struct MarkedDatabase {
    /// `None` if it is not a load's.
    pub mark: Option<Mark>,
    /// Whether it can be connected to. One that cannot was about to be dropped when its server or
    /// this program ended: nothing can be done with it but that.
    pub is_open: bool,
}

/// The name of a load's database before it is published.
pub fn staging_name(transfer: TransferId) -> String {
    format!("{STAGING_PREFIX}{transfer}")
}

impl Cluster {
    /// Connects to the server that `address` leads to.
    pub fn connect(address: &Address) -> Outcome<Self> {
        let mut failed = None;
        for name in MAINTENANCE.into_iter().filter(|name| *name != address.database) {
            match Connection::open(&address.with_database(name), End::Target, ROW_BYTES_MAX) {
                Ok(mut connection) => {
                    let version = connection.server_version();
                    connection.batch(&session::set_up(version)).at(End::Target, "setting up a session")?;
                    return Ok(Self { connection });
                }
                Err(error) => {
                    failed.get_or_insert_with(|| error.at(End::Target, "connecting to a maintenance database"));
                }
            }
        }
        Err(failed.unwrap_or_else(|| Failure::new(Code::TargetFailed, "the target is a maintenance database", "")))
    }

    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub fn server_version(&self) -> u32 {
        self.connection.server_version()
    }

    /// Refuses a final name that the server cannot have, or has.
    pub fn check_name(&mut self, name: &str) -> Outcome {
        if name.len() > DATABASE_NAME_BYTES_MAX || name.starts_with(STAGING_PREFIX) {
            let what = format!("the target's name {name} is too long or one of Sealift's own");
            return Err(Failure::usage(what, "Choose another name for the database."));
        }
        match self.find(name)? {
            None => Ok(()),
            Some(_) => {
                let what = format!("the database {name} exists");
                Err(Failure::new(Code::TargetNotEmpty, what, "Choose another name, or drop or rename it yourself."))
            }
        }
    }

    /// The database of this name.
    pub fn find(&mut self, name: &str) -> Outcome<Option<MarkedDatabase>> {
        Ok(self.databases("datname = $1", name)?.pop())
    }

    /// The loads into this target, of whatever transfer, that are not published.
    pub fn loads_into(&mut self, target: &str) -> Outcome<Vec<MarkedDatabase>> {
        let staged = self.databases("pg_catalog.starts_with(datname::pg_catalog.text, $1)", STAGING_PREFIX)?;
        let is_into = |found: &MarkedDatabase| found.mark.as_ref().is_some_and(|mark| mark.target == target);
        Ok(staged.into_iter().filter(is_into).collect())
    }

    fn databases(&mut self, condition: &str, name: &str) -> Outcome<Vec<MarkedDatabase>> {
        const WHAT: &str = "looking for databases";
        let sql = format!(
            "SELECT pg_catalog.shobj_description(oid, 'pg_database'), \
                    datallowconn AND datconnlimit <> {INVALID_DATABASE} \
             FROM pg_catalog.pg_database WHERE {condition} ORDER BY datname"
        );
        let rows = self.connection.query(&sql, &[&name]).at(End::Target, WHAT)?;
        let found = rows.iter().map(|row| {
            let comment: Option<&str> = row.try_get(0).map_err(Error::from).at(End::Target, WHAT)?;
            let is_open = row.try_get(1).map_err(Error::from).at(End::Target, WHAT)?;
            Ok(MarkedDatabase { mark: comment.and_then(Mark::from_comment), is_open })
        });
        found.collect()
    }

    /// The names of all roles.
    pub fn roles(&mut self) -> Outcome<Roles> {
        const WHAT: &str = "looking for roles";
        let sql = "SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles";
        let rows = self.connection.query(sql, &[]).at(End::Target, WHAT)?;
        rows.iter().map(|row| row.try_get(0).map_err(Error::from).at(End::Target, WHAT)).collect()
    }

    /// Keeps every other process from this transfer's load, as long as this session lives. Waits
    /// for a session whose process has died.
    pub fn lock(&mut self, transfer: TransferId) -> Outcome {
        let deadline = Instant::now() + LOCK_WAIT;
        while !self.try_lock(transfer)? {
            if Instant::now() > deadline {
                let what = "another process loads this transfer into the target";
                return Err(Failure::new(Code::TransferBusy, what, "Let it end, or end it."));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    pub fn try_lock(&mut self, transfer: TransferId) -> Outcome<bool> {
        let row = self.connection.query_one("SELECT pg_catalog.pg_try_advisory_lock($1)", &[&lock_key(transfer)]);
        row.and_then(|row| Ok(row.try_get(0)?)).at(End::Target, "locking the transfer")
    }

    pub fn unlock(&mut self, transfer: TransferId) -> Outcome {
        let row = self.connection.query_one("SELECT pg_catalog.pg_advisory_unlock($1)", &[&lock_key(transfer)]);
        row.map(drop).at(End::Target, "unlocking the transfer")
    }

    /// Makes the database of a load, which nobody but its owner and superusers can connect to.
    pub fn create(&mut self, name: &str, mark: &Mark) -> Outcome {
        let version = self.server_version();
        let database = &mark.database;
        if let Some(provider) = properties::missing_provider(database, version) {
            let what = format!("the source has the locale provider {provider}, which the target's server lacks");
            return Err(Failure::new(Code::LoadImpossible, what, "Use a server of at least the source's version."));
        }
        match self.connection.batch(&properties::create(name, database, version)) {
            Ok(()) => {}
            Err(error) if matches!(error.sqlstate(), Some("42809" | "22023" | "0A000" | "42704")) => {
                return Err(no_locale(database));
            }
            Err(error) => return Err(error.at(End::Target, "creating the staging database")),
        }
        let name = quote(name);
        let sql = format!(
            "BEGIN; COMMENT ON DATABASE {name} IS {}; REVOKE ALL ON DATABASE {name} FROM PUBLIC; \
             ALTER DATABASE {name} ALLOW_CONNECTIONS true; COMMIT",
            literal(&mark.to_comment())
        );
        self.connection.batch(&sql).at(End::Target, "marking the staging database")
    }

    /// Notes how far the load in the database is.
    pub fn set_mark(&mut self, name: &str, mark: &Mark) -> Outcome {
        let sql = format!("COMMENT ON DATABASE {} IS {}", quote(name), literal(&mark.to_comment()));
        self.connection.batch(&sql).at(End::Target, "marking the staging database")
    }

    /// Gives the database the source's comment, or none.
    pub fn restore_comment(&mut self, name: &str, comment: Option<&str>) -> Outcome {
        let comment = comment.map_or_else(|| "NULL".to_owned(), literal);
        let sql = format!("COMMENT ON DATABASE {} IS {comment}", quote(name));
        self.connection.batch(&sql).at(End::Target, "restoring the comment of the database")
    }

    /// Ends the sessions in a database, and waits for their end. Those that this role may not end,
    /// such as a superuser's, have to end by themselves.
    pub fn end_sessions(&mut self, name: &str) -> Outcome {
        let deadline = Instant::now() + SESSIONS_END;
        while !self.connection.query(END_SESSIONS, &[&name]).at(End::Target, "ending sessions")?.is_empty() {
            if Instant::now() > deadline {
                let what = format!("sessions in the database {name} do not end, or this role may not end them");
                return Err(Failure::new(Code::TargetFailed, what, "See pg_stat_activity, end them, and start again."));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Drops the database of a load, if it is there.
    pub fn drop_staging(&mut self, name: &str) -> Outcome {
        let Some(found) = self.find(name)? else { return Ok(()) };
        let quoted = quote(name);
        // What is half dropped cannot be altered: the server would end the session.
        if found.is_open {
            let closed = self.connection.batch(&format!("ALTER DATABASE {quoted} ALLOW_CONNECTIONS false"));
            closed.at(End::Target, "closing the staging database")?;
        }
        let deadline = Instant::now() + SESSIONS_END;
        loop {
            self.end_sessions(name)?;
            match self.connection.batch(&format!("DROP DATABASE IF EXISTS {quoted}")) {
                // A session has just come, such as that of autovacuum.
                Err(error) if error.sqlstate() == Some("55006") && Instant::now() < deadline => thread::sleep(PAUSE),
                dropped => return dropped.at(End::Target, "dropping the staging database"),
            }
        }
    }

    /// Gives a database its final name, the properties of the source's, and the mark that says so:
    /// all at once.
    pub fn rename(&mut self, staging: &str, mark: &Mark, roles: &Roles) -> Outcome {
        let target = &mark.target;
        let mut statements = vec!["BEGIN".to_owned()];
        statements.push(format!("ALTER DATABASE {} RENAME TO {}", quote(staging), quote(target)));
        statements.push(format!(
            "COMMENT ON DATABASE {} IS {}",
            quote(target),
            literal(&mark.at(Stage::Published).to_comment())
        ));
        statements.extend(properties::finish(target, &mark.database, roles));
        statements.push("COMMIT".to_owned());
        let deadline = Instant::now() + SESSIONS_END;
        loop {
            self.end_sessions(staging)?;
            match self.connection.batch(&statements.join(";\n")) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let _ = self.connection.batch("ROLLBACK");
                    match error.sqlstate() {
                        Some("55006") if Instant::now() < deadline => thread::sleep(PAUSE),
                        Some("42P04") => {
                            let what = format!("the database {target} exists");
                            let next = "It was made meanwhile. Drop or rename it, and start again: the load is kept.";
                            return Err(Failure::new(Code::TargetFailed, what, next));
                        }
                        _ => return Err(error.at(End::Target, &format!("renaming the database to {target}"))),
                    }
                }
            }
        }
    }
}

fn no_locale(database: &Database) -> Failure {
    let Database { encoding, collate, ctype, locale, .. } = database;
    let locale = locale.as_ref().map(|locale| format!(" and {locale}")).unwrap_or_default();
    let what = format!(
        "the target's server cannot make a database of the encoding {encoding} with the locales {collate}, {ctype}{locale}"
    );
    let next =
        "Install the locale on the target host (locale -a lists what it has), restart its server, and start again.";
    Failure::new(Code::LoadImpossible, what, next)
}

fn lock_key(transfer: TransferId) -> i64 {
    let random: [u8; 8] = std::array::from_fn(|place| transfer.0[place]);
    (LOCK_SPACE ^ u64::from_be_bytes(random)).cast_signed()
}
