//! Receipts that were forged, re-signed, made up, or put together from others: never called good
//! (issue 9, A2).

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sealift_protocol::{
    certificate::Chain,
    digest::RowsDigest,
    fingerprint::Fingerprint,
    grant::DocumentHash,
    id::TableIndex,
    manifest::{
        Authority, Check, CheckKind, Checked, ImageChecks, PlannedPart, Proof, Range, ReadBack, Receipt, Section,
        SentPart, SignedReceipt,
    },
    sign::{PublicKey, Signer},
};
use sealift_tests::{
    agents::{Launch, OPERATOR},
    exit,
    finished::Finished,
    pair::Pair,
    sqlite,
    wire::TestSigner,
};
use serde_json::Value;
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

/// What `sealift receipt verify` ends with where nothing vouches for the keys.
const NOT_VOUCHED: i32 = 10;

/// A transfer that was made, with what both agents kept of it.
struct Made {
    _folder: TempDir,
    transfer: sealift_tests::pair::Transfer,
    receipt: SignedReceipt,
}

impl Made {
    fn new(target: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
        sqlite::create_hospital(&folder.path().join("from.db"), 200);
        let target = target.map_or_else(|| path("to.db"), str::to_owned);
        let transfer = Pair::new(path("from.db"), target).within(WITHIN).run();
        transfer.assert_done();
        let receipt = SignedReceipt::from_bytes(&fs::read(&transfer.receiver.receipts()[0]).unwrap()).unwrap();
        assert_eq!(fs::read(&transfer.sender.receipts()[0]).unwrap(), receipt.to_bytes());
        Self { _folder: folder, transfer, receipt }
    }

    fn file(&self) -> PathBuf {
        self.transfer.receiver.receipts()[0].clone()
    }

    fn sender(&self) -> String {
        Fingerprint::of(&self.receipt.receipt.sender_key).to_string()
    }

    fn receiver(&self) -> String {
        Fingerprint::of(&self.receipt.receipt.receiver_key).to_string()
    }

    fn logs(&self) -> [PathBuf; 2] {
        [&self.transfer.sender, &self.transfer.receiver].map(|agent| agent.state_dir().join("audit.jsonl"))
    }
}

fn verify(file: &Path, arguments: &[&str]) -> Finished {
    Launch::bare(OPERATOR, &["receipt", "verify"]).arg(file).args(arguments).start().wait(WITHIN)
}

fn text(finished: &Finished) -> String {
    String::from_utf8(finished.stdout()).unwrap()
}

#[test]
fn a_receipt_is_good_only_if_something_outside_vouches_for_it() {
    let (made, other) = (Made::new(None), Made::new(None));
    let (file, sender, receiver) = (made.file(), made.sender(), made.receiver());
    let logs = made.logs();
    let [sender_log, receiver_log] = logs.each_ref().map(|log| log.to_str().unwrap());
    let known = file.with_file_name("known");
    fs::write(&known, format!("src {sender}\ndst {receiver}\n")).unwrap();
    let known = known.to_str().unwrap();
    let good: [&[&str]; 5] = [
        &["--sender", &sender, "--receiver", &receiver],
        &["--sender", "src", "--receiver", "dst", "--known-agents", known],
        &["--audit", sender_log],
        &["--audit", receiver_log],
        &["--sender", &sender, "--audit", sender_log, "--audit", receiver_log],
    ];
    for arguments in good {
        let verified = verify(&file, arguments);
        verified.assert_code(exit::DONE);
        let said = text(&verified);
        assert!(said.starts_with("receipt good: "), "{said}");
        for part in [
            "from         sqlite:",
            " on ",
            "trust        ticket",
            "authority    ticket",
            "target       sqlite:/",
            "link         QUIC",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    for (arguments, says) in [
        (vec![], "nothing vouches for these keys"),
        (vec!["--sender", &sender], "nothing vouches for the receiver's key"),
        (vec!["--receiver", &receiver], "nothing vouches for the sender's key"),
    ] {
        let unsure = verify(&file, &arguments);
        unsure.assert_code(NOT_VOUCHED);
        assert!(text(&unsure).starts_with("consistent, but ") && text(&unsure).contains(says), "{}", text(&unsure));
        assert!(!text(&unsure).contains("receipt good"));
    }
    let others_log = other.logs()[0].to_str().unwrap().to_owned();
    for (arguments, code) in [
        (vec!["--sender", &receiver], exit::PEER),
        (vec!["--receiver", &other.receiver(), "--audit", receiver_log], exit::PEER),
        (vec!["--sender", "dst", "--known-agents", known], exit::PEER),
        (vec!["--sender", "nobody"], exit::USAGE),
        (vec!["--audit", &others_log], exit::MISMATCH),
        (vec!["--audit", receiver_log, "--audit", &others_log], exit::MISMATCH),
        (vec!["--audit", known], exit::MISMATCH),
        (vec!["--audit", "/nowhere"], exit::USAGE),
    ] {
        let refused = verify(&file, &arguments);
        refused.assert_code(code).assert_one_message();
        assert!(refused.stdout().is_empty(), "{arguments:?}");
    }
}

/// Fault A1: a log that was edited vouches for nothing, and the line is named; both logs say whose
/// keys they were.
#[test]
fn only_a_log_whose_chain_holds_vouches() {
    let made = Made::new(None);
    let file = made.file();
    for (log, event) in made.logs().iter().zip(["transfer.end", "transfer.publish"]) {
        let good = fs::read_to_string(log).unwrap();
        let entries: Vec<Value> = good.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let entry = entries.iter().find(|entry| entry["event"] == event).unwrap();
        assert_eq!(entry["receipt"], blake3::hash(&fs::read(&file).unwrap()).to_string());
        assert_eq!((&entry["sender"], &entry["receiver"]), (&made.sender().into(), &made.receiver().into()));
        assert!(entry["rows"].as_u64().unwrap() > 200 && entry["suite"].is_string() && entry["chunks"].is_u64());
        let connect = entries.iter().find(|entry| entry["event"] == "transfer.connect").unwrap();
        assert!(connect["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{connect}");
        assert_eq!((&connect["epoch"], &connect["suite"]), (&1.into(), &entry["suite"]));
        // Issue 10, item 6: read from the connection; both sides have hybrid key exchange first.
        let link = ["transport", "tls_version", "group"].map(|fact| connect[fact].as_str().unwrap());
        assert_eq!(link, ["QUIC version 1", "TLS 1.3", "X25519MLKEM768"]);
        assert!(connect["cipher_suite"].as_str().unwrap().starts_with("TLS_"), "{connect}");

        let edited = log.with_extension("edited");
        let (first, rest) = good.split_once('\n').unwrap();
        for bad in [rest.to_owned(), format!("{}\n{rest}", first.replace("\"uid\":", "\"uid\":1")), format!("\n{good}")]
        {
            fs::write(&edited, bad).unwrap();
            let refused = verify(&file, &["--audit", edited.to_str().unwrap()]);
            refused.assert_code(exit::MISMATCH).assert_one_message();
            assert!(refused.stderr().contains("line "), "{}", refused.stderr());
        }
    }
}

/// Fault A3: a log of which every hash was computed again after an early entry was changed: its
/// chain holds, it has the receipt, and it is not the log whose head the agent signed.
#[test]
fn a_log_that_was_written_anew_does_not_vouch() {
    let made = Made::new(None);
    let file = made.file();
    for log in made.logs() {
        let mut prev: Option<String> = None;
        let mut rehashed = String::new();
        for line in fs::read_to_string(&log).unwrap().lines() {
            let mut entry: Value = serde_json::from_str(line).unwrap();
            match &prev {
                None => entry["ts"] = "2001-01-01T00:00:00.000Z".into(),
                Some(hash) => entry["prev"] = Value::String(hash.clone()),
            }
            let line = entry.to_string();
            prev = Some(blake3::hash(line.as_bytes()).to_string());
            rehashed += &(line + "\n");
        }
        let forged = log.with_extension("rehashed");
        fs::write(&forged, rehashed).unwrap();
        let refused = verify(&file, &["--audit", forged.to_str().unwrap()]);
        refused.assert_code(exit::MISMATCH).assert_one_message();
        assert!(refused.stderr().contains("not the one that its agent had"), "{}", refused.stderr());
    }
}

/// A drill says first that nothing was loaded, and what was sent.
#[test]
fn a_drill_is_not_taken_for_a_load() {
    let made = Made::new(Some("discard:"));
    let verified = verify(&made.file(), &["--sender", &made.sender(), "--receiver", &made.receiver()]);
    verified.assert_code(exit::DONE);
    let said = text(&verified);
    assert!(said.lines().next().unwrap().contains("nothing was loaded"), "{said}");
    assert!(said.contains("\nsent         ") && !said.contains("what was loaded"), "{said}");
}

/// Two keys of a forger's own.
struct Forger {
    sender: TestSigner,
    receiver: TestSigner,
}

impl Forger {
    fn new() -> Self {
        Self { sender: TestSigner::new([71; 32]), receiver: TestSigner::new([72; 32]) }
    }

    /// Everything re-signed, so that nothing but the keys, and what `change` does, is wrong.
    fn forge(&self, honest: &Receipt, change: impl FnOnce(&mut Receipt)) -> SignedReceipt {
        let mut receipt = honest.clone();
        (receipt.sender_key, receipt.receiver_key) = (self.sender.public_key(), self.receiver.public_key());
        receipt.grant.grant.sender = Some(Fingerprint::of(&receipt.sender_key));
        receipt.grant.grant.receiver = Fingerprint::of(&receipt.receiver_key);
        let link = receipt.link.as_mut().unwrap();
        link.sender = Chain::self_signed(&self.sender.certificate());
        link.receiver = Chain::self_signed(&self.receiver.certificate());
        change(&mut receipt);
        receipt.grant = receipt.grant.grant.clone().sign(&self.receiver);
        let mut manifest = receipt.manifest.manifest.clone();
        (manifest.grant_hash, manifest.plan_hash) = (receipt.grant.hash(), receipt.plan.hash());
        receipt.manifest = manifest.sign(&self.sender);
        receipt.sign(&self.receiver)
    }
}

/// Consistent in itself, and signed by keys that nobody knows: what it is worth is said, and
/// neither the fingerprints nor the logs of the real agents make it good.
#[test]
fn a_receipt_signed_anew_or_made_up_is_never_good() {
    let (made, forger) = (Made::new(None), Forger::new());
    let file = made.file().with_file_name("forged");
    type Change = fn(&mut Receipt);
    let changes: [(&str, Change); 4] = [
        ("the keys alone", |_| {}),
        ("another target", |receipt| receipt.grant.grant.target = "elsewhere".into()),
        ("other counts", |receipt| {
            let at = receipt.evidence.tables.iter().position(|table| table.rows > 1).unwrap();
            receipt.evidence.tables[at].rows -= 1;
            receipt.manifest.manifest.tables[at].rows -= 1;
        }),
        ("said to be pinned", |receipt| {
            receipt.manifest.manifest.origin.receiver_trust = sealift_protocol::manifest::ReceiverTrust::Pinned;
        }),
    ];
    let logs = made.logs();
    for (name, change) in changes {
        let forged = forger.forge(&made.receipt.receipt, change);
        forged.verify().unwrap();
        fs::write(&file, forged.to_bytes()).unwrap();
        let unsure = verify(&file, &[]);
        unsure.assert_code(NOT_VOUCHED);
        assert!(!text(&unsure).contains("receipt good"), "{name}");
        verify(&file, &["--sender", &made.sender(), "--receiver", &made.receiver()]).assert_code(exit::PEER);
        verify(&file, &["--sender", &made.sender()]).assert_code(exit::PEER);
        for log in &logs {
            verify(&file, &["--audit", log.to_str().unwrap()]).assert_code(exit::MISMATCH);
        }
    }
}

/// Makes two ranges of the first table, the second of one row; `change` makes them wrong.
fn divide(receipt: &mut Receipt, change: impl FnOnce(&mut RowsDigest)) {
    let manifest = &mut receipt.manifest.manifest;
    let (mut first, mut second) = (manifest.tables[0], RowsDigest { rows: 1, sum: [0; 32] });
    first.rows -= 1;
    change(&mut second);
    let (sent, planned) = (manifest.parts[1].clone(), receipt.plan.parts[1].clone());
    receipt.plan.engine.capabilities.ranges = true;
    receipt.plan.parts[1].range = Some(Range { from: 0, to: Some(4) });
    receipt.plan.parts.insert(2, PlannedPart { range: Some(Range { from: 4, to: None }), ..planned });
    manifest.parts[1].rows = Some(first);
    manifest.parts.insert(2, SentPart { rows: Some(second), ..sent });
}

/// Ranges that add up hold: what is refused below is refused for what was changed.
#[test]
fn ranges_that_add_up_hold() {
    let (made, forger) = (Made::new(None), Forger::new());
    let divided = forger.forge(&made.receipt.receipt, |receipt| divide(receipt, |_| {}));
    assert_eq!(divided.verify(), Ok(()));
}

fn image_checks() -> ImageChecks {
    ImageChecks {
        page_bytes: 4096,
        pages: 1,
        checked: Checked::Everything,
        findings: 0,
        tables: Vec::new(),
        tables_left_out: 0,
    }
}

/// Signed by both, and yet not so: refused whatever vouches for them, with exit code 6 and without
/// a line on standard output.
#[test]
fn a_receipt_that_contradicts_itself_or_is_spliced_does_not_hold() {
    let (made, other, forger) = (Made::new(None), Made::new(None), Forger::new());
    let (honest, another) = (&made.receipt, &other.receipt);
    type Change = fn(&mut Receipt);
    let contradictions: [(&str, Change); 41] = [
        ("a row less", |receipt| receipt.evidence.tables[0].rows -= 1),
        ("a row less in a drill", |receipt| {
            receipt.evidence.tables[0].rows -= 1;
            receipt.evidence.proof = Proof::Discarded;
            receipt.evidence.checks.clear();
        }),
        ("rows of a schema", |receipt| {
            receipt.manifest.manifest.parts[0].rows = Some(receipt.manifest.manifest.tables[0]);
        }),
        ("more rows than bytes", |receipt| {
            receipt.evidence.tables[0].rows = u64::MAX;
            receipt.manifest.manifest.tables[0].rows = u64::MAX;
        }),
        ("another digest", |receipt| receipt.evidence.tables[0].sum[0] ^= 1),
        ("a table less", |receipt| receipt.evidence.tables.truncate(1)),
        ("a table less, at both ends", |receipt| {
            receipt.evidence.tables.pop();
            receipt.manifest.manifest.tables.pop();
        }),
        ("a root of bytes", |receipt| receipt.evidence.bytes = Some(receipt.manifest.manifest.root)),
        ("ranges that do not add up", |receipt| divide(receipt, |second| second.rows += 1)),
        ("ranges whose digests do not add up", |receipt| divide(receipt, |second| second.sum[0] ^= 1)),
        ("ranges that overlap", |receipt| {
            divide(receipt, |_| {});
            receipt.plan.parts[2].range = Some(Range { from: 3, to: None });
        }),
        ("ranges with a gap", |receipt| {
            divide(receipt, |_| {});
            receipt.plan.parts[2].range = Some(Range { from: 5, to: None });
        }),
        ("ranges of an engine that has none", |receipt| {
            divide(receipt, |_| {});
            receipt.plan.engine.capabilities.ranges = false;
        }),
        ("a table that is not in the plan", |receipt| {
            let tables = receipt.plan.tables.len() as u32;
            receipt.plan.parts[1].table = Some(TableIndex(tables));
        }),
        ("a section that the engine does not have", |receipt| {
            receipt.plan.engine.capabilities.sections = vec![Section::PreData, Section::Data];
        }),
        ("an engine that reads nothing back", |receipt| {
            receipt.plan.engine.capabilities.read_back = ReadBack::None;
            receipt.evidence.proof = Proof::LoaderExit;
        }),
        ("a check that the engine cannot make", |receipt| {
            receipt.plan.engine.capabilities.checks.push(CheckKind::Image);
            receipt.evidence.checks.push(Check::Image(image_checks()));
        }),
        ("a check that the engine did not declare", |receipt| {
            receipt.evidence.checks.push(Check::Image(image_checks()));
        }),
        ("a check that was not made", |receipt| receipt.evidence.checks.clear()),
        ("a check in a drill", |receipt| receipt.evidence.proof = Proof::Discarded),
        ("a part without a chunk", |receipt| receipt.manifest.manifest.parts[1].chunks.0 = 0),
        ("more bytes than chunks hold", |receipt| receipt.manifest.manifest.parts[1].plain_bytes = u64::MAX),
        ("a part less", |receipt| {
            receipt.manifest.manifest.parts.pop();
        }),
        ("a loader's proof of a database", |receipt| receipt.evidence.proof = Proof::LoaderExit),
        ("written", |receipt| receipt.evidence.proof = Proof::Written),
        ("a plan that cannot be", |receipt| receipt.plan.engine = sealift_opaque::engine()),
        ("before it began", |receipt| receipt.finished_ms = receipt.started_ms - 1),
        ("before the grant", |receipt| receipt.started_ms = 0),
        ("after the grant", |receipt| receipt.finished_ms = u64::MAX),
        ("a text of 4 MB", |receipt| receipt.software = "x".repeat(3 << 20)),
        ("certificates of another key", |receipt| {
            let link = receipt.link.as_mut().unwrap();
            std::mem::swap(&mut link.sender, &mut link.receiver);
        }),
        ("a certificate of another key behind the link", |receipt| {
            receipt.link.as_mut().unwrap().receiver = Chain::self_signed(&TestSigner::new([73; 32]).certificate());
        }),
        ("no certificate", |receipt| receipt.link.as_mut().unwrap().sender.0.clear()),
        ("a policy that the grant does not name", |receipt| receipt.policy = Some(DocumentHash([4; 32]))),
        ("a policy of the grant that was not kept", |receipt| {
            receipt.grant.grant.policy = Some(DocumentHash([4; 32]));
        }),
        ("TLS 1.2", |receipt| receipt.link.as_mut().unwrap().facts.tls_version.0 = 0x0303),
        ("an authority that did not sign", |receipt| {
            receipt.authority = Authority::Operator(TestSigner::new([74; 32]).public_key());
        }),
        ("an agent as its own authority", |receipt| receipt.authority = Authority::Operator(receipt.receiver_key)),
        ("a long name of the host", |receipt| receipt.target_host = "x".repeat(1025)),
        ("a long target", |receipt| receipt.target = "x".repeat(1025)),
        ("a long name of the source", |receipt| receipt.manifest.manifest.origin.source = "x".repeat(1025)),
    ];
    let mut bad: Vec<(String, Vec<u8>)> = contradictions
        .into_iter()
        .map(|(name, change)| (name.to_owned(), forger.forge(&honest.receipt, change).to_bytes()))
        .collect();
    let mut splice = |name: &str, change: &dyn Fn(&mut Receipt)| {
        let mut receipt = honest.receipt.clone();
        change(&mut receipt);
        bad.push((
            format!("{name}, as it was signed"),
            SignedReceipt { receipt: receipt.clone(), ..honest.clone() }.to_bytes(),
        ));
        receipt.receiver_key = forger.receiver.public_key();
        bad.push((format!("{name}, signed by a stranger"), receipt.sign(&forger.receiver).to_bytes()));
    };
    splice("nothing", &|receipt| receipt.software.push('x'));
    splice("the manifest of another", &|receipt| receipt.manifest = another.receipt.manifest.clone());
    splice("the grant of another", &|receipt| receipt.grant = another.receipt.grant.clone());
    splice("the sender of another", &|receipt| receipt.sender_key = another.receipt.sender_key);
    splice("what another loaded", &|receipt| receipt.evidence = another.receipt.evidence.clone());
    splice("the neutral element as sender", &|receipt| receipt.sender_key = neutral_element());
    splice("the neutral element as receiver", &|receipt| receipt.receiver_key = neutral_element());
    bad.push((
        "the signature of another".into(),
        SignedReceipt { signature: another.signature, ..honest.clone() }.to_bytes(),
    ));
    bad.push(("a byte behind it".into(), [honest.to_bytes(), vec![0]].concat()));
    bad.push(("nothing at all".into(), Vec::new()));

    let file = made.file().with_file_name("forged");
    let fingerprints = |receipt: &[u8]| {
        let receipt = SignedReceipt::from_bytes(receipt).ok()?.receipt;
        Some([receipt.sender_key, receipt.receiver_key].map(|key| Fingerprint::of(&key).to_string()))
    };
    for (name, bytes) in bad {
        fs::write(&file, &bytes).unwrap();
        // An auditor who trusts both keys reads it, too.
        let vouched = fingerprints(&bytes).unwrap_or_default();
        let refused = verify(&file, &["--sender", &vouched[0], "--receiver", &vouched[1]]);
        assert_eq!(refused.code(), Some(exit::MISMATCH), "{name}: {}", refused.stderr());
        assert!(refused.stdout().is_empty(), "{name}");
    }
}

fn neutral_element() -> PublicKey {
    let mut key = [0; 32];
    key[0] = 1;
    PublicKey(key)
}
