//! Offers that take more than they give, by somebody who has the ticket.

use sealift_protocol::{
    close::Code,
    limits::{OFFER_BYTES_MAX, PARTS_MAX},
    message::{Message, Offer, Refuse},
    negotiate::suites_auto,
};

use sealift_sender::transfer::proof_of;

use super::{Attacker, Victim, plan, run};

/// A message with this many parts, of six bytes each.
fn offer_of(parts: usize, attacker: &Attacker) -> Vec<u8> {
    let (grant, plan) = (attacker.ticket.grant.clone(), plan());
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
    // The one part is an opaque one without a name: a map of kind and name, in a list of one.
    let one = [0x81, 0xa2, 0x00, 0x00, 0x01, 0x60];
    let at = frame.windows(one.len()).position(|window| window == one).unwrap();
    let list = [&[0x9a][..], &(parts as u32).to_be_bytes()].concat();
    let body = [&frame[4..at], &list, &one[1..].repeat(parts), &frame[at + one.len()..]].concat();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

/// C1: an offer of 800,000 parts is refused by its length, and one of as many as fit by their number, before there is memory
/// for them. The receiver waits on.
#[test]
fn c1_an_offer_of_too_many_parts_is_refused_before_it_is_decoded() {
    for parts in [800_000, (OFFER_BYTES_MAX - 1000) / 5, PARTS_MAX + 1] {
        let mut victim = Victim::start();
        let ticket = victim.ticket();
        run(async {
            let attacker = Attacker::connect(ticket).await;
            let (mut out, mut answer) = attacker.link.quic().open_bi().await.unwrap();
            let proof = proof_of(&attacker.ticket, &attacker.identity, &attacker.link);
            out.write_all(&proof.to_bytes()).await.unwrap();
            // It may be refused before all of it is written.
            let _ = out.write_all(&offer_of(parts, &attacker)).await;
            let answer = answer.read_to_end(1024).await.unwrap();
            let refuse = Refuse::new(Code::LimitExceeded);
            assert_eq!(answer, Message::Refuse(refuse).to_frame().unwrap(), "{parts} parts");
        });
        assert!(victim.receiver.is_running());
        let bytes = victim.receiver.peak_memory_bytes();
        assert!(bytes < 48 << 20, "{parts} parts: {bytes} bytes");
        victim.receiver.sigint();
        victim.end();
    }
}
