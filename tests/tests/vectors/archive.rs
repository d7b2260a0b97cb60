use bytes::BytesMut;
use sealift_agent::receiver_key;
use sealift_protocol::{
    archive::{ARCHIVE_TARGET, ARCHIVE_VERSION, ArchiveOffer, Opening, ReceiverKey, Statement},
    chunk::Chunk,
    close::Code,
    codec,
    compress::{Compression, Packer, Unpacker},
    digest::RowsDigest,
    envelope::SealingKey,
    error::{Error, Result},
    fingerprint::Fingerprint,
    grant::{Grant, SignedGrant},
    id::{ChunkCount, ChunkIndex, PartIndex, TransferId},
    key::DigestSecret,
    limits::CHUNK_HEADER_BYTES,
    message::Ack,
    random::Nonces,
    receive::{ExpectedArchive, Order, Unsealing},
    seal::{Suite, open, seal},
    sealed_log::{KeyFingerprint, LogHeader, LogId, LogKind, LogReader, LogWriter, ReadStep, Record},
    send::SenderTransfer,
    sign::Signer,
};
use sealift_tests::wire::{Seeded, TestSigner, opaque_plan};
use serde_json::{Value, json};

use super::{bad, cbor, envelope::Ingredients, hex, messages::origin, receipts, reference};

const TRANSFER: TransferId = TransferId([0x41; 16]);
const SUITE: Suite = Suite::ChaCha20Poly1305;
const NOW: u64 = 1_800_000_000;
const PLAIN: &[u8] = b"what a dump holds";

const RECEIVER_SEED: [u8; 32] = [0x42; 32];
const SENDER_SEED: [u8; 32] = [0x43; 32];

struct Made {
    key: SealingKey,
    receiver: ReceiverKey,
    sender: TestSigner,
    header: LogHeader,
    grant: SignedGrant,
    records: Vec<Record>,
}

/// What was drawn for it, in this order.
struct Drawn {
    sealing_key_ikm: Vec<u8>,
    salt: Vec<u8>,
    digest_secret: [u8; 32],
    epoch_secret: [u8; 32],
    encapsulation: Vec<u8>,
    nonce: Vec<u8>,
}

impl Drawn {
    fn again() -> Self {
        let mut random = Seeded::new("archive", 0);
        let (sealing_key_ikm, salt) = (random.bytes(64), random.bytes(16));
        let mut secret = || random.bytes(32).try_into().unwrap();
        let (digest_secret, epoch_secret) = (secret(), secret());
        let encapsulation = random.bytes(64);
        // The first is only compared with.
        let nonce = random.bytes(2 * 24)[24..].to_vec();
        Self { sealing_key_ikm, salt, digest_secret, epoch_secret, encapsulation, nonce }
    }
}

impl Made {
    fn make() -> Self {
        let mut random = Seeded::new("archive", 0);
        let key = SealingKey::generate(&mut random);
        let receiver = ReceiverKey::sign(key.public_key(), &TestSigner::new(RECEIVER_SEED));
        let sender = TestSigner::new(SENDER_SEED);
        let id = LogId { kind: LogKind::Archive, transfer: TRANSFER, key: KeyFingerprint::of(&key.public_key()) };
        let header = LogHeader::new(id, &mut random);
        let plan = opaque_plan();
        let grant = Grant {
            transfer: TRANSFER,
            sender: Some(Fingerprint::of(&sender.public_key())),
            receiver: receiver.fingerprint(),
            source: String::new(),
            target: ARCHIVE_TARGET.into(),
            purpose: "CHG-1".into(),
            not_before_seconds: NOW,
            begin_before_seconds: NOW + 3600,
            finish_before_seconds: NOW + 3600,
            retain_until_seconds: NOW + 3600,
            scope: None,
            policy: None,
        }
        .sign(&sender);
        let secret = DigestSecret::generate(&mut random);
        let sender_key = sender.public_key();
        let offer = ArchiveOffer { version: ARCHIVE_VERSION, grant: grant.clone(), plan: plan.clone(), sender_key };
        let to = &key.public_key();
        let opening = Opening::make(&header, offer, SUITE, &secret, to, &sender, &mut random).unwrap();
        let mut records = opening.records.to_vec();
        let mut transfer = SenderTransfer::new(vec![SUITE], grant.clone(), plan, secret, origin()).unwrap();
        let chunk = Chunk::new(PartIndex(0), ChunkIndex(0), true, PLAIN);
        let packed = Packer::new(Compression::Off).unwrap().pack(chunk, opening.keys.digests());
        let sealed = seal(packed, &opening.keys, Nonces::new(&mut random).draw().unwrap()).unwrap();
        transfer.handle_start(PartIndex(0));
        transfer.handle_sealed(&sealed, &opening.keys);
        transfer.handle_part_end(PartIndex(0), RowsDigest::default());
        transfer.handle_ack(&Ack { part: PartIndex(0), verified: ChunkCount(1), durable: ChunkCount(1) }).unwrap();
        records.push(Record::Chunk { header: sealed.header, sealed: sealed.frame.slice(CHUNK_HEADER_BYTES..) });
        let Some(manifest) = transfer.poll_manifest(&sender, None) else { panic!("no manifest") };
        records.push(Statement::Finish(manifest).to_record());
        Self { key, receiver, sender, header, grant, records }
    }

    fn expected(&self) -> ExpectedArchive {
        ExpectedArchive {
            from: Fingerprint::of(&self.sender.public_key()),
            receiver: self.receiver.fingerprint(),
            suites: vec![SUITE],
        }
    }

    /// What a receiver makes of it: the plaintext, or the first code.
    fn read(&self, bytes: &[u8], expected: &ExpectedArchive, now: u64) -> Result<Vec<u8>> {
        let Ok(mut reader) = LogReader::open(bytes) else { return Err(Error::new(Code::LogDamaged, "header")) };
        let mut unsealing = Unsealing::new(reader.header());
        let mut next = || match reader.step() {
            Ok(ReadStep::Record(record)) => Ok(Some(record)),
            Ok(ReadStep::End(_)) => Ok(None),
            Err(_) => Err(Error::new(Code::LogDamaged, "record")),
        };
        let sealed = loop {
            let record = next()?.ok_or(Error::new(Code::PartTruncated, "opening"))?;
            if let Some(sealed) = unsealing.handle(record, expected, now)? {
                break sealed;
            }
        };
        let mut transfer = sealed.new_transfer();
        let mut order = Order::new(sealed.plan());
        let mut session = sealed.session(&self.key, &mut transfer)?;
        let mut plain = Vec::new();
        while let Some(record) = next()? {
            match record {
                Record::Chunk { header, sealed } => {
                    order.handle_chunk(&header)?;
                    let chunk = open(&header, BytesMut::from(sealed), session.keys(), &mut Unpacker::new()?)?;
                    plain.extend_from_slice(chunk.plain());
                }
                Record::Statement(bytes) => {
                    session.handle_carried_finish(&mut transfer, order.handle_finish(&bytes)?)?
                }
                _ => return Err(Error::new(Code::ProtocolViolation, "record")),
            }
        }
        if order.is_finished() { Ok(plain) } else { Err(Error::new(Code::PartTruncated, "manifest")) }
    }
}

fn log_of(header: LogHeader, records: &[Record]) -> Vec<u8> {
    let mut writer = LogWriter::new(header);
    let mut bytes = header.to_bytes().to_vec();
    records.iter().for_each(|record| bytes.extend(writer.encode(record).unwrap().pieces().concat()));
    bytes
}

pub fn vectors() -> Value {
    let made = Made::make();
    let expected = made.expected();
    let good = log_of(made.header, &made.records);
    assert_eq!(made.read(&good, &expected, NOW).unwrap(), PLAIN);
    let changed = |change: &dyn Fn(&mut Vec<Record>)| {
        let mut records = made.records.clone();
        change(&mut records);
        log_of(made.header, &records)
    };
    let salted = LogHeader::new(made.header.id, &mut Seeded::new("other salt", 0));
    let other = ExpectedArchive { from: made.receiver.fingerprint(), ..made.expected() };
    let elsewhere = ExpectedArchive { receiver: expected.from, ..made.expected() };
    let cases: Vec<(&str, Vec<u8>, &ExpectedArchive, u64, Code)> = vec![
        ("another sender than was told", good.clone(), &other, NOW, Code::IdentityRefused),
        ("for another receiver", good.clone(), &elsewhere, NOW, Code::GrantForeign),
        ("after its end", good.clone(), &expected, NOW + 3600, Code::GrantExpired),
        ("the opening under another header", log_of(salted, &made.records), &expected, NOW, Code::ProtocolViolation),
        ("begin left out", changed(&|records| drop(records.remove(2))), &expected, NOW, Code::ProtocolViolation),
        (
            "begin twice",
            changed(&|records| records.insert(3, records[2].clone())),
            &expected,
            NOW,
            Code::ProtocolViolation,
        ),
        ("the chunk left out", changed(&|records| drop(records.remove(3))), &expected, NOW, Code::PartTruncated),
        (
            "the chunk twice",
            changed(&|records| records.insert(4, records[3].clone())),
            &expected,
            NOW,
            Code::ChunkOrder,
        ),
        ("no manifest", changed(&|records| drop(records.pop())), &expected, NOW, Code::PartTruncated),
    ];
    let bad_archives = cases.into_iter().map(|(defect, bytes, expected, now, code)| {
        let got = made.read(&bytes, expected, now).err().map(|error| error.code);
        assert_eq!(got, Some(code), "{defect}");
        json!({
            "defect": defect,
            "bytes": hex(bytes),
            "from": expected.from.to_string(),
            "receiver": expected.receiver.to_string(),
            "now_seconds": now,
            "code": code.as_str(),
            "number": code.number(),
        })
    });
    json!({
        "receiver_key": hex(codec::encode(&made.receiver)),
        "receiver_key_text": receiver_key::to_text(&made.receiver),
        "receiver_fingerprint": expected.receiver.to_string(),
        "bad_receiver_keys": bad_receiver_keys(&made),
        "sealing_private_key": hex(&*made.key.expose()),
        "receiver_private_key": hex(RECEIVER_SEED),
        "sender_private_key": hex(SENDER_SEED),
        "making": making(&made),
        "sender_key": hex(made.sender.public_key().0),
        "sender_fingerprint": expected.from.to_string(),
        "now_seconds": NOW,
        "plaintext": hex(PLAIN),
        "bytes": hex(&good),
        "bad": bad_archives.collect::<Vec<_>>(),
    })
}

/// Every value on the way to the good archive, put together from bytes.
fn making(made: &Made) -> Value {
    let [Record::Statement(offer), Record::Epoch(epoch), Record::Statement(begin), chunk, Record::Statement(finish)] =
        &made.records[..]
    else {
        panic!("another order of records");
    };
    let Record::Chunk { header, sealed } = chunk else { panic!("no chunk") };
    let drawn = Drawn::again();
    assert_eq!(made.header.to_bytes()[56..72], drawn.salt);
    assert_eq!(header.nonce[..], drawn.nonce);
    let key = SealingKey::generate(&mut Seeded::new("archive", 0));
    assert_eq!(key.expose(), made.key.expose());

    let grant = codec::encode(&made.grant.grant);
    assert_eq!(reference::sign(&SENDER_SEED, "sealift/1 grant\0", &grant), made.grant.signature.0);
    let mut transcript = reference::Transcript::new("sealift/1 2026-11 archive transcript");
    let epoch_bytes = codec::encode(&**epoch);
    let after_header = transcript.after(&made.header.to_bytes());
    let (after_offer, after_epoch) = (transcript.after(offer), transcript.after(&epoch_bytes));
    assert_eq!(epoch.info, after_offer);
    let signature = reference::sign(&SENDER_SEED, "sealift/1 archive\0", &after_epoch);
    assert_eq!(begin[..], [&[0x82, 2, 0x81][..], &cbor::bytes(&signature)].concat());

    let made_of = Ingredients {
        epoch_secret: &drawn.epoch_secret,
        digest_secret: drawn.digest_secret,
        randomness: &drawn.encapsulation,
        to: &made.key.public_key(),
        info: after_offer,
        epoch: epoch.epoch,
    };
    assert_eq!(made_of.make(), epoch.envelope);
    let commitment = reference::commitment(&drawn.epoch_secret, TRANSFER.0, 1);
    assert_eq!(commitment, epoch.commitment);
    let data_key = reference::data_key(&drawn.epoch_secret, TRANSFER.0, 1, 0, 0);
    let frame = [&header.to_bytes()[..], sealed].concat();
    let (hash, packed) = reference::open(&frame, &data_key);
    assert_eq!(packed, PLAIN);

    let step = |item, bytes: &[u8], hash| json!({ "item": item, "bytes": hex(bytes), "hash_after": hex(hash) });
    json!({
        "salt": hex(&drawn.salt),
        "sealing_key_ikm": hex(&drawn.sealing_key_ikm),
        "digest_secret": hex(drawn.digest_secret),
        "epoch_secret": hex(drawn.epoch_secret),
        "encapsulation_randomness": hex(&drawn.encapsulation),
        "signed_grant": hex(made.grant.to_bytes()),
        "transcript": [
            step("header", &made.header.to_bytes(), after_header),
            step("statement offer", offer, after_offer),
            step("epoch record", &epoch_bytes, after_epoch),
        ],
        "commitment": hex(commitment),
        "begin": hex(begin),
        "data_key": hex(data_key),
        "nonce": hex(&drawn.nonce),
        "chunk_hash": hex(hash),
        "chunk": hex(frame),
        "finish": hex(finish),
    })
}

/// Those that a sender must not seal to.
fn bad_receiver_keys(made: &Made) -> Vec<Value> {
    let sealing = made.key.public_key();
    let signed = cbor::bytes(&sealing.0);
    let key = |identity: &[u8; 32], signature: &[u8; 64]| {
        cbor::map(&[(0, signed.clone()), (1, cbor::bytes(identity)), (2, cbor::bytes(signature))])
    };
    let identity = TestSigner::new(RECEIVER_SEED).public_key().0;
    let signature = reference::sign(&RECEIVER_SEED, "sealift/1 sealing key\0", &signed);
    assert_eq!(key(&identity, &signature), codec::encode(&made.receiver));
    let mut changed = signature;
    changed[0] ^= 1;
    let without_label = reference::sign(&RECEIVER_SEED, "", &signed);
    let cases = [
        ("signature changed", key(&identity, &changed)),
        ("signed by another key", key(&identity, &reference::sign(&SENDER_SEED, "sealift/1 sealing key\0", &signed))),
        ("signed without a label", key(&identity, &without_label)),
        ("an identity of small order", key(&receipts::SMALL_ORDER_KEY, &receipts::SIGNATURE_OF_ANYTHING)),
    ];
    let refused = |(defect, bytes): (&str, Vec<u8>)| {
        let read: ReceiverKey = codec::decode(&bytes, 2048, "key").unwrap();
        bad(defect, &bytes, Code::IdentityRefused, read.sealing())
    };
    cases.map(refused).into()
}
