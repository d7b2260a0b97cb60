//! What ends a transfer, at the reader of a source, and at the writers and the prover of a target,
//! of SQLite and of an engine with several of each (issue 10, item 5): whichever cause it is,
//! nothing more is read, written, committed or proven, and what the transfer ends for is that
//! cause.

mod causes;
mod running;

use std::{fs, path::Path, sync::Arc};

use bytes::BytesMut;
use sealift_agent::{
    budget::Budget,
    failure::{Failure, Outcome},
    random::SystemRandom,
    stop::{Cause, Stop},
};
use sealift_engine_api::{Durability, Source, SourceOptions, Target, Waivers, Writers};
use sealift_engines::ENGINES;
use sealift_protocol::{
    chunk::{Chunk, VerifiedChunk},
    close::Code,
    compress::{Compression, Packer, Unpacker},
    digest::Digests,
    disposition::Asks,
    id::{ChunkIndex, Epoch, PartIndex, TableIndex},
    key::{DigestSecret, EpochSecret},
    limits::CHUNK_HEADER_BYTES,
    manifest::{Plan, PlannedPart, PlannedTable, Section},
    random::Nonces,
    row::put_length,
    seal::{EpochKeys, Suite, open, seal},
};
use sealift_receiver::writer::{ChunkInMemory, PartToWrite, PartWriter, Written};
use sealift_sender::reader::{Reader, Reading};
use sealift_sqlite::{
    SqliteTarget, Value,
    document::{FinishDocument, SchemaDocument, Table, TextEncoding},
    engine, put_value,
};
use sealift_tests::{
    grid::{Content, GridSource, GridTarget},
    one_load::{self, OneLoad},
};
use tokio::sync::mpsc;

use self::running::{Running, TRANSFER, run};

const ROW_BYTES_MAX: usize = 1 << 20;

fn digests() -> Digests {
    Digests::new(&DigestSecret::from_bytes([7; 32]))
}

/// A source with a part that is far from its end when it is stopped.
fn sources(folder: &Path) -> [(Box<dyn Source>, PartIndex); 2] {
    let endless = ENGINES.parse("exec:yes").unwrap().open_source(SourceOptions::default()).unwrap();
    let grid = folder.join("grid");
    fs::write(&grid, Content { tables: 1, ranges: 2, rows: 10_000_000, bytes: 1000, ..Content::default() }.text())
        .unwrap();
    [(endless, PartIndex(0)), (Box::new(GridSource::open(&grid).unwrap()), PartIndex(1))]
}

#[test]
fn each_cause_stops_reading() {
    let folder = tempfile::tempdir().unwrap();
    for cause in Cause::ALL {
        for (source, part) in sources(folder.path()) {
            stops_reading(cause, source, part);
        }
    }
}

fn stops_reading(cause: Cause, source: Box<dyn Source>, part: PartIndex) {
    let running = Running::start();
    run(async {
        let stop = running.stop.within();
        let is_empty = || Failure::new(Code::SourceEmpty, "", "");
        let reading = Reading { waivers: Waivers::default(), row_bytes_max: ROW_BYTES_MAX, empty: None, is_empty };
        let reader = Reader::start(source, reading, stop).await.unwrap().reader;
        let mut reading = reader.read(part, digests().multiset()).unwrap();
        assert!(reading.chunks.recv().await.is_some());
        let ended_for = running.end_by(cause);
        let mut more = 0;
        while reading.chunks.recv().await.is_some() {
            more += 1;
        }
        // What was read when it was asked for the last time, and what waited then.
        assert!(more <= 2, "{cause:?}: {more} more chunks");
        let summary = reading.summary.await.unwrap();
        assert_eq!(summary.err().map(|failure| failure.what), Some(ended_for.what), "{cause:?}");
    });
}

/// So many that a proof takes a while.
const ROWS: u32 = 40_000;

/// Of an engine: its target, a plan, and what each part of it holds.
struct Subject {
    target: fn(&Path) -> Arc<dyn Target>,
    plan: Plan,
    parts: Vec<Vec<u8>>,
}

fn subjects() -> [Subject; 2] {
    [sqlite(), grid()]
}

fn grid() -> Subject {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    let content = Content { tables: 1, ranges: 1, rows: ROWS.into(), bytes: 1, ..Content::default() };
    fs::write(&from, content.text()).unwrap();
    let planned = Box::new(GridSource::open(&from).unwrap()).plan(one_load::endless()).unwrap();
    let target = |path: &Path| Arc::new(GridTarget::new(path.to_owned(), ROW_BYTES_MAX)) as Arc<dyn Target>;
    Subject { target, plan: planned.plan, parts: content.parts() }
}

fn sqlite() -> Subject {
    let parts = vec![
        PlannedPart::of_section(Section::PreData),
        PlannedPart::of_table(TableIndex(0)),
        PlannedPart::of_section(Section::PostData),
    ];
    let plan = Plan {
        engine: engine::rows(),
        tables: vec![PlannedTable::named("t")],
        parts,
        empty: None,
        left_out: None,
        rows: None,
    };
    let finish = FinishDocument { views: Vec::new(), triggers: Vec::new() };
    let target = |path: &Path| Arc::new(SqliteTarget::new(path, ROW_BYTES_MAX).unwrap()) as Arc<dyn Target>;
    Subject { target, plan, parts: vec![schema(), rows(ROWS.into()), finish.to_bytes()] }
}

fn schema() -> Vec<u8> {
    let table = Table {
        name: "t".into(),
        sql: "CREATE TABLE t(a)".into(),
        rowid: None,
        columns: vec!["a".into()],
        indexes: Vec::new(),
        automatic_indexes: Vec::new(),
    };
    let schema = SchemaDocument {
        encoding: TextEncoding::Utf8,
        page_bytes: 4096,
        auto_vacuum: 0,
        application_id: 0,
        user_version: 0,
        tables: vec![table],
        virtual_tables: Vec::new(),
        wal: false,
        default_cache_size: 0,
    };
    schema.to_bytes()
}

fn rows(count: i64) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for value in 0..count {
        let mut row = BytesMut::new();
        put_value(&mut row, Value::Integer(value));
        put_length(&mut bytes, row.len());
        bytes.extend_from_slice(&row);
    }
    bytes.to_vec()
}

/// Only what was opened can be given to a target.
fn verified(part: PartIndex, index: u64, last: bool, plain: &[u8]) -> VerifiedChunk {
    let mut random = SystemRandom::default();
    let secret = EpochSecret::generate(&mut random);
    let keys = EpochKeys::new(Suite::Aes256Gcm, TRANSFER, Epoch(1), secret, digests());
    let chunk = Chunk::new(part, ChunkIndex(index), last, plain.to_vec());
    let packed = Packer::new(Compression::Off).unwrap().pack(chunk, keys.digests());
    let sealed = seal(packed, &keys, Nonces::new(&mut random).draw().unwrap()).unwrap();
    let body = BytesMut::from(&sealed.frame[CHUNK_HEADER_BYTES..]);
    open(&sealed.header, body, &keys, &mut Unpacker::new().unwrap()).unwrap()
}

impl Subject {
    /// A load that ends with `stop`, and how much of it was there.
    fn prepared(&self, target: &Path, stop: &Stop) -> (Arc<OneLoad>, usize) {
        let load = OneLoad::ended_by((self.target)(target), stop);
        let found = load.prepare(TRANSFER, &self.plan, Asks::Continue).unwrap();
        (Arc::new(load), found.len())
    }

    /// Everything of the load is written, and nothing is proven.
    async fn write_all(&self, load: &OneLoad, stop: &Stop) {
        for (part, plain) in self.parts.iter().enumerate() {
            write_whole(load, part as u32, plain, stop).await;
        }
    }
}

/// Begins to write a part as the receiver does.
async fn begin(into: Arc<dyn Writers>, part: PartIndex, stop: &Stop) -> (PartWriter, mpsc::UnboundedReceiver<Written>) {
    let (written, events) = mpsc::unbounded_channel();
    let digests = digests();
    let to_write = PartToWrite { part, root: digests.part_root(part), digests, durability: Durability::Parts };
    let started = PartWriter::start(into, to_write, written, Arc::default(), stop.clone());
    started.ready.await.unwrap().unwrap();
    (started.writer, events)
}

/// `false` if nothing is written any more.
async fn write(writer: &PartWriter, chunk: VerifiedChunk) -> bool {
    let held = Budget::new(0).open_lane().await.unwrap().take(chunk.plain().len()).await.unwrap();
    let place = writer.place().await;
    place.is_some_and(|place| {
        place.send(ChunkInMemory { chunk, held });
        true
    })
}

async fn write_whole(load: &OneLoad, part: u32, plain: &[u8], stop: &Stop) {
    let part = PartIndex(part);
    let (writer, mut events) = begin(load.writers(), part, stop).await;
    assert!(write(&writer, verified(part, 0, true, plain)).await);
    assert!(matches!(events.recv().await, Some(Written::Finished(_))));
}

/// Nothing is written or committed once the transfer has to end: the part that was begun is not
/// there.
#[test]
fn each_cause_stops_writing_and_committing() {
    let subjects = subjects();
    for (cause, subject) in
        Cause::ALL.into_iter().flat_map(|cause| subjects.iter().map(move |subject| (cause, subject)))
    {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target.db");
        let running = Running::start();
        let (load, _) = subject.prepared(&target, &running.stop);
        run(async {
            write_whole(&load, 0, &subject.parts[0], &running.stop).await;
            let part = PartIndex(1);
            let (writer, mut events) = begin(load.writers(), part, &running.stop).await;
            assert!(write(&writer, verified(part, 0, false, &subject.parts[1])).await);
            let ended_for = running.end_by(cause);
            write(&writer, verified(part, 1, true, &subject.parts[1])).await;
            let Some(Written::Failed(failure)) = events.recv().await else { panic!("{cause:?}: written") };
            assert_eq!((failure.what, failure.code), (ended_for.what, ended_for.code), "{cause:?}");
        });
        load.suspend();
        let (_again, found) = subject.prepared(&target, &Running::start().stop);
        assert_eq!(found, 1, "{cause:?}: the schema alone was committed");
    }
}

/// A prover asks for itself, and what was loaded stays for the next process.
#[test]
fn each_cause_stops_proving() {
    let subjects = subjects();
    for (cause, subject) in
        Cause::ALL.into_iter().flat_map(|cause| subjects.iter().map(move |subject| (cause, subject)))
    {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target.db");
        let running = Running::start();
        let (load, _) = subject.prepared(&target, &running.stop);
        run(async {
            subject.write_all(&load, &running.stop).await;
            let prover = Arc::clone(&load);
            let proving = tokio::task::spawn_blocking(move || prover.prove(&digests()));
            let ended_for = running.end_by(cause);
            let long_call = running.stop.or(std::future::pending::<Outcome>()).await;
            assert_eq!(long_call, Err(ended_for.clone()), "{cause:?}");
            assert_eq!(proving.await.unwrap(), Err(ended_for), "{cause:?}");
        });
        load.suspend();
        assert!(!target.exists());
        let (_again, found) = subject.prepared(&target, &Running::start().stop);
        assert_eq!(found, 3, "{cause:?}: all of it stays loaded");
    }
}

/// A step that runs while the load is let go of gives back what it had: nothing is left.
#[test]
fn a_load_that_is_abandoned_while_it_is_proven_leaves_nothing() {
    subjects().iter().for_each(leaves_nothing);
}

fn leaves_nothing(subject: &Subject) {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start();
    let (load, _) = subject.prepared(&folder.path().join("target.db"), &running.stop);
    run(async {
        subject.write_all(&load, &running.stop).await;
        let prover = Arc::clone(&load);
        let proving = tokio::task::spawn_blocking(move || prover.prove(&digests()));
        load.abandon();
        assert!(proving.await.unwrap().is_err());
    });
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A step out of order takes nothing away, and what is published stays.
#[test]
fn a_load_is_proven_once_and_published_after_that() {
    subjects().iter().for_each(is_proven_once);
}

fn is_proven_once(subject: &Subject) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target.db");
    let running = Running::start();
    let (load, _) = subject.prepared(&target, &running.stop);
    run(subject.write_all(&load, &running.stop));
    assert_eq!(load.publish().unwrap_err().code, Code::Internal);
    let evidence = load.prove(&digests()).unwrap();
    assert_eq!(evidence.tables[0].rows, ROWS as u64);
    assert_eq!(load.prove(&digests()).unwrap_err().code, Code::Internal);
    // What was proven is published, whatever would stop it now.
    running.end_by(Cause::Revoked);
    load.publish().unwrap();
    load.abandon();
    assert!(target.exists());
}
