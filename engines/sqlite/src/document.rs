//! How a database crosses the wire: what its schema and finish parts say.
//!
//! | part | bytes |
//! |---|---|
//! | schema | one canonical CBOR [`SchemaDocument`] |
//! | rows | one part a table or range, in the order of the document: [`sealift_protocol::row`] |
//! | finish | one canonical CBOR [`FinishDocument`] |
//!
//! A row is the rowid, where it is carried, and then the columns.

use minicbor::{Decode, Encode};
use sealift_protocol::{
    close::Code,
    codec,
    error::{Error, Result},
    limits::{COLUMNS_MAX, NAME_BYTES_MAX, PARTS_MAX},
};

/// A schema or finish part, encoded: definitions are text, and 16 MiB are those of some 20,000
/// tables.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// The table in a staged database that says which parts are committed. A source may hold nothing of
/// this name.
pub const LEDGER_TABLE: &str = "_sealift_ledger";

/// The engine's own tables that hold data, with the definitions it gives them. Only these may begin
/// with `sqlite_`.
pub const INTERNAL_TABLES: [(&str, &str); 5] = [
    ("sqlite_stat1", "CREATE TABLE sqlite_stat1(tbl,idx,stat)"),
    ("sqlite_stat2", "CREATE TABLE sqlite_stat2(tbl,idx,sampleno,sample)"),
    ("sqlite_stat3", "CREATE TABLE sqlite_stat3(tbl,idx,neq,nlt,ndlt,sample)"),
    ("sqlite_stat4", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"),
    (SEQUENCE_TABLE, "CREATE TABLE sqlite_sequence(name,seq)"),
];

/// Where AUTOINCREMENT counts. Loading rows changes it, so its own rows come after all others.
pub const SEQUENCE_TABLE: &str = "sqlite_sequence";

/// Modules of virtual tables whose whole content lies in ordinary (shadow) tables, or that have
/// none of their own.
pub const VIRTUAL_MODULES: [&str; 8] =
    ["fts3", "fts4", "fts4aux", "fts5", "fts5vocab", "geopoly", "rtree", "rtree_i32"];

/// How a database stores text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum TextEncoding {
    #[n(1)]
    Utf8,
    #[n(2)]
    Utf16le,
    #[n(3)]
    Utf16be,
}

/// The name by which a rowid is reached: one that no column of the table takes for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RowidName {
    #[n(0)]
    Rowid,
    #[n(1)]
    UnderscoreRowid,
    #[n(2)]
    Oid,
}

/// One object's entry in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Definition {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub sql: String,
    /// The table that it belongs to, as its entry spells it, where that is not the name itself.
    #[n(2)]
    pub table: Option<String>,
}

/// One table whose rows are moved.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Table {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub sql: String,
    /// Carried for a rowid table whose rowid is no column of it.
    #[n(2)]
    pub rowid: Option<RowidName>,
    /// The stored columns, in order: all but VIRTUAL generated ones. Those that are STORED are
    /// carried as they are stored.
    #[n(3)]
    pub columns: Vec<String>,
    #[n(4)]
    pub indexes: Vec<Definition>,
    /// The names of the indexes that its UNIQUE and PRIMARY KEY make, in the catalogue's order.
    #[n(5)]
    pub automatic_indexes: Vec<String>,
}

/// The schema part.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SchemaDocument {
    #[n(0)]
    pub encoding: TextEncoding,
    #[n(1)]
    pub page_bytes: u32,
    /// As `PRAGMA auto_vacuum` has it: 0 none, 1 full, 2 incremental.
    #[n(2)]
    pub auto_vacuum: u8,
    #[n(3)]
    pub application_id: i32,
    #[n(4)]
    pub user_version: i32,
    /// Those of the plan, in its order.
    #[n(5)]
    pub tables: Vec<Table>,
    #[n(6)]
    pub virtual_tables: Vec<Definition>,
    /// Whether it is in WAL mode.
    #[n(7)]
    pub wal: bool,
    /// As `PRAGMA default_cache_size` has set it; 0 where it never has.
    #[n(8)]
    pub default_cache_size: u32,
}

/// The finish part.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FinishDocument {
    #[n(0)]
    pub views: Vec<Definition>,
    #[n(1)]
    pub triggers: Vec<Definition>,
}

impl SchemaDocument {
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let document: Self = codec::decode(bytes, DOCUMENT_BYTES_MAX, "schema part")?;
        document.check()?;
        Ok(document)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    fn check(&self) -> Result<()> {
        let refused = |check| Err(Error::new(Code::PlanRefused, check));
        if !self.page_bytes.is_power_of_two() || !(512..=65536).contains(&self.page_bytes) || self.auto_vacuum > 2 {
            return refused("page size or vacuum mode");
        }
        if self.default_cache_size > i32::MAX.unsigned_abs() {
            return refused("size of the cache");
        }
        if self.tables.len() > PARTS_MAX {
            return refused("number of tables");
        }
        for table in &self.tables {
            if table.name.len() > NAME_BYTES_MAX {
                return refused("length of a table's name");
            }
            if table.columns.is_empty() || table.values() > COLUMNS_MAX {
                return refused("number of columns");
            }
            if is_internal(&table.name) && internal_sql(&table.name) != Some(&table.sql) {
                return refused("a table of the engine's own");
            }
        }
        Ok(())
    }
}

impl FinishDocument {
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes, DOCUMENT_BYTES_MAX, "finish part")
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

/// Whether the name is one that only the engine itself may give.
pub fn is_internal(name: &str) -> bool {
    name.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case("sqlite_"))
}

/// The definition of a table of the engine's own, if it is one that can be moved.
pub fn internal_sql(name: &str) -> Option<&'static str> {
    INTERNAL_TABLES.iter().find(|(internal, _)| *internal == name).map(|(_, sql)| *sql)
}

impl TextEncoding {
    /// As `PRAGMA encoding` spells it.
    pub fn name(self) -> &'static str {
        match self {
            TextEncoding::Utf8 => "UTF-8",
            TextEncoding::Utf16le => "UTF-16le",
            TextEncoding::Utf16be => "UTF-16be",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Utf8, Self::Utf16le, Self::Utf16be].into_iter().find(|encoding| encoding.name() == name)
    }
}

impl Definition {
    /// `tbl_name` of its entry.
    pub fn table(&self) -> &str {
        self.table.as_deref().unwrap_or(&self.name)
    }
}

impl RowidName {
    pub const ALL: [RowidName; 3] = [RowidName::Rowid, RowidName::UnderscoreRowid, RowidName::Oid];

    pub fn name(self) -> &'static str {
        match self {
            RowidName::Rowid => "rowid",
            RowidName::UnderscoreRowid => "_rowid_",
            RowidName::Oid => "oid",
        }
    }
}

impl Table {
    /// Values in a row of this table's part.
    pub fn values(&self) -> usize {
        self.columns.len() + usize::from(self.rowid.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            name: "t".into(),
            sql: String::new(),
            rowid: Some(RowidName::Oid),
            columns: vec!["a".into(), "b".into()],
            indexes: Vec::new(),
            automatic_indexes: Vec::new(),
        }
    }

    fn document() -> SchemaDocument {
        SchemaDocument {
            encoding: TextEncoding::Utf8,
            page_bytes: 4096,
            auto_vacuum: 0,
            application_id: -1,
            user_version: 7,
            tables: vec![table()],
            virtual_tables: vec![Definition {
                name: "v".into(),
                sql: "CREATE VIRTUAL TABLE v USING fts5(a)".into(),
                table: None,
            }],
            wal: true,
            default_cache_size: 0,
        }
    }

    #[test]
    fn documents_survive_and_bad_ones_are_refused() {
        assert_eq!(SchemaDocument::from_bytes(&document().to_bytes()), Ok(document()));
        let refused = |change: fn(&mut SchemaDocument)| {
            let mut document = document();
            change(&mut document);
            let code = SchemaDocument::from_bytes(&document.to_bytes()).map_err(|error| error.code);
            assert_eq!(code, Err(Code::PlanRefused));
        };
        refused(|document| document.page_bytes = 1000);
        refused(|document| document.page_bytes = 1 << 17);
        refused(|document| document.auto_vacuum = 3);
        refused(|document| document.tables[0].columns.clear());
        refused(|document| document.tables[0].name = "x".repeat(NAME_BYTES_MAX + 1));
        refused(|document| document.tables[0].name = "sqlite_stat1".into());
        refused(|document| document.tables[0].name = "SQLite_schema".into());
        let mut trailing = document().to_bytes();
        trailing.push(0);
        assert_eq!(SchemaDocument::from_bytes(&trailing).map_err(|error| error.code), Err(Code::ProtocolViolation));
    }
}
