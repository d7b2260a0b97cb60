//! Large objects as a table of the plan.

use super::catalogue::{Places, SourceTable};
pub use crate::large_objects::properties;
use crate::{
    client::{Connection, Result},
    document::LargeObjects,
    large_objects::{PIECE_BYTES, RELATION, table as document_table},
};

/// The table, if there are any. How long each object is only its pages say: the estimates are those
/// of all of them.
pub fn table(connection: &mut Connection, objects: &[LargeObjects]) -> Result<Option<SourceTable>> {
    let mut oids: Vec<u32> = objects.iter().flat_map(|group| &group.oids).copied().collect();
    if oids.is_empty() {
        return Ok(None);
    }
    oids.sort_unstable();
    let sql = format!("SELECT pg_catalog.pg_relation_size({RELATION}), pg_catalog.pg_relation_filenode({RELATION})");
    let row = connection.query_one(&sql, &[])?;
    let bytes = row.try_get::<_, i64>(0)?.unsigned_abs();
    Ok(Some(SourceTable {
        table: document_table(),
        stored: vec![(RELATION, row.try_get(1)?)],
        rows_estimate: Some(oids.len() as u64 + bytes / PIECE_BYTES as u64),
        places: Places::LargeObjects(oids),
        bytes,
    }))
}
