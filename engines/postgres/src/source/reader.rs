//! A session that reads parts at the snapshot.

use std::sync::Arc;

use sealift_engine_api::{PartReader, RowSink, row_too_long};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::PartIndex,
    manifest::{PlannedPart, Range},
};

use super::{HeldSnapshot, kept_plan::Stored, moment::changed};
use crate::{
    client::{At, Connection, End, Error, Result},
    copy_rows::{RowsOut, Unreadable, copy_out_where},
    document::{Rows, Table},
    large_objects,
    sql::literal,
};

/// Rows are read as they lie: a whole table by a scan of its heap, a range by the numbers of its
/// blocks, never through an index.
const READING: &str = "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; \
    SET enable_seqscan = off; SET enable_tidscan = on; SET jit = off; SET client_min_messages = error;";

/// Reads one part after another.
pub struct SnapshotReader {
    shared: Arc<HeldSnapshot>,
    /// None after a failure, which may have left it in the middle of a COPY.
    connection: Option<Connection>,
}

impl SnapshotReader {
    pub fn open(shared: Arc<HeldSnapshot>) -> Outcome<Self> {
        let connection = connect(&shared)?;
        Ok(Self { shared, connection: Some(connection) })
    }

    fn read_table(&mut self, part: &PlannedPart, out: &mut dyn RowSink) -> Outcome {
        let shared = Arc::clone(&self.shared);
        let at = part.table.map_or(usize::MAX, |table| table.0 as usize);
        let (Some(table), Some(stored)) = (shared.read.tables.get(at), shared.read.stored.get(at)) else {
            return Err(not_planned());
        };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&shared)?,
        };
        connection.limit_rows(out.row_bytes_max());
        check_stored(&mut connection, table, stored)?;
        let condition = shared.read.conditions.get(at).and_then(Option::as_deref);
        let rows = self.copy(&mut connection, table, part.range, condition, out)?;
        check_stored(&mut connection, table, stored)?;
        check_count(table, rows, connection.copied())?;
        self.connection = Some(connection);
        Ok(())
    }

    fn copy(
        &self,
        connection: &mut Connection,
        table: &Table,
        range: Option<Range>,
        condition: Option<&str>,
        out: &mut dyn RowSink,
    ) -> Outcome<Option<u64>> {
        let what = format!("reading table {}.{}", table.schema, table.name);
        let row_bytes_max = out.row_bytes_max();
        let failed = |error: Error| match error {
            Error::TooLong => row_too_long(row_bytes_max),
            error => error.at(End::Source, &what),
        };
        let unreadable = |why: Unreadable| match why {
            Unreadable::Malformed => Error::Protocol.at(End::Source, &what),
            Unreadable::TooLong => row_too_long(row_bytes_max),
        };
        let mut on_row = |pieces: &[&[u8]]| out.row(pieces);
        let mut rows = RowsOut { row_bytes_max, on_row: &mut on_row, failed: &failed, unreadable: &unreadable };
        let names = self.shared.read.names;
        match table.rows {
            // In several statements.
            Rows::LargeObjects => large_objects::read(connection, range, &mut rows).map(|()| None),
            _ => rows.copy(connection, table, &copy_out_where(table, range, condition, names)).map(Some),
        }
    }
}

impl PartReader for SnapshotReader {
    fn read(&mut self, part: PartIndex, out: &mut dyn RowSink) -> Outcome {
        let place = part.0 as usize;
        if place == 0 {
            return out.bytes(&self.shared.schema);
        }
        let shared = Arc::clone(&self.shared);
        if let Some(planned) = shared.read.parts.get(place - 1) {
            return self.read_table(planned, out).map_err(|failure| shared.why(failure).at_part(part));
        }
        if place != shared.read.parts.len() + 1 {
            return Err(not_planned());
        }
        shared.check_unchanged().map_err(|failure| shared.why(failure))?;
        out.bytes(&self.shared.finish)
    }
}

/// A session at the snapshot, whose values are in the encoding of the database.
fn connect(shared: &HeldSnapshot) -> Outcome<Connection> {
    let mut connection = shared.session()?;
    let settings = format!("{READING} SET LOCAL client_encoding = {}", literal(&shared.read.encoding));
    connection.batch(&settings).at(End::Source, "preparing to read")?;
    Ok(connection)
}

/// Fails unless as many rows were passed on as the server says that it has sent.
fn check_count(table: &Table, passed: Option<u64>, sent: u64) -> Outcome {
    if passed.is_none_or(|passed| passed == sent) {
        return Ok(());
    }
    let what = format!("not every row of {}.{} that the server sent was read", table.schema, table.name);
    Err(Failure::new(
        Code::Internal,
        what,
        "Nothing of it is published. Report it, with the versions of both programs.",
    ))
}

fn not_planned() -> Failure {
    Failure::new(Code::Internal, "a part was asked for that is not in the plan", "")
}

/// Fails if the rows are stored elsewhere than when the table was locked. The function sees the
/// present, whatever the snapshot is.
fn check_stored(connection: &mut Connection, table: &Table, stored: &Stored) -> Outcome {
    let Table { schema, name, .. } = table;
    let unchanged = is_stored(connection, stored).at(End::Source, &format!("checking table {schema}.{name}"))?;
    if unchanged { Ok(()) } else { Err(changed(schema, name)) }
}

fn is_stored(connection: &mut Connection, stored: &Stored) -> Result<bool> {
    let oids: Vec<u32> = stored.iter().map(|(oid, _)| *oid).collect();
    let sql = "SELECT pg_catalog.pg_relation_filenode(oid) \
               FROM pg_catalog.unnest($1::pg_catalog.oid[]) WITH ORDINALITY AS stored(oid, place) ORDER BY place";
    let rows = connection.query(sql, &[&oids])?;
    let filenodes = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<Option<u32>>>>()?;
    Ok(filenodes.into_iter().eq(stored.iter().map(|(_, filenode)| *filenode)))
}
