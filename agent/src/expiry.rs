//! The end of a grant. It comes by the wall clock, whoever sets it; and by a clock that nobody can set and that goes on
//! while the machine sleeps, so that neither a step backwards nor a suspended machine prolongs anything.

use std::time::Duration;

use sealift_protocol::{close::Code, grant::Grant};

use crate::{
    clock::{boottime, now_seconds, utc_text},
    failure::{Failure, Outcome, explain},
};

/// How often the clocks are looked at: revocation and expiry are to act within seconds.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When a grant ends, on two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    not_after_seconds: u64,
    boottime_deadline: Duration,
}

impl Expiry {
    pub fn of(grant: &Grant) -> Self {
        let left = grant.not_after_seconds.saturating_sub(now_seconds());
        Self {
            not_after_seconds: grant.not_after_seconds,
            boottime_deadline: boottime().saturating_add(Duration::from_secs(left)),
        }
    }

    pub fn left(&self) -> Duration {
        let wall = Duration::from_secs(self.not_after_seconds.saturating_sub(now_seconds()));
        wall.min(self.boottime_deadline.saturating_sub(boottime()))
    }

    /// Resolves when the grant has ended. Cancel-safe.
    pub async fn passed(&self) -> Failure {
        while !self.left().is_zero() {
            tokio::time::sleep(LOOK_EVERY.min(self.left())).await;
        }
        self.expired()
    }

    /// Runs `work` until it ends or the grant does.
    pub async fn or<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        tokio::select! {
            outcome = work => outcome.map_err(|failure| self.or_failure(failure)),
            expired = self.passed() => Err(expired),
        }
    }

    /// The end of the grant, if that is why trying again is of no use. A process that was stopped for long finds its link
    /// gone and its grant ended at the same moment, in either order.
    pub fn or_failure(&self, failure: Failure) -> Failure {
        if failure.code.retry_may_help() && self.left().is_zero() { self.expired() } else { failure }
    }

    fn expired(&self) -> Failure {
        let now = now_seconds();
        let mut failure = outside(Code::GrantExpired, self.not_after_seconds, now);
        if now < self.not_after_seconds {
            failure.what += "; that clock was set back while the transfer ran";
        }
        failure
    }
}

/// Whether the times of a grant allow a start now.
pub fn check_time(grant: &Grant) -> Outcome {
    let now = now_seconds();
    grant.check_time(now).map_err(|error| match error.code {
        Code::GrantNotYetValid => outside(error.code, grant.not_before_seconds, now),
        code => outside(code, grant.not_after_seconds, now),
    })
}

/// Both times, since either may be wrong: the grant's, and this clock's.
fn outside(code: Code, limit_seconds: u64, now_seconds: u64) -> Failure {
    let (what, next) = explain(code);
    let (limit, now) = (utc_text(limit_seconds), utc_text(now_seconds));
    let is_good = if code == Code::GrantNotYetValid { "is good from" } else { "was good until" };
    Failure::new(code, format!("{what}: it {is_good} {limit}, and this host's clock says {now}"), next)
}

#[cfg(test)]
mod tests {
    use sealift_protocol::error::Error;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn outcome(not_after_seconds: u64, boottime_deadline: Duration) -> Outcome {
        let expiry = Expiry { not_after_seconds, boottime_deadline };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let work = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            Ok(())
        };
        runtime.block_on(expiry.or(work))
    }

    /// fault-matrix T1, T2, T4: whichever clock comes first. A wall clock that was set back, or a machine that slept, gives
    /// no more time than the clock that nobody can set.
    #[test]
    fn the_clock_that_comes_first_ends_the_grant() {
        let (wall, boot) = (now_seconds() + DAY.as_secs(), boottime() + DAY);
        assert_eq!(outcome(wall, boot), Ok(()));
        let expired = |outcome: Outcome| assert_eq!(outcome.unwrap_err().code, Code::GrantExpired);
        expired(outcome(now_seconds() - 1, boot));
        expired(outcome(0, boot));
        expired(outcome(wall, boottime()));
        expired(outcome(u64::MAX, boottime() + Duration::from_millis(200)));
        expired(outcome(now_seconds() + 1, Duration::MAX));
    }

    /// fault-matrix C7: the link went while the process was stopped, and so did the grant.
    #[test]
    fn an_ended_grant_outweighs_a_lost_link() {
        let code_of = |left: Duration, code: Code| {
            let expiry = Expiry { not_after_seconds: u64::MAX, boottime_deadline: boottime() + left };
            expiry.or_failure(Error::new(code, "link").into()).code
        };
        assert_eq!(code_of(Duration::ZERO, Code::Interrupted), Code::GrantExpired);
        assert_eq!(code_of(DAY, Code::Interrupted), Code::Interrupted);
        assert_eq!(code_of(Duration::ZERO, Code::ChunkForged), Code::ChunkForged);
    }
}
