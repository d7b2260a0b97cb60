//! Two clocks: the wall clock, which can be set, and the one that counts since the
//! machine started, which cannot be set and which runs on while the machine sleeps.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    wall_seconds: i64,
    boottime: Duration,
}

impl Reading {
    pub fn now() -> Self {
        Self { wall_seconds: OffsetDateTime::now_utc().unix_timestamp(), boottime: boottime() }
    }

    /// Seconds by which the wall clock was set forwards, or backwards (negative), since `earlier`.
    pub fn step_since(&self, earlier: &Reading) -> i64 {
        let passed = self.boottime.saturating_sub(earlier.boottime).as_secs() as i64;
        self.wall_seconds.saturating_sub(earlier.wall_seconds).saturating_sub(passed)
    }
}

/// Seconds since 1970, UTC.
pub fn now_seconds() -> u64 {
    OffsetDateTime::now_utc().unix_timestamp().max(0) as u64
}

/// A time in seconds since 1970 as people and `date -u` write it.
pub fn utc_text(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "an unknown time".into())
}

/// Milliseconds since 1970, UTC.
pub fn now_ms() -> u64 {
    (OffsetDateTime::now_utc().unix_timestamp_nanos().max(0) / 1_000_000) as u64
}

/// Time since the machine started, the time that it slept included.
pub fn boottime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, |now| {
        Duration::new(now.tv_sec().max(0) as u64, now.tv_nsec().clamp(0, 999_999_999) as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_what_the_other_clock_did_not_see() {
        let earlier = Reading { wall_seconds: 1_000_000, boottime: Duration::from_secs(500) };
        let later = |wall, boot| Reading { wall_seconds: wall, boottime: Duration::from_secs(boot) };
        assert_eq!(later(1_000_060, 560).step_since(&earlier), 0);
        assert_eq!(later(1_003_600, 500).step_since(&earlier), 3600);
        assert_eq!(later(1_000_060 - 31_536_000, 560).step_since(&earlier), -31_536_000);
        assert_eq!(later(i64::MIN, 560).step_since(&earlier), i64::MIN);
    }
}
