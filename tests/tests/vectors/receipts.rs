//! Receipts beside the plain one: of a drill, of ranges, of an archive, of an operator's grant; and
//! what is wrong with more of them. Here everything is signed again, so that nothing but what is
//! named is wrong.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use sealift_protocol::{
    certificate::{Certificate, Chain},
    close::Code,
    digest::RowsDigest,
    fingerprint::Fingerprint,
    grant::DocumentHash,
    link_facts::{CipherSuite, KeyExchangeGroup, TlsVersion},
    manifest::{
        Authority, CheckKind, Evidence, LinkEvidence, Plan, PlannedPart, Proof, Range, ReadBack, Receipt, RowsMoved,
        SentPart, SignedReceipt,
    },
    sign::{PublicKey, Signature, Signer},
};
use sealift_tests::wire::{Parties, TestSigner, opaque_plan};
use serde_json::{Value, json};

use super::{bad as defect, hex};

type Change = fn(&mut Receipt);

/// The receipt with `change`, signed by both agents, and its grant by `grantor`.
fn signed(parties: &Parties, good: &SignedReceipt, grantor: &TestSigner, change: Change) -> SignedReceipt {
    let mut receipt = good.receipt.clone();
    change(&mut receipt);
    receipt.grant = receipt.grant.grant.clone().sign(grantor);
    let mut manifest = receipt.manifest.manifest.clone();
    manifest.grant_hash = receipt.grant.hash();
    manifest.plan_hash = receipt.plan.hash();
    receipt.manifest = manifest.sign(&parties.sender);
    receipt.sign(&parties.receiver)
}

pub fn operator() -> TestSigner {
    TestSigner::new([0x51; 32])
}

fn of_a_drill(receipt: &mut Receipt) {
    let tables = receipt.evidence.tables.clone();
    receipt.evidence = Evidence { tables, ..Evidence::bare(Proof::Discarded) };
}

/// The table of two rows as two ranges, with a row in each.
fn of_ranges(receipt: &mut Receipt) {
    let row = |byte| RowsDigest { rows: 1, sum: [byte; 32] };
    let manifest = &mut receipt.manifest.manifest;
    let (sent, planned) = (manifest.parts[1].clone(), receipt.plan.parts[1].clone());
    receipt.plan.engine.capabilities.ranges = true;
    receipt.plan.parts[1].range = Some(Range { from: 0, to: Some(64) });
    receipt.plan.parts.insert(2, PlannedPart { range: Some(Range { from: 64, to: None }), ..planned });
    manifest.parts[1].rows = Some(row(3));
    manifest.parts.insert(2, SentPart { rows: Some(row(5)), ..sent });
}

/// Good ones.
pub fn others(parties: &Parties, good: &SignedReceipt) -> Vec<Value> {
    let by_receiver: [(&str, Change); 3] = [
        ("of a drill: every row arrived, was counted and digested, and nothing was loaded", of_a_drill),
        ("a table of two ranges, whose digests add up", of_ranges),
        ("without the heads of the logs", |receipt| {
            receipt.audit_head = None;
            receipt.manifest.manifest.audit_head = None;
        }),
    ];
    let mut others: Vec<Value> = by_receiver
        .into_iter()
        .map(|(note, change)| accepted(note, &signed(parties, good, &parties.receiver, change)))
        .collect();
    let of_archive = signed(parties, good, &parties.sender, |receipt| receipt.link = None);
    others.push(accepted("of an archive: the sender signed the grant, and no connection carried it", &of_archive));
    let of_operator = signed(parties, good, &operator(), |receipt| {
        receipt.authority = Authority::Operator(operator().public_key());
    });
    others.push(accepted("an operator's grant", &of_operator));
    others
}

fn accepted(note: &str, receipt: &SignedReceipt) -> Value {
    assert_eq!(receipt.verify(), Ok(()), "{note}");
    json!({ "note": note, "bytes": hex(receipt.to_bytes()) })
}

/// What a certificate says: its key, and by that its fingerprint. Nothing else in it is looked at.
pub fn certificates(parties: &Parties) -> Value {
    let good = [("of the sender", &parties.sender), ("of the receiver", &parties.receiver)].map(|(note, signer)| {
        let certificate = Certificate(signer.certificate());
        let key = certificate.key().expect("a certificate of an Ed25519 key");
        assert_eq!(key, signer.public_key());
        let fingerprint = hex(Fingerprint::of(&key).0);
        json!({ "note": note, "der": hex(certificate.0), "key": hex(key.0), "fingerprint": fingerprint })
    });
    let der = parties.sender.certificate();
    let without_key = [
        ("no bytes", Vec::new()),
        ("a byte short", der[..der.len() - 1].to_vec()),
        ("a byte behind it", [&der[..], &[0]].concat()),
        ("of an algorithm that is not Ed25519", changed(&der, &ED25519_OID, &X25519_OID)),
    ];
    let bad = without_key.map(|(defect, der)| {
        assert_eq!(Certificate(der.clone()).key(), None, "{defect}");
        json!({ "defect": defect, "der": hex(der) })
    });
    json!({ "good": good, "bad": bad })
}

/// OIDs of RFC 8410, 3, with their tag and length.
const ED25519_OID: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
const X25519_OID: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x6e];

/// Everywhere, so that the algorithms of key and signature agree.
fn changed(der: &[u8], from: &[u8; 5], to: &[u8; 5]) -> Vec<u8> {
    let mut out = der.to_vec();
    for at in 0..=der.len() - from.len() {
        if der[at..].starts_with(from) {
            out[at..at + to.len()].copy_from_slice(to);
        }
    }
    out
}

fn link(receipt: &mut Receipt) -> &mut LinkEvidence {
    receipt.link.as_mut().expect("the good receipt has one")
}

/// Bad ones.
pub fn bad(parties: &Parties, good: &SignedReceipt) -> Vec<Value> {
    let cases: [(&str, Code, Change); 24] = [
        ("ranges whose rows do not add up", Code::ManifestMismatch, |receipt| {
            of_ranges(receipt);
            receipt.manifest.manifest.parts[2].rows = Some(RowsDigest { rows: 2, sum: [5; 32] });
        }),
        ("ranges whose digests do not add up", Code::ManifestMismatch, |receipt| {
            of_ranges(receipt);
            receipt.manifest.manifest.parts[2].rows = Some(RowsDigest { rows: 1, sum: [6; 32] });
        }),
        ("a digest of a part that is no range", Code::ManifestMismatch, |receipt| {
            receipt.manifest.manifest.parts[1].rows = Some(RowsDigest { rows: 2, sum: [8; 32] });
        }),
        ("a range without a digest", Code::ManifestMismatch, |receipt| {
            of_ranges(receipt);
            receipt.manifest.manifest.parts[2].rows = None;
        }),
        ("ranges that overlap", Code::PlanRefused, |receipt| {
            of_ranges(receipt);
            receipt.plan.parts[2].range = Some(Range { from: 63, to: None });
        }),
        ("ranges with a gap", Code::PlanRefused, |receipt| {
            of_ranges(receipt);
            receipt.plan.parts[2].range = Some(Range { from: 65, to: None });
        }),
        ("a last range with an end", Code::PlanRefused, |receipt| {
            of_ranges(receipt);
            receipt.plan.parts[2].range = Some(Range { from: 64, to: Some(128) });
        }),
        ("ranges of an engine without", Code::PlanRefused, |receipt| {
            of_ranges(receipt);
            receipt.plan.engine.capabilities.ranges = false;
        }),
        ("a table that is not in the plan", Code::PlanRefused, |receipt| {
            receipt.plan.parts[1].table.as_mut().expect("a part of data").0 = 1;
        }),
        ("tables that are not read back", Code::PlanRefused, |receipt| {
            receipt.plan.engine.capabilities.read_back = ReadBack::None;
        }),
        ("a check of an image where rows are read back", Code::PlanRefused, |receipt| {
            receipt.plan.engine.capabilities.checks.push(CheckKind::Image);
        }),
        ("an engine with a name in capitals", Code::PlanRefused, |receipt| receipt.plan.engine.name = "SQLite".into()),
        ("no table was left out", Code::PlanRefused, |receipt| receipt.plan.left_out = Some(0)),
        ("tables, though no rows were moved", Code::PlanRefused, |receipt| {
            receipt.plan.rows = Some(RowsMoved::None);
        }),
        ("tables left out of an engine without", Code::PlanRefused, |receipt| {
            receipt.plan = Plan { left_out: Some(1), ..opaque_plan() };
        }),
        ("an engine of format 0", Code::PlanRefused, |receipt| receipt.plan.engine.format = 0),
        ("certificates of the other side", Code::IdentityRefused, |receipt| {
            let link = link(receipt);
            std::mem::swap(&mut link.sender, &mut link.receiver);
        }),
        ("a certificate that is none", Code::IdentityRefused, |receipt| {
            link(receipt).receiver = Chain(vec![Certificate(vec![0x30, 0])]);
        }),
        ("no certificate", Code::IdentityRefused, |receipt| link(receipt).sender = Chain(Vec::new())),
        ("a certificate of 8,193 bytes", Code::LimitExceeded, |receipt| {
            link(receipt).sender.0.push(Certificate(vec![0; 8193]));
        }),
        ("a policy that the grant does not name", Code::GrantForeign, |receipt| {
            receipt.policy = Some(DocumentHash([4; 32]));
        }),
        ("TLS 1.2", Code::ManifestMismatch, |receipt| link(receipt).facts.tls_version = TlsVersion(0x0303)),
        ("a key exchange that is not hybrid", Code::ManifestMismatch, |receipt| {
            link(receipt).facts.group = KeyExchangeGroup(0x001d);
        }),
        ("a cipher suite that is not offered", Code::ManifestMismatch, |receipt| {
            link(receipt).facts.cipher_suite = CipherSuite(0x1305);
        }),
    ];
    let mut bad: Vec<Value> = cases
        .into_iter()
        .map(|(name, code, change)| refused(name, code, &signed(parties, good, &parties.receiver, change)))
        .collect();
    let by_operator = signed(parties, good, &operator(), |_| {});
    bad.push(refused("an operator's grant, said to be a ticket's", Code::GrantInvalid, &by_operator));
    let by_receiver = signed(parties, good, &parties.receiver, |receipt| {
        receipt.authority = Authority::Operator(receipt.receiver_key);
    });
    bad.push(refused("a ticket's grant, said to be an operator's", Code::GrantInvalid, &by_receiver));
    bad.extend(by_keys_of_small_order(parties, good));
    bad
}

/// The neutral element: under it, the signature below is good for every message.
pub const SMALL_ORDER_KEY: [u8; 32] = {
    let mut key = [0; 32];
    key[0] = 1;
    key
};

/// R is the neutral element, too, and S is 0 (RFC 8032, 5.1.7).
pub const SIGNATURE_OF_ANYTHING: [u8; 64] = {
    let mut signature = [0; 64];
    signature[0] = 1;
    signature
};

fn by_keys_of_small_order(parties: &Parties, good: &SignedReceipt) -> [Value; 3] {
    let (key, signature) = (PublicKey(SMALL_ORDER_KEY), Signature(SIGNATURE_OF_ANYTHING));
    let careless = UnparsedPublicKey::new(&ED25519, SMALL_ORDER_KEY);
    assert!(careless.verify(b"any message", &SIGNATURE_OF_ANYTHING).is_ok());

    let mut by_receiver = good.clone();
    by_receiver.receipt.receiver_key = key;
    by_receiver.signature = signature;
    let mut by_sender = good.receipt.clone();
    by_sender.sender_key = key;
    by_sender.manifest.signature = signature;
    let mut by_operator = good.receipt.clone();
    by_operator.authority = Authority::Operator(key);
    by_operator.grant.signature = signature;
    let (by_sender, by_operator) = (by_sender.sign(&parties.receiver), by_operator.sign(&parties.receiver));
    [
        refused("signed by a receiver whose key is of small order", Code::TranscriptMismatch, &by_receiver),
        refused("a manifest signed by a sender whose key is of small order", Code::ManifestMismatch, &by_sender),
        refused("a grant signed by an operator whose key is of small order", Code::GrantInvalid, &by_operator),
    ]
}

fn refused(name: &str, code: Code, receipt: &SignedReceipt) -> Value {
    let bytes = receipt.to_bytes();
    defect(name, &bytes, code, SignedReceipt::from_bytes(&bytes).and_then(|receipt| receipt.verify()))
}
