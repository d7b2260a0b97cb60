//! What an agent shows to its peers, and whom it lets through. Both can be renewed while the
//! process runs: a connection takes what is current when its handshake begins, and keeps it.

use std::sync::Arc;

use sealift_protocol::close::Code;
use tokio::sync::watch;

use crate::{
    failure::{Failure, Outcome},
    identity::Identity,
    trust::Trust,
};

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

    pub(crate) fn watch(&self) -> watch::Receiver<Current> {
        self.0.subscribe()
    }
}
