//! Generated columns: the target computes them, whatever the source has stored.
//!
//! What it computes is compared with what the source has, as every other column is. A later version
//! computes some of them differently, and is refused at the start, unless the source leaves them
//! out; the receipt then names them.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    limits::ROWS_CHECK_BYTES_MAX,
};

use crate::{
    client::{At, Connection, End, Result},
    document::{Column, Generated, Rows, SchemaDocument, Table},
    names::listed,
};

/// Stemmers and dictionaries change with the version of the server.
const CHANGES_WITH_VERSION: &str = "tsvector";

/// Names of columns that are not compared, in a receipt that has other things in it.
const NAMES_BYTES_MAX: usize = ROWS_CHECK_BYTES_MAX / 2;

const COLUMNS: &str = "\
    SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, a.attname::pg_catalog.text, \
        a.attgenerated::pg_catalog.text \
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND n.nspname !~ '^pg_' \
    ORDER BY 1, 2, a.attnum";

/// Refuses tables of which a column is not sent, unless the target computes it, and columns that
/// this server is known to compute differently.
pub fn check(connection: &mut Connection, schema: &SchemaDocument) -> Outcome {
    let (server, source) = (connection.server_version() / 10_000, schema.server_version / 10_000);
    if not_compared(connection, schema)?.iter().map(String::len).sum::<usize>() > NAMES_BYTES_MAX {
        let what = "the source leaves more generated columns out than a receipt has room for";
        return Err(Failure::new(Code::LoadImpossible, what, "Move the database in several transfers."));
    }
    let is_of_concern =
        |column: &Column| column.generated == Generated::Stored && column.type_name == CHANGES_WITH_VERSION;
    let concerned = schema.tables.iter().filter(|table| server != source && has_rows_of_its_own(table));
    let columns = concerned.flat_map(|table| table.columns.iter().map(move |column| (table, column)));
    let named = columns.filter(|(_, column)| is_of_concern(column));
    let named: Vec<String> = named.map(|(table, column)| full_name(table, &column.name)).collect();
    if named.is_empty() {
        return Ok(());
    }
    let what = format!(
        "stored generated columns that a server of version {server} may compute differently than one of version {source}: {} \
         (generated-columns)",
        listed(&named)
    );
    let next = "Start the sender again with --recompute SCHEMA.TABLE for each of their tables: the target then computes them, they \
                are not compared, and the receipt names them.";
    Err(Failure::new(Code::LoadImpossible, what, next))
}

/// The columns that the target computes, and that were neither sent nor compared.
pub fn not_compared(connection: &mut Connection, schema: &SchemaDocument) -> Outcome<Vec<String>> {
    let found = columns(connection).at(End::Target, "listing the columns of the target")?;
    let mut not_compared = Vec::new();
    for table in schema.tables.iter().filter(|table| has_rows_of_its_own(table)) {
        let sent: BTreeSet<&str> = table.columns.iter().map(|column| &*column.name).collect();
        let columns = found.get(&(table.schema.clone(), table.name.clone()));
        for (name, generated) in columns.into_iter().flatten().filter(|(name, _)| !sent.contains(&**name)) {
            match generated.as_str() {
                "s" => not_compared.push(full_name(table, name)),
                // Computed when it is read.
                "v" => {}
                _ => {
                    let what = format!("the column {} is not among those that are sent", full_name(table, name));
                    return Err(Failure::new(Code::PlanRefused, what, "Report this."));
                }
            }
        }
    }
    Ok(not_compared)
}

/// An extension's table may have other columns in its other version.
fn has_rows_of_its_own(table: &Table) -> bool {
    matches!(table.rows, Rows::Own | Rows::OfPartitions)
}

fn full_name(table: &Table, column: &str) -> String {
    format!("{}.{}.{column}", table.schema, table.name)
}

/// For each table, by schema and name, its columns and how they are generated.
type ColumnsByTable = BTreeMap<(String, String), Vec<(String, String)>>;

fn columns(connection: &mut Connection) -> Result<ColumnsByTable> {
    let mut columns = ColumnsByTable::new();
    for row in connection.query(COLUMNS, &[])? {
        let table = (row.try_get(0)?, row.try_get(1)?);
        columns.entry(table).or_default().push((row.try_get(2)?, row.try_get(3)?));
    }
    Ok(columns)
}
