//! A transfer that can be ended for any cause.

use std::time::Duration;

use sealift_agent::{
    clock::now_seconds,
    failure::Failure,
    permit::Permit,
    shutdown::Shutdown,
    stop::{Cause, Stop},
};
use sealift_protocol::{close::Code, fingerprint::Fingerprint, grant::Grant, id::TransferId};
use tokio::sync::watch;

pub const WITHIN: Duration = Duration::from_secs(30);
pub const TRANSFER: TransferId = TransferId([5; 16]);

pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(WITHIN, work).await.expect("it ends") })
}

fn grant(finish_before_seconds: u64) -> Grant {
    Grant {
        transfer: TRANSFER,
        sender: None,
        receiver: Fingerprint([1; 32]),
        source: String::new(),
        target: "target".into(),
        purpose: String::new(),
        not_before_seconds: 0,
        begin_before_seconds: finish_before_seconds,
        finish_before_seconds,
        retain_until_seconds: finish_before_seconds,
        scope: None,
        policy: None,
    }
}

/// A transfer with a day left, and what can end it.
pub struct Running {
    pub stop: Stop,
    permit: Permit,
    drains: watch::Sender<bool>,
}

impl Running {
    pub fn start() -> Self {
        let (drains, drain) = watch::channel(false);
        let stop = Stop::on(Shutdown::with_all(drain));
        let permit = Permit::of(&grant(now_seconds() + 86_400), true);
        stop.under(&permit);
        Self { stop, permit, drains }
    }

    /// Lets the cause come up, whether or not the transfer ends for another.
    pub fn bring_up(&self, cause: Cause) {
        let raised = Failure::new(Code::Abandoned, "raised", "");
        match cause {
            Cause::Shutdown => drop(self.drains.send(true)),
            Cause::Revoked => self.permit.revoke(raised),
            Cause::Expired => self.permit.begin(&grant(now_seconds() - 1)),
            Cause::Peer | Cause::Source | Cause::Displaced | Cause::Closed => self.stop.raise(cause, raised),
        }
    }

    /// Ends it, and returns what it ends for.
    pub fn end_by(&self, cause: Cause) -> Failure {
        self.bring_up(cause);
        let raised = self.stop.raised().unwrap();
        assert_eq!(raised.cause, cause);
        raised.failure
    }
}
