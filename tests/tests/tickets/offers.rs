//! What comes behind a good proof: grants other than the one that was proven, messages out of turn,
//! other senders.

use std::time::Duration;

use sealift_agent::{
    clock::now_seconds,
    control::{ControlReader, ControlWriter, open_control},
    identity::Identity,
    role::Role,
    ticket::Ticket,
};
use sealift_protocol::{
    close::Code,
    fingerprint::Fingerprint,
    grant::{DocumentHash, Grant, SignedGrant},
    id::{ChunkCount, PartIndex, TransferId},
    manifest::Plan,
    message::{Ack, Message, Offer, Ready, Refuse},
    negotiate::suites_auto,
    sign::Signature,
    ticket_proof::TicketProof,
};
use sealift_sender::transfer::proof_of;
use sealift_tests::wire::opaque_plan;

use super::{Hosts, Peer, closed_with, other_receiver, other_ticket, read_ticket, run, stop};

pub fn plan() -> Plan {
    opaque_plan()
}

fn offer(grant: SignedGrant) -> Offer {
    Offer {
        versions: vec![1],
        suites: suites_auto(true).into_iter().map(Into::into).collect(),
        grant,
        plan: plan(),
        nonce: [0; 32],
        fresh: false,
        now_seconds: now_seconds(),
    }
}

/// What is changed in a grant.
type Alter = fn(&mut Grant);

/// Every field of the grant.
const FIELDS: &[(&str, Alter)] = &[
    ("transfer", |grant| grant.transfer = TransferId([9; 16])),
    ("sender", |grant| grant.sender = Some(Fingerprint([7; 32]))),
    ("receiver", |grant| grant.receiver = Fingerprint([7; 32])),
    ("source", |grant| grant.source = "ehr".into()),
    ("target", |grant| grant.target = "other".into()),
    ("purpose", |grant| grant.purpose = "CHG-2".into()),
    ("not before", |grant| grant.not_before_seconds += 1),
    ("begin before", |grant| grant.begin_before_seconds += 1),
    ("finish before", |grant| grant.finish_before_seconds += 1),
    ("retain until", |grant| grant.retain_until_seconds += 1),
    ("scope", |grant| grant.scope = Some(DocumentHash([7; 32]))),
    ("policy", |grant| grant.policy = Some(DocumentHash([7; 32]))),
];

type Change = fn(&mut Offer);

const OFFERS: &[(&str, Change, Code)] = &[
    ("signature of zeros", |offer| offer.grant.signature = Signature([0; 64]), Code::GrantInvalid),
    ("signature, one bit", |offer| offer.grant.signature.0[40] ^= 4, Code::GrantInvalid),
    ("clock ahead", |offer| offer.now_seconds += 3600, Code::ClocksApart),
    ("clock behind", |offer| offer.now_seconds -= 3600, Code::ClocksApart),
    ("another version", |offer| offer.versions = vec![2], Code::VersionUnsupported),
    ("no version", |offer| offer.versions.clear(), Code::VersionUnsupported),
    ("no suite", |offer| offer.suites.clear(), Code::SuiteUnsupported),
    ("no part", |offer| offer.plan.parts.clear(), Code::PlanRefused),
    ("two parts of a dump", |offer| offer.plan.parts.extend(plan().parts), Code::PlanRefused),
];

struct Bound<'a> {
    ticket: &'a Ticket,
    identity: &'a Identity,
}

impl Bound<'_> {
    /// The control stream, behind a good proof.
    async fn control(&self) -> (Peer, ControlWriter, ControlReader) {
        let peer = Peer::connect(self.ticket, self.identity).await;
        let proof = proof_of(self.ticket, self.identity, &peer.link);
        let (writer, control) = open_control(&peer.link, &proof).await.unwrap();
        (peer, writer, control)
    }

    async fn refused(&self, message: &Message, code: Code, name: &str) {
        let (peer, mut writer, mut control) = self.control().await;
        writer.send(message).await.unwrap();
        let failure = control.expect(0).await.unwrap_err();
        assert_eq!((failure.code, failure.raised_by.is_peer()), (code, true), "{name}: {failure}");
        assert_eq!(closed_with(peer.link.quic()).await, Some(code), "{name}");
    }
}

/// Issue 9, A1, A3: who has proven a ticket may offer the transfer of that ticket under the grant
/// of that ticket, and nothing else. No other sender has the ticket from then on, and the bound one
/// continues with it after every refusal.
#[test]
fn an_offer_other_than_what_was_proven_is_refused() {
    let hosts = Hosts::new();
    let mut receiver = hosts.listen().start();
    let ticket = read_ticket(&receiver.ticket());
    let (elsewhere, other) = other_receiver(&hosts);
    let (beside, second) = other_ticket(&hosts);
    let (other, second) = (read_ticket(&other), read_ticket(&second));
    // The honest sender's own, whose process comes at the end.
    let identity = hosts.identity("sender");
    let stranger = Identity::generate(Role::Sender).unwrap();
    let bound = Bound { ticket: &ticket, identity: &identity };
    run(async {
        let refused = |offer: Offer, code, name: String| {
            let bound = &bound;
            async move { bound.refused(&Message::Offer(offer), code, &name).await }
        };
        for (name, alter) in FIELDS {
            let mut altered = offer(ticket.grant.clone());
            alter(&mut altered.grant.grant);
            refused(altered.clone(), Code::GrantInvalid, format!("altered: {name}")).await;
            altered.grant = altered.grant.grant.sign(&identity);
            refused(altered, Code::GrantInvalid, format!("signed by the sender: {name}")).await;
        }
        for (name, change, code) in OFFERS {
            let mut changed = offer(ticket.grant.clone());
            change(&mut changed);
            refused(changed, *code, (*name).to_owned()).await;
        }
        refused(offer(second.grant.clone()), Code::GrantForeign, "of another transfer".into()).await;
        refused(offer(other.grant.clone()), Code::GrantInvalid, "of another receiver".into()).await;
        let ack = Ack { part: PartIndex(0), verified: ChunkCount(1), durable: ChunkCount(1) };
        for message in [Message::Ready(Ready { transcript: [0; 32] }), Message::Ack(ack)] {
            bound.refused(&message, Code::ProtocolViolation, "out of turn").await;
        }
        // Data before Begin: there is no stream to be had for it.
        let (peer, _writer, _control) = bound.control().await;
        let stream = tokio::time::timeout(Duration::from_secs(1), peer.link.quic().open_uni()).await;
        assert!(stream.is_err(), "a stream of data before anything was agreed");
        peer.link.close(Code::Interrupted);

        // Another sender, with the secret and without: told which one it is bound to.
        let on = |peer: &Peer| proof_of(&ticket, &stranger, &peer.link);
        for with_secret in [true, false] {
            let peer = Peer::connect(&ticket, &stranger).await;
            let proof = if with_secret { on(&peer) } else { TicketProof::bound(ticket.grant.grant.transfer) };
            let (_writer, mut control) = open_control(&peer.link, &proof).await.unwrap();
            let failure = control.expect(0).await.unwrap_err();
            assert_eq!((failure.code, failure.bound), (Code::TicketBound, Some(Box::new(identity.fingerprint()))));
        }
        // Nor can it end the transfer.
        let peer = Peer::connect(&ticket, &stranger).await;
        let (mut writer, mut control) = open_control(&peer.link, &on(&peer)).await.unwrap();
        let _ = writer.send(&Message::Refuse(Refuse::new(Code::Abandoned))).await;
        assert_eq!(control.expect(0).await.unwrap_err().code, Code::TicketBound);
    });
    stop(elsewhere);
    stop(beside);
    assert_eq!(hosts.entries("receiver", "ticket.bind").len(), 1);
    assert_eq!(hosts.entries("receiver", "ticket.refuse").len(), 1, "one entry for each sender");
    hosts.assert_nothing_loaded();
    hosts.assert_serves(receiver, "sender");
}
