//! What was refused, counted by cause and by address, so that a flood of refusals is neither a
//! flood of log lines nor of audit entries. Pure: the time comes in as an argument.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use sealift_protocol::close::Code;

use crate::admission::host;

/// How often the counts are reported, and how many refusals have a line of their own in between.
pub const REPORT_EVERY: Duration = Duration::from_secs(60);
const LINES_MAX: u64 = 8;

/// Addresses that are listed in one report; the others are counted together.
const ADDRESSES_MAX: usize = 16;

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCause {
    Code(Code),
    /// Its certificate was not accepted.
    Certificate,
    /// Its place went to a newcomer.
    Evicted,
    /// Too much of its address, or of all, was closing.
    Ignored,
}

impl RefusalCause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Code(code) => code.as_str(),
            Self::Certificate => "certificate",
            Self::Evicted => "evicted",
            Self::Ignored => "ignored",
        }
    }
}

impl From<Code> for RefusalCause {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

/// The refusals since the last report.
#[derive(Default)]
pub struct Refusals {
    counts: Counts,
    since: Option<Instant>,
}

/// How many refusals of each cause there were, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: u64,
    pub causes: BTreeMap<RefusalCause, u64>,
    pub addresses: BTreeMap<IpAddr, u64>,
    pub elsewhere: u64,
}

impl Refusals {
    /// One more; returns whether it may have a line of its own.
    pub fn count(&mut self, cause: RefusalCause, address: IpAddr, now: Instant) -> bool {
        self.since.get_or_insert(now);
        let counts = &mut self.counts;
        counts.total += 1;
        *counts.causes.entry(cause).or_default() += 1;
        let address = host(address);
        let has_room = counts.addresses.len() < ADDRESSES_MAX || counts.addresses.contains_key(&address);
        match has_room {
            true => *counts.addresses.entry(address).or_default() += 1,
            false => counts.elsewhere += 1,
        }
        counts.total <= LINES_MAX
    }

    /// The counts, if a report is due at `now`.
    pub fn report(&mut self, now: Instant) -> Option<Counts> {
        let since = self.since?;
        if now.saturating_duration_since(since) < REPORT_EVERY { None } else { self.drain() }
    }

    /// The counts, if there are any: nothing comes any more.
    pub fn drain(&mut self) -> Option<Counts> {
        self.since.take()?;
        Some(std::mem::take(&mut self.counts))
    }
}

impl Counts {
    /// Whether some of them had no line of their own.
    pub fn exceeds_lines(&self) -> bool {
        self.total > LINES_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Issue 9, C1: however many there are, lines and entries are few, and the counts are right.
    #[test]
    fn a_flood_of_refusals_is_a_few_lines_and_one_report() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        assert_eq!(refusals.report(now), None);
        let mut lines = 0;
        for count in 0..100_000u32 {
            let cause = if count % 4 == 0 { RefusalCause::Code(Code::TooSlow) } else { RefusalCause::Evicted };
            let address = Ipv4Addr::from(0x0a00_0000 + count % 1000);
            lines += u64::from(refusals.count(cause, address.into(), now));
        }
        assert_eq!(lines, LINES_MAX);
        assert_eq!(refusals.report(now + REPORT_EVERY / 2), None);
        let counts = refusals.report(now + REPORT_EVERY).unwrap();
        assert!(counts.exceeds_lines());
        assert_eq!(
            counts.causes,
            BTreeMap::from([(RefusalCause::Evicted, 75_000), (RefusalCause::Code(Code::TooSlow), 25_000)])
        );
        assert_eq!((counts.addresses.len(), counts.elsewhere), (ADDRESSES_MAX, 98_400));
        assert_eq!(counts.addresses.values().sum::<u64>() + counts.elsewhere, counts.total);
        // Then it begins again.
        assert_eq!(refusals.report(now + 2 * REPORT_EVERY), None);
        assert!(refusals.count(RefusalCause::Ignored, Ipv4Addr::LOCALHOST.into(), now + 2 * REPORT_EVERY));
        assert_eq!(refusals.drain().map(|counts| counts.total), Some(1));
        assert_eq!(refusals.drain(), None);
    }
}
