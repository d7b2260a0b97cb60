//! Stored generated columns that the target computes, where `--recompute` asks for it: they are
//! neither read nor compared.

use std::collections::BTreeSet;

use sealift_protocol::failure::{Failure, Outcome};

use super::{catalogue::SourceTable, left_out::matches, moment::Relations};
use crate::{
    client::Connection,
    document::{Column, Generated},
};

/// Takes them out of the tables that match. A pattern whose tables have none is an error.
pub fn leave_out(
    connection: &mut Connection,
    relations: &Relations,
    patterns: &[String],
    tables: &mut [SourceTable],
) -> Outcome {
    let universe: Vec<u32> = relations.keys().copied().collect();
    for pattern in patterns {
        let found = matches(connection, pattern, &universe)?;
        let found = found.iter().filter_map(|oid| relations.get(oid));
        let names: BTreeSet<(&str, &str)> = found.map(|relation| (&*relation.schema, &*relation.name)).collect();
        let is_stored = |column: &Column| column.generated == Generated::Stored;
        let mut has_any = false;
        for SourceTable { table, .. } in tables.iter_mut() {
            if names.contains(&(&*table.schema, &*table.name)) {
                has_any |= table.columns.iter().any(is_stored);
                table.columns.retain(|column| !is_stored(column));
            }
        }
        if !has_any {
            let what = format!("no table that matches '{pattern}' has a stored generated column");
            return Err(Failure::usage(
                what,
                "Leave --recompute away, or name the table that has it, or its partitions.",
            ));
        }
    }
    Ok(())
}
