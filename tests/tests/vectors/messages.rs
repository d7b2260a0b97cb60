use sealift_protocol::{
    audit_head::AuditHead,
    close::Code,
    codec,
    digest::{Root, RowsDigest},
    fingerprint::Fingerprint,
    id::{ChunkCount, ChunkIndex, Epoch, PartIndex},
    manifest::{
        Authority, CatalogueCheck, Check, Evidence, Manifest, Origin, Proof, Receipt, ReceiverTrust, SentPart,
        SignedReceipt,
    },
    message::{Ack, Message, Refuse},
    seal::Suite,
    sealed_log::EpochRecord,
    sign::Signer,
};
use sealift_tests::wire::{Parties, table_plan};
use serde_json::{Value, json};

use super::{bad, exchange, hex, receipts};

pub fn receipt(parties: &Parties) -> SignedReceipt {
    let grant = parties.grant();
    let plan = table_plan(1);
    let part = SentPart { chunks: ChunkCount(1), plain_bytes: 20, root: Root([9; 32]), rows: None };
    let tables = vec![RowsDigest { rows: 2, sum: [8; 32] }];
    let manifest = Manifest {
        transfer: grant.grant.transfer,
        grant_hash: grant.hash(),
        plan_hash: plan.hash(),
        tables: tables.clone(),
        parts: vec![part; 3],
        root: Root([7; 32]),
        origin: origin(),
        audit_head: Some(AuditHead { sequence: 41, hash: [5; 32] }),
    };
    let manifest = manifest.sign(&parties.sender);
    let checks = vec![Check::Catalogue(CatalogueCheck { definitions: 5 })];
    let receipt = Receipt {
        manifest,
        plan,
        evidence: Evidence { tables, checks, ..Evidence::bare(Proof::RowsReadBack) },
        grant,
        sender_key: parties.sender.public_key(),
        receiver_key: parties.receiver.public_key(),
        suite: Suite::Aes256Gcm,
        authority: Authority::Ticket,
        link: Some(parties.link()),
        started_ms: 1_800_000_000_000,
        finished_ms: 1_800_000_001_000,
        software: "sealift-receiver 0.1.0".into(),
        target_host: "db2".into(),
        target: "sqlite:/srv/ehr.db".into(),
        audit_head: Some(AuditHead { sequence: 1_000, hash: [6; 32] }),
        policy: None,
    };
    let signed = receipt.sign(&parties.receiver);
    signed.verify().unwrap();
    signed
}

pub fn origin() -> Origin {
    Origin { receiver_trust: ReceiverTrust::Pinned, host: "db1".into(), source: "sqlite:/srv/ehr.db".into() }
}

/// What the second item of a message says, from 1.
const KINDS: [&str; 8] = ["Offer", "Accept", "Begin", "Ready", "Ack", "Finish", "Receipt", "Refuse"];

pub fn vectors() -> Value {
    let (parties, [offer, accept, begin, ready]) = exchange::messages();
    let receipt = receipt(&parties);
    let later = from_a_spool(&begin);
    let refuse = |code, change: fn(&mut Refuse)| {
        let mut refuse = Refuse::new(code);
        change(&mut refuse);
        Message::Refuse(refuse)
    };
    let forged = refuse(Code::ChunkForged, |refuse| {
        refuse.part = Some(PartIndex(1));
        refuse.chunk = Some(ChunkIndex(300));
    });
    let bound = refuse(Code::TicketBound, |refuse| refuse.bound = Some(Fingerprint([8; 32])));
    let expired = refuse(Code::GrantExpired, |refuse| refuse.now_seconds = Some(1_800_000_000));
    let ack = Ack { part: PartIndex(1), verified: ChunkCount(24), durable: ChunkCount(0) };
    let messages: [(&str, Message); 11] = [
        ("Offer", offer),
        ("Accept", accept),
        ("Begin", begin),
        ("Ready", ready),
        ("Ack", Message::Ack(ack)),
        ("Finish", Message::Finish(receipt.receipt.manifest.clone())),
        ("Receipt", Message::Receipt(Box::new(receipt.clone()))),
        ("Refuse with a place", forged),
        ("Refuse with the sender that a ticket is bound to", bound),
        ("Refuse with a clock", expired),
        ("Begin that goes on from a spool", later),
    ];
    let good = messages.map(|(name, message)| {
        let bytes = codec::encode(&message);
        assert_eq!(Message::from_bytes(&bytes), Ok(message));
        assert!(name.starts_with(KINDS[usize::from(bytes[1]) - 1]), "{name}");
        json!({ "message": name, "bytes": hex(bytes) })
    });
    json!({
        "note": "the private keys of both agents are those of exchange.json",
        "sender_private_key": hex(parties.sender.seed()),
        "receiver_private_key": hex(parties.receiver.seed()),
        "operator_private_key": hex(receipts::operator().seed()),
        "good": good,
        "bad": bad_messages(),
        "certificates": receipts::certificates(&parties),
        "receipt": receipt_file(&parties, &receipt),
    })
}

/// As `begin`, of a later connection on which the sender goes on from the spool that it began on
/// that one.
fn from_a_spool(begin: &Message) -> Message {
    let Message::Begin(begin) = begin else { panic!("a Begin") };
    let mut later = begin.clone();
    later.body.epoch = Epoch(2);
    later.body.spool = Some(Box::new(EpochRecord {
        epoch: begin.body.epoch,
        suite: Suite::Aes256Gcm,
        envelope: begin.body.envelope.clone(),
        info: [6; 32],
        commitment: begin.body.commitment,
    }));
    Message::Begin(later)
}

fn bad_messages() -> Vec<Value> {
    // Ack {part 1, verified 24, durable 0}: 82 05 81 a3 00 01 01 18 18 02 00
    let cases: [(&str, &[u8]); 17] = [
        ("no bytes", &[]),
        ("message kind 0", &[0x82, 0x00, 0x81, 0xa3, 0, 1, 1, 0x18, 24, 2, 0]),
        ("message kind 9", &[0x82, 0x09, 0x81, 0xa3, 0, 1, 1, 0x18, 24, 2, 0]),
        ("a byte after it", &[0x82, 0x05, 0x81, 0xa3, 0, 1, 1, 0x18, 24, 2, 0, 0]),
        ("a byte short", &[0x82, 0x05, 0x81, 0xa3, 0, 1, 1, 0x18, 24, 2]),
        ("keys out of order", &[0x82, 0x05, 0x81, 0xa3, 1, 0x18, 24, 0, 1, 2, 0]),
        ("a key twice", &[0x82, 0x05, 0x81, 0xa4, 0, 1, 1, 0x18, 24, 1, 0x18, 24, 2, 0]),
        ("a key missing", &[0x82, 0x05, 0x81, 0xa2, 0, 1, 1, 0x18, 24]),
        ("an unknown key", &[0x82, 0x05, 0x81, 0xa4, 0, 1, 1, 0x18, 24, 2, 0, 3, 0]),
        ("a number longer than it needs", &[0x82, 0x05, 0x81, 0xa3, 0, 0x18, 1, 1, 0x18, 24, 2, 0]),
        ("a number over its type", &[0x82, 0x05, 0x81, 0xa3, 0, 0x1b, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x18, 24, 2, 0]),
        ("a negative number", &[0x82, 0x05, 0x81, 0xa3, 0, 1, 1, 0x38, 24, 2, 0]),
        ("a map of indefinite length", &[0x82, 0x05, 0x81, 0xbf, 0, 1, 1, 0x18, 24, 2, 0, 0xff]),
        ("an array of indefinite length", &[0x9f, 0x05, 0x81, 0xa3, 0, 1, 1, 0x18, 24, 2, 0, 0xff]),
        ("a map of 2^62 entries", &[0x82, 0x05, 0x81, 0xbb, 0x40, 0, 0, 0, 0, 0, 0, 0]),
        ("null for what is absent", &[0x82, 0x08, 0x81, 0xa3, 0, 0x19, 3, 0, 1, 0xf6, 2, 0xf6]),
        ("an unknown code in Refuse", &[0x82, 0x08, 0x81, 0xa1, 0, 0x19, 0x7f, 0xff]),
    ];
    let refused =
        |(defect, bytes): (&str, &[u8])| bad(defect, bytes, Code::ProtocolViolation, Message::from_bytes(bytes));
    cases.map(refused).into()
}

fn drill() -> Evidence {
    Evidence::bare(Proof::Discarded)
}

fn receipt_file(parties: &Parties, good: &SignedReceipt) -> Value {
    type Change = fn(&mut Receipt);
    let refused = |defect: &str, code: Code, receipt: SignedReceipt| {
        let bytes = receipt.to_bytes();
        bad(defect, &bytes, code, SignedReceipt::from_bytes(&bytes).and_then(|receipt| receipt.verify()))
    };
    let resigned: [(&str, Code, Change); 16] = [
        ("manifest changed, signed by the receiver", Code::ManifestMismatch, |receipt| {
            receipt.manifest.manifest.tables[0].rows = 3;
        }),
        ("another plan", Code::ManifestMismatch, |receipt| receipt.plan.tables[0].name.push('x')),
        ("another grant", Code::ManifestMismatch, |receipt| receipt.grant.grant.purpose.push('x')),
        ("a row less loaded", Code::TargetMismatch, |receipt| receipt.evidence.tables[0].rows = 1),
        ("another digest loaded", Code::TargetMismatch, |receipt| receipt.evidence.tables[0].sum = [0; 32]),
        ("a database not read back", Code::TargetMismatch, |receipt| receipt.evidence.proof = Proof::Written),
        ("a row less in a drill", Code::TargetMismatch, |receipt| {
            receipt.evidence = Evidence { tables: vec![RowsDigest { rows: 1, sum: [8; 32] }], ..drill() };
        }),
        ("a check in a drill", Code::TargetMismatch, |receipt| receipt.evidence.proof = Proof::Discarded),
        ("a check that was not made", Code::TargetMismatch, |receipt| receipt.evidence.checks.clear()),
        ("a root of bytes that are rows", Code::TargetMismatch, |receipt| receipt.evidence.bytes = Some(Root([9; 32]))),
        ("a table less loaded", Code::TargetMismatch, |receipt| receipt.evidence.tables.clear()),
        ("finished before it started", Code::ManifestMismatch, |receipt| receipt.finished_ms = receipt.started_ms - 1),
        ("started before the grant", Code::GrantNotYetValid, |receipt| {
            receipt.started_ms = (receipt.grant.grant.not_before_seconds - 61) * 1000;
        }),
        ("finished when the grant had ended", Code::GrantExpired, |receipt| {
            receipt.finished_ms = receipt.grant.grant.finish_before_seconds * 1000;
        }),
        ("a text of 1,025 bytes about the program", Code::LimitExceeded, |receipt| {
            receipt.software = "x".repeat(1025);
        }),
        ("a name of 1,025 bytes of the target host", Code::LimitExceeded, |receipt| {
            receipt.target_host = "x".repeat(1025);
        }),
    ];
    let mut defects: Vec<Value> = resigned
        .into_iter()
        .map(|(defect, code, change)| {
            let mut receipt = good.receipt.clone();
            change(&mut receipt);
            refused(defect, code, receipt.sign(&parties.receiver))
        })
        .collect();
    defects.extend(receipts::bad(parties, good));
    let mut unsigned = good.clone();
    unsigned.receipt.finished_ms += 1;
    defects.push(refused("changed after it was signed", Code::TranscriptMismatch, unsigned));
    defects.push(refused("signed by the sender", Code::TranscriptMismatch, good.receipt.clone().sign(&parties.sender)));
    json!({ "good": hex(good.to_bytes()), "others": receipts::others(parties, good), "bad": defects })
}
