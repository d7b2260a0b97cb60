//! How far a run has come, and how a terminal shows it.

use std::time::Duration;

use sealift_protocol::manifest::{Manifest, Plan, SentPart};

use crate::units::{counted, grouped, human_bytes, human_duration};

/// Before that, a rate says nothing.
const RATE_AFTER: Duration = Duration::from_secs(1);

/// Running totals of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub parts: u64,
    pub parts_planned: u64,
    pub chunks: u64,
    pub rows: u64,
    pub plain_bytes: u64,
    /// What `plain_bytes` will come to, if anything is known of that.
    pub plain_bytes_estimate: Option<u64>,
    pub sealed_bytes: u64,
    pub resent_bytes: u64,
    pub retries: u64,
    /// What was sealed into `sealed_bytes`, whether or not it was so before.
    pub packed_plain_bytes: u64,
}

impl Totals {
    /// A chunk that was sent or received in this run.
    pub fn moved(&mut self, plain_bytes: u64, frame_bytes: u64) {
        self.held(plain_bytes);
        self.packed_plain_bytes += plain_bytes;
        self.sealed_bytes += frame_bytes;
    }

    /// A chunk that is at the receiver already.
    pub fn held(&mut self, plain_bytes: u64) {
        self.chunks += 1;
        self.plain_bytes += plain_bytes;
    }

    /// What is planned now, whatever was before.
    pub fn planned(&mut self, plan: &Plan) {
        let estimates = || plan.parts.iter().filter_map(|part| part.bytes_estimate);
        // A peer's word. Parts without an estimate are small beside those with one, or all there is.
        let estimate = estimates().next().map(|_| estimates().fold(self.plain_bytes, u64::saturating_add));
        (self.parts, self.rows, self.plain_bytes_estimate) = (0, 0, estimate);
        self.parts_planned = plan.parts.len() as u64;
    }

    /// So much is there already, and will not be counted.
    pub fn found(&mut self, plain_bytes: u64) {
        self.plain_bytes_estimate = self.plain_bytes_estimate.map(|all| all.saturating_sub(plain_bytes));
    }

    /// All of it is done: counts what the transfer came to, over all its runs.
    pub(crate) fn settle(&mut self, manifest: &Manifest) {
        let sent = &manifest.parts;
        self.parts = sent.len() as u64;
        // A peer's word: of a target that discards, nothing bounds it.
        let total = |of: fn(&SentPart) -> u64| sent.iter().map(of).fold(0, u64::saturating_add);
        self.chunks = total(|part| part.chunks.0);
        self.rows = total(|part| part.rows);
        self.plain_bytes = total(|part| part.plain_bytes);
    }

    /// What was packed into one byte.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (plain_bytes, sealed_bytes) = (self.packed_plain_bytes, self.sealed_bytes);
        (sealed_bytes > 0 && plain_bytes > 0).then(|| plain_bytes as f64 / sealed_bytes as f64)
    }

    /// What a terminal shows after data has flowed for so long.
    pub(crate) fn line(&self, flowing: Duration) -> String {
        let mut line =
            format!("part {}/{}  {}", grouped(self.parts), grouped(self.parts_planned), human_bytes(self.plain_bytes));
        let rate = (flowing >= RATE_AFTER).then(|| self.plain_bytes as f64 / flowing.as_secs_f64());
        if let Some(rate) = rate {
            line += &format!("  {}/s", human_bytes(rate as u64));
        }
        if self.rows > 0 {
            line += &format!("  {}", counted(self.rows, "row"));
        }
        if let Some(ratio) = self.ratio() {
            line += &format!("  packed {ratio:.1}x");
        }
        if self.resent_bytes > 0 {
            line += &format!("  resent {}", human_bytes(self.resent_bytes));
        }
        let left = self.plain_bytes_estimate.and_then(|all| all.checked_sub(self.plain_bytes)).filter(|&left| left > 0);
        if let (Some(left), Some(rate @ 1.0..)) = (left, rate) {
            let left = match (left as f64 / rate) as u64 {
                seconds @ 0..60 => format!("{seconds} s"),
                seconds => human_duration(Duration::from_secs(seconds)),
            };
            line += &format!("  about {left} left");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::manifest::{Engine, PartKind, PlannedPart};

    use super::*;

    fn plan(estimates: &[Option<u64>]) -> Plan {
        let part = |&bytes_estimate| PlannedPart {
            kind: PartKind::Rows,
            name: String::new(),
            rows_estimate: None,
            bytes_estimate,
        };
        Plan { engine: Engine::Sqlite, parts: estimates.iter().map(part).collect(), empty: None }
    }

    #[test]
    fn what_flows_is_told_with_its_rate_and_the_time_left() {
        let mut totals = Totals::default();
        // The schema has no estimate.
        totals.planned(&plan(&[None, Some(40_000_000), Some(60_000_000)]));
        totals.found(20_000_000);
        totals.moved(20_000_000, 10_000_000);
        totals.rows = 12_345;
        totals.parts = 1;
        assert_eq!(totals.line(Duration::from_millis(100)), "part 1/3  20.0 MB  12,345 rows  packed 2.0x");
        totals.resent_bytes = 1000;
        let line = "part 1/3  20.0 MB  2.0 MB/s  12,345 rows  packed 2.0x  resent 1.0 kB  about 30 s left";
        assert_eq!(totals.line(Duration::from_secs(10)), line);
    }

    #[test]
    fn where_nothing_is_known_no_time_is_told() {
        let mut totals = Totals::default();
        totals.planned(&plan(&[None]));
        totals.moved(1_000_000, 1_000_000);
        assert_eq!(totals.line(Duration::from_secs(1)), "part 0/1  1.0 MB  1.0 MB/s  packed 1.0x");
    }

    /// Sent anew, it is all yet to come; and no peer's estimate is too large to be added up.
    #[test]
    fn a_plan_that_starts_over_counts_from_there() {
        let mut totals = Totals::default();
        totals.planned(&plan(&[Some(5_000_000)]));
        totals.moved(4_000_000, 4_000_000);
        totals.planned(&plan(&[Some(6_000_000)]));
        assert_eq!(totals.plain_bytes_estimate, Some(10_000_000));
        totals.planned(&plan(&[Some(u64::MAX), Some(u64::MAX)]));
        assert!(totals.line(Duration::from_secs(1)).ends_with("left"));
    }
}
