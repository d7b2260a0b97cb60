use std::cell::RefCell;

use sealift_protocol::{codec, message::Message, seal::Suite, sign::Signer};
use sealift_tests::wire::{Exchange, Parties, Terms, table_plan};
use serde_json::{Value, json};

use super::hex;

/// The messages of a faultless exchange in their order.
pub fn messages() -> (Parties, Vec<Message>) {
    let seen = RefCell::new(Vec::new());
    let message = |message: Message| {
        seen.borrow_mut().push(message.clone());
        message
    };
    let mut parties = Parties::new(99);
    let terms = Terms::new(table_plan(1), Suite::Aes256Gcm);
    parties.exchange(&terms, &Exchange { message: &message, ..Exchange::default() }).unwrap();
    (parties, seen.into_inner())
}

/// The transcript, put together from bytes alone.
struct Absorbed(Vec<u8>);

impl Absorbed {
    fn item(&mut self, bytes: &[u8]) -> String {
        self.0.extend((bytes.len() as u64).to_be_bytes());
        self.0.extend(bytes);
        hex(blake3::derive_key("sealift/1 2026-11 transcript", &self.0))
    }
}

pub fn vectors() -> Value {
    let (parties, messages) = messages();
    let [Message::Offer(offer), Message::Accept(accept), Message::Begin(begin), Message::Ready(ready)] = &messages[..]
    else {
        panic!("four messages");
    };
    let channel = &parties.channel;
    let grant_hash = blake3::derive_key("sealift/1 2026-11 grant hash", &codec::encode(&offer.grant));
    assert_eq!(grant_hash, offer.grant.hash());
    let mut transcript = Absorbed(Vec::new());
    let mut steps = Vec::new();
    let items: [(&str, Vec<u8>); 8] = [
        ("exporter", channel.exporter.to_vec()),
        ("certificate of the sender", channel.sender_certificate.clone()),
        ("certificate of the receiver", channel.receiver_certificate.clone()),
        ("hash of the grant", grant_hash.to_vec()),
        ("message Offer", codec::encode(&messages[0])),
        ("body of Accept", codec::encode(&accept.body)),
        ("signature of Accept", accept.signature.0.to_vec()),
        ("body of Begin", codec::encode(&begin.body)),
    ];
    for (name, item) in &items {
        let hash = transcript.item(item);
        steps.push(json!({ "item": name, "bytes": hex(item), "hash_after": hash }));
    }
    assert_eq!(steps[7]["hash_after"], hex(ready.transcript));
    json!({
        "sender_key": hex(parties.sender.public_key().0),
        "receiver_key": hex(parties.receiver.public_key().0),
        "authority_key": hex(parties.authority.public_key().0),
        "note": "Accept signs the hash after its body; the envelope's info is the hash after Accept's signature; Begin signs, and Ready repeats, the hash after Begin's body",
        "transcript": steps,
        "begin_signature": hex(begin.signature.0),
    })
}
