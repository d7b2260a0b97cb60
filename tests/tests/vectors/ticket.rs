use sealift_agent::ticket::Ticket;
use sealift_protocol::{
    close::Code,
    codec,
    fingerprint::Fingerprint,
    sealed_log::KeyFingerprint,
    sign::Signer,
    ticket_proof::{ProvenOn, TicketProof, TicketSecret},
};
use sealift_tests::wire::{Parties, Seeded};
use serde_json::{Value, json};

use super::{bad, cbor, exchange, hex, reference};

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
    let parties = Parties::new(exchange::SEED);
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
    let bad_texts = cases.map(|(defect, text)| {
        let failure = Ticket::from_text(&text).err().unwrap_or_else(|| panic!("{defect} was accepted"));
        json!({ "defect": defect, "text": text, "code": failure.code.as_str(), "number": failure.code.number() })
    });
    // A secret has no other way out than its encoding: a byte string of 32.
    let secret: [u8; 32] = codec::encode(good.secret.as_ref().unwrap())[2..].try_into().unwrap();
    let (bytes, checksum) = reference_ticket(&good, &secret);
    assert_eq!(bytes, codec::encode(&good));
    json!({
        "note": "the keys and the exporter are those of exchange.json",
        "sender_private_key": hex(parties.sender.seed()),
        "receiver_private_key": hex(parties.receiver.seed()),
        "checksum": hex(checksum),
        "good": { "bytes": hex(codec::encode(&good)), "text": text },
        "bound": { "bytes": hex(codec::encode(&bound)), "text": bound.to_text().to_string() },
        "bad": bad_texts,
        "proof": proof(&parties, &good, &secret),
    })
}

/// The same ticket, put together from its parts as docs/ticket.md says.
fn reference_ticket(ticket: &Ticket, secret: &[u8; 32]) -> (Vec<u8>, [u8; 8]) {
    use cbor::{array, bytes, map, text};
    let addresses: Vec<_> = ticket.addresses.iter().map(|address| text(address)).collect();
    let grant = ticket.grant.to_bytes();
    let ticket = map(&[
        (0, array(&addresses)),
        (1, bytes(&ticket.receiver.0)),
        (2, bytes(&ticket.sealing_key.0)),
        (3, grant),
        (4, bytes(secret)),
    ]);
    let checksum = blake3::derive_key("sealift/1 2026-11 ticket checksum", &ticket);
    (ticket, checksum[..8].try_into().unwrap())
}

/// What the HMAC of a proof is over.
#[derive(Clone)]
struct ProofInput {
    label: &'static [u8],
    exporter: [u8; 32],
    sender: [u8; 32],
    receiver: [u8; 32],
    grant_hash: [u8; 32],
}

impl ProofInput {
    fn to_bytes(&self) -> Vec<u8> {
        [self.label, &self.exporter, &self.sender, &self.receiver, &self.grant_hash].concat()
    }

    fn proof(&self, transfer: [u8; 16], secret: &[u8; 32]) -> Vec<u8> {
        let tag = reference::hmac_sha256(secret, &self.to_bytes());
        [&b"SLp1"[..], &transfer, &tag].concat()
    }
}

fn proof(parties: &Parties, ticket: &Ticket, secret: &[u8; 32]) -> Value {
    let (sender_key, receiver_key) = (parties.sender.public_key().0, parties.receiver.public_key().0);
    let transfer = ticket.grant.grant.transfer;
    let good = ProofInput {
        label: b"sealift/1 ticket proof\0",
        exporter: parties.channel.exporter,
        sender: reference::fingerprint(&sender_key),
        receiver: reference::fingerprint(&receiver_key),
        grant_hash: blake3::derive_key("sealift/1 2026-11 signed grant hash", &ticket.grant.to_bytes()),
    };
    let on = ProvenOn {
        exporter: &parties.channel.exporter,
        sender: Fingerprint::of(&parties.sender.public_key()),
        receiver: Fingerprint::of(&parties.receiver.public_key()),
        grant_hash: ticket.grant.hash_with_signature(),
    };
    let message = good.proof(transfer.0, secret);
    let of_ticket = ticket.secret.as_ref().expect("it is not bound");
    assert_eq!(message, TicketProof::make(transfer, of_ticket, on).to_bytes());
    json!({
        "transfer": hex(transfer.0),
        "secret": hex(secret),
        "exporter": hex(good.exporter),
        "sender_key": hex(sender_key),
        "sender_fingerprint": hex(good.sender),
        "receiver_key": hex(receiver_key),
        "receiver_fingerprint": hex(good.receiver),
        "signed_grant": hex(ticket.grant.to_bytes()),
        "grant_hash": hex(good.grant_hash),
        "hmac_input": hex(good.to_bytes()),
        "message": hex(&message),
        "bound": hex(TicketProof::bound(transfer).to_bytes()),
        "bad": bad_proofs(&good, ticket, secret, on),
    })
}

/// What a receiver refuses of a ticket that is not bound yet.
fn bad_proofs(good: &ProofInput, ticket: &Ticket, secret: &[u8; 32], on: ProvenOn<'_>) -> Vec<Value> {
    let transfer = ticket.grant.grant.transfer.0;
    let of = |change: fn(&mut ProofInput)| {
        let mut input = good.clone();
        change(&mut input);
        input.proof(transfer, secret)
    };
    let message = good.proof(transfer, secret);
    let changed = |at: usize| {
        let mut message = message.clone();
        message[at] ^= 1;
        message
    };
    let unsigned = ProofInput { grant_hash: ticket.grant.hash(), ..good.clone() };
    let cases = [
        ("another magic", changed(3), Code::ProtocolViolation),
        ("first bit of the HMAC changed", changed(20), Code::ProofRefused),
        ("last bit of the HMAC changed", changed(51), Code::ProofRefused),
        ("32 zeros, as of a ticket that is bound", [&message[..20], &[0; 32]].concat(), Code::ProofRefused),
        ("under another secret", good.proof(transfer, &[0x5e; 32]), Code::ProofRefused),
        ("made on another connection", of(|input| input.exporter = [0x5e; 32]), Code::ProofRefused),
        ("by another sender", of(|input| input.sender = [0x5e; 32]), Code::ProofRefused),
        ("to another receiver", of(|input| input.receiver = [0x5e; 32]), Code::ProofRefused),
        (
            "sender and receiver in each other's place",
            of(|input| std::mem::swap(&mut input.sender, &mut input.receiver)),
            Code::ProofRefused,
        ),
        ("over the hash of the grant without its signature", unsigned.proof(transfer, secret), Code::ProofRefused),
        (
            "without the zero behind the label",
            of(|input| input.label = input.label.strip_suffix(b"\0").unwrap()),
            Code::ProofRefused,
        ),
    ];
    let of_ticket = ticket.secret.as_ref().expect("it is not bound");
    let refused = |(defect, message, code): (&str, Vec<u8>, Code)| {
        let read = TicketProof::from_bytes(message.as_slice().try_into().unwrap());
        bad(defect, &message, code, read.and_then(|proof| proof.verify(of_ticket, on)))
    };
    cases.map(refused).into()
}
