use sealift_agent::ticket::Ticket;
use sealift_protocol::{
    codec,
    fingerprint::Fingerprint,
    sealed_log::KeyFingerprint,
    sign::Signer,
    ticket_proof::{ProvenOn, TicketProof, TicketSecret},
};
use sealift_tests::wire::{Parties, Seeded};
use serde_json::{Value, json};

use super::hex;

fn ticket(parties: &Parties, addresses: &[&str]) -> Ticket {
    let grant = parties.grant();
    Ticket {
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        receiver: grant.grant.receiver,
        sealing_key: KeyFingerprint([0x31; 32]),
        grant,
        secret: Some(TicketSecret::generate(&mut Seeded::new("ticket", 0))),
    }
}

pub fn vectors() -> Value {
    let parties = Parties::new(99);
    let good = ticket(&parties, &["receiver.example.test:7443", "[2001:db8::1]:7443"]);
    let text = good.to_text().to_string();
    assert_eq!(codec::encode(&Ticket::from_text(&text).unwrap_or_else(|_| panic!("it is good"))), codec::encode(&good));
    let bound = Ticket { secret: None, ..ticket(&parties, &["receiver.example.test:7443"]) };
    let first = text.lines().nth(1).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.swap(1, 2);
    let no_address = ticket(&parties, &[]);
    let many = ticket(&parties, &["h:1"; 17]);
    let long = ticket(&parties, &[&"h".repeat(1025)]);
    let foreign = Ticket { receiver: Fingerprint([9; 32]), ..ticket(&parties, &["h:1"]) };
    let cases = [
        ("nothing", String::new()),
        ("no end", text.replace("-----END SEALIFT TICKET-----", "")),
        ("no beginning", text.replace("-----BEGIN SEALIFT TICKET-----", "")),
        ("a line missing", text.replacen(&format!("{first}\n"), "", 1)),
        ("two lines swapped", lines.join("\n")),
        ("a character changed", text.replacen('w', "x", 1)),
        ("not base64", text.replacen(&first[..4], "****", 1)),
        ("no address", no_address.to_text().to_string()),
        ("seventeen addresses", many.to_text().to_string()),
        ("an address of 1,025 bytes", long.to_text().to_string()),
        ("a grant for another receiver", foreign.to_text().to_string()),
    ];
    let bad = cases.map(|(defect, text)| {
        let failure = Ticket::from_text(&text).err().unwrap_or_else(|| panic!("{defect} was accepted"));
        json!({ "defect": defect, "text": text, "code": failure.code.as_str(), "number": failure.code.number() })
    });
    json!({
        "good": { "bytes": hex(codec::encode(&good)), "text": text },
        "bound": { "bytes": hex(codec::encode(&bound)), "text": bound.to_text().to_string() },
        "bad": bad,
        "proof": proof(&parties, &good),
    })
}

fn proof(parties: &Parties, ticket: &Ticket) -> Value {
    let secret = ticket.secret.as_ref().expect("it is not bound");
    let on = ProvenOn {
        exporter: &parties.channel.exporter,
        sender: Fingerprint::of(&parties.sender.public_key()),
        receiver: Fingerprint::of(&parties.receiver.public_key()),
        grant_hash: ticket.grant.hash_with_signature(),
    };
    let proof = TicketProof::make(ticket.grant.grant.transfer, secret, on);
    json!({
        "secret": hex(&codec::encode(secret)[2..]),
        "exporter": hex(on.exporter),
        "sender_key": hex(parties.sender.public_key().0),
        "sender_fingerprint": on.sender.digits(),
        "receiver_key": hex(parties.receiver.public_key().0),
        "receiver_fingerprint": on.receiver.digits(),
        "grant_hash": hex(on.grant_hash),
        "message": hex(proof.to_bytes()),
    })
}
