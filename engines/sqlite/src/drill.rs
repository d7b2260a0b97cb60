//! The drill of a database: looks at everything that a target would look at, and keeps nothing.
//!
//! The documents are decoded and compared with the plan, and the rows are decoded, counted and
//! digested as they come, so that the receipt can say that they are the rows that the manifest
//! promises. What no drill can show is that an engine takes the definitions and the rows.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use sealift_engine_api::{PartSink, Sink, TargetOptions};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::{Digests, MultisetDigest, RowsDigest},
    error::Error,
    failure::{Failure, Outcome},
    id::{PartIndex, TableIndex, TransferId},
    manifest::{Engine, Evidence, Plan, PlannedPart, Proof, Section},
    receive::{Found, WholePart},
    row::{RowReader, read_cells},
};

use crate::{
    document::{DOCUMENT_BYTES_MAX, FinishDocument, SchemaDocument, Table},
    engine,
    target::{check_plan, row_too_long},
};

/// The sink of a drill, if the plan is of a database.
pub fn drill(planned: &Engine, options: &TargetOptions) -> Option<Arc<dyn Sink>> {
    let engine = [engine::rows(), engine::image()].into_iter().find(|own| own.name == planned.name)?;
    Some(Arc::new(SqliteDrill::new(engine, options.row_bytes_max as usize)))
}

struct SqliteDrill {
    engine: Engine,
    row_bytes_max: usize,
    state: Mutex<DrillState>,
    /// Told when the schema is here, or the drill stops.
    changed: Condvar,
}

#[derive(Default)]
struct DrillState {
    plan: Option<Plan>,
    schema: Option<SchemaDocument>,
    stopped: bool,
    /// Of each table: the rows that arrived.
    tables: Vec<RowsDigest>,
}

impl SqliteDrill {
    fn new(engine: Engine, row_bytes_max: usize) -> Self {
        Self { engine, row_bytes_max, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, DrillState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Values in a row of the table that this part holds. The part that says so may still be on its
    /// way through.
    fn values(&self, table: TableIndex) -> Outcome<usize> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return Err(Failure::new(Code::Interrupted, "the drill was given up", ""));
            }
            if let Some(schema) = &state.schema {
                return schema.tables.get(table.0 as usize).map(Table::values).ok_or_else(out_of_order);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }
}

impl Sink for SqliteDrill {
    fn prepare(&self, _transfer: TransferId, plan: &Plan, _fresh: bool) -> Outcome<Vec<Found>> {
        plan.check()?;
        self.engine.check_same(&plan.engine)?;
        let tables = vec![RowsDigest::default(); plan.tables.len()];
        *self.state() = DrillState { plan: Some(plan.clone()), schema: None, stopped: false, tables };
        Ok(Vec::new())
    }

    fn keeps_parts(&self) -> bool {
        false
    }

    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        let planned = {
            let state = self.state();
            let planned = state.plan.as_ref().and_then(|plan| plan.parts.get(part.0 as usize));
            planned.cloned().ok_or_else(out_of_order)?
        };
        Ok(match planned {
            PlannedPart { section: Section::Opaque, .. } => Box::new(Bytes),
            PlannedPart { section: Section::Data, table: Some(table), .. } => {
                let (reader, digest) = (RowReader::new(self.row_bytes_max), digests.multiset());
                Box::new(Rows { sink: self, part, table, values: self.values(table)?, reader, digest })
            }
            PlannedPart { section, .. } => Box::new(Document { sink: self, part, section, bytes: BytesMut::new() }),
        })
    }

    fn prove(&self, _digests: &Digests) -> Outcome<Evidence> {
        Ok(Evidence { tables: self.state().tables.clone(), ..Evidence::bare(Proof::Discarded) })
    }

    fn publish(&self, _transfer: TransferId) -> Outcome {
        Ok(())
    }

    fn abandon_earlier(&self, _transfer: TransferId, _proven: bool) -> Outcome<bool> {
        Ok(false)
    }

    fn suspend(&self) {
        self.stop();
    }

    fn abandon(&self) {
        self.stop();
    }
}

fn out_of_order() -> Failure {
    Failure::new(Code::Internal, "the target was used out of order", "")
}

/// Bytes that mean nothing here.
struct Bytes;

impl PartSink for Bytes {
    fn write(&mut self, _chunk: &VerifiedChunk) -> Outcome {
        Ok(())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome {
        Ok(())
    }
}

/// Gathers a document, to decode it when it is whole.
struct Document<'a> {
    sink: &'a SqliteDrill,
    part: PartIndex,
    section: Section,
    bytes: BytesMut,
}

impl PartSink for Document<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        if self.bytes.len() + chunk.plain().len() > DOCUMENT_BYTES_MAX {
            return Err(Error::new(Code::LimitExceeded, "bytes of a document").at_part(self.part).into());
        }
        self.bytes.extend_from_slice(chunk.plain());
        Ok(())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome {
        let at_part = |error: Error| error.at_part(self.part);
        if self.section == Section::PostData {
            FinishDocument::from_bytes(&self.bytes).map_err(at_part)?;
            return Ok(());
        }
        let schema = SchemaDocument::from_bytes(&self.bytes).map_err(at_part)?;
        let mut state = self.sink.state();
        check_plan(state.plan.as_ref().ok_or_else(out_of_order)?, &schema)?;
        state.schema = Some(schema);
        self.sink.changed.notify_all();
        Ok(())
    }
}

/// Decodes, counts and digests the rows of one table.
struct Rows<'a> {
    sink: &'a SqliteDrill,
    part: PartIndex,
    table: TableIndex,
    values: usize,
    reader: RowReader,
    digest: MultisetDigest,
}

impl PartSink for Rows<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        let Self { values, reader, digest, .. } = self;
        let read = reader.feed(chunk.plain().clone(), |row| {
            read_cells(row, *values, |_| Ok(()))?;
            digest.add(row);
            Ok::<(), Error>(())
        });
        read.map_err(|error| match error.code {
            Code::LimitExceeded => row_too_long(self.sink.row_bytes_max).at_part(self.part),
            _ => error.at_part(self.part).into(),
        })
    }

    fn rows(&self) -> u64 {
        self.digest.rows()
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome {
        let Self { sink, part, table, reader, digest, .. } = *self;
        reader.finish().map_err(|error| error.at_part(part))?;
        let mut state = sink.state();
        let arrived = state.tables.get_mut(table.0 as usize).ok_or_else(out_of_order)?;
        let too_many = || Error::new(Code::LimitExceeded, "rows of a table").at_part(part);
        *arrived = arrived.merge(digest.digest()).ok_or_else(too_many)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::{id::ChunkCount, manifest::PlannedTable};

    use super::*;
    use crate::{
        Value, put_value,
        testing::{self, TRANSFER, digests, rows, verified},
    };

    fn planned() -> SqliteDrill {
        let parts = vec![
            PlannedPart::of_section(Section::PreData),
            PlannedPart::of_table(TableIndex(0)),
            PlannedPart::of_section(Section::PostData),
        ];
        let plan = Plan { engine: engine::rows(), tables: vec![PlannedTable::named("t")], parts, empty: None };
        let sink = SqliteDrill::new(engine::rows(), 1000);
        sink.prepare(TRANSFER, &plan, false).unwrap();
        sink
    }

    fn schema(name: &str) -> Vec<u8> {
        testing::schema(vec![testing::table(name)]).to_bytes()
    }

    fn take(sink: &SqliteDrill, part: u32, plain: &[u8]) -> Outcome {
        let mut out = sink.begin(PartIndex(part), &digests())?;
        let chunk = verified(part, plain, true);
        out.write(&chunk)?;
        let root = digests().part_root(PartIndex(part)).root();
        let (part, chunks) = (PartIndex(part), ChunkCount(1));
        out.finish(&WholePart { part, chunks, plain_bytes: plain.len() as u64, root })
    }

    /// Issue 9, D4: a drill looks at rows, documents and digests.
    #[test]
    fn rows_are_counted_and_digested() {
        let sink = planned();
        take(&sink, 0, &schema("t")).unwrap();
        take(&sink, 1, &rows(&[&[Value::Integer(1)], &[Value::Null]])).unwrap();
        let finish = FinishDocument { views: Vec::new(), triggers: Vec::new() };
        take(&sink, 2, &finish.to_bytes()).unwrap();
        let mut digest = digests().multiset();
        for value in [Value::Null, Value::Integer(1)] {
            let mut row = BytesMut::new();
            put_value(&mut row, value);
            digest.add(&row);
        }
        let evidence = sink.prove(&digests()).unwrap();
        assert_eq!(evidence, Evidence { tables: vec![digest.digest()], ..Evidence::bare(Proof::Discarded) });
    }

    #[test]
    fn what_no_target_could_take_fails_a_drill() {
        let code = |sink: &SqliteDrill, part, plain: &[u8]| take(sink, part, plain).unwrap_err().code;
        assert_eq!(code(&planned(), 0, b"garbage"), Code::ProtocolViolation);
        assert_eq!(code(&planned(), 0, &schema("other")), Code::PlanRefused);
        assert_eq!(code(&planned(), 0, &vec![0; DOCUMENT_BYTES_MAX.min(4 << 20)]), Code::ProtocolViolation);
        let stopped = planned();
        stopped.suspend();
        assert_eq!(code(&stopped, 1, &[]), Code::Interrupted, "rows whose schema does not come any more");
        assert_eq!(code(&planned(), 2, b"garbage"), Code::ProtocolViolation);
        let sink = planned();
        take(&sink, 0, &schema("t")).unwrap();
        assert_eq!(code(&sink, 1, &rows(&[&[Value::Null, Value::Null]])), Code::RowMalformed, "a column too many");
        assert_eq!(code(&sink, 1, &[1, 9]), Code::RowMalformed, "no such value");
        assert_eq!(code(&sink, 1, &[5, 0]), Code::RowMalformed, "half a row");
        assert_eq!(code(&sink, 1, &rows(&[&[Value::Blob(&[0; 1000])]])), Code::TargetFailed, "a row over the limit");
    }
}
