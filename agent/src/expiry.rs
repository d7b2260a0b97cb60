//! The end of a grant. It comes by the wall clock, whoever sets it; and by a clock that nobody can
//! set and that goes on while the machine sleeps, so that neither a step backwards nor a suspended
//! machine prolongs anything.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sealift_protocol::{close::Code, grant::Grant};

use crate::{
    clock::{boottime, now_seconds, utc_text},
    failure::{Failure, Outcome, explain},
};

/// How often the clocks are looked at: revocation and expiry are to act within seconds.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When both sides say how little time is left: enough to look at the progress, and to have a new
/// ticket ready.
const WARNED_BEFORE: [Duration; 2] = [Duration::from_secs(600), Duration::from_secs(60)];

/// When a grant ends, on two clocks. Clones share it: that a transfer has begun moves the end for
/// all of them.
#[derive(Clone, Debug)]
pub struct Expiry(Arc<Deadlines>);

#[derive(Debug)]
struct Deadlines {
    end_seconds: AtomicU64,
    boottime_ms: AtomicU64,
    begun: AtomicBool,
}

impl Expiry {
    /// Of a transfer that has `begun`, or has until then to begin.
    pub fn of(grant: &Grant, begun: bool) -> Self {
        let end_seconds = grant.end_seconds(begun);
        Self::new(end_seconds, boottime_deadline(end_seconds), begun)
    }

    fn new(end_seconds: u64, boottime_deadline: Duration, begun: bool) -> Self {
        let boottime_ms = u64::try_from(boottime_deadline.as_millis()).unwrap_or(u64::MAX);
        Self(Arc::new(Deadlines {
            end_seconds: end_seconds.into(),
            boottime_ms: boottime_ms.into(),
            begun: begun.into(),
        }))
    }

    /// The transfer has begun: from now on it has until `finish_before`.
    pub fn begin(&self, grant: &Grant) {
        let begun = Self::of(grant, true);
        self.0.boottime_ms.store(begun.0.boottime_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        self.0.end_seconds.store(begun.0.end_seconds.load(Ordering::Relaxed), Ordering::Relaxed);
        self.0.begun.store(true, Ordering::Relaxed);
    }

    pub fn left(&self) -> Duration {
        let end_seconds = self.0.end_seconds.load(Ordering::Relaxed);
        let wall = Duration::from_secs(end_seconds.saturating_sub(now_seconds()));
        let deadline = Duration::from_millis(self.0.boottime_ms.load(Ordering::Relaxed));
        wall.min(deadline.saturating_sub(boottime()))
    }

    /// Resolves when the grant has ended. Cancel-safe.
    pub async fn passed(&self) -> Failure {
        while !self.left().is_zero() {
            tokio::time::sleep(LOOK_EVERY.min(self.left())).await;
        }
        self.expired()
    }

    /// Says how much time a transfer that has begun has left to finish, when that is ten minutes
    /// and when it is one. Never returns. Cancel safe.
    pub async fn warn(&self, say: impl Fn(Duration)) -> Infallible {
        for warned_before in WARNED_BEFORE {
            while !self.0.begun.load(Ordering::Relaxed) || self.left() > warned_before {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            // A grant that is shorter than that is known to be.
            if self.left() + 2 * LOOK_EVERY >= warned_before {
                say(self.left());
            }
        }
        std::future::pending().await
    }

    /// Runs `work` until it ends or the grant does.
    pub async fn or<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        tokio::select! {
            outcome = work => outcome.map_err(|failure| self.or_failure(failure)),
            expired = self.passed() => Err(expired),
        }
    }

    /// The end of the grant, if that is why trying again is of no use. A process that was stopped
    /// for long finds its link gone and its grant ended at the same moment, in either order.
    pub fn or_failure(&self, failure: Failure) -> Failure {
        if failure.code.retry_may_help() && self.left().is_zero() { self.expired() } else { failure }
    }

    fn expired(&self) -> Failure {
        let now = now_seconds();
        let end_seconds = self.0.end_seconds.load(Ordering::Relaxed);
        let mut failure = outside(Code::GrantExpired, end_seconds, now);
        if now < end_seconds {
            failure.what += "; that clock was set back while the transfer ran";
        }
        if self.0.begun.load(Ordering::Relaxed) {
            failure.hints = SUSPENDED.into();
        }
        failure
    }
}

/// What to do once the time that a grant gives to finish has run out.
const SUSPENDED: &str = "The transfer is suspended, and what was loaded is kept for a while: give the receiver's command again, \
                         and the sender's with the ticket that it prints.";

/// Whether the times of a grant allow the transfer to begin now, or, once it is `begun`, to
/// continue.
pub fn check_time(grant: &Grant, begun: bool) -> Outcome {
    let now = now_seconds();
    grant.check_time(now, begun).map_err(|error| match error.code {
        Code::GrantNotYetValid => outside(error.code, grant.not_before_seconds, now),
        code if begun => Failure { hints: SUSPENDED.into(), ..outside(code, grant.end_seconds(begun), now) },
        code => outside(code, grant.end_seconds(begun), now),
    })
}

/// Both times, since either may be wrong: the grant's, and this clock's.
fn outside(code: Code, limit_seconds: u64, now_seconds: u64) -> Failure {
    let (what, hints) = explain(code);
    let limit = utc_text(limit_seconds);
    let now = utc_text(now_seconds);
    let is_good = if code == Code::GrantNotYetValid { "is good from" } else { "was good until" };
    Failure::new(code, format!("{what}: it {is_good} {limit}, and this host's clock says {now}"), hints)
}

fn boottime_deadline(end_seconds: u64) -> Duration {
    boottime().saturating_add(Duration::from_secs(end_seconds.saturating_sub(now_seconds())))
}

#[cfg(test)]
mod tests {
    use sealift_protocol::error::Error;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn outcome(end_seconds: u64, boottime_deadline: Duration) -> Outcome {
        let expiry = Expiry::new(end_seconds, boottime_deadline, false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let work = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            Ok(())
        };
        runtime.block_on(expiry.or(work))
    }

    /// fault-matrix T1, T2, T4: whichever clock comes first. A wall clock that was set back, or a
    /// machine that slept, gives no more time than the clock that nobody can set.
    #[test]
    fn the_clock_that_comes_first_ends_the_grant() {
        let wall = now_seconds() + DAY.as_secs();
        let boot = boottime() + DAY;
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
            let expiry = Expiry::new(u64::MAX, boottime() + left, false);
            expiry.or_failure(Error::new(code, "link").into()).code
        };
        assert_eq!(code_of(Duration::ZERO, Code::Interrupted), Code::GrantExpired);
        assert_eq!(code_of(DAY, Code::Interrupted), Code::Interrupted);
        assert_eq!(code_of(Duration::ZERO, Code::ChunkForged), Code::ChunkForged);
    }
}
