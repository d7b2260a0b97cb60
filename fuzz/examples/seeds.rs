//! Writes one well-formed input for each kind of bytes into `corpus/TARGET/`, so that the fuzzer
//! need not find them. Run in this folder: `cargo run --example seeds`.

use std::{fs, io, path::Path};

use bytes::BytesMut;
use sealift_agent::{identity::Identity, receiver_key::to_text, role::Role, ticket::Ticket};
use sealift_protocol::{
    archive::{ArchiveOffer, ReceiverKey, Statement},
    audit_head::AuditHead,
    certificate::Chain,
    chunk::Codec,
    close::Code,
    codec,
    digest::{Root, RowsDigest},
    envelope::{ENVELOPE_SUITE, KeyEnvelope, SealingPublicKey},
    fingerprint::Fingerprint,
    frame::{ChunkHeader, StreamHeader},
    grant::{DocumentHash, Grant, SignedGrant},
    id::{ChunkCount, ChunkIndex, Epoch, PartIndex, TableIndex, TransferId},
    link_facts::{CipherSuite, KeyExchangeGroup, LinkFacts, TlsVersion, Transport},
    manifest::{
        Authority, CatalogueCheck, Check, Checked, CountedTable, Evidence, ImageChecks, LinkEvidence, Manifest, Origin,
        Plan, PlannedPart, PlannedTable, Proof, Range, Receipt, ReceiverTrust, Section, SentPart, SignedManifest,
        SignedReceipt,
    },
    message::{Accept, AcceptBody, Ack, Begin, BeginBody, Have, Message, Offer, Ready, Refuse, VERSION},
    random::Random,
    row::put_length,
    seal::Suite,
    sealed_log::{EpochRecord, KeyFingerprint, LogHeader, LogId, LogKind, LogWriter, Record},
    sign::{PublicKey, Purpose, Signature, Signer},
    ticket_proof::TicketSecret,
};
use sealift_sqlite::{
    Value,
    document::{Definition, FinishDocument, SchemaDocument, Table, TextEncoding},
    engine, put_value,
};

/// Signs nothing: what is fuzzed is the reading, and a signature of zeros is as long as any.
struct Zeros;

impl Signer for Zeros {
    fn sign(&self, _: Purpose, _: &[u8]) -> Signature {
        Signature([0; 64])
    }

    fn public_key(&self) -> PublicKey {
        PublicKey([0; 32])
    }
}

const TRANSFER: TransferId = TransferId([7; 16]);

fn main() -> io::Result<()> {
    let (grant, plan) = (grant(), plan());
    let manifest = manifest(&grant, &plan);
    let receipt = receipt(&grant, &plan, &manifest);
    write("grant", "signed", &grant.to_bytes())?;
    let ticket = ticket(&grant);
    write("ticket", "text", ticket.to_text().as_bytes())?;
    write("ticket", "bytes", &codec::encode(&ticket))?;
    write("plan", "sqlite", &codec::encode(&plan))?;
    write("manifest", "signed", &codec::encode(&manifest))?;
    write("receipt", "signed", &receipt.to_bytes())?;
    write("plan", "image", &codec::encode(&image_plan()))?;
    write("receipt", "image", &image_receipt(&receipt).to_bytes())?;
    for (name, statement) in statements(&grant, &plan, &manifest) {
        write("statement", name, &codec::encode(&statement))?;
    }
    write("schema", "schema", &schema().to_bytes())?;
    write("schema", "finish", &finish().to_bytes())?;
    let key = ReceiverKey::sign(SealingPublicKey(vec![9; 1216]), &identity(Role::Receiver)?);
    write("receiver_key", "text", to_text(&key).as_bytes())?;
    write("receiver_key", "bytes", &codec::encode(&key))?;
    for (name, message) in messages(grant, plan, manifest, receipt) {
        write("message", name, &codec::encode(&message))?;
    }
    write("chunk_header", "zstd", &chunk_header().to_bytes())?;
    write("stream_header", "first", &StreamHeader { part: PartIndex(1), first: ChunkIndex(0) }.to_bytes())?;
    write("control_length", "largest", &[0, 0x40, 0, 0])?;
    write("sealed_log", "one_of_each", &sealed_log())?;
    certificates()?;
    frames()?;
    let row = row();
    write("values", "one_of_each", &[&[5], &row[..]].concat())?;
    let mut rows = BytesMut::from(&[3u8][..]);
    for _ in 0..3 {
        put_length(&mut rows, row.len());
        rows.extend_from_slice(&row);
    }
    write("rows", "three", &rows)
}

fn write(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = Path::new("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

fn certificates() -> io::Result<()> {
    for role in [Role::Sender, Role::Receiver] {
        write("certificate", role.name(), identity(role)?.leaf())?;
    }
    Ok(())
}

fn identity(role: Role) -> io::Result<Identity> {
    Identity::generate(role).map_err(|_| io::Error::other("an identity cannot be made"))
}

/// Choices and claimed length, as the target reads them, then contents; and a change to a genuine
/// frame that is none.
fn frames() -> io::Result<()> {
    let plain = b"patient ".repeat(100);
    let claimed = (plain.len() as u32).to_be_bytes();
    let packed = zstd::bulk::compress(&plain, 3)?;
    write("frame", "zstd", &[&[3], &claimed[..], &packed].concat())?;
    write("frame", "zstd_wrong_hash", &[&[7], &claimed[..], &packed].concat())?;
    write("frame", "stored", &[&[0], &claimed[..], &plain].concat())?;
    write("frame", "genuine", &[2, 0, 0, 0, 0])?;
    write("frame", "genuine_chacha", &[10, 0, 0, 0, 0])
}

fn row() -> BytesMut {
    let mut row = BytesMut::new();
    for value in [Value::Null, Value::Integer(-1), Value::Real(0.5), Value::Text(b"text"), Value::Blob(&[0; 200])] {
        put_value(&mut row, value);
    }
    row
}

/// Zeros: as a salt, that is what the fuzz target puts into every header.
struct NoSalt;

impl Random for NoSalt {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0);
    }
}

fn sealed_log() -> Vec<u8> {
    let id = LogId { kind: LogKind::Journal, transfer: TRANSFER, key: KeyFingerprint([0; 32]) };
    let header = LogHeader::new(id, &mut NoSalt);
    let chunk = chunk_header();
    let mut writer = LogWriter::new(header);
    let mut bytes = header.to_bytes().to_vec();
    for record in [
        Record::Epoch(Box::new(epoch_record())),
        Record::Chunk { header: chunk, sealed: vec![5; chunk.sealed_bytes()].into() },
        Record::Statement(vec![0xa0].into()),
        Record::Mark,
    ] {
        if record == Record::Mark {
            writer.synced();
        }
        let encoded = writer.encode(&record).expect("these are within their limits");
        bytes.extend(encoded.pieces().concat());
    }
    bytes
}

fn epoch_record() -> EpochRecord {
    let envelope = KeyEnvelope { suite: ENVELOPE_SUITE, encapsulated: vec![1; 1120], sealed: vec![2; 80] };
    EpochRecord { epoch: Epoch(1), suite: Suite::Aes256Gcm, envelope, info: [3; 32], commitment: [4; 32] }
}

fn statements(grant: &SignedGrant, plan: &Plan, manifest: &SignedManifest) -> [(&'static str, Statement); 3] {
    let (grant, plan, sender_key) = (grant.clone(), plan.clone(), PublicKey([4; 32]));
    [
        ("offer", Statement::Offer(Box::new(ArchiveOffer { version: VERSION, grant, plan, sender_key }))),
        ("begin", Statement::Begin(Signature([0; 64]))),
        ("finish", Statement::Finish(manifest.clone())),
    ]
}

fn schema() -> SchemaDocument {
    let definition =
        |name: &str, sql: &str| Definition { name: name.into(), sql: sql.into(), table: Some("patients".into()) };
    let table = Table {
        name: "patients".into(),
        sql: "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT)".into(),
        rowid: None,
        columns: vec!["id".into(), "name".into()],
        indexes: vec![definition("by_name", "CREATE INDEX by_name ON patients (name)")],
        automatic_indexes: vec![],
    };
    SchemaDocument {
        encoding: TextEncoding::Utf8,
        page_bytes: 4096,
        auto_vacuum: 0,
        application_id: 0,
        user_version: 1,
        tables: vec![table],
        virtual_tables: vec![],
        wal: true,
        default_cache_size: 0,
    }
}

fn finish() -> FinishDocument {
    let sql = "CREATE VIEW names AS SELECT name FROM patients".into();
    FinishDocument { views: vec![Definition { name: "names".into(), sql, table: None }], triggers: vec![] }
}

fn grant() -> SignedGrant {
    let grant = Grant {
        transfer: TRANSFER,
        sender: Some(Fingerprint([4; 32])),
        receiver: Fingerprint([5; 32]),
        source: String::new(),
        target: "target".into(),
        purpose: "CHG-1234".into(),
        not_before_seconds: 1_800_000_000,
        begin_before_seconds: 1_800_003_600,
        finish_before_seconds: 1_800_007_200,
        retain_until_seconds: 1_800_100_000,
        scope: None,
        policy: None,
    };
    grant.sign(&Zeros)
}

fn ticket(grant: &SignedGrant) -> Ticket {
    let addresses = vec!["192.0.2.1:7443".into(), "[2001:db8::1]:7443".into()];
    Ticket {
        addresses,
        receiver: grant.grant.receiver,
        sealing_key: KeyFingerprint([1; 32]),
        grant: grant.clone(),
        secret: Some(TicketSecret::generate(&mut NoSalt)),
    }
}

fn plan() -> Plan {
    let range = |from, to| PlannedPart {
        range: Some(Range { from, to }),
        rows_estimate: Some(3),
        ..PlannedPart::of_table(TableIndex(0))
    };
    let engine = engine::rows();
    let parts = vec![
        PlannedPart::of_section(Section::PreData),
        range(0, Some(8)),
        range(8, None),
        PlannedPart::of_section(Section::PostData),
    ];
    let table = PlannedTable { schema: Some("public".into()), ..PlannedTable::named("patients") };
    Plan { engine, tables: vec![table], parts, empty: None, left_out: None, rows: None }
}

fn manifest(grant: &SignedGrant, plan: &Plan) -> SignedManifest {
    let part = |rows| SentPart { chunks: ChunkCount(1), plain_bytes: 640, root: Root([1; 32]), rows };
    let rows = |rows, byte| RowsDigest { rows, sum: [byte; 32] };
    let manifest = Manifest {
        transfer: TRANSFER,
        grant_hash: grant.hash(),
        plan_hash: plan.hash(),
        tables: vec![rows(3, 5)],
        parts: vec![part(None), part(Some(rows(1, 2))), part(Some(rows(2, 3))), part(None)],
        root: Root([3; 32]),
        origin: Origin { receiver_trust: ReceiverTrust::Pinned, host: "db1".into(), source: "-".into() },
        audit_head: Some(AuditHead { sequence: 7, hash: [7; 32] }),
    };
    manifest.sign(&Zeros)
}

fn receipt(grant: &SignedGrant, plan: &Plan, manifest: &SignedManifest) -> SignedReceipt {
    let checks = vec![Check::Catalogue(CatalogueCheck { definitions: 4 })];
    let facts = LinkFacts {
        transport: Transport::Quic,
        tls_version: TlsVersion(0x0304),
        group: KeyExchangeGroup(0x11ec),
        cipher_suite: CipherSuite(0x1302),
    };
    let link = LinkEvidence { facts, sender: Chain::self_signed(&[0x30, 0]), receiver: Chain::self_signed(&[0x30, 0]) };
    let receipt = Receipt {
        manifest: manifest.clone(),
        plan: plan.clone(),
        evidence: Evidence { tables: manifest.manifest.tables.clone(), checks, ..Evidence::bare(Proof::RowsReadBack) },
        grant: grant.clone(),
        sender_key: PublicKey([4; 32]),
        receiver_key: PublicKey([5; 32]),
        suite: Suite::Aes256Gcm,
        authority: Authority::Operator(PublicKey([6; 32])),
        link: Some(link),
        started_ms: 1_800_000_000_000,
        finished_ms: 1_800_000_001_000,
        software: "0.1.0".into(),
        target_host: "db2".into(),
        target: "sqlite:/srv/ehr.db".into(),
        audit_head: Some(AuditHead { sequence: 8, hash: [8; 32] }),
        policy: Some(DocumentHash([9; 32])),
    };
    receipt.sign(&Zeros)
}

fn image_plan() -> Plan {
    Plan::opaque(engine::image(), None)
}

/// The same of an image.
fn image_receipt(rows: &SignedReceipt) -> SignedReceipt {
    let table = CountedTable { name: "patients".into(), rows: Some(3), checked: true, internal: false };
    let checks = ImageChecks {
        page_bytes: 512,
        pages: 3,
        checked: Checked::Everything,
        findings: 0,
        tables: vec![table],
        tables_left_out: 0,
    };
    let mut receipt = rows.receipt.clone();
    receipt.plan = image_plan();
    receipt.evidence = Evidence {
        bytes: Some(Root([1; 32])),
        checks: vec![Check::Image(checks)],
        ..Evidence::bare(Proof::BytesReadBack)
    };
    receipt.sign(&Zeros)
}

fn messages(
    grant: SignedGrant,
    plan: Plan,
    manifest: SignedManifest,
    receipt: SignedReceipt,
) -> [(&'static str, Message); 8] {
    let (part, verified, durable) = (PartIndex(1), ChunkCount(2), ChunkCount(1));
    let (suites, nonce, signature) =
        (vec![Suite::Aes256Gcm.into(), Suite::ChaCha20Poly1305.into()], [8; 32], Signature([0; 64]));
    let accept = AcceptBody {
        version: VERSION,
        suite: Suite::Aes256Gcm,
        sealing_key: SealingPublicKey(vec![9; 1216]),
        epoch: Epoch(1),
        lanes: 4,
        lane_window_bytes: 16 << 20,
        have: vec![Have { part, verified, durable, ended: false, root: Root([6; 32]) }],
        nonce,
    };
    let EpochRecord { epoch, envelope, commitment, .. } = epoch_record();
    let spool = Some(Box::new(epoch_record()));
    let begin = BeginBody { epoch, envelope, commitment, spool };
    [
        (
            "offer",
            Message::Offer(Offer {
                versions: vec![VERSION],
                suites,
                grant,
                plan,
                nonce,
                fresh: false,
                now_seconds: 1_800_000_000,
            }),
        ),
        ("accept", Message::Accept(Accept { body: accept, signature })),
        ("begin", Message::Begin(Begin { body: begin, signature })),
        ("ready", Message::Ready(Ready { transcript: [6; 32] })),
        ("ack", Message::Ack(Ack { part, verified, durable })),
        ("finish", Message::Finish(manifest)),
        ("receipt", Message::Receipt(Box::new(receipt))),
        (
            "refuse",
            Message::Refuse(Refuse { part: Some(part), chunk: Some(ChunkIndex(2)), ..Refuse::new(Code::ChunkForged) }),
        ),
    ]
}

fn chunk_header() -> ChunkHeader {
    let mut nonce = [0; 24];
    nonce[..12].fill(1);
    ChunkHeader {
        suite: Suite::Aes256Gcm,
        codec: Codec::Zstd,
        last: true,
        transfer: TRANSFER,
        epoch: Epoch(1),
        part: PartIndex(1),
        index: ChunkIndex(0),
        plain_bytes: 640,
        packed_bytes: 320,
        nonce,
    }
}
