use std::cell::RefCell;

use sealift_protocol::{
    close::Code,
    codec,
    digest::Root,
    disposition::Asks,
    envelope::SealingKey,
    error::Result,
    id::{ChunkCount, Epoch, PartIndex},
    message::{Have, Message, Offer},
    negotiate::suites_auto,
    seal::{Suite, SuiteNumber},
    sealed_log::EpochRecord,
    sign::Signer,
};
use sealift_tests::wire::{Exchange, NOW_SECONDS, Parties, Seeded, Terms, table_plan};
use serde_json::{Value, json};

use super::{bad, envelope::Ingredients, hex, reference};

/// Of the parties, whose keys are those of receipts, tickets and images, too.
pub const SEED: u64 = 99;

fn sealing_key() -> SealingKey {
    SealingKey::generate(&mut Seeded::new("sealing key of the exchange", 0))
}

/// Offer, Accept, Begin and Ready of a faultless exchange.
pub fn messages() -> (Parties, [Message; 4]) {
    let seen = RefCell::new(Vec::new());
    let message = |message: Message| {
        seen.borrow_mut().push(message.clone());
        message
    };
    let mut parties = Parties::new(SEED);
    parties.sealing_key = Some(sealing_key());
    let terms = Terms::new(table_plan(1), Suite::Aes256Gcm);
    parties.exchange(&terms, &Exchange { message: &message, ..Exchange::default() }).unwrap();
    (parties, seen.into_inner().try_into().expect("four messages"))
}

/// What was drawn in the exchange, drawn again, in the order in which the parties drew it.
struct Drawn {
    digest_secret: [u8; 32],
    offer_nonce: [u8; 32],
    accept_nonce: [u8; 32],
    epoch_secret: [u8; 32],
    encapsulation: Vec<u8>,
}

impl Drawn {
    fn of(parties: &Parties) -> Self {
        let mut random = Seeded::new("parties", SEED);
        let mut next = || <[u8; 32]>::try_from(random.bytes(32)).unwrap();
        assert_eq!(
            [next(), next(), next()],
            [parties.sender.seed(), parties.receiver.seed(), parties.channel.exporter]
        );
        let [digest_secret, offer_nonce, accept_nonce, epoch_secret] = [next(), next(), next(), next()];
        Self { digest_secret, offer_nonce, accept_nonce, epoch_secret, encapsulation: random.bytes(64) }
    }
}

pub fn vectors() -> Value {
    let (parties, messages) = messages();
    let [Message::Offer(offer), Message::Accept(accept), Message::Begin(begin), Message::Ready(ready)] = &messages[..]
    else {
        panic!("another order of messages");
    };
    let channel = &parties.channel;
    let grant_hash = blake3::derive_key("sealift/1 2026-11 grant hash", &codec::encode(&offer.grant.grant));
    assert_eq!(grant_hash, offer.grant.hash());
    let mut transcript = reference::Transcript::new("sealift/1 2026-11 transcript");
    let (mut steps, mut hashes) = (Vec::new(), Vec::new());
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
        let hash = transcript.after(item);
        steps.push(json!({ "item": name, "bytes": hex(item), "hash_after": hex(hash) }));
        hashes.push(hash);
    }
    let [accept_signs, envelope_info, begin_signs] = [hashes[5], hashes[6], hashes[7]];
    assert_eq!(begin_signs, ready.transcript);
    let (sender, receiver) = (parties.sender.seed(), parties.receiver.seed());
    assert_eq!(reference::sign(&receiver, "sealift/1 accept\0", &accept_signs), accept.signature.0);
    assert_eq!(reference::sign(&sender, "sealift/1 begin\0", &begin_signs), begin.signature.0);
    let grant = codec::encode(&offer.grant.grant);
    assert_eq!(reference::sign(&receiver, "sealift/1 grant\0", &grant), offer.grant.signature.0);
    let private_key: [u8; 32] = sealing_key().expose()[..].try_into().unwrap();
    let envelope = &begin.body.envelope;
    let info = [&b"sealift/1 key envelope\0"[..], &envelope_info].concat();
    let epoch = begin.body.epoch.0;
    let opened =
        reference::hpke_open(private_key, &envelope.encapsulated, &envelope.sealed, &info, &epoch.to_be_bytes());
    let (epoch_secret, digest_secret) = opened.plaintext.split_at(32);
    let commitment = reference::commitment(epoch_secret.try_into().unwrap(), offer.grant.grant.transfer.0, epoch);
    assert_eq!(commitment, begin.body.commitment);
    let drawn = Drawn::of(&parties);
    assert_eq!((drawn.offer_nonce, drawn.accept_nonce), (offer.nonce, accept.body.nonce));
    assert_eq!((&drawn.epoch_secret[..], &drawn.digest_secret[..]), (epoch_secret, digest_secret));
    let made = Ingredients {
        epoch_secret,
        digest_secret: drawn.digest_secret,
        randomness: &drawn.encapsulation,
        to: &accept.body.sealing_key,
        info: envelope_info,
        epoch: begin.body.epoch,
    };
    assert_eq!(made.make(), *envelope);
    json!({
        "sender_private_key": hex(parties.sender.seed()),
        "receiver_private_key": hex(parties.receiver.seed()),
        "sealing_private_key": hex(private_key),
        "epoch_secret": hex(epoch_secret),
        "digest_secret": hex(digest_secret),
        "encapsulation_randomness": hex(&drawn.encapsulation),
        "commitment": hex(commitment),
        "suites": suites(),
        "bad_suites": bad_suites(),
        "bad_have": bad_have(),
        "bad_spool": bad_spool(),
        "sender_key": hex(parties.sender.public_key().0),
        "receiver_key": hex(parties.receiver.public_key().0),
        "note": "Accept signs the hash after its body; the envelope's info is the hash after Accept's signature; Begin signs, and Ready repeats, the hash after Begin's body",
        "transcript": steps,
        "begin_signature": hex(begin.signature.0),
    })
}

/// An Offer with these suites, at a receiver that prefers AES-256-GCM: the bytes of the Offer, and
/// the suite that Accept has.
fn offered(numbers: &[u16]) -> (Vec<u8>, Result<u16>) {
    let mut parties = Parties::new(96);
    let allowed = suites_auto(true);
    let terms = Terms { allowed, ..Terms::new(table_plan(1), Suite::Aes256Gcm) };
    let (transfer, anybody) = (parties.transfer(&terms), parties.anybody());
    let (_, offer) = transfer.offer(&parties.channel, anybody, Asks::Continue, NOW_SECONDS, &mut parties.random);
    let Message::Offer(offer) = offer else { unreachable!() };
    let suites = numbers.iter().map(|number| SuiteNumber(*number)).collect();
    let offer = Offer { suites, ..offer };
    let bytes = codec::encode(&Message::Offer(offer.clone()));
    let checked = parties.listening(&terms).handle_offer(offer, &parties.channel, NOW_SECONDS);
    let chosen = checked.and_then(|deciding| {
        let fresh = deciding.new_transfer();
        let public_key = sealing_key().public_key();
        let (_, accept) = deciding.accept(&fresh, terms.window, public_key, &parties.receiver, &mut parties.random)?;
        let Message::Accept(accept) = accept else { unreachable!() };
        Ok(accept.body.suite as u16)
    });
    (bytes, chosen)
}

fn suites() -> Value {
    let unknown = u16::MAX;
    let cases: [(&str, &[u16], u16); 5] = [
        ("both known ones, as the receiver prefers them", &[1, 2], 1),
        ("both known ones, the other way round", &[2, 1], 2),
        ("one that nobody knows yet beside a known one", &[unknown, 1], 1),
        ("a known one before one that nobody knows yet", &[1, 3], 1),
        ("one alone", &[2], 2),
    ];
    let agreed = cases.map(|(note, numbers, suite)| {
        let (bytes, chosen) = offered(numbers);
        assert_eq!(chosen, Ok(suite), "{note}");
        json!({ "note": note, "offered": numbers, "offer": hex(bytes), "chosen": suite })
    });
    json!({ "note": "at a receiver that allows 1 and 2, and prefers 1", "good": agreed })
}

fn bad_suites() -> Vec<Value> {
    let cases: [(&str, &[u16]); 2] = [("none", &[]), ("only such as nobody knows yet", &[3, u16::MAX])];
    let refused = |(defect, numbers): (&str, &[u16])| {
        let (bytes, chosen) = offered(numbers);
        bad(defect, bytes, Code::SuiteUnsupported, chosen)
    };
    cases.map(refused).into()
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
    let refused = |(defect, have): (&str, Vec<Have>)| {
        let terms = Terms::new(table_plan(1), Suite::Aes256Gcm);
        let got = Parties::new(98).resigned(&terms, |body| body.have = have.clone(), |_| {});
        bad(defect, codec::encode(&have), Code::AckImpossible, got)
    };
    cases.into_iter().map(refused).collect()
}

/// What a Begin of epoch 1 may not name as its spool's; signed as it stands.
fn bad_spool() -> Vec<Value> {
    type Change = fn(&mut EpochRecord);
    let cases: [(&str, Code, Change); 3] = [
        ("an epoch that is not earlier", Code::ProtocolViolation, |_| {}),
        ("epoch 0", Code::ProtocolViolation, |spool| spool.epoch = Epoch(0)),
        ("a later epoch", Code::ProtocolViolation, |spool| spool.epoch = Epoch(2)),
    ];
    let refused = |(defect, code, change): (&str, Code, Change)| {
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
    cases.into_iter().map(refused).collect()
}
