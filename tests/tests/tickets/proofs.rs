//! Proofs that are wrong, spoken by a raw sender.

use std::time::Duration;

use quinn::{RecvStream, SendStream};
use sealift_agent::{
    clock::now_seconds, control::PROOF_TIMEOUT, identity::Identity, random::SystemRandom, role::Role, ticket::Ticket,
};
use sealift_protocol::{
    close::Code,
    fingerprint::Fingerprint,
    id::TransferId,
    message::{Message, Offer, Refuse},
    negotiate::suites_auto,
    ticket_proof::{ProvenOn, TICKET_PROOF_BYTES, TicketProof, TicketSecret},
};
use sealift_sender::transfer::proof_of;
use sealift_tests::exit;

use super::{Hosts, Peer, closed_with, offers::plan, read_ticket, run};

/// What the proof of a ticket is made over, of which a row alters one thing.
type Over = for<'a> fn(ProvenOn<'a>, &Identity) -> ProvenOn<'a>;

const ALTERED: &[(&str, Over)] = &[
    ("no exporter", |on, _| ProvenOn { exporter: &[0; 32], ..on }),
    ("another sender", |on, _| ProvenOn { sender: Fingerprint([7; 32]), ..on }),
    ("another receiver", |on, _| ProvenOn { receiver: Fingerprint([7; 32]), ..on }),
    ("the forger as the receiver", |on, forger| ProvenOn { receiver: forger.fingerprint(), ..on }),
    ("the roles swapped", |on, _| ProvenOn { sender: on.receiver, receiver: on.sender, ..on }),
    ("the sender in both roles", |on, _| ProvenOn { receiver: on.sender, ..on }),
    ("the receiver in both roles", |on, _| ProvenOn { sender: on.receiver, ..on }),
    ("another grant", |on, _| ProvenOn { grant_hash: [7; 32], ..on }),
];

async fn say(peer: &Peer, bytes: &[u8]) -> (SendStream, RecvStream) {
    let (mut out, answer) = peer.link.quic().open_bi().await.unwrap();
    out.write_all(bytes).await.unwrap();
    (out, answer)
}

/// The refusal that comes in answer, and the code of the close behind it.
async fn refused(peer: &Peer, bytes: &[u8], code: Code, name: &str) {
    let (_out, mut answer) = say(peer, bytes).await;
    let frame = answer.read_to_end(1024).await.unwrap();
    assert_eq!(frame, Message::Refuse(Refuse::new(code)).to_frame().unwrap(), "{name}");
    assert_eq!(closed_with(peer.link.quic()).await, Some(code), "{name}");
}

fn offer(ticket: &Ticket) -> Message {
    Message::Offer(Offer {
        versions: vec![1],
        suites: suites_auto(true).into_iter().map(Into::into).collect(),
        grant: ticket.grant.clone(),
        plan: plan(),
        nonce: [0; 32],
        fresh: false,
        now_seconds: now_seconds(),
    })
}

/// Issue 9, A1: a proof is good once, on one connection, by one pair of keys in their roles, for
/// one grant; and it is 52 bytes, at once, before anything else. Whatever else comes binds nothing.
#[test]
fn a_wrong_proof_binds_nothing() {
    let hosts = Hosts::new();
    let mut receiver = hosts.listen().start();
    let ticket = read_ticket(&receiver.ticket());
    let transfer = ticket.grant.grant.transfer;
    let secret = ticket.secret.clone().unwrap();
    let identity = hosts.identity("other");
    let forger = Identity::generate(Role::Sender).unwrap();
    run(async {
        for (name, over) in ALTERED {
            let peer = Peer::connect(&ticket, &identity).await;
            let on = peer.link.proven_on(&identity, ticket.grant.hash_with_signature());
            let proof = TicketProof::make(transfer, &secret, over(on, &forger));
            refused(&peer, &proof.to_bytes(), Code::ProofRefused, name).await;
        }
        let made_up = TicketSecret::generate(&mut SystemRandom::default());
        let peer = Peer::connect(&ticket, &identity).await;
        let on = peer.link.proven_on(&identity, ticket.grant.hash_with_signature());
        let proof = TicketProof::make(transfer, &made_up, on).to_bytes();
        refused(&peer, &proof, Code::ProofRefused, "another secret").await;

        let peer = Peer::connect(&ticket, &identity).await;
        refused(&peer, &TicketProof::bound(transfer).to_bytes(), Code::ProofRefused, "zeros").await;
        let peer = Peer::connect(&ticket, &identity).await;
        let unknown = TicketProof::bound(TransferId([9; 16]));
        refused(&peer, &unknown.to_bytes(), Code::TicketUnknown, "a transfer that is not known").await;

        // A good one is of no use on another connection, by its own sender or by another.
        let first = Peer::connect(&ticket, &identity).await;
        let good = proof_of(&ticket, &identity, &first.link).to_bytes();
        let again = Peer::connect(&ticket, &identity).await;
        refused(&again, &good, Code::ProofRefused, "of another connection").await;
        let stolen = Peer::connect(&ticket, &forger).await;
        refused(&stolen, &good, Code::ProofRefused, "of another sender").await;
        // A wrong one with more behind it is wrong.
        let peer = Peer::connect(&ticket, &identity).await;
        let longer = [&good[..], &[0]].concat();
        refused(&peer, &longer, Code::ProofRefused, "of another connection, and longer").await;
        drop(first);
    });
    hosts.assert_unbound(transfer);
    hosts.assert_serves(receiver, "sender");
}

/// Issue 9, A1: bytes that are no proof, and proofs that do not come.
#[test]
fn no_proof_is_refused_by_a_code_and_binds_nothing() {
    let hosts = Hosts::new();
    let mut receiver = hosts.listen().start();
    let ticket = read_ticket(&receiver.ticket());
    let transfer = ticket.grant.grant.transfer;
    let identity = hosts.identity("other");
    run(async {
        // An offer instead of a proof; the right bytes at another place; another version.
        let proof_on = |peer: &Peer| proof_of(&ticket, &identity, &peer.link).to_bytes();
        for row in 0..3 {
            let peer = Peer::connect(&ticket, &identity).await;
            let mut bytes = match row {
                0 => offer(&ticket).to_frame().unwrap(),
                1 => [&[0][..], &proof_on(&peer)].concat(),
                _ => proof_on(&peer).to_vec(),
            };
            if row == 2 {
                bytes[3] += 1;
            }
            let _streams = say(&peer, &bytes).await;
            assert_eq!(closed_with(peer.link.quic()).await, Some(Code::ProtocolViolation), "row {row}");
        }
        // Short, and ended; and nothing at all.
        for length in [TICKET_PROOF_BYTES - 1, 1, 0] {
            let peer = Peer::connect(&ticket, &identity).await;
            let (mut out, _answer) = say(&peer, &proof_on(&peer)[..length]).await;
            out.finish().unwrap();
            assert_eq!(closed_with(peer.link.quic()).await, Some(Code::ProtocolViolation), "{length} bytes");
        }
        // Short, and nothing that a proof begins with: that needs no waiting.
        for garbage in ["x", "SLp2", "SLpx and so on"] {
            let peer = Peer::connect(&ticket, &identity).await;
            let _streams = say(&peer, garbage.as_bytes()).await;
            let closed = tokio::time::timeout(PROOF_TIMEOUT / 2, closed_with(peer.link.quic())).await;
            assert_eq!(closed, Ok(Some(Code::ProtocolViolation)), "{garbage}");
        }
        // Streams of data are not to be had before anything is agreed.
        let peer = Peer::connect(&ticket, &identity).await;
        let stream = tokio::time::timeout(Duration::from_secs(1), peer.link.quic().open_uni()).await;
        assert!(stream.is_err(), "a stream of data before a proof");
        // Missing; short, and going on for ever; and whole, too late. Side by side.
        let (missing, short, late) = tokio::join!(
            Peer::connect(&ticket, &identity),
            Peer::connect(&ticket, &identity),
            Peer::connect(&ticket, &identity)
        );
        let _short = say(&short, &proof_on(&short)[..TICKET_PROOF_BYTES - 1]).await;
        let proof = proof_on(&late);
        let (mut out, _answer) = say(&late, &proof[..4]).await;
        tokio::time::sleep(PROOF_TIMEOUT + Duration::from_secs(1)).await;
        let _ = out.write_all(&proof[4..]).await;
        for peer in [missing, short, late] {
            assert_eq!(closed_with(peer.link.quic()).await, Some(Code::TooSlow));
        }
    });
    hosts.assert_unbound(transfer);
    let (_, receiver) = hosts.assert_serves(receiver, "sender");
    receiver.assert_code(exit::DONE);
}
