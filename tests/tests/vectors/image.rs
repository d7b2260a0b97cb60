//! The receipt of an image, and what the first bytes of its part say.

use sealift_protocol::{
    close::Code,
    digest::{Root, RowsDigest},
    id::ChunkCount,
    limits::{CHUNK_PLAIN_BYTES, NAME_BYTES_MAX},
    manifest::{Check, Checked, CountedTable, Evidence, ImageChecks, Plan, Proof, Receipt, SentPart, SignedReceipt},
};
use sealift_sqlite::{
    engine,
    image::{check_chunk, page_bytes},
};
use sealift_tests::wire::Parties;
use serde_json::{Value, json};

use super::{bad, exchange, hex, messages};

fn checks() -> ImageChecks {
    let table = |name: &str, rows, checked| CountedTable { name: name.into(), rows, checked, internal: false };
    let tables = vec![table("patient", Some(3), true), table("visit", None, false)];
    ImageChecks { page_bytes: 512, pages: 3, checked: Checked::SomeTables, findings: 1, tables, tables_left_out: 1 }
}

/// One of an image of three pages.
fn receipt(parties: &Parties) -> Receipt {
    let mut receipt = messages::receipt(parties).receipt;
    receipt.plan = Plan::opaque(engine::image(), None);
    let mut manifest = receipt.manifest.manifest.clone();
    let root = manifest.parts[0].root;
    manifest.plan_hash = receipt.plan.hash();
    manifest.tables = Vec::new();
    manifest.parts = vec![SentPart { chunks: ChunkCount(1), plain_bytes: 3 * 512, root, rows: None }];
    receipt.manifest = manifest.sign(&parties.sender);
    let checks = vec![Check::Image(checks())];
    receipt.evidence = Evidence { bytes: Some(root), checks, ..Evidence::bare(Proof::BytesReadBack) };
    receipt
}

pub fn vectors() -> Value {
    let (parties, _) = exchange::messages();
    let good = receipt(&parties).sign(&parties.receiver);
    good.verify().unwrap();
    json!({
        "note": "the private keys of both agents are those of exchange.json",
        "receipt": { "good": hex(good.to_bytes()), "bad": bad_receipts(&parties) },
        "page_bytes": page_sizes(),
        "chunks": chunks(),
    })
}

fn bad_receipts(parties: &Parties) -> Vec<Value> {
    type Change = fn(&mut Evidence, &mut ImageChecks);
    let changes: [(&str, Change); 10] = [
        ("another root than was sent", |evidence, _| evidence.bytes = Some(Root([0; 32]))),
        ("rows of an image", |evidence, _| evidence.tables.push(RowsDigest::default())),
        ("a page more than was sent", |_, checks| checks.pages = 4),
        ("no pages", |_, checks| checks.pages = 0),
        ("a page size of 1,000", |_, checks| checks.page_bytes = 1000),
        ("pages of 2^64 bytes", |_, checks| checks.pages = 1 << 55),
        ("a table that was not checked by a check of everything", |_, checks| checks.checked = Checked::Everything),
        ("a name of 1,025 bytes", |_, checks| checks.tables[0].name = "x".repeat(NAME_BYTES_MAX + 1)),
        ("a list of more than 1,048,576 bytes", |_, checks| {
            checks.tables[0].name = "x".repeat(NAME_BYTES_MAX);
            checks.tables = vec![checks.tables[0].clone(); 1030];
        }),
        ("more than 16,384 tables", |_, checks| checks.tables = vec![checks.tables[0].clone(); 16_385]),
    ];
    let refused = |defect: &str, receipt: Receipt| {
        let signed: SignedReceipt = receipt.sign(&parties.receiver);
        let bytes = signed.to_bytes();
        let verified = SignedReceipt::from_bytes(&bytes).and_then(|receipt| receipt.verify());
        // The longest would be most of the file.
        let kept = if bytes.len() < 8 << 10 { bytes.as_slice() } else { &[] };
        let mut vector = bad(defect, kept, Code::TargetMismatch, verified);
        if kept.is_empty() {
            vector["bytes"] = Value::Null;
        }
        vector
    };
    let mut cases: Vec<Value> = changes
        .into_iter()
        .map(|(defect, change)| {
            let mut receipt = receipt(parties);
            let mut checks = checks();
            change(&mut receipt.evidence, &mut checks);
            receipt.evidence.checks = vec![Check::Image(checks)];
            refused(defect, receipt)
        })
        .collect();
    let proven = |change: fn(&mut Evidence)| {
        let mut receipt = receipt(parties);
        change(&mut receipt.evidence);
        receipt
    };
    cases.push(refused("without its checks", proven(|evidence| evidence.checks.clear())));
    cases.push(refused("without its root", proven(|evidence| evidence.bytes = None)));
    cases.push(refused("an image that was not read back", proven(|evidence| evidence.proof = Proof::Written)));
    cases.push(refused("tables read back of an image", proven(|evidence| evidence.proof = Proof::RowsReadBack)));
    cases.push(refused("checks of what was discarded", proven(|evidence| evidence.proof = Proof::Discarded)));
    cases
}

fn page_sizes() -> Value {
    let header = |stated: u16| {
        let mut header = b"SQLite format 3\0".to_vec();
        header.extend(stated.to_be_bytes());
        header.resize(100, 0);
        header
    };
    let good = [512, 4096, 32_768, 1].map(|stated| {
        let bytes = header(stated);
        json!({ "bytes": hex(&bytes), "page_bytes": page_bytes(&bytes).unwrap() })
    });
    let refused = |defect: &str, bytes: Vec<u8>| bad(defect, &bytes, Code::PlanRefused, page_bytes(&bytes));
    let bad = [
        refused("a page of 256 bytes", header(256)),
        refused("a page of 1,000 bytes", header(1000)),
        refused("a page of no bytes", header(0)),
        refused("a header cut short", header(512)[..99].to_vec()),
        refused("another magic", vec![0; 100]),
    ];
    json!({ "good": good, "bad": bad })
}

fn chunks() -> Value {
    let full = CHUNK_PLAIN_BYTES;
    let checked = [(full, false), (full, true), (512, true), (512, false), (0, true), (700, true), (full + 512, true)];
    let checked = checked.map(|(plain_bytes, last)| {
        let accepted = check_chunk(plain_bytes, last, 512).is_ok();
        json!({ "page_bytes": 512, "plain_bytes": plain_bytes, "last": last, "accepted": accepted })
    });
    json!(checked)
}
