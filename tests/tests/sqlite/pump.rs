//! A source pumped into a target in one process: every chunk is packed, sealed and opened as on a
//! link, since nothing else makes what a target accepts.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use bytes::BytesMut;
use rusqlite::Connection;
use sealift_agent::failure::Outcome;
use sealift_engine_api::{PartReader, PartSink, Source};
use sealift_protocol::{
    chunk::{Chunk, VerifiedChunk},
    compress::{Compression, Packer, Unpacker},
    digest::{Digests, RowsDigest},
    disposition::Asks,
    frame::ChunkHeader,
    id::{Epoch, PartIndex, TransferId},
    key::{DigestSecret, EpochSecret},
    limits::CHUNK_HEADER_BYTES,
    manifest::{Evidence, Plan, Proof, Section},
    random::{Nonces, Random},
    receive::{Found, WholePart},
    seal::{EpochKeys, Suite, open, seal},
};
use sealift_sender::part::PartWriter;
use sealift_sqlite::{SqliteSource, SqliteTarget};
use sealift_tests::one_load::{OneLoad, endless};

pub const ROW_BYTES_MAX: usize = 128 << 20;

pub const TRANSFER: TransferId = TransferId([3; 16]);

/// A folder with a source and a target in it.
pub struct Folder(pub Place);

/// A folder of its own, or one that its owner removes.
pub enum Place {
    Own(tempfile::TempDir),
    Other(PathBuf),
}

impl Place {
    pub fn path(&self) -> &Path {
        match self {
            Place::Own(folder) => folder.path(),
            Place::Other(path) => path,
        }
    }
}

impl Folder {
    /// In memory where the system has a place for it: every part is synced several times, and what
    /// a sync costs is not what is tested.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        Self(Place::Own(if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()))
    }

    /// That of another process.
    pub fn at(path: &Path) -> Self {
        Self(Place::Other(path.to_owned()))
    }

    pub fn source(&self) -> PathBuf {
        self.0.path().join("source.db")
    }

    pub fn target(&self) -> PathBuf {
        self.0.path().join("target.db")
    }

    pub fn staging(&self) -> PathBuf {
        self.0.path().join(".target.db.sealift-staging")
    }

    pub fn build(&self, sql: &str) -> Connection {
        let connection = Connection::open(self.source()).unwrap();
        connection.execute_batch(sql).unwrap();
        connection
    }

    pub fn load(&self) -> OneLoad {
        OneLoad::new(SqliteTarget::new(&self.target(), ROW_BYTES_MAX).unwrap())
    }

    /// Lets the last user of databases in WAL mode take their logs and indexes away.
    pub fn tidy(&self) {
        for path in [self.source(), self.target()] {
            Connection::open(path).unwrap().query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).unwrap();
        }
    }

    /// What lies in the folder, by name.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

struct Urandom(File);

impl Random for Urandom {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.read_exact(out).unwrap();
    }
}

/// Seals on one end and opens on the other.
pub struct Link {
    keys: EpochKeys,
    packer: Packer,
    unpacker: Unpacker,
    nonces: Nonces<Urandom>,
}

impl Link {
    pub fn new() -> Self {
        let mut random = Urandom(File::open("/dev/urandom").unwrap());
        let secret = EpochSecret::generate(&mut random);
        let keys = EpochKeys::new(Suite::Aes256Gcm, TRANSFER, Epoch(1), secret, digests());
        let packer = Packer::new(Compression::Level(1)).unwrap();
        Self { keys, packer, unpacker: Unpacker::new().unwrap(), nonces: Nonces::new(random) }
    }

    pub fn carry(&mut self, chunk: &Chunk) -> VerifiedChunk {
        let packed = self.packer.pack(chunk.clone(), self.keys.digests());
        let sealed = seal(packed, &self.keys, self.nonces.draw().unwrap()).unwrap();
        let header: ChunkHeader = sealed.header;
        let body = BytesMut::from(&sealed.frame[CHUNK_HEADER_BYTES..]);
        open(&header, body, &self.keys, &mut self.unpacker).unwrap()
    }
}

/// The transfer's digest keys, the same in every test.
pub fn digests() -> Digests {
    Digests::new(&DigestSecret::from_bytes([7; 32]))
}

/// One transfer under way.
pub struct Pump<'a> {
    pub reader: Box<dyn PartReader>,
    pub load: &'a OneLoad,
    pub plan: Plan,
    pub link: Link,
    /// What the target said is there already.
    pub have: Vec<WholePart>,
}

impl<'a> Pump<'a> {
    /// Plans and prepares.
    pub fn start(folder: &Folder, load: &'a OneLoad) -> Outcome<Self> {
        Self::start_as(folder, load, TRANSFER, Asks::Continue)
    }

    pub fn start_as(folder: &Folder, load: &'a OneLoad, transfer: TransferId, asks: Asks) -> Outcome<Self> {
        Self::of_source(SqliteSource::open(&folder.source())?, load, transfer, asks)
    }

    /// One of tables in ranges of so many bytes.
    pub fn start_in_ranges(folder: &Folder, load: &'a OneLoad, range_bytes: u64) -> Outcome<Self> {
        let source = SqliteSource::open(&folder.source())?.with_ranges(range_bytes);
        Self::of_source(source, load, TRANSFER, Asks::Continue)
    }

    fn of_source(source: SqliteSource, load: &'a OneLoad, transfer: TransferId, asks: Asks) -> Outcome<Self> {
        let planned = Box::new(source).plan(endless())?;
        let (plan, reader, link) = (planned.plan, planned.snapshot.reader()?, Link::new());
        let whole = |found| match found {
            Found::Whole(whole) => whole,
            Found::Prefix(prefix) => panic!("part {} is committed as one", prefix.part.0),
        };
        let have = load.prepare(transfer, &plan, asks)?.into_iter().map(whole).collect();
        Ok(Self { reader, load, plan, link, have })
    }

    pub fn place(&self, name: &str) -> PartIndex {
        PartIndex(
            (0..self.plan.parts.len() as u32)
                .find(|&part| self.plan.table_of(PartIndex(part)).is_some_and(|table| table.name == name))
                .unwrap(),
        )
    }

    /// Reads a part into what writes it; returns what the sender would say of it, and what the
    /// receiver has verified.
    pub fn feed(&mut self, part: PartIndex, loader: &mut dyn PartSink) -> Outcome<(RowsDigest, WholePart)> {
        let Self { reader, link, .. } = self;
        let mut root = digests().part_root(part);
        let mut write = |chunk: Chunk| {
            let verified = link.carry(&chunk);
            loader.write(&verified)?;
            root.add(verified.hash(), verified.plain().len() as u64);
            Ok(())
        };
        let mut writer = PartWriter::new(part, digests().multiset(), ROW_BYTES_MAX, &mut write);
        reader.read(part, &mut writer)?;
        let rows = writer.finish()?;
        Ok((rows, WholePart::of(part, &root)))
    }

    pub fn part(&mut self, part: PartIndex) -> Outcome<RowsDigest> {
        self.whole_part(part).map(|(sent, _)| sent)
    }

    pub fn whole_part(&mut self, part: PartIndex) -> Outcome<(RowsDigest, WholePart)> {
        let mut loader = self.load.begin(part, &digests())?;
        let (sent, whole) = self.feed(part, &mut *loader)?;
        loader.finish(&whole)?;
        Ok((sent, whole))
    }

    /// What the sender would say of a part, without sending it.
    pub fn part_as_read(&mut self, part: PartIndex) -> RowsDigest {
        struct Nowhere;
        impl PartSink for Nowhere {
            fn write(&mut self, _: &VerifiedChunk) -> Outcome {
                Ok(())
            }
            fn finish(self: Box<Self>, _: &WholePart) -> Outcome<Vec<PartIndex>> {
                Ok(Vec::new())
            }
        }
        self.feed(part, &mut Nowhere).unwrap().0
    }

    /// Every part from `first` on; what the sender would say of its tables.
    pub fn rest(&mut self, first: u32) -> Outcome<Vec<RowsDigest>> {
        let mut tables = Vec::new();
        for part in (first..self.plan.parts.len() as u32).map(PartIndex) {
            let rows = self.part(part)?;
            if self.plan.section(part) == Some(Section::Data) {
                tables.push(rows);
            }
        }
        Ok(tables)
    }

    /// What the sender would say of all tables, without sending them: ranges add up.
    pub fn tables_as_read(&mut self) -> Vec<RowsDigest> {
        let mut tables = vec![RowsDigest::default(); self.plan.tables.len()];
        for part in 1..self.plan.parts.len() - 1 {
            let table = self.plan.parts[part].table.unwrap();
            let rows = self.part_as_read(PartIndex(part as u32));
            let table = &mut tables[table.0 as usize];
            *table = table.merge(rows).unwrap();
        }
        tables
    }
}

/// A whole transfer, with something happening between load and proof; what was sent and what was
/// found. One that fails is given up.
pub fn transfer_with(folder: &Folder, between: impl FnOnce()) -> Outcome<(Vec<RowsDigest>, Vec<RowsDigest>)> {
    let load = folder.load();
    let run = || {
        let mut pump = Pump::start(folder, &load)?;
        let sent = pump.rest(0)?;
        between();
        let Evidence { proof, tables, .. } = load.prove(&digests())?;
        assert_eq!(proof, Proof::RowsReadBack);
        Ok((sent, tables))
    };
    let outcome = run();
    match &outcome {
        Ok((sent, loaded)) if sent == loaded => {
            load.publish()?;
            load.target.forget(TRANSFER);
        }
        _ => load.abandon(),
    }
    outcome
}

/// A whole transfer that must succeed.
pub fn transfer(folder: &Folder) {
    let (sent, loaded) = transfer_with(folder, || ()).unwrap();
    assert_eq!(sent, loaded);
}
