//! Large objects: how they are read by both ends, and what they have beside their bytes.
//!
//! All of them together are one table of the plan. A row is a piece of one, in order: its OID, the
//! number of the piece, and up to [`PIECE_BYTES`] bytes. An empty one has one piece, which is
//! empty. They are read through the server's functions for large objects, which every role may
//! call: the table that stores them is closed to all but superusers.

use sealift_protocol::{failure::Outcome, manifest::Range};

use crate::{
    client::{Connection, Result},
    copy_rows::RowsOut,
    document::{Column, Format, Generated, LargeObjects, Persistence, Rows, Table},
};

/// A piece of a large object. Both ends hold a few; it is a multiple of the pages in which a server
/// stores them (2 KiB), so that no page is written twice.
pub const PIECE_BYTES: usize = 256 << 10;

/// `pg_catalog.pg_largeobject`, of which the server says where it is stored.
pub const RELATION: u32 = 2613;

/// The table of the plan.
pub fn table() -> Table {
    let column = |name: &str, type_name: &str| Column {
        name: name.into(),
        type_name: type_name.into(),
        generated: Generated::No,
    };
    Table {
        schema: "pg_catalog".into(),
        name: "pg_largeobject".into(),
        columns: vec![column("loid", "oid"), column("piece", "bigint"), column("data", "bytea")],
        format: Format::Binary,
        persistence: Persistence::Permanent,
        rows: Rows::LargeObjects,
        condition: None,
    }
}

/// Pieces that one statement reads of one object.
const PIECES_AT_ONCE: u64 = 16;

/// Reads the pieces of all large objects, or of those whose OIDs are in the range: the first pieces
/// of all, then the others of each. An object is opened by each call for a piece, and is closed by
/// it: descriptors would stay open to the end of the transaction, one for each object.
pub fn read(connection: &mut Connection, range: Option<Range>, out: &mut RowsOut<'_>) -> Outcome {
    let table = table();
    out.copy(connection, &table, &first_pieces(range))?;
    for oid in longer(connection, range).map_err(out.failed)? {
        let mut from = 1;
        while out.copy(connection, &table, &more_pieces(oid, from))? == PIECES_AT_ONCE {
            from += PIECES_AT_ONCE;
        }
    }
    Ok(())
}

fn first_pieces(range: Option<Range>) -> String {
    let within = within(range);
    format!(
        "COPY (SELECT oid, 0::pg_catalog.int8, pg_catalog.lo_get(oid, 0, {PIECE_BYTES}) \
         FROM pg_catalog.pg_largeobject_metadata WHERE {within} ORDER BY oid) TO STDOUT (FORMAT binary)"
    )
}

/// Past the end of an object there are no bytes.
fn more_pieces(oid: u32, from: u64) -> String {
    let last = from + PIECES_AT_ONCE - 1;
    format!(
        "COPY (SELECT {oid}::pg_catalog.oid, number, data \
         FROM (SELECT number, pg_catalog.lo_get({oid}, number * {PIECE_BYTES}, {PIECE_BYTES}) AS data \
             FROM pg_catalog.generate_series({from}::pg_catalog.int8, {last}) AS number OFFSET 0) AS piece \
         WHERE pg_catalog.octet_length(data) > 0 ORDER BY number) TO STDOUT (FORMAT binary)"
    )
}

/// The objects of more than one piece.
fn longer(connection: &mut Connection, range: Option<Range>) -> Result<Vec<u32>> {
    let sql = format!(
        "SELECT oid FROM pg_catalog.pg_largeobject_metadata \
         WHERE {} AND pg_catalog.octet_length(pg_catalog.lo_get(oid, {PIECE_BYTES}, 1)) > 0 ORDER BY oid",
        within(range)
    );
    connection.query(&sql, &[])?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn within(range: Option<Range>) -> String {
    let Range { from, to } = range.unwrap_or(Range { from: 0, to: None });
    let to = to.map(|to| format!(" AND oid < {to}::pg_catalog.oid")).unwrap_or_default();
    format!("oid >= {from}::pg_catalog.oid{to}")
}

/// Of objects that differ in nothing but their bytes, all OIDs, in order.
const PROPERTIES: &str = "\
    SELECT pg_catalog.pg_get_userbyid(m.lomowner)::pg_catalog.text, m.lomacl::pg_catalog.text, d.description, \
           pg_catalog.array_agg(m.oid ORDER BY m.oid) \
    FROM pg_catalog.pg_largeobject_metadata m \
    LEFT JOIN pg_catalog.pg_description d ON d.classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass \
         AND d.objoid = m.oid AND d.objsubid = 0 \
    GROUP BY 1, 2, 3 ORDER BY pg_catalog.min(m.oid)";

/// Owners, privileges and comments of all large objects.
pub fn properties(connection: &mut Connection) -> Result<Vec<LargeObjects>> {
    let rows = connection.query(PROPERTIES, &[])?;
    let properties = |row: &crate::client::Row| {
        Ok(LargeObjects {
            owner: row.try_get(0)?,
            acl: row.try_get(1)?,
            comment: row.try_get(2)?,
            oids: row.try_get(3)?,
        })
    };
    rows.iter().map(properties).collect()
}
