//! The live form of a grant inside an agent, asked before every part and commit: when it ends, and
//! whether it was revoked. Its end comes by the wall clock, which can be set, and by a clock
//! that cannot be set and that runs on while the machine sleeps, so that neither a step backwards
//! nor a suspended machine prolongs anything.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sealift_protocol::{close::Code, grant::Grant};
use tokio::sync::watch;

use crate::{
    clock::{boottime, now_seconds, utc_text},
    failure::{Failure, Outcome, explain},
};

/// How often the clocks are looked at: revocation and expiry are to act within seconds.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When both sides say how little time is left: enough to look at the progress, and to have a new
/// ticket ready.
const WARNED_BEFORE: [Duration; 2] = [Duration::from_secs(600), Duration::from_secs(60)];

/// What a transfer may still do. Clones share it: that the transfer has begun moves the end for all
/// of them, and a revocation ends all of them.
#[derive(Clone, Debug)]
pub struct Permit(Arc<Live>);

#[derive(Debug)]
struct Live {
    end_seconds: AtomicU64,
    boottime_ms: AtomicU64,
    begun: AtomicBool,
    revoked: watch::Sender<Option<Failure>>,
}

impl Permit {
    /// Of a transfer that has `begun`, or has until then to begin.
    pub fn of(grant: &Grant, begun: bool) -> Self {
        let end_seconds = grant.end_seconds(begun);
        Self::new(end_seconds, boottime_deadline(end_seconds), begun)
    }

    fn new(end_seconds: u64, boottime_deadline: Duration, begun: bool) -> Self {
        Self(Arc::new(Live {
            end_seconds: end_seconds.into(),
            boottime_ms: milliseconds(boottime_deadline).into(),
            begun: begun.into(),
            revoked: watch::Sender::new(None),
        }))
    }

    /// The transfer has begun: from now on it has until `finish_before`.
    pub fn begin(&self, grant: &Grant) {
        let end_seconds = grant.end_seconds(true);
        self.0.boottime_ms.store(milliseconds(boottime_deadline(end_seconds)), Ordering::Relaxed);
        self.0.end_seconds.store(end_seconds, Ordering::Relaxed);
        self.0.begun.store(true, Ordering::Relaxed);
    }

    /// What was permitted is withdrawn, for this reason. The first one stays.
    pub fn revoke(&self, why: Failure) {
        self.0.revoked.send_if_modified(|revoked| {
            let is_news = revoked.is_none();
            revoked.get_or_insert(why);
            is_news
        });
    }

    /// Why it is withdrawn, if it is.
    pub fn revoked(&self) -> Option<Failure> {
        self.0.revoked.borrow().clone()
    }

    /// The time that is left.
    pub fn left(&self) -> Duration {
        let end_seconds = self.0.end_seconds.load(Ordering::Relaxed);
        let wall = Duration::from_secs(end_seconds.saturating_sub(now_seconds()));
        let deadline = Duration::from_millis(self.0.boottime_ms.load(Ordering::Relaxed));
        wall.min(deadline.saturating_sub(boottime()))
    }

    /// That it has ended, if it has.
    pub fn expired(&self) -> Option<Failure> {
        if !self.left().is_zero() {
            return None;
        }
        let now = now_seconds();
        let end_seconds = self.0.end_seconds.load(Ordering::Relaxed);
        let mut failure = outside(Code::GrantExpired, end_seconds, now);
        if now < end_seconds {
            failure.what += "; that clock was set back while the transfer ran";
        }
        if self.0.begun.load(Ordering::Relaxed) {
            failure.hints = SUSPENDED.into();
        }
        Some(failure)
    }

    /// Resolves when it is time to ask again. Cancel-safe.
    pub(crate) async fn changes(&self) {
        let mut revoked = self.0.revoked.subscribe();
        let left = self.left();
        let look_again = if left.is_zero() { LOOK_EVERY } else { LOOK_EVERY.min(left) };
        // Once it was revoked, nothing but the time can change.
        let is_revoked = revoked.borrow_and_update().is_some();
        tokio::select! {
            () = tokio::time::sleep(look_again) => {}
            _ = revoked.changed(), if !is_revoked => {}
        }
    }

    /// Says how much time a transfer that has begun has left to finish, when that is ten minutes
    /// and when it is one. Never returns. Cancel-safe.
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
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn code(end_seconds: u64, boottime_deadline: Duration) -> Option<Code> {
        Permit::new(end_seconds, boottime_deadline, false).expired().map(|failure| failure.code)
    }

    /// Faults T1, T2, T4: whichever clock comes first. A wall clock that was set back, or a machine
    /// that slept, gives no more time than the clock that cannot be set.
    #[test]
    fn the_clock_that_comes_first_ends_the_grant() {
        let wall = now_seconds() + DAY.as_secs();
        let boot = boottime() + DAY;
        assert_eq!(code(wall, boot), None);
        assert_eq!(code(now_seconds() - 1, boot), Some(Code::GrantExpired));
        assert_eq!(code(0, boot), Some(Code::GrantExpired));
        assert_eq!(code(wall, boottime()), Some(Code::GrantExpired));
        assert_eq!(code(u64::MAX, Duration::ZERO), Some(Code::GrantExpired));
    }

    #[test]
    fn the_first_revocation_stays() {
        let permit = Permit::new(u64::MAX, boottime() + DAY, true);
        let shared = permit.clone();
        assert_eq!(permit.revoked(), None);
        shared.revoke(Failure::new(Code::GrantInvalid, "first", ""));
        shared.revoke(Failure::new(Code::GrantInvalid, "second", ""));
        assert_eq!(permit.revoked().map(|failure| failure.what), Some("first".to_owned()));
    }
}
