//! What a refusal by the peer means to the person on this side.

use sealift_protocol::{
    close::Code,
    disposition::RaisedBy,
    failure::{Failure, explain},
    message::Refuse,
};

use crate::clock::utc_text;

/// The failure of this side, whose clock says `now_seconds`.
pub fn refused_by_peer(peer: &str, refuse: Refuse, now_seconds: u64) -> Failure {
    // A refusal is never a success, whatever a peer calls it.
    let code = if refuse.code == Code::Done { Code::ProtocolViolation } else { refuse.code };
    let (what, hints) = explain(code);
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
