//! What a refusal by the peer means to the person on this side.

use sealift_protocol::{
    close::Code,
    disposition::RaisedBy,
    failure::{Failure, explain},
    message::Refuse,
};

use crate::{clock::utc_text, role::Role};

const NOT_THIS_SENDER: &str = "it accepts another sender alone";
const NOT_THIS_SENDER_HINT: &str = "Nothing was sent, and the ticket stays good for the right sender. Compare what \
    `sealift-sender identity` prints here, with the same --state-dir, with --from at the receiver.";

/// The failure of this side, whose clock says `now_seconds`.
pub fn refused_by_peer(peer: &str, refuse: Refuse, now_seconds: u64) -> Failure {
    // A refusal is never a success, whatever a peer calls it.
    let code = if refuse.code == Code::Done { Code::ProtocolViolation } else { refuse.code };
    let (what, hints) = match code {
        // The only identity that a receiver refuses is this sender's.
        Code::IdentityRefused if peer == Role::Receiver.name() => (NOT_THIS_SENDER, NOT_THIS_SENDER_HINT.into()),
        code => explain(code),
    };
    // Ctrl-C over there is an interruption here.
    let (code, raised_by) = match code {
        Code::UserInterrupt => (Code::Interrupted, RaisedBy::PeerOperator),
        code => (code, RaisedBy::Peer),
    };
    let mut what = format!("the {peer} ended the transfer: {what}");
    if let Some(theirs) = refuse.now_seconds.filter(|_| code.is_of_clock()) {
        what += &format!("; this host's clock says {}, the {peer}'s {}", utc_text(now_seconds), utc_text(theirs));
    }
    if let Some(bound) = refuse.bound {
        what += &format!("; it is bound to {bound}");
    }
    let Refuse { part, chunk, bound, .. } = refuse;
    let bound = bound.map(Box::new);
    Failure { part, chunk, bound, raised_by, ..Failure::new(code, what, hints) }
}
