//! How a database crosses the wire: what its schema and finish parts say.
//!
//! | part | bytes |
//! |---|---|
//! | schema | one canonical CBOR [`SchemaDocument`] |
//! | rows | the rows of a table, or of a range of blocks of it: rows of [`sealift_protocol::row`] |
//! | finish | one canonical CBOR [`FinishDocument`] |
//!
//! Table `n` of the plan is `tables[n]` of the schema document. A row has one cell for each of the
//! table's columns; all cells of a table that are not NULL have the table's [`Format`].

use minicbor::{Decode, Encode};
use sealift_protocol::{
    close::Code,
    codec,
    error::{Error, Result},
    limits::{NAME_BYTES_MAX, TABLES_MAX},
};

/// A schema or finish part, encoded. Nearly all of a schema part is the archive: `pg_dump` needs
/// about 1 KiB for a table with its indexes and constraints.
pub const DOCUMENT_BYTES_MAX: usize = 32 << 20;

/// PostgreSQL's limit on the columns of a table (`MaxHeapAttributeNumber`). A table may have none.
pub const COLUMNS_MAX: usize = 1600;

/// In which of PostgreSQL's two forms the values of a table travel. The number is the format of
/// its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Format {
    /// As the type's output function prints them under the settings of
    /// [`crate::session::CANONICAL`], in the encoding of the database.
    #[n(1)]
    Text,
    /// As the type's send function encodes them: for built-in types whose encoding holds no OID and
    /// is the same in all versions.
    #[n(2)]
    Binary,
}

impl Format {
    /// The format of a cell that is not NULL.
    pub fn number(self) -> u8 {
        match self {
            Format::Text => 1,
            Format::Binary => 2,
        }
    }
}

/// How a column gets its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Generated {
    /// From the row.
    #[n(0)]
    No,
    /// By GENERATED ALWAYS AS ... STORED: its value travels for the proof, and COPY must leave it
    /// out. A virtual one is no column of the document.
    #[n(1)]
    Stored,
}

/// One column that is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Column {
    #[n(0)]
    pub name: String,
    /// As `format_type` prints it with an empty `search_path`.
    #[n(1)]
    pub type_name: String,
    #[n(2)]
    pub generated: Generated,
}

/// Whether a table's rows survive a crash of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Persistence {
    #[n(0)]
    Permanent,
    #[n(1)]
    Unlogged,
}

/// Which rows are those of a table in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Rows {
    /// Its own: read with `FROM ONLY`, loaded into the table itself, also if it is a partition.
    #[n(0)]
    Own,
    /// It is partitioned, and has the rows of all its partitions: read without `ONLY` and loaded
    /// through it, since a row may belong to another partition in the target. So it is with hash
    /// partitions on a key whose hash is not the same everywhere.
    #[n(1)]
    OfPartitions,
    /// It is the large objects of the database ([`crate::large_objects`]), whose pieces are its
    /// rows.
    #[n(2)]
    LargeObjects,
    /// It is a table of an extension, which has marked it as its configuration: of its own rows,
    /// those that meet [`Table::condition`].
    #[n(3)]
    Configuration,
}

/// One table whose rows are moved: an ordinary table or a leaf of a partitioned one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Table {
    #[n(0)]
    pub schema: String,
    #[n(1)]
    pub name: String,
    /// The stored columns, in their order. Those that are generated are carried as they are stored.
    #[n(2)]
    #[cbor(decode_with = "codec::bounded::<_, _, COLUMNS_MAX>")]
    pub columns: Vec<Column>,
    #[n(3)]
    pub format: Format,
    #[n(4)]
    pub persistence: Persistence,
    #[n(5)]
    pub rows: Rows,
    /// Of a table of an extension, what follows `FROM` to find its rows that are moved, as the
    /// extension's script has it: `WHERE ...`. The others come from that script.
    #[n(6)]
    pub condition: Option<String>,
}

/// How a database orders and classifies text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum LocaleProvider {
    #[n(0)]
    Libc,
    #[n(1)]
    Icu,
    #[n(2)]
    Builtin,
}

/// `ALTER DATABASE ... SET` or `ALTER ROLE ... IN DATABASE ... SET`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Setting {
    /// For one role alone.
    #[n(0)]
    pub role: Option<String>,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub value: String,
}

/// The properties of a database that `CREATE DATABASE` and `ALTER DATABASE` give, and that
/// `pg_dump` without `--create` leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Database {
    /// As `pg_encoding_to_char` has it. Values travel in it; names travel in UTF-8.
    #[n(0)]
    pub encoding: String,
    #[n(1)]
    pub provider: LocaleProvider,
    #[n(2)]
    pub collate: String,
    #[n(3)]
    pub ctype: String,
    /// The locale of the providers ICU and builtin.
    #[n(4)]
    pub locale: Option<String>,
    #[n(5)]
    pub icu_rules: Option<String>,
    /// The version of the collation that the database was made with.
    #[n(6)]
    pub collation_version: Option<String>,
    #[n(7)]
    pub owner: String,
    /// -1: no limit.
    #[n(8)]
    pub connection_limit: i32,
    #[n(9)]
    pub comment: Option<String>,
    /// `datacl`, as text; `None` for the default privileges.
    #[n(10)]
    pub acl: Option<String>,
    /// The name of its tablespace.
    #[n(11)]
    pub tablespace: String,
    #[n(12)]
    #[cbor(decode_with = "codec::bounded::<_, _, SETTINGS_MAX>")]
    pub settings: Vec<Setting>,
}

/// An extension of the database.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Extension {
    #[n(0)]
    pub name: String,
    /// Its version in the source. The target has the one that its server makes.
    #[n(1)]
    pub version: String,
}

/// Extensions of a database.
pub const EXTENSIONS_MAX: usize = 4096;

/// Settings of a database, of all roles in it.
pub const SETTINGS_MAX: usize = 4096;

/// The schema part.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SchemaDocument {
    /// `server_version_num` of the source.
    #[n(0)]
    pub server_version: u32,
    #[n(1)]
    pub database: Database,
    /// In the order of the plan's tables.
    #[n(2)]
    #[cbor(decode_with = "codec::bounded::<_, _, TABLES_MAX>")]
    pub tables: Vec<Table>,
    /// The output of one `pg_dump -Fc --schema-only`.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub archive: Vec<u8>,
    #[n(4)]
    #[cbor(decode_with = "codec::bounded::<_, _, EXTENSIONS_MAX>")]
    pub extensions: Vec<Extension>,
}

/// A sequence's state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sequence {
    #[n(0)]
    pub schema: String,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub last_value: i64,
    #[n(3)]
    pub is_called: bool,
}

/// A materialized view.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MaterializedView {
    #[n(0)]
    pub schema: String,
    #[n(1)]
    pub name: String,
    /// One that is not stays so.
    #[n(2)]
    pub populated: bool,
}

/// One object of the catalogue, as [`crate::inventory`] lists it on both ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct Object {
    /// The name of its kind: `table`, `index`, `constraint`, and so on.
    #[n(0)]
    pub kind: String,
    /// As people know it: qualified, quoted where needed.
    #[n(1)]
    pub identity: String,
    /// What must be the same in the target, such as whether a constraint is validated.
    #[n(2)]
    pub facts: String,
}

/// Large objects that have all but their bytes in common.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LargeObjects {
    #[n(0)]
    pub owner: String,
    /// `lomacl`, as text; `None` for the default privileges.
    #[n(1)]
    pub acl: Option<String>,
    #[n(2)]
    pub comment: Option<String>,
    #[n(3)]
    #[cbor(decode_with = "codec::bounded::<_, _, LARGE_OBJECTS_MAX>")]
    pub oids: Vec<u32>,
}

/// Large objects of one database: their OIDs leave room in a finish part for what else is in it.
pub const LARGE_OBJECTS_MAX: usize = 4 << 20;

/// Objects of one database.
pub const OBJECTS_MAX: usize = 1 << 20;

/// The finish part.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FinishDocument {
    #[n(0)]
    #[cbor(decode_with = "codec::bounded::<_, _, OBJECTS_MAX>")]
    pub sequences: Vec<Sequence>,
    /// Each after those that it reads.
    #[n(1)]
    #[cbor(decode_with = "codec::bounded::<_, _, OBJECTS_MAX>")]
    pub materialized_views: Vec<MaterializedView>,
    /// Sorted, without duplicates.
    #[n(2)]
    #[cbor(decode_with = "codec::bounded::<_, _, OBJECTS_MAX>")]
    pub objects: Vec<Object>,
    #[n(3)]
    #[cbor(decode_with = "codec::bounded::<_, _, LARGE_OBJECTS_MAX>")]
    pub large_objects: Vec<LargeObjects>,
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

    /// Whether a crash of the server takes rows with it.
    pub fn has_unlogged(&self) -> bool {
        self.tables.iter().any(|table| table.persistence == Persistence::Unlogged)
    }

    fn check(&self) -> Result<()> {
        let names = self.tables.iter().flat_map(|table| {
            let columns = table.columns.iter().flat_map(|column| [&column.name, &column.type_name]);
            [&table.schema, &table.name].into_iter().chain(columns)
        });
        check_names(names)?;
        let has_stray = |table: &Table| table.condition.is_some() && table.rows != Rows::Configuration;
        if self.tables.iter().any(has_stray) { Err(refused("condition of a table")) } else { Ok(()) }
    }
}

impl FinishDocument {
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let document: Self = codec::decode(bytes, DOCUMENT_BYTES_MAX, "finish part")?;
        document.check()?;
        Ok(document)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    fn check(&self) -> Result<()> {
        check_names(self.sequences.iter().flat_map(|sequence| [&sequence.schema, &sequence.name]))?;
        check_names(self.materialized_views.iter().flat_map(|view| [&view.schema, &view.name]))?;
        let in_order = self.objects.is_sorted_by(|one, next| one < next);
        if in_order { Ok(()) } else { Err(refused("order of objects")) }
    }
}

fn refused(check: &'static str) -> Error {
    Error::new(Code::PlanRefused, check)
}

/// A name in a document becomes part of a statement.
fn check_names<'a>(mut names: impl Iterator<Item = &'a String>) -> Result<()> {
    match names.all(|name| (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0')) {
        true => Ok(()),
        false => Err(refused("length of a name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let column = |name: &str, generated| Column { name: name.into(), type_name: "integer".into(), generated };
        Table {
            schema: "public".into(),
            name: "t".into(),
            columns: vec![column("a", Generated::No), column("b", Generated::Stored)],
            format: Format::Binary,
            persistence: Persistence::Permanent,
            rows: Rows::Own,
            condition: None,
        }
    }

    fn schema() -> SchemaDocument {
        let database = Database {
            encoding: "UTF8".into(),
            provider: LocaleProvider::Libc,
            collate: "C".into(),
            ctype: "C".into(),
            locale: None,
            icu_rules: None,
            collation_version: None,
            owner: "app".into(),
            connection_limit: -1,
            comment: None,
            acl: None,
            tablespace: "pg_default".into(),
            settings: vec![Setting { role: None, name: "work_mem".into(), value: "4MB".into() }],
        };
        let extension = Extension { name: "plpgsql".into(), version: "1.0".into() };
        SchemaDocument {
            server_version: 150_018,
            database,
            tables: vec![table()],
            archive: b"PGDMP".to_vec(),
            extensions: vec![extension],
        }
    }

    fn finish() -> FinishDocument {
        let object = |identity: &str| Object { kind: "table".into(), identity: identity.into(), facts: String::new() };
        let sequence = Sequence { schema: "public".into(), name: "s".into(), last_value: -3, is_called: true };
        FinishDocument {
            sequences: vec![sequence],
            materialized_views: Vec::new(),
            objects: vec![object("a"), object("b")],
            large_objects: vec![LargeObjects { owner: "app".into(), acl: None, comment: None, oids: vec![7] }],
        }
    }

    #[test]
    fn documents_survive_and_bad_ones_are_refused() {
        assert_eq!(SchemaDocument::from_bytes(&schema().to_bytes()), Ok(schema()));
        assert_eq!(FinishDocument::from_bytes(&finish().to_bytes()), Ok(finish()));
        let refused = |change: fn(&mut SchemaDocument)| {
            let mut document = schema();
            change(&mut document);
            let code = SchemaDocument::from_bytes(&document.to_bytes()).map_err(|error| error.code);
            assert_eq!(code, Err(Code::PlanRefused));
        };
        refused(|document| document.tables[0].name.clear());
        refused(|document| document.tables[0].condition = Some("WHERE true".into()));
        refused(|document| document.tables[0].columns[0].type_name = "a\0b".into());
        refused(|document| document.tables[0].schema = "x".repeat(NAME_BYTES_MAX + 1));
        let mut unsorted = finish();
        unsorted.objects.reverse();
        let code = FinishDocument::from_bytes(&unsorted.to_bytes()).map_err(|error| error.code);
        assert_eq!(code, Err(Code::PlanRefused));
        let mut wide = schema();
        wide.tables[0].columns = vec![wide.tables[0].columns[0].clone(); COLUMNS_MAX + 1];
        let code = SchemaDocument::from_bytes(&wide.to_bytes()).map_err(|error| error.code);
        assert_eq!(code, Err(Code::LimitExceeded));
    }
}
