//! The server itself: its version, whether it is a primary, its settings, its clock.

use std::time::{SystemTime, UNIX_EPOCH};

use sealift_engine_api::{Finding, Severity};

use super::survey::Survey;
use crate::{
    client::{Connection, End, Result},
    names::listed,
};

/// The versions that are moved, as `server_version_num`: all that a part of rows needs is there
/// from 12 on, and the catalogue of 19 is not known.
pub const VERSION_MIN: u32 = 120_000;
pub const VERSION_END: u32 = 190_000;

/// Beyond that, times in logs of the two hosts do not fit each other, and tickets may seem expired.
const CLOCK_SKEW_SECONDS_MAX: f64 = 60.0;

/// Less, and a load makes checkpoints all the time.
const MAX_WAL_MEGABYTES: i64 = 4096;

/// Timeouts that would end a session; Sealift's own sessions, and those of `pg_dump`, set them to
/// 0.
const TIMEOUTS: [&str; 4] =
    ["statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout"];

/// A standby ends transactions that its replay conflicts with, has no rows of unlogged tables, and
/// takes no load.
pub fn standby(connection: &mut Connection, end: End) -> Result<Option<Finding>> {
    let is_standby: bool = connection.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[])?.try_get(0)?;
    let what = match end {
        End::Source => "the server is a standby: its replay would end a long snapshot",
        End::Target => "the target's server is a standby, which takes no load",
    };
    Ok(is_standby.then(|| Finding::error("standby", what, "Give the address of the primary.")))
}

/// A target without it does not keep what it says it has.
pub fn fsync(survey: &mut Survey<'_>) -> Result {
    if survey.settings.is_on("fsync") {
        return Ok(());
    }
    let finding = match survey.end {
        End::Source => {
            let what =
                "the source's server runs with fsync = off: after a crash of its host, its tables may be damaged";
            Finding::warning("fsync-off", what, "Set fsync = on. A damaged row may end the transfer, or be moved.")
        }
        End::Target => {
            let next = "Set fsync = on: without it, a crash of the host loses what the receipt says is there.";
            Finding::error("fsync-off", "the target's server runs with fsync = off", next)
        }
    };
    survey.push(finding);
    Ok(())
}

/// A page that is torn by a crash of the host is not repaired without it.
pub fn full_page_writes(survey: &mut Survey<'_>) -> Result {
    if survey.end == End::Target && !survey.settings.is_on("full_page_writes") {
        let what = "the target's server runs with full_page_writes = off: a crash of the host may tear pages for good";
        let next = "Set full_page_writes = on, unless the file system writes pages of 8 KiB whole or not at all.";
        survey.push(Finding::error("full-page-writes-off", what, next));
    }
    Ok(())
}

pub fn version(survey: &mut Survey<'_>) -> Result {
    let version = survey.version();
    let encoding = survey.settings.text("server_encoding").to_owned();
    let shown = survey.settings.text("server_version").to_owned();
    let at = survey.connection.address().shown();
    survey.push(Finding::fact("server", format!("PostgreSQL {shown} at {at}; encoding {encoding}")));
    if !(VERSION_MIN..VERSION_END).contains(&version) {
        let end = survey.end.as_str();
        let what = format!("the {end} is a server of version {}, and this program moves 12 to 18", version / 10_000);
        survey.push(Finding::error("server-version", what, "Upgrade the server, or this program."));
    }
    Ok(())
}

pub fn timeouts(survey: &mut Survey<'_>) -> Result {
    let is_set = |name: &&str| survey.settings.number(name).is_some_and(|value| value > 0);
    let set: Vec<String> = TIMEOUTS.into_iter().filter(is_set).map(|name| survey.settings.shown(name)).collect();
    if !set.is_empty() {
        let what = format!("set to 0 for the sessions of a transfer, which they would end: {}", listed(&set));
        survey.push(Finding::fact("session-timeouts", what));
    }
    Ok(())
}

/// What of the settings slows a load down. They are the server's, and left as they are.
pub fn wal(survey: &mut Survey<'_>) -> Result {
    let settings = &survey.settings;
    let mut shown: Vec<String> = ["wal_level", "synchronous_commit"].map(|name| settings.shown(name)).to_vec();
    shown.extend(settings.number("max_wal_size").map(|megabytes| format!("max_wal_size = {megabytes}MB")));
    let small = settings.number("max_wal_size").is_some_and(|megabytes| megabytes < MAX_WAL_MEGABYTES);
    if settings.text("archive_mode") != "off" {
        shown.push(settings.shown("archive_mode"));
    }
    let (severity, next) = match (survey.end, small) {
        (End::Target, true) => {
            (Severity::Note, "A larger max_wal_size, such as 4GB during the load, would save checkpoints.")
        }
        _ => (Severity::Fact, ""),
    };
    let what = format!("{}; a transfer leaves them as they are", shown.join(", "));
    survey.push(Finding::new(severity, "wal-settings", what, next));
    Ok(())
}

pub fn clock(survey: &mut Survey<'_>) -> Result {
    let before = now_seconds();
    let sql = "SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp())::pg_catalog.float8";
    let there: f64 = survey.connection.query_one(sql, &[])?.try_get(0)?;
    let after = now_seconds();
    // What the answer took says nothing about the clock.
    let skew = if there < before { there - before } else { (there - after).max(0.0) };
    if skew.abs() > CLOCK_SKEW_SECONDS_MAX {
        let what = format!("the server's clock differs from this host's by {:.0} seconds", skew);
        survey.push(Finding::warning(
            "clock-skew",
            what,
            "Set both with NTP: logs and receipts of the two hosts name times.",
        ));
    } else {
        let what = format!("the server's clock and this host's are {:.1} seconds apart", skew.abs());
        survey.push(Finding::fact("clock-skew", what));
    }
    Ok(())
}

fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
