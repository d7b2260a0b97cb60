//! A session that looks at its server.

use std::collections::BTreeMap;

use sealift_engine_api::Finding;
use sealift_protocol::failure::Outcome;

use crate::client::{At, Connection, End, Result, Row, ToSql};

/// The role may not see it.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// A session, and what was found in it so far.
pub struct Survey<'a> {
    pub connection: &'a mut Connection,
    pub end: End,
    pub settings: ServerSettings,
    /// Of the role of the session.
    pub is_superuser: bool,
    pub found: Vec<Finding>,
    /// What this role is not shown.
    hidden: Vec<&'static str>,
}

impl<'a> Survey<'a> {
    pub fn begin(connection: &'a mut Connection, end: End) -> Outcome<Self> {
        let settings = ServerSettings::read(connection).at(end, "reading the settings of the server")?;
        let sql = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user";
        let row = connection.query_one(sql, &[]);
        let is_superuser = row.and_then(|row| Ok(row.try_get(0)?)).at(end, "looking at the role")?;
        Ok(Self { connection, end, settings, is_superuser, found: Vec::new(), hidden: Vec::new() })
    }

    /// `server_version_num`.
    pub fn version(&self) -> u32 {
        self.connection.server_version()
    }

    /// Runs a look: `what` it is at, for a failure. One that the role is not allowed to take is
    /// noted as such.
    pub fn take(&mut self, what: &'static str, look: fn(&mut Self) -> Result) -> Outcome {
        match look(self) {
            Err(error) if error.sqlstate() == Some(INSUFFICIENT_PRIVILEGE) => {
                self.hidden.push(what);
                Ok(())
            }
            other => other.at(self.end, &format!("looking at {what}")),
        }
    }

    /// The rows of a query.
    pub fn rows(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        self.connection.query(sql, parameters)
    }

    /// The texts of the first column.
    pub fn names(&mut self, sql: &str) -> Result<Vec<String>> {
        self.rows(sql, &[])?.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The one number of a query; 0 if it has none.
    pub fn number(&mut self, sql: &str) -> Result<i64> {
        let row = self.connection.query_one(sql, &[])?;
        Ok(row.try_get::<_, Option<i64>>(0)?.unwrap_or_default())
    }

    pub fn push(&mut self, finding: Finding) {
        self.found.push(finding);
    }

    /// Everything that was found.
    pub fn finish(mut self) -> Vec<Finding> {
        if !self.hidden.is_empty() {
            let what = format!("unknown, since this role is not shown it: {}", self.hidden.join(", "));
            self.found.push(Finding::fact("not-visible", what));
        }
        self.found
    }
}

/// What is set on a server, as a session there begins.
pub struct ServerSettings(BTreeMap<String, ServerSetting>);

struct ServerSetting {
    value: String,
    unit: Option<String>,
}

impl ServerSettings {
    /// As the server, the database and the role have set them: this session may have set others.
    fn read(connection: &mut Connection) -> Result<Self> {
        let sql = "SELECT name, reset_val, unit FROM pg_catalog.pg_settings WHERE reset_val IS NOT NULL";
        let rows = connection.query(sql, &[])?;
        let setting =
            |row: &Row| Ok((row.try_get(0)?, ServerSetting { value: row.try_get(1)?, unit: row.try_get(2)? }));
        Ok(Self(rows.iter().map(setting).collect::<Result<_>>()?))
    }

    /// Empty where this server has no such setting, or does not show it.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |setting| setting.value.as_str())
    }

    pub fn is_on(&self, name: &str) -> bool {
        self.text(name) == "on"
    }

    /// `None` where this server has no such setting.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.0.get(name)?.value.parse().ok()
    }

    /// `name = value`, with the unit, as a person writes it.
    pub fn shown(&self, name: &str) -> String {
        let unit = self.0.get(name).and_then(|setting| setting.unit.as_deref()).unwrap_or_default();
        // 8kB and the like are counts of blocks.
        match (self.number(name), unit.strip_suffix("kB").and_then(|times| times.parse::<i64>().ok())) {
            (Some(value), Some(times)) => format!("{name} = {}kB", value.saturating_mul(times)),
            _ => format!("{name} = {}{unit}", self.text(name)),
        }
    }
}
