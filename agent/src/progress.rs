//! How far a run has come, and how a terminal shows it.

mod how_far;
mod pace;

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use indicatif::HumanDuration;
use sealift_engine_api::SnapshotAge;
use sealift_protocol::{
    id::PartIndex,
    manifest::{Manifest, Plan, PlannedPart, Section, SentPart},
};
use serde_json::{Value, json};

pub use self::how_far::HowFar;
use self::pace::Pace;
use crate::{
    telemetry::printable,
    units::{brief_amount, counted, grouped, human_bytes},
};

/// A percentage is of an estimate: only the end is the end.
const PERCENT_MAX: u64 = 99;

/// A snapshot that is younger burdens no source.
const SNAPSHOT_SHOWN_AFTER: Duration = Duration::from_secs(600);

/// Running totals of one transfer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub parts: u64,
    pub parts_planned: u64,
    pub chunks: u64,
    pub rows: u64,
    /// What the receiver has: of this run, and of earlier ones.
    pub plain_bytes: u64,
    /// What `plain_bytes` will come to, if anything is known of that.
    pub plain_bytes_estimate: Option<u64>,
    pub sealed_bytes: u64,
    pub resent_bytes: u64,
    pub retries: u64,
    /// What was sealed into `sealed_bytes`, in this run.
    pub packed_plain_bytes: u64,
    /// The part that moved last.
    pub part: Option<PartIndex>,
}

impl Totals {
    /// A chunk that arrived in this run.
    pub fn moved(&mut self, part: PartIndex, plain_bytes: u64, frame_bytes: u64) {
        self.held(part, plain_bytes);
        self.packed_plain_bytes += plain_bytes;
        self.sealed_bytes += frame_bytes;
    }

    /// A chunk that is at the receiver already.
    pub fn held(&mut self, part: PartIndex, plain_bytes: u64) {
        self.chunks += 1;
        self.plain_bytes += plain_bytes;
        self.part = Some(part);
    }

    /// What is planned now, whatever was before: nothing of it is there.
    fn planned(&mut self, plan: &Plan) {
        let estimates = || plan.parts.iter().filter_map(|part| part.bytes_estimate);
        // A peer's word. Parts without an estimate are small beside those with one, or all there
        // is.
        self.plain_bytes_estimate = estimates().next().map(|_| estimates().fold(0, u64::saturating_add));
        self.parts_planned = plan.parts.len() as u64;
        self.parts = 0;
        self.rows = 0;
        self.plain_bytes = 0;
        self.part = None;
    }

    /// So much is there from an earlier run, and is not counted chunk by chunk.
    pub fn found(&mut self, plain_bytes: u64) {
        self.plain_bytes = self.plain_bytes.saturating_add(plain_bytes);
    }

    /// All of it is there: counts what the transfer came to, over all its runs.
    pub fn complete(&mut self, manifest: &Manifest) {
        let sent = &manifest.parts;
        self.parts = sent.len() as u64;
        // A peer's word: of a target that discards, nothing bounds it.
        let total = |of: fn(&SentPart) -> u64| sent.iter().map(of).fold(0, u64::saturating_add);
        self.chunks = total(|part| part.chunks.0);
        self.rows = manifest.tables.iter().map(|table| table.rows).fold(0, u64::saturating_add);
        self.plain_bytes = total(|part| part.plain_bytes);
    }

    /// What was packed into one byte.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let is_known = self.sealed_bytes > 0 && self.packed_plain_bytes > 0;
        is_known.then(|| self.packed_plain_bytes as f64 / self.sealed_bytes as f64)
    }

    /// The estimate, unless it has proven to be too low.
    fn total_bytes(&self) -> Option<u64> {
        self.plain_bytes_estimate.filter(|&all| all > 0 && all >= self.plain_bytes)
    }

    fn percent(&self) -> Option<u64> {
        let all = self.plain_bytes_estimate.filter(|&all| all > 0)?;
        let percent = u128::from(self.plain_bytes) * 100 / u128::from(all);
        Some(u64::try_from(percent).unwrap_or(PERCENT_MAX).min(PERCENT_MAX))
    }
}

/// What is known of a run while it goes.
#[derive(Debug, Default)]
pub struct Progress {
    pub totals: Totals,
    pace: Pace,
    /// Of the parts, as they can be shown.
    names: Vec<String>,
    kept: Option<File>,
    /// What the source holds for this transfer.
    snapshot: Option<SnapshotAge>,
}

impl Progress {
    pub fn handle_planned(&mut self, plan: &Plan) {
        self.totals.planned(plan);
        let name = |part: &PlannedPart| match part.section {
            Section::PreData => "schema".to_owned(),
            Section::PostData => "views and triggers".to_owned(),
            Section::Opaque => String::new(),
            Section::Data => {
                let table = part.table.and_then(|table| plan.tables.get(table.0 as usize));
                table.map_or_else(String::new, |table| printable(&table.full_name()))
            }
        };
        self.names = plan.parts.iter().map(name).collect();
    }

    pub fn handle_counted(&mut self, now: Instant) {
        if self.totals.packed_plain_bytes > 0 {
            self.handle_flowing(now);
        }
    }

    /// Data may flow from now on, if it has not before.
    pub fn handle_flowing(&mut self, now: Instant) {
        self.pace.handle_moved(self.totals.packed_plain_bytes, now);
    }

    /// The age of the source's snapshot. Returns whether it has become old by this.
    pub fn handle_snapshot(&mut self, age: Option<SnapshotAge>) -> bool {
        let was_old = self.snapshot.is_some_and(|known| known.is_old);
        self.snapshot = age;
        age.is_some_and(|age| age.is_old) && !was_old
    }

    pub fn handle_lost(&mut self, now: Instant) {
        self.pace.handle_lost(now);
    }

    /// For how long data could flow. None before it could.
    pub fn flowing(&self, now: Instant) -> Option<Duration> {
        self.pace.flowing(now)
    }

    fn rate(&self, now: Instant) -> Option<f64> {
        self.pace.rate(self.totals.packed_plain_bytes, now).filter(|&rate| rate >= 1.0)
    }

    fn seconds_left(&self, now: Instant) -> Option<u64> {
        let left = self.totals.total_bytes()?.saturating_sub(self.totals.plain_bytes);
        self.rate(now).map(|rate| (left as f64 / rate) as u64).filter(|_| left > 0)
    }

    /// The table, or the part that is none, which moves now.
    fn table(&self) -> Option<&str> {
        let part = self.totals.part?;
        self.names.get(part.0 as usize).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// What a terminal shows. What matters most comes first and fits 38 columns; a narrow terminal
    /// cuts off the rest.
    pub fn line(&self, now: Instant) -> String {
        let totals = &self.totals;
        let mut line = totals.percent().map_or(String::new(), |percent| format!("{percent}% "));
        line += &brief_amount(totals.plain_bytes, totals.total_bytes());
        if let Some(rate) = self.rate(now) {
            line += &format!(" {}/s", brief_amount(rate as u64, None));
        }
        if let Some(left) = self.seconds_left(now) {
            line += &format!(" {:#} left", HumanDuration(Duration::from_secs(left)));
        }
        if let Some(table) = self.table() {
            line += &format!("  {table}");
        }
        line += &format!("  part {}/{}", grouped(totals.parts), grouped(totals.parts_planned));
        if totals.rows > 0 {
            line += &format!("  {}", counted(totals.rows, "row"));
        }
        if let Some(ratio) = totals.ratio() {
            line += &format!("  packed {ratio:.1}x");
        }
        if totals.resent_bytes > 0 {
            line += &format!("  resent {}", human_bytes(totals.resent_bytes));
        }
        if let Some(SnapshotAge { age, .. }) = self.snapshot.filter(|snapshot| snapshot.age >= SNAPSHOT_SHOWN_AFTER) {
            line += &format!("  snapshot {:#} old", HumanDuration(age));
        }
        line
    }

    /// The fields of a `progress` event.
    pub fn fields(&self, now: Instant) -> Vec<(&'static str, Value)> {
        let totals = &self.totals;
        vec![
            ("parts", json!(totals.parts)),
            ("parts_planned", json!(totals.parts_planned)),
            ("rows", json!(totals.rows)),
            ("plain_bytes", json!(totals.plain_bytes)),
            ("plain_bytes_estimate", json!(totals.plain_bytes_estimate)),
            ("percent", json!(totals.percent())),
            ("bytes_per_second", json!(self.rate(now).map(|rate| rate as u64))),
            ("seconds_left", json!(self.seconds_left(now))),
            ("part", json!(totals.part.map(|part| part.0))),
            ("table", json!(self.table())),
            ("sealed_bytes", json!(totals.sealed_bytes)),
            ("resent_bytes", json!(totals.resent_bytes)),
            ("snapshot_age_seconds", json!(self.snapshot.map(|snapshot| snapshot.age.as_secs()))),
            ("snapshot_transactions_behind", json!(self.snapshot.and_then(|snapshot| snapshot.transactions))),
        ]
    }

    /// From now on `keep` writes into this file, which is there.
    pub fn keep_in(&mut self, path: &Path) {
        self.kept = OpenOptions::new().write(true).open(path).ok();
    }

    /// For `status`, which another process runs: not durable, since it is about what was, and
    /// nothing depends on it.
    pub fn keep(&self) {
        if let Some(file) = &self.kept {
            let _ = file.write_all_at(&HowFar::of(&self.totals).to_bytes(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::{
        id::TableIndex,
        manifest::{Capabilities, Engine, PlannedTable, ReadBack, Section},
    };

    use super::*;

    const PART: PartIndex = PartIndex(1);

    fn planned(estimates: &[Option<u64>]) -> Progress {
        let part = |&bytes_estimate| PlannedPart { bytes_estimate, ..PlannedPart::of_table(TableIndex(0)) };
        let mut progress = Progress::default();
        progress.handle_planned(&plan(estimates.iter().map(part).collect()));
        progress
    }

    fn plan(parts: Vec<PlannedPart>) -> Plan {
        let sections = vec![Section::Data];
        let capabilities = Capabilities { sections, ranges: false, read_back: ReadBack::Rows, checks: Vec::new() };
        let engine = Engine { name: "any".into(), format: 1, capabilities };
        Plan { engine, tables: vec![PlannedTable::named("encounters")], parts, empty: None, left_out: None, rows: None }
    }

    fn moved(progress: &mut Progress, plain_bytes: u64, now: Instant) {
        progress.totals.moved(PART, plain_bytes, plain_bytes / 2);
        progress.handle_counted(now);
    }

    #[test]
    fn what_flows_is_told_with_its_rate_and_the_time_left() {
        let start = Instant::now();
        // The schema has no estimate.
        let mut progress = planned(&[None, Some(40_000_000), Some(60_000_000)]);
        progress.totals.found(20_000_000);
        moved(&mut progress, 2_000_000, start);
        progress.totals.rows = 12_345;
        progress.totals.parts = 1;
        let line = "22% 22.0/100 MB  encounters  part 1/3  12,345 rows  packed 2.0x";
        assert_eq!(progress.line(start), line);
        moved(&mut progress, 18_000_000, start + Duration::from_secs(9));
        progress.totals.resent_bytes = 1000;
        let line = "40% 40.0/100 MB 2.0 MB/s 30s left  encounters  part 1/3  12,345 rows  packed 2.0x  resent 1.00 kB";
        assert_eq!(progress.line(start + Duration::from_secs(9)), line);
    }

    /// Issue 9, D1: what matters fits a terminal of 40 columns, of which two are the spinner's.
    #[test]
    fn what_matters_fits_a_narrow_terminal() {
        let start = Instant::now();
        for all in [1_000_000_000, 999_949_999_999, 1 << 50] {
            let mut progress = planned(&[None, Some(all)]);
            for second in 0..40 {
                moved(&mut progress, all / 41, start + Duration::from_secs(second));
            }
            let line = progress.line(start + Duration::from_secs(39));
            let (first, _) = line.split_once("  ").unwrap();
            assert!(first.contains('%') && first.ends_with("left") && first.len() <= 38, "{line}");
        }
    }

    /// Issue 9, D1: an hour without a link is no slower link.
    #[test]
    fn an_outage_leaves_the_time_left_as_it_was() {
        let start = Instant::now();
        let mut progress = planned(&[Some(100_000_000)]);
        for second in 0..=10 {
            moved(&mut progress, 1_000_000, start + Duration::from_secs(second));
        }
        let lost = start + Duration::from_secs(10);
        let before = progress.seconds_left(lost).unwrap();
        progress.handle_lost(lost);
        let back = lost + Duration::from_secs(3600);
        assert_eq!(progress.seconds_left(back), Some(before));
        moved(&mut progress, 1_000_000, back);
        assert!(progress.seconds_left(back).unwrap().abs_diff(before) <= 10);
    }

    #[test]
    fn where_nothing_is_known_no_time_is_shown() {
        let start = Instant::now();
        let mut progress = planned(&[None]);
        progress.totals.moved(PartIndex(0), 1_000_000, 1_000_000);
        assert_eq!(progress.line(start), "1.0 MB  encounters  part 0/1  packed 1.0x");
        // More than was estimated: the total is not known any more.
        let mut progress = planned(&[Some(1000)]);
        progress.totals.moved(PartIndex(0), 2000, 2000);
        assert_eq!(progress.line(start), "99% 2.0 kB  encounters  part 0/1  packed 1.0x");
    }

    /// Sent again, it is all yet to come; and no peer's estimate is too large to be added up.
    #[test]
    fn a_plan_that_starts_over_counts_from_there() {
        let mut progress = planned(&[Some(5_000_000)]);
        progress.totals.moved(PART, 4_000_000, 4_000_000);
        progress.totals.planned(&plan(Vec::new()));
        assert_eq!((progress.totals.plain_bytes, progress.totals.plain_bytes_estimate), (0, None));
        let mut progress = planned(&[Some(u64::MAX), Some(u64::MAX)]);
        moved(&mut progress, 1, Instant::now());
        assert!(progress.line(Instant::now()).starts_with("0% "));
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(HowFar::read(file.path()), None);
        let mut progress = planned(&[Some(5_000_000)]);
        progress.keep_in(file.path());
        progress.totals.moved(PART, 4_000_000, 4_000_000);
        progress.totals.rows = 7;
        progress.keep();
        assert_eq!(HowFar::read(file.path()).unwrap().text(), "80%, 4.0/5.0 MB, 7 rows");
    }
}
