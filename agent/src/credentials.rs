//! What an agent shows to its peers, and whom it lets through. Both can be renewed while the
//! process runs: a connection takes what is current when its handshake begins, and keeps it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use sealift_protocol::close::Code;
use tokio::sync::watch;

use crate::{
    failure::{Failure, Outcome},
    identity::Identity,
    report::Report,
    role::Role,
    state::StateDir,
    trust::Trust,
};

/// How soon a certificate that was put into the state directory is shown. Reading one file of a few
/// hundred bytes that often costs nothing that could be measured.
const RENEWED_WITHIN: Duration = Duration::from_secs(2);

/// What a handshake needs.
#[derive(Clone)]
pub struct Current {
    pub identity: Arc<Identity>,
    pub trust: Arc<Trust>,
}

/// Where they are renewed. Every handshake that begins later takes what was put here last.
pub struct Credentials(watch::Sender<Current>);

impl Credentials {
    pub fn new(identity: Arc<Identity>, trust: Trust) -> Self {
        Self(watch::Sender::new(Current { identity, trust: Arc::new(trust) }))
    }

    /// From now on this certificate is shown. It has to be of the same key: tickets, grants and
    /// peers know an agent by that.
    pub fn renew_identity(&self, identity: Arc<Identity>) -> Outcome {
        if identity.fingerprint() != self.0.borrow().identity.fingerprint() {
            let what = "a renewed certificate is of another key than the one that this agent runs with";
            let hint = "An agent with another key is another agent: stop this one, and start it with the new identity.";
            return Err(Failure::new(Code::IdentityRefused, what, hint));
        }
        self.0.send_modify(|current| current.identity = identity);
        Ok(())
    }

    /// From now on peers are let through by this.
    pub fn renew_trust(&self, trust: Trust) {
        self.0.send_modify(|current| current.trust = Arc::new(trust));
    }

    /// Shows what `identity --certificate` puts into the state directory, without a restart. Never
    /// returns. Cancel-safe.
    pub async fn follow(&self, state: &StateDir, role: Role, report: &Report) -> Infallible {
        let mut found_last = self.0.borrow().identity.leaf().clone();
        let mut ticks = tokio::time::interval(RENEWED_WITHIN);
        loop {
            ticks.tick().await;
            // What cannot be read changes nothing: `identity` says what is wrong with it.
            let Ok(Some(found)) = Identity::kept(state) else { continue };
            if *found.leaf() == found_last {
                continue;
            }
            found_last = found.leaf().clone();
            match self.renew_identity(Arc::new(found)) {
                Ok(()) => {
                    report.event("identity_renewed", &[]);
                    report
                        .say(&format!("{role}: a new certificate is in the state directory; it is shown from now on."));
                }
                Err(failure) => report.say_lines(&format!("{role}: {failure}")),
            }
        }
    }

    /// What the next handshake takes.
    pub fn current(&self) -> Current {
        self.0.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Current> {
        self.0.subscribe()
    }
}
