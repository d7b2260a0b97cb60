//! Offers that take more than they give, by a peer that has the ticket.

use sealift_protocol::{
    close::Code,
    limits::{OFFER_BYTES_MAX, PARTS_MAX, TABLES_MAX},
    manifest::PlannedTable,
    message::{Message, Offer, Refuse},
    negotiate::suites_auto,
};

use sealift_sender::transfer::proof_of;

use super::{Attacker, Victim, plan, run};

/// The least part, an opaque one: a map of its section, in a list of one.
const ONE_PART: &[u8] = &[0x81, 0xa1, 0x00, 0x03];
/// The least table: a map of its name, here empty, and of whether the engine keeps it, in a list of
/// one.
const ONE_TABLE: &[u8] = &[0x81, 0xa2, 0x01, 0x60, 0x02, 0xf4];

/// A message with this many of `one`.
fn offer_of(one: &[u8], count: usize, attacker: &Attacker) -> Vec<u8> {
    let (grant, mut plan) = (attacker.ticket.grant.clone(), plan());
    plan.tables.push(PlannedTable::named(""));
    let offer = Offer {
        versions: vec![1],
        suites: suites_auto(true).into_iter().map(Into::into).collect(),
        grant,
        plan,
        nonce: [0; 32],
        fresh: false,
        now_seconds: 0,
    };
    let frame = Message::Offer(offer).to_frame().unwrap();
    let at = frame.windows(one.len()).position(|window| window == one).unwrap();
    let list = [&[0x9a][..], &(count as u32).to_be_bytes()].concat();
    let body = [&frame[4..at], &list, &one[1..].repeat(count), &frame[at + one.len()..]].concat();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

/// Issue 9, C1: an offer of 800,000 parts or tables is refused by its length, and one of as many as
/// fit by their number, before there is memory for them. The receiver waits on.
#[test]
fn c1_an_offer_of_too_many_parts_is_refused_before_it_is_decoded() {
    let cases = [
        (ONE_PART, 800_000),
        (ONE_PART, (OFFER_BYTES_MAX - 1000) / 3),
        (ONE_PART, PARTS_MAX + 1),
        (ONE_TABLE, (OFFER_BYTES_MAX - 1000) / 5),
        (ONE_TABLE, TABLES_MAX + 1),
    ];
    for (one, count) in cases {
        let mut victim = Victim::start();
        let ticket = victim.ticket();
        run(async {
            let attacker = Attacker::connect(ticket).await;
            let (mut out, mut answer) = attacker.link.quic().open_bi().await.unwrap();
            let proof = proof_of(&attacker.ticket, &attacker.identity, &attacker.link);
            out.write_all(&proof.to_bytes()).await.unwrap();
            // It may be refused before all of it is written.
            let _ = out.write_all(&offer_of(one, count, &attacker)).await;
            let answer = answer.read_to_end(1024).await.unwrap();
            let refuse = Refuse::new(Code::LimitExceeded);
            assert_eq!(answer, Message::Refuse(refuse).to_frame().unwrap(), "{count}");
        });
        assert!(victim.receiver.is_running());
        let bytes = victim.receiver.peak_memory_bytes();
        assert!(bytes < 48 << 20, "{count}: {bytes} bytes");
        victim.receiver.sigint();
        victim.end();
    }
}
