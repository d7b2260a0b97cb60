//! What an audit log can say: each entry with its fields, as docs/audit.md has them, and no free
//! text but the purpose.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
};

use sealift_agent::{
    audit::entry::{AbandonedBy, AuditRepair, Entry, Name, Peer, Purpose, ReceiptFields, Statement},
    refusals::RefusalCause,
};
use sealift_protocol::{
    close::Code,
    fingerprint::Fingerprint,
    id::Epoch,
    link_facts::{CipherSuite, KeyExchangeGroup, LinkFacts, TlsVersion, Transport},
    manifest::{Proof, ReceiverTrust},
    seal::Suite,
};
use sealift_sqlite::engine;
use serde_json::Value;

const FREE: &str = "A free text; of Jane Doe.";

fn fingerprint() -> Fingerprint {
    Fingerprint([7; 32])
}

fn receipt() -> ReceiptFields {
    ReceiptFields {
        receipt: blake3::hash(b"receipt"),
        sender: fingerprint(),
        receiver: fingerprint(),
        receiver_trust: ReceiverTrust::Pinned,
        suite: Suite::Aes256Gcm,
        proof: Proof::RowsReadBack,
        parts: 1,
        chunks: 2,
        rows: 3,
        plain_bytes: 4,
    }
}

/// An entry of every kind, with every field that it can have.
fn samples() -> Vec<Entry> {
    let address: SocketAddr = "[fe80::1%3]:7443".parse().unwrap();
    let link = LinkFacts {
        transport: Transport::Quic,
        tls_version: TlsVersion(0x0304),
        group: KeyExchangeGroup(0x11ec),
        cipher_suite: CipherSuite(0x1302),
    };
    let connect =
        |peer| Entry::TransferConnect { address, peer, suite: Suite::Aes256Gcm, epoch: Epoch(3), link: link.into() };
    let abandon = |by| Entry::TransferAbandon { by, unreadable: true };
    vec![
        Entry::SendBegin {
            receiver: fingerprint(),
            receiver_trust: ReceiverTrust::Ticket,
            source: Name::new(FREE),
            engine: engine::rows(),
            target: Name::new(FREE),
            purpose: Purpose::new(FREE),
        },
        Entry::LoadBegin {
            sender: fingerprint(),
            into: Name::new(FREE),
            engine: sealift_opaque::engine(),
            purpose: Purpose::new(FREE),
        },
        connect(Peer::Sender(fingerprint())),
        connect(Peer::Receiver(fingerprint())),
        Entry::TransferPublish(receipt()),
        Entry::TransferEnd { outcome: Code::Done, receipt: Some(receipt()) },
        abandon(AbandonedBy::Operator),
        abandon(AbandonedBy::Sender { sender: fingerprint() }),
        Entry::TransferResolve { statement: Statement::NotLoaded },
        Entry::TransferExpire {},
        Entry::IdentityMake { fingerprint: fingerprint() },
        Entry::IdentityCertify { fingerprint: fingerprint(), name: Name::new(FREE) },
        Entry::TicketIssue {
            target: Name::new(FREE),
            purpose: Purpose::new(FREE),
            begin_before: 1,
            finish_before: 2,
            retain_until: 3,
        },
        Entry::TicketBind { sender: fingerprint(), address },
        Entry::TicketRefuse { reason: Code::TicketBound, sender: fingerprint(), address, bound: Some(fingerprint()) },
        Entry::ArchiveBegin {
            receiver: fingerprint(),
            source: Name::new(FREE),
            engine: engine::image(),
            purpose: Purpose::new(FREE),
        },
        Entry::ArchivePublish { sender: fingerprint() },
        Entry::ArchiveEnd { outcome: Code::Interrupted },
        Entry::ArchiveUse { until: u64::MAX },
        Entry::KeyMake { fingerprint: fingerprint() },
        Entry::ServeStart { targets: 1 },
        Entry::ServeStop { drained: true },
        Entry::ConnectionsRefused {
            total: 2,
            causes: BTreeMap::from([(RefusalCause::Evicted, 1), (RefusalCause::Code(Code::TooSlow), 1)]),
            addresses: BTreeMap::from([(address.ip(), 2)]),
            elsewhere: 0,
        },
        Entry::JournalRepaired { kept_bytes: 1, cut_bytes: 2 },
        Entry::SpoolRepaired { kept_bytes: 1, cut_bytes: 2 },
        Entry::AuditRepaired(AuditRepair::AddedBytes(1)),
        Entry::AuditRepaired(AuditRepair::CutBytes(1)),
        Entry::ClockStep { seconds: -1 },
        Entry::SourceEmptyAllowed {},
        Entry::FindingWaived { name: Name::new(FREE) },
        Entry::DangerPlaintextFile { target: Some(Name::new(FREE)) },
        Entry::DangerShowProgramOutput { target: Some(Name::new(FREE)) },
    ]
}

/// The fields of each event, of all its entries together.
fn fields(entries: &[Entry]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for entry in entries {
        let Value::Object(mut object) = serde_json::to_value(entry).unwrap() else { panic!("no object: {entry:?}") };
        let Some(Value::String(event)) = object.remove("event") else { panic!("no event: {entry:?}") };
        found.entry(event).or_default().extend(object.into_iter().map(|(key, _)| key));
    }
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Issue 10, item 6; issue 9, D3: the page lists every event that there is, with exactly the fields
/// that it has.
#[test]
fn the_page_has_every_entry_with_its_fields() {
    let page = read("docs/audit.md");
    let table = page.split("## Entries").nth(1).unwrap();
    let (_, paragraph) = table.split_once("The receipt's fields are ").unwrap();
    let receipt = quoted(paragraph.split("\n\n").next().unwrap());
    let receipt: BTreeSet<_> = receipt.into_iter().filter(|word| word != "b3sum").collect();
    let mut documented: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for row in table.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<_> = row.split('|').collect();
        let event = cells[0].trim().trim_end_matches('`').to_owned();
        let fields = documented.entry(event).or_default();
        fields.extend(quoted(cells[2]));
        if cells[2].contains("the receipt's fields") {
            fields.extend(receipt.clone());
        }
    }
    assert_eq!(documented, fields(&samples()));
    // And no kind of entry is missing above.
    let source = read("agent/src/audit/entry.rs");
    let names = source.split("#[serde(rename = \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    let known: BTreeSet<_> = documented.into_keys().collect();
    assert_eq!(names.collect::<BTreeSet<_>>(), known);
}

/// Whether `value` is of one of the closed kinds of texts: a word, a fingerprint or hash, a time,
/// an address, or a name that the registries of TLS have.
fn is_closed(key: &str, value: &str) -> bool {
    let words =
        |text: &str, more: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter));
    match key {
        "address" => value.parse::<SocketAddr>().is_ok(),
        "transport" | "tls_version" | "group" | "cipher_suite" => value.len() < 40 && words(value, "_. "),
        "begin_before" | "finish_before" | "retain_until" | "until" => {
            value.ends_with('Z') || value == "an unknown time"
        }
        _ => words(value, "_-."),
    }
}

/// Issue 10, item 6: no entry can hold free text but the purpose. Names stand for themselves.
#[test]
fn no_entry_holds_free_text_but_the_purpose() {
    const NAMES: [&str; 4] = ["source", "target", "into", "name"];
    for entry in samples() {
        let Value::Object(object) = serde_json::to_value(&entry).unwrap() else { panic!("no object: {entry:?}") };
        for (key, value) in object {
            match value {
                Value::Number(_) | Value::Bool(_) => {}
                Value::String(text) if text == FREE => {
                    assert!(key == "purpose" || NAMES.contains(&key.as_str()), "{key}")
                }
                Value::String(text) => assert!(is_closed(&key, &text), "{key}: {text}"),
                Value::Object(counts) => assert!(counts.values().all(Value::is_u64), "{key}: {counts:?}"),
                other => panic!("{key}: {other}"),
            }
        }
    }
    // In the types, text that is not a word of a closed enum stands in these two alone.
    let source = read("agent/src/audit/entry.rs");
    let texts: Vec<_> = source.lines().filter(|line| line.contains("(String)") || line.contains(": String")).collect();
    assert_eq!(texts, ["pub struct Name(String);", "pub struct Purpose(String);"]);
}
