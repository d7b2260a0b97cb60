//! A database as its pages: the exact form.
//!
//! The pages are read through `sqlite_dbpage` in the one read transaction, so that they are those
//! of a snapshot, in WAL mode too, and only one of them is held at a time. No table is opened and
//! nothing of the schema is run: what this engine does not know, or what would need a collation or
//! module of an application, is moved like everything else. Pages on the free list still hold
//! deleted rows, and are moved as well.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;
use sealift_engine_api::{Finding, PartReader, Planned, RowSink, Snapshot, Source, StopToken};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::PartIndex,
    manifest::Plan,
};

use super::{
    SqliteSource,
    failure::failed,
    shared::{CACHE_KIB, bound_cache},
};
use crate::engine;

/// What is said of an image before it is read.
const IMAGE_NOTE: &str = "the database is sent as an image of its pages: deleted rows that still lie in free pages travel \
    with it. To leave them out, run VACUUM on the source first, or use --form rows.";

/// A source that reads the pages of `sqlite:PATH`.
pub struct ImageSource {
    source: SqliteSource,
}

#[derive(Clone, Copy)]
struct ImageSize {
    page_bytes: usize,
    pages: u64,
    /// Besides SQLite's own.
    has_tables: bool,
}

impl ImageSource {
    /// The pages of a database that was opened, and of which nothing was read yet.
    pub fn new(source: SqliteSource) -> Self {
        Self { source }
    }

    /// Opens an existing database; nothing is read of it yet.
    pub fn open(path: &Path) -> Outcome<Self> {
        SqliteSource::open(path).map(Self::new)
    }
}

impl Source for ImageSource {
    fn check(&self, stop: Arc<dyn StopToken>) -> Outcome<Vec<Finding>> {
        let mut found = self.source.check(stop)?;
        found.push(Finding::note("free-pages-travel", IMAGE_NOTE));
        Ok(found)
    }

    fn plan(self: Box<Self>, _stop: Arc<dyn StopToken>) -> Outcome<Planned> {
        let source = self.source;
        let shown = source.path.display().to_string();
        let size = take_snapshot(&source.connection).map_err(|error| failed(&error, &shown))?;
        source.check_whole()?;
        if size.pages == 0 {
            let next = "Check the path in --source. If it is meant to be empty, use --form rows --allow-empty.";
            let what = format!("the source has nothing to move: {shown} has no page");
            return Err(Failure::new(Code::SourceEmpty, what, next));
        }
        let bytes_estimate = Some(size.pages.saturating_mul(size.page_bytes as u64));
        // Where there is no table, it is known that there is no row.
        let rows_estimate = (!size.has_tables).then_some(0);
        let mut plan = Plan::opaque(engine::image(), bytes_estimate);
        plan.parts[0].rows_estimate = rows_estimate;
        let findings = vec![source.finding(), Finding::note("free-pages-travel", IMAGE_NOTE)];
        let reader = ImageReader { connection: source.connection, size, shown };
        Ok(Planned { plan, findings, snapshot: Arc::new(ImageSnapshot(Mutex::new(Some(reader)))) })
    }
}

/// The one reader, until it is opened: the image is one part.
struct ImageSnapshot(Mutex<Option<ImageReader>>);

impl Snapshot for ImageSnapshot {
    fn can_repeat(&self) -> bool {
        true
    }

    fn reader(&self) -> Outcome<Box<dyn PartReader>> {
        let reader = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let reader = reader.ok_or_else(|| Failure::new(Code::Internal, "a second reader of an image", ""))?;
        Ok(Box::new(reader))
    }
}

struct ImageReader {
    connection: Connection,
    size: ImageSize,
    shown: String,
}

impl PartReader for ImageReader {
    fn read(&mut self, part: PartIndex, out: &mut dyn RowSink) -> Outcome {
        if part != PartIndex(0) {
            let what = "a part was asked for that is not in the plan";
            return Err(Failure::new(Code::Internal, what, "").at_part(part));
        }
        read_pages(&self.connection, self.size, &self.shown, out)
    }
}

/// Begins the read transaction, and says how large the database is in it.
fn take_snapshot(connection: &Connection) -> rusqlite::Result<ImageSize> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    connection.execute_batch("BEGIN")?;
    // Reads the header and takes the lock, and does not look at the schema: a file that is no
    // database, or shorter than its header says, ends here.
    number("schema_version")?;
    // From here on a definition that this engine does not understand is passed over.
    // `sqlite_dbpage` is all that is read, and the connection cannot write.
    connection.pragma_update(None, "writable_schema", true)?;
    // The first statement may still fail for what was not understood. The next is prepared with
    // what was.
    let _ = connection.prepare("SELECT 1 FROM main.sqlite_schema");
    bound_cache(connection, CACHE_KIB)?;
    let page_bytes = number("page_size")?;
    let pages = number("page_count")?;
    let sql =
        "SELECT EXISTS(SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_')";
    let has_tables = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(ImageSize { page_bytes: usize::try_from(page_bytes).unwrap_or(0), pages: pages.unsigned_abs(), has_tables })
}

fn read_pages(connection: &Connection, size: ImageSize, shown: &str, out: &mut dyn RowSink) -> Outcome {
    let engine = |error: rusqlite::Error| failed(&error, shown);
    let mut statement =
        connection.prepare("SELECT pgno, data FROM sqlite_dbpage('main') ORDER BY pgno").map_err(engine)?;
    let mut rows = statement.raw_query();
    let mut pages = 0;
    while let Some(row) = rows.next().map_err(engine)? {
        let number: i64 = row.get(0).map_err(engine)?;
        let page = row.get_ref(1).map_err(engine)?.as_blob().map_err(|_| unlike_itself(shown))?;
        pages += 1;
        if number.unsigned_abs() != pages || page.len() != size.page_bytes {
            return Err(unlike_itself(shown));
        }
        out.bytes(page)?;
    }
    if pages == size.pages { Ok(()) } else { Err(unlike_itself(shown)) }
}

fn unlike_itself(shown: &str) -> Failure {
    let what = format!("the pages of {shown} are not those that its header announces");
    Failure::new(Code::SourceFailed, what, "Run `PRAGMA integrity_check` on it, and start again.")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sealift_protocol::limits::CHUNK_PLAIN_BYTES;

    use super::*;
    use crate::{
        source::tests::kept::{Folder, Kept},
        testing::never,
    };

    fn planned(folder: &Folder) -> Outcome<(Box<dyn PartReader>, Plan)> {
        let planned = Box::new(ImageSource::open(&folder.path())?).plan(never())?;
        planned.plan.check().unwrap();
        assert!(planned.snapshot.can_repeat());
        Ok((planned.snapshot.reader()?, planned.plan))
    }

    /// The part's bytes.
    fn read(reader: &mut Box<dyn PartReader>) -> Vec<u8> {
        let mut kept = Kept::new(1000);
        reader.read(PartIndex(0), &mut kept).unwrap();
        assert!(kept.rows.is_empty());
        kept.bytes
    }

    const ROWS: &str = "CREATE TABLE t(a TEXT PRIMARY KEY, b); CREATE INDEX i ON t(b);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 20000)
        INSERT INTO t SELECT 'canary' || (i * 7919 % 40009), randomblob(100) FROM n;
        DELETE FROM t WHERE rowid % 3 = 0;";

    #[test]
    fn the_bytes_are_those_of_the_file() {
        for page_bytes in [512, 1024, 4096, 65536] {
            let folder = Folder::new();
            folder
                .database(&format!("PRAGMA page_size={page_bytes}; PRAGMA auto_vacuum=FULL; {ROWS}"))
                .close()
                .unwrap();
            let (mut source, plan) = planned(&folder).unwrap();
            let file = fs::read(folder.path()).unwrap();
            assert!(file.len() > CHUNK_PLAIN_BYTES);
            assert_eq!(plan.parts[0].bytes_estimate, Some(file.len() as u64));
            assert!(read(&mut source) == file, "{page_bytes}");
            assert_eq!(source.read(PartIndex(1), &mut Kept::new(1000)).unwrap_err().code, Code::Internal);
        }
    }

    /// Fault D7: what is written meanwhile is not in it, and another process gets the same bytes
    /// while nothing is.
    #[test]
    fn the_pages_are_of_one_moment() {
        let folder = Folder::new();
        let writer = folder.database(&format!("PRAGMA journal_mode=WAL; {ROWS}"));
        let (mut source, plan) = planned(&folder).unwrap();
        let first = read(&mut source);
        let (mut second, again) = planned(&folder).unwrap();
        assert_eq!(plan.hash(), again.hash());
        assert!(read(&mut second) == first);
        writer.execute_batch("UPDATE t SET b = 1; CREATE TABLE late(x);").unwrap();
        assert!(read(&mut source) == first);
        let (mut third, _) = planned(&folder).unwrap();
        assert!(read(&mut third) != first);
        // What a backup makes, once the log is in the file.
        drop((source, second));
        writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        assert!(read(&mut third) == fs::read(folder.path()).unwrap());
    }

    /// Issue 9, B2, B3, cases 02, 10, 21 and 27: whatever is in the catalogue.
    #[test]
    fn what_the_row_form_refuses_is_read() {
        let folder = Folder::new();
        folder
            .database(
                "CREATE TABLE log(x); CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES('a');
                 CREATE TRIGGER g AFTER INSERT ON f_data BEGIN INSERT INTO log VALUES(1); END;
                 CREATE UNIQUE INDEX one ON log(x);
                 PRAGMA writable_schema=ON; UPDATE sqlite_schema SET tbl_name='Log' WHERE name='one';
                 INSERT INTO sqlite_schema VALUES('table','v','v',0,'CREATE VIRTUAL TABLE v USING vec0(a)'),
                    ('gadget','w','w',0,'CREATE GADGET w'), ('table','n','n',99,'CREATE TABLE n(a FUTURE SYNTAX HERE(');",
            )
            .close()
            .unwrap();
        let (mut source, _) = planned(&folder).unwrap();
        assert!(read(&mut source) == fs::read(folder.path()).unwrap());
    }

    /// Deleted rows lie in free pages, and travel.
    #[test]
    fn free_pages_are_in_it() {
        let folder = Folder::new();
        let sql = "PRAGMA secure_delete=OFF; CREATE TABLE t(x); INSERT INTO t VALUES('canary' || hex(zeroblob(9000))); \
                   DELETE FROM t;";
        folder.database(sql).close().unwrap();
        let (mut source, _) = planned(&folder).unwrap();
        let bytes = read(&mut source);
        assert!(bytes.windows(6).any(|window| window == b"canary"));
    }

    #[test]
    fn what_is_no_whole_database_is_refused() {
        let refused = |bytes: &[u8]| {
            let folder = Folder::new();
            fs::write(folder.path(), bytes).unwrap();
            let failure = planned(&folder).map(|(_, plan)| plan).unwrap_err();
            assert!(!failure.hints.is_empty());
            failure.code
        };
        assert_eq!(refused(b""), Code::SourceEmpty);
        assert_eq!(refused(&b"PGDMP ".repeat(1000)), Code::SourceFailed);
        let folder = Folder::new();
        folder.database(ROWS).close().unwrap();
        let whole = fs::read(folder.path()).unwrap();
        assert_eq!(refused(&whole[..whole.len() / 2]), Code::SourceFailed);
        assert_eq!(refused(&whole[..700]), Code::SourceFailed);
        // Within its last page SQLite reads zeros behind the end of a file.
        assert_eq!(refused(&whole[..whole.len() - 100]), Code::SourceFailed);
    }
}
