//! The parts of a database as a sender would send them, held in memory.

use std::process::Command;

use bytes::{BufMut, BytesMut};
use sealift_postgres::{
    client::{Address, Connection, End},
    copy_rows::RowsOut,
    document::{
        Column, Database, FinishDocument, Format, Generated, LocaleProvider, MaterializedView, Persistence, Rows,
        SchemaDocument, Sequence, Table,
    },
    engine, inventory, session,
    sql::Names,
    table_rows,
};
use sealift_protocol::{
    digest::{Digests, RowsDigest},
    id::TableIndex,
    manifest::{Plan, PlannedPart, PlannedTable, Section},
    row::put_length,
};
use sealift_tests::postgres::Postgres;

/// What is sent of a database.
pub struct Dumped {
    pub plan: Plan,
    /// The bytes of each part.
    pub parts: Vec<Vec<u8>>,
    /// What the rows of each table are, as they are sent.
    pub tables: Vec<RowsDigest>,
}

/// Types whose binary form is the same everywhere.
const BINARY: [&str; 6] = ["integer", "bigint", "smallint", "text", "boolean", "date"];

const TABLES: &str = "
    SELECT n.nspname::text, c.relname::text, c.relpersistence = 'u',
           array_agg(a.attname::text ORDER BY a.attnum), array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum),
           array_agg(a.attgenerated = 's' ORDER BY a.attnum)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') GROUP BY 1, 2, 3 ORDER BY 1, 2";

impl Dumped {
    pub fn of(server: &Postgres, database: &str, digests: &Digests) -> Self {
        let address = Address::parse(server.url(database).strip_prefix("postgres:").unwrap()).unwrap();
        let mut connection = Connection::open(&address, End::Source, 64 << 20).unwrap();
        connection.batch(&session::set_up(connection.server_version())).unwrap();
        let tables = tables(&mut connection);
        let rows: Vec<_> = tables.iter().map(|table| rows(&mut connection, table, digests)).collect();

        let mut dump: Command = server.client("pg_dump", database);
        let dump = dump.args(["-Fc", "--schema-only", "--encoding=UTF8"]).output().unwrap();
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let schema = SchemaDocument {
            server_version: connection.server_version(),
            database: properties(),
            tables: tables.clone(),
            archive: dump.stdout,
            extensions: Vec::new(),
        };
        let finish = FinishDocument {
            sequences: sequences(&mut connection),
            materialized_views: views(&mut connection),
            objects: inventory::read(&mut connection).unwrap(),
            large_objects: Vec::new(),
        };
        let mut planned = vec![PlannedPart::of_section(Section::PreData)];
        planned.extend(rows.iter().zip(0..).map(|((bytes, _), table)| PlannedPart {
            bytes_estimate: Some(bytes.len() as u64),
            ..PlannedPart::of_table(TableIndex(table))
        }));
        planned.push(PlannedPart::of_section(Section::PostData));
        let named =
            |table: &Table| PlannedTable { schema: Some(table.schema.clone()), ..PlannedTable::named(&table.name) };
        let plan = Plan {
            engine: engine::engine(),
            tables: tables.iter().map(named).collect(),
            parts: planned,
            empty: None,
            left_out: None,
            rows: None,
        };
        let mut parts = vec![schema.to_bytes()];
        parts.extend(rows.iter().map(|(bytes, _)| bytes.clone()));
        parts.push(finish.to_bytes());
        Self { plan, parts, tables: rows.into_iter().map(|(_, digest)| digest).collect() }
    }
}

fn tables(connection: &mut Connection) -> Vec<Table> {
    let rows = connection.query(TABLES, &[]).unwrap();
    let table = |row: &sealift_postgres::client::Row| {
        let (names, types, generated): (Vec<String>, Vec<String>, Vec<bool>) = (row.get(3), row.get(4), row.get(5));
        let is_binary = types.iter().all(|name| BINARY.contains(&name.as_str()));
        let columns = names.into_iter().zip(types).zip(generated).map(|((name, type_name), generated)| Column {
            name,
            type_name,
            generated: if generated { Generated::Stored } else { Generated::No },
        });
        Table {
            schema: row.get(0),
            name: row.get(1),
            columns: columns.collect(),
            format: if is_binary { Format::Binary } else { Format::Text },
            persistence: if row.get(2) { Persistence::Unlogged } else { Persistence::Permanent },
            rows: Rows::Own,
            condition: None,
        }
    };
    rows.iter().map(table).collect()
}

fn rows(connection: &mut Connection, table: &Table, digests: &Digests) -> (Vec<u8>, RowsDigest) {
    let mut bytes = BytesMut::new();
    let mut digest = digests.multiset();
    let mut on_row = |pieces: &[&[u8]]| {
        digest.add_pieces(pieces);
        put_length(&mut bytes, pieces.iter().map(|piece| piece.len()).sum());
        pieces.iter().for_each(|piece| bytes.put_slice(piece));
        Ok(())
    };
    let mut out = RowsOut {
        row_bytes_max: 64 << 20,
        on_row: &mut on_row,
        failed: &|error| panic!("{error:?}"),
        unreadable: &|why| panic!("{why:?}"),
    };
    table_rows::read(connection, table, None, Names::Plain, &mut out).unwrap();
    (bytes.to_vec(), digest.digest())
}

fn sequences(connection: &mut Connection) -> Vec<Sequence> {
    let sql = "SELECT schemaname::text, sequencename::text, coalesce(last_value, start_value), last_value IS NOT NULL \
               FROM pg_sequences ORDER BY 1, 2";
    let rows = connection.query(sql, &[]).unwrap();
    let sequence = |row: &sealift_postgres::client::Row| Sequence {
        schema: row.get(0),
        name: row.get(1),
        last_value: row.get(2),
        is_called: row.get(3),
    };
    rows.iter().map(sequence).collect()
}

fn views(connection: &mut Connection) -> Vec<MaterializedView> {
    let sql = "SELECT schemaname::text, matviewname::text, ispopulated FROM pg_matviews ORDER BY 1, 2";
    let rows = connection.query(sql, &[]).unwrap();
    let view = |row: &sealift_postgres::client::Row| MaterializedView {
        schema: row.get(0),
        name: row.get(1),
        populated: row.get(2),
    };
    rows.iter().map(view).collect()
}

/// Those of `Postgres::create_database`.
pub fn properties() -> Database {
    Database {
        encoding: "UTF8".into(),
        provider: LocaleProvider::Libc,
        collate: "C.UTF-8".into(),
        ctype: "C.UTF-8".into(),
        locale: None,
        icu_rules: None,
        collation_version: None,
        owner: "postgres".into(),
        connection_limit: -1,
        comment: Some("The clinic's".into()),
        acl: None,
        tablespace: "pg_default".into(),
        settings: Vec::new(),
    }
}
