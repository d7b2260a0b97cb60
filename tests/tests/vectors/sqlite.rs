//! The documents of the engine `sqlite`.

use bytes::BytesMut;
use sealift_protocol::{close::Code, limits::NAME_BYTES_MAX};
use sealift_sqlite::{
    Value as Stored,
    document::{Definition, FinishDocument, RowidName, SchemaDocument, Table, TextEncoding},
    put_value, read_values,
};
use serde_json::{Value, json};

use super::{bad, cbor, hex};

fn definition(name: &str, sql: &str) -> Definition {
    Definition { name: name.into(), sql: sql.into(), table: None }
}

fn owned(name: &str, sql: &str, table: &str) -> Definition {
    Definition { table: Some(table.into()), ..definition(name, sql) }
}

fn table(name: &str, sql: &str, columns: &[&str]) -> Table {
    let columns = columns.iter().map(|column| (*column).to_owned()).collect();
    let (indexes, automatic_indexes) = Default::default();
    Table { name: name.into(), sql: sql.into(), rowid: None, columns, indexes, automatic_indexes }
}

fn schema() -> SchemaDocument {
    let patient = "CREATE TABLE patient(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, born UNIQUE, age AS (born - 1900), \
                   code TEXT AS ('P' || born) STORED)";
    let mut tables = vec![
        table("patient", patient, &["id", "name", "born", "code"]),
        table("note", "CREATE TABLE note(rowid, \"a \"\"b\")", &["rowid", "a \"b"]),
        table("sqlite_sequence", "CREATE TABLE sqlite_sequence(name,seq)", &["name", "seq"]),
    ];
    tables[0].indexes = vec![owned("by_name", "CREATE INDEX by_name ON patient(name)", "patient")];
    tables[0].automatic_indexes = vec!["sqlite_autoindex_patient_1".into()];
    // Its column takes the first of the three names.
    tables[1].rowid = Some(RowidName::UnderscoreRowid);
    tables[2].rowid = Some(RowidName::Rowid);
    SchemaDocument {
        encoding: TextEncoding::Utf16le,
        page_bytes: 4096,
        auto_vacuum: 2,
        application_id: -2,
        user_version: 7,
        tables,
        virtual_tables: vec![definition("words", "CREATE VIRTUAL TABLE words USING fts5(word)")],
        wal: true,
        default_cache_size: 2000,
    }
}

fn finish() -> FinishDocument {
    let trigger = "CREATE TRIGGER t AFTER INSERT ON patient BEGIN DELETE FROM note; END";
    FinishDocument {
        views: vec![definition("names", "CREATE VIEW names AS SELECT name FROM patient")],
        triggers: vec![owned("t", trigger, "patient")],
    }
}

pub fn vectors() -> Value {
    let (schema_bytes, finish_bytes) = (schema().to_bytes(), finish().to_bytes());
    assert_eq!(SchemaDocument::from_bytes(&schema_bytes), Ok(schema()));
    assert_eq!(FinishDocument::from_bytes(&finish_bytes), Ok(finish()));
    assert_eq!(schema_bytes, reference_schema());
    json!({
        "schema": { "bytes": hex(&schema_bytes), "rows_of_parts": schema().tables.iter().map(Table::values).collect::<Vec<_>>() },
        "finish": { "bytes": hex(&finish_bytes) },
        "empty_finish": hex(FinishDocument { views: vec![], triggers: vec![] }.to_bytes()),
        "bad_schemas": bad_schemas(),
        "bad_finishes": bad_finishes(),
        "values": values(),
        "bad_values": bad_values(),
    })
}

/// Each as the one cell of a row.
fn values() -> Vec<Value> {
    let nan = f64::from_bits(0x7ff8_0000_0000_0001);
    let cases: [(&str, Stored<'_>, Vec<u8>); 14] = [
        ("NULL", Stored::Null, vec![0]),
        ("0", Stored::Integer(0), vec![1, 1, 0]),
        ("127", Stored::Integer(127), vec![1, 1, 0x7f]),
        ("128", Stored::Integer(128), vec![1, 2, 0, 0x80]),
        ("-1", Stored::Integer(-1), vec![1, 1, 0xff]),
        ("-128", Stored::Integer(-128), vec![1, 1, 0x80]),
        ("-129", Stored::Integer(-129), vec![1, 2, 0xff, 0x7f]),
        ("the least integer", Stored::Integer(i64::MIN), vec![1, 8, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("1.5", Stored::Real(1.5), vec![2, 8, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]),
        ("-0.0", Stored::Real(-0.0), vec![2, 8, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("a NaN", Stored::Real(nan), vec![2, 8, 0x7f, 0xf8, 0, 0, 0, 0, 0, 1]),
        ("text 'Zoë' in UTF-8", Stored::Text("Zoë".as_bytes()), vec![3, 4, b'Z', b'o', 0xc3, 0xab]),
        ("text that is not valid", Stored::Text(&[0xff, 0]), vec![3, 2, 0xff, 0]),
        ("empty blob", Stored::Blob(&[]), vec![4, 0]),
    ];
    let described = |(name, value, bytes): (&str, Stored<'_>, Vec<u8>)| {
        let mut row = BytesMut::new();
        put_value(&mut row, value);
        assert_eq!(row, bytes, "{name}");
        json!({ "name": name, "row": hex(&bytes) })
    };
    cases.map(described).into()
}

fn bad_values() -> Vec<Value> {
    let cases: [(&str, &[u8]); 6] = [
        ("unknown format", &[5, 0]),
        ("integer of no bytes", &[1, 0]),
        ("1 in two bytes", &[1, 2, 0, 1]),
        ("-128 in two bytes", &[1, 2, 0xff, 0x80]),
        ("integer of nine bytes", &[1, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("real of four bytes", &[2, 4, 0, 0, 0, 0]),
    ];
    let refused =
        |(defect, row): (&str, &[u8])| bad(defect, row, Code::RowMalformed, read_values(row, 1, &mut Vec::new()));
    cases.map(refused).into()
}

/// The same document, put together by hand from what docs/sqlite.md says.
fn reference_schema() -> Vec<u8> {
    use cbor::{array, map, negative, text, uint};
    let pair = |name: &str, sql: &str| map(&[(0, text(name)), (1, text(sql))]);
    let names = |names: &[&str]| array(&names.iter().map(|name| text(name)).collect::<Vec<_>>());
    let schema = schema();
    let patient = map(&[
        (0, text("patient")),
        (1, text(&schema.tables[0].sql)),
        (3, names(&["id", "name", "born", "code"])),
        (
            4,
            array(&[map(&[
                (0, text("by_name")),
                (1, text("CREATE INDEX by_name ON patient(name)")),
                (2, text("patient")),
            ])]),
        ),
        (5, names(&["sqlite_autoindex_patient_1"])),
    ]);
    let with_rowid = |at: usize, rowid: u64, columns: &[&str]| {
        let (name, sql) = (text(&schema.tables[at].name), text(&schema.tables[at].sql));
        map(&[(0, name), (1, sql), (2, uint(rowid)), (3, names(columns)), (4, array(&[])), (5, array(&[]))])
    };
    map(&[
        (0, uint(2)),
        (1, uint(4096)),
        (2, uint(2)),
        (3, negative(-2)),
        (4, uint(7)),
        (5, array(&[patient, with_rowid(1, 1, &["rowid", "a \"b"]), with_rowid(2, 0, &["name", "seq"])])),
        (6, array(&[pair("words", "CREATE VIRTUAL TABLE words USING fts5(word)")])),
        (7, vec![0xf5]),
        (8, uint(2000)),
    ])
}

fn bad_schemas() -> Vec<Value> {
    type Change = fn(&mut SchemaDocument);
    let changes: [(&str, Change); 9] = [
        ("page that is no power of two", |schema| schema.page_bytes = 4000),
        ("page of 131,072 bytes", |schema| schema.page_bytes = 1 << 17),
        ("auto_vacuum of 3", |schema| schema.auto_vacuum = 3),
        ("default_cache_size of 2,147,483,648", |schema| schema.default_cache_size = 1 << 31),
        ("table without a column", |schema| schema.tables[0].columns.clear()),
        ("name of 1,025 bytes", |schema| schema.tables[0].name = "x".repeat(NAME_BYTES_MAX + 1)),
        ("another text for sqlite_sequence", |schema| schema.tables[2].sql += " "),
        ("the catalogue as a table", |schema| schema.tables[2].name = "sqlite_schema".into()),
        ("a table of SQLite's own in capitals", |schema| schema.tables[2].name = "SQLITE_STAT1".into()),
    ];
    let refused = |(defect, change): (&str, Change)| {
        let mut schema = schema();
        change(&mut schema);
        let bytes = schema.to_bytes();
        bad(defect, &bytes, Code::PlanRefused, SchemaDocument::from_bytes(&bytes))
    };
    let mut trailing = schema().to_bytes();
    trailing.push(0);
    let behind =
        bad("byte behind the document", &trailing, Code::ProtocolViolation, SchemaDocument::from_bytes(&trailing));
    changes.into_iter().map(refused).chain([behind]).collect()
}

fn bad_finishes() -> Vec<Value> {
    let whole = finish().to_bytes();
    let cases = [
        ("cut short", whole[..whole.len() - 1].to_vec()),
        ("views as a map", vec![0xa2, 0x00, 0xa0, 0x01, 0x80]),
        ("no triggers", vec![0xa1, 0x00, 0x80]),
    ];
    let refused = |(defect, bytes): (&str, Vec<u8>)| {
        bad(defect, &bytes, Code::ProtocolViolation, FinishDocument::from_bytes(&bytes))
    };
    cases.into_iter().map(refused).collect()
}
