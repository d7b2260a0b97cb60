use std::cell::RefCell;

use sealift_protocol::{
    close::Code,
    codec,
    digest::Root,
    envelope::SealingKey,
    id::{ChunkCount, Epoch, PartIndex},
    message::{Have, Message},
    seal::Suite,
    sealed_log::EpochRecord,
    sign::Signer,
};
use sealift_tests::wire::{Exchange, Parties, Seeded, Terms, table_plan};
use serde_json::{Value, json};

use super::{bad, hex, reference};

fn sealing_key() -> SealingKey {
    SealingKey::generate(&mut Seeded::new("sealing key of the exchange", 0))
}

/// The messages of a faultless exchange in their order.
pub fn messages() -> (Parties, Vec<Message>) {
    let seen = RefCell::new(Vec::new());
    let message = |message: Message| {
        seen.borrow_mut().push(message.clone());
        message
    };
    let mut parties = Parties::new(99);
    parties.sealing_key = Some(sealing_key());
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
    let grant_hash = blake3::derive_key("sealift/1 2026-11 grant hash", &codec::encode(&offer.grant.grant));
    assert_eq!(grant_hash, offer.grant.hash());
    let mut transcript = Absorbed(Vec::new());
    let mut steps = Vec::new();
    let items: [(&str, Vec<u8>); 8] = [
        ("exporter", channel.exporter.to_vec()),
        ("certificate of the sender", channel.sender_certificate.clone()),
        ("certificate of the receiver", channel.receiver_certificate.clone()),
        ("hash of the grant, without its signature", grant_hash.to_vec()),
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
    let private_key: [u8; 32] = sealing_key().expose()[..].try_into().unwrap();
    let envelope = &begin.body.envelope;
    let info = [b"sealift/1 key envelope\0".to_vec(), hex_bytes(&steps[6]["hash_after"])].concat();
    let epoch = begin.body.epoch.0;
    let opened =
        reference::hpke_open(private_key, &envelope.encapsulated, &envelope.sealed, &info, &epoch.to_be_bytes());
    let (epoch_secret, digest_secret) = opened.plaintext.split_at(32);
    let commitment = reference::commitment(epoch_secret.try_into().unwrap(), offer.grant.grant.transfer.0, epoch);
    assert_eq!(commitment, begin.body.commitment);
    json!({
        "sender_private_key": hex(parties.sender.seed()),
        "receiver_private_key": hex(parties.receiver.seed()),
        "sealing_private_key": hex(private_key),
        "epoch_secret": hex(epoch_secret),
        "digest_secret": hex(digest_secret),
        "bad_have": bad_have(),
        "bad_spool": bad_spool(),
        "sender_key": hex(parties.sender.public_key().0),
        "receiver_key": hex(parties.receiver.public_key().0),
        "note": "Accept signs the hash after its body; the envelope's info is the hash after Accept's signature; Begin signs, and Ready repeats, the hash after Begin's body",
        "transcript": steps,
        "begin_signature": hex(begin.signature.0),
    })
}

fn hex_bytes(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// What an Accept may not say that the receiver has, of a plan of three parts; signed as it stands.
fn bad_have() -> Vec<Value> {
    let have = |part, verified, durable| Have {
        part: PartIndex(part),
        verified: ChunkCount(verified),
        durable: ChunkCount(durable),
        ended: false,
        root: Root([9; 32]),
    };
    let cases = [
        ("more durable than verified", vec![have(0, 1, 2)]),
        ("no chunk verified", vec![have(0, 0, 0)]),
        ("a part outside the plan", vec![have(3, 1, 1)]),
        ("parts out of order", vec![have(1, 1, 1), have(0, 1, 1)]),
        ("a part twice", vec![have(1, 1, 1), have(1, 2, 1)]),
        ("beyond the highest index", vec![have(0, (1 << 40) + 1, 1)]),
    ];
    let judge = |(defect, have): (&str, Vec<Have>)| {
        let terms = Terms::new(table_plan(1), Suite::Aes256Gcm);
        let got = Parties::new(98).resigned(&terms, |body| body.have = have.clone(), |_| {});
        bad(defect, codec::encode(&have), Code::AckImpossible, got)
    };
    cases.into_iter().map(judge).collect()
}

/// What a Begin of epoch 1 may not name as its spool's; signed as it stands.
fn bad_spool() -> Vec<Value> {
    type Change = fn(&mut EpochRecord);
    let cases: [(&str, Code, Change); 3] = [
        ("an epoch that is not earlier", Code::ProtocolViolation, |_| {}),
        ("epoch 0", Code::ProtocolViolation, |spool| spool.epoch = Epoch(0)),
        ("a later epoch", Code::ProtocolViolation, |spool| spool.epoch = Epoch(2)),
    ];
    let judge = |(defect, code, change): (&str, Code, Change)| {
        let terms = Terms::new(table_plan(1), Suite::Aes256Gcm);
        let named = RefCell::new(None);
        let got = Parties::new(97).resigned(
            &terms,
            |_| {},
            |body| {
                let mut spool = EpochRecord {
                    epoch: body.epoch,
                    suite: Suite::Aes256Gcm,
                    envelope: body.envelope.clone(),
                    info: [6; 32],
                    commitment: body.commitment,
                };
                change(&mut spool);
                *named.borrow_mut() = Some(spool.clone());
                body.spool = Some(Box::new(spool));
            },
        );
        bad(defect, codec::encode(&named.into_inner().unwrap()), code, got)
    };
    cases.into_iter().map(judge).collect()
}
