//! The drill of a database: looks at everything that a target would look at, and keeps nothing.
//!
//! The documents are decoded and compared with the plan, and the rows are decoded, counted and
//! digested as they come, so that the receipt can say that they are the rows that the manifest
//! promises. What no drill can show is that an engine takes the definitions and the rows.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use sealift_engine_api::{
    Abandoned, Commit, Durability, FinishedLoad, GatheredDocument, LeftAt, LoadFailure, PartSink, PreparedLoad,
    ProvenLoad, Recovery, StagedLoad, StopToken, Target, TargetCapabilities, TargetLoad, TargetOptions, Writers,
    out_of_order, row_over_limit,
};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::{Digests, MultisetDigest, RowHasher, RowsDigest},
    disposition::Asks,
    error::Error,
    failure::{Failure, Outcome},
    id::{PartIndex, TableIndex, TransferId},
    manifest::{Engine, Evidence, Plan, PlannedPart, Proof, Section},
    receive::WholePart,
    row::{CellReader, RowConsumer, RowReader, read_cells},
};

use crate::{
    document::{DOCUMENT_BYTES_MAX, FinishDocument, SchemaDocument, Table},
    engine,
    target::check_plan,
};

/// The target of a drill, if the plan is of a database.
pub fn drill(planned: &Engine, options: &TargetOptions) -> Option<Arc<dyn Target>> {
    let engine = [engine::rows(), engine::image()].into_iter().find(|own| own.name == planned.name)?;
    Some(Arc::new(SqliteDrill { engine, row_bytes_max: options.row_bytes_max as usize }))
}

struct SqliteDrill {
    engine: Engine,
    row_bytes_max: usize,
}

impl Recovery for SqliteDrill {
    fn abandon(&self, _transfer: TransferId, _left_at: LeftAt) -> Outcome<Abandoned> {
        Ok(Abandoned::Dropped)
    }
}

impl Target for SqliteDrill {
    fn capabilities(&self, _plan: &Plan) -> TargetCapabilities {
        TargetCapabilities { durability: Durability::Nothing, commit: Commit::Observable }
    }

    fn prepare(
        &self,
        _transfer: TransferId,
        plan: &Plan,
        _asks: Asks,
        stop: Arc<dyn StopToken>,
    ) -> Outcome<PreparedLoad> {
        plan.check()?;
        self.engine.check_same(&plan.engine)?;
        let tables = vec![RowsDigest::default(); plan.tables.len()];
        let drilling = Arc::new(Drilling {
            plan: plan.clone(),
            row_bytes_max: self.row_bytes_max,
            state: Mutex::new(DrillState { schema: None, stopped: false, tables }),
            changed: Condvar::new(),
        });
        let weak = Arc::downgrade(&drilling);
        stop.wakes(Box::new(move || {
            if let Some(drilling) = weak.upgrade() {
                drilling.stop();
            }
        }));
        Ok(PreparedLoad::empty(DrillLoad(drilling)))
    }
}

/// A drill that this process holds.
struct DrillLoad(Arc<Drilling>);

impl Drop for DrillLoad {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl StagedLoad for DrillLoad {
    fn abandon(self: Box<Self>) {}
}

impl TargetLoad for DrillLoad {
    fn writers(&self) -> Arc<dyn Writers> {
        Arc::clone(&self.0) as Arc<dyn Writers>
    }

    fn prove(self: Box<Self>, _digests: &Digests) -> Result<Box<dyn ProvenLoad>, LoadFailure> {
        let tables = self.0.state().tables.clone();
        Ok(Box::new(FinishedLoad(Evidence { tables, ..Evidence::bare(Proof::Discarded) })))
    }
}

/// What the threads of a drill share.
struct Drilling {
    plan: Plan,
    row_bytes_max: usize,
    state: Mutex<DrillState>,
    /// Notified when the schema is here, or the drill stops.
    changed: Condvar,
}

struct DrillState {
    schema: Option<SchemaDocument>,
    stopped: bool,
    /// Of each table: the rows that arrived.
    tables: Vec<RowsDigest>,
}

impl Drilling {
    fn state(&self) -> MutexGuard<'_, DrillState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Values in a row of the table that this part holds. The part that says so may still be on its
    /// way through.
    fn values(&self, table: TableIndex) -> Outcome<usize> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return Err(given_up());
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

impl Writers for Drilling {
    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        let planned = self.plan.parts.get(part.0 as usize).cloned().ok_or_else(out_of_order)?;
        Ok(match planned {
            PlannedPart { section: Section::Opaque, .. } => Box::new(Bytes { part }),
            PlannedPart { section: Section::Data, table: Some(table), .. } => {
                let reader = RowReader::new(self.row_bytes_max);
                let counted = Counted { values: self.values(table)?, digest: digests.multiset(), long: None };
                Box::new(Rows { drill: self, part, table, reader, counted })
            }
            PlannedPart { section, .. } => {
                let document = GatheredDocument::new(part, DOCUMENT_BYTES_MAX);
                Box::new(Document { drill: self, part, section, document })
            }
        })
    }
}

fn given_up() -> Failure {
    Failure::new(Code::Interrupted, "the drill was given up", "")
}

/// Bytes that mean nothing here.
struct Bytes {
    part: PartIndex,
}

impl PartSink for Bytes {
    fn write(&mut self, _chunk: &VerifiedChunk) -> Outcome {
        Ok(())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        Ok(vec![self.part])
    }
}

/// Gathers a document, to decode it when it is whole.
struct Document<'a> {
    drill: &'a Drilling,
    part: PartIndex,
    section: Section,
    document: GatheredDocument,
}

impl PartSink for Document<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.document.append(chunk)
    }

    fn finish(self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let Self { drill, part, section, document } = *self;
        let bytes = document.whole(whole)?;
        let at_part = |error: Error| error.at_part(part);
        if section == Section::PostData {
            FinishDocument::from_bytes(&bytes).map_err(at_part)?;
            return Ok(vec![part]);
        }
        let schema = SchemaDocument::from_bytes(&bytes).map_err(at_part)?;
        check_plan(&drill.plan, &schema)?;
        drill.state().schema = Some(schema);
        drill.changed.notify_all();
        Ok(vec![part])
    }
}

/// Decodes, counts and digests the rows of one table.
struct Rows<'a> {
    drill: &'a Drilling,
    part: PartIndex,
    table: TableIndex,
    reader: RowReader,
    counted: Counted,
}

/// What is kept of rows. A long one is looked at as it comes, and is never whole in memory.
struct Counted {
    /// Values of each row.
    values: usize,
    digest: MultisetDigest,
    long: Option<(CellReader, RowHasher)>,
}

impl RowConsumer for Counted {
    type Failure = Error;

    fn row(&mut self, row: &[u8]) -> Result<(), Error> {
        read_cells(row, self.values, |_| Ok(()))?;
        self.digest.add(row);
        Ok(())
    }

    fn begin_long_row(&mut self, head: &[u8], _row_bytes: usize) -> Result<bool, Error> {
        self.long = Some((CellReader::new(self.values), self.digest.begin_row()));
        self.long_row_piece(head, false)?;
        Ok(true)
    }

    fn long_row_piece(&mut self, piece: &[u8], is_last: bool) -> Result<(), Error> {
        let Some((mut cells, mut hasher)) = self.long.take() else { return Ok(()) };
        cells.feed(piece, |_| Ok(()))?;
        hasher.update(piece);
        if is_last {
            cells.finish()?;
            self.digest.add_row(hasher);
        } else {
            self.long = Some((cells, hasher));
        }
        Ok(())
    }
}

impl PartSink for Rows<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        let read = self.reader.feed_into(chunk.plain().clone(), &mut self.counted);
        read.map_err(|error| match error.code {
            Code::LimitExceeded => row_over_limit(self.drill.row_bytes_max).at_part(self.part),
            _ => error.at_part(self.part).into(),
        })
    }

    fn rows(&self) -> u64 {
        self.counted.digest.rows()
    }

    fn finish(mut self: Box<Self>, _whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let part = self.part;
        let table = self.table;
        std::mem::replace(&mut self.reader, RowReader::new(0)).finish().map_err(|error| error.at_part(part))?;
        let mut state = self.drill.state();
        let arrived = state.tables.get_mut(table.0 as usize).ok_or_else(out_of_order)?;
        let too_many = || Error::new(Code::LimitExceeded, "rows of a table").at_part(part);
        *arrived = arrived.merge(self.counted.digest.digest()).ok_or_else(too_many)?;
        Ok(vec![part])
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use sealift_protocol::{id::ChunkCount, manifest::PlannedTable};

    use super::*;
    use crate::{
        Value, put_value,
        testing::{self, Ended, Never, TRANSFER, digests, rows, verified},
    };

    fn planned() -> Box<dyn TargetLoad> {
        prepared(Arc::new(Never))
    }

    fn prepared(stop: Arc<dyn StopToken>) -> Box<dyn TargetLoad> {
        prepared_for(&["t"], 1000, stop)
    }

    fn prepared_for(tables: &[&str], row_bytes_max: usize, stop: Arc<dyn StopToken>) -> Box<dyn TargetLoad> {
        let mut parts = vec![PlannedPart::of_section(Section::PreData)];
        parts.extend((0..tables.len() as u32).map(|table| PlannedPart::of_table(TableIndex(table))));
        parts.push(PlannedPart::of_section(Section::PostData));
        let tables = tables.iter().copied().map(PlannedTable::named).collect();
        let plan = Plan { engine: engine::rows(), tables, parts, empty: None, left_out: None, rows: None };
        let drill = SqliteDrill { engine: engine::rows(), row_bytes_max };
        drill.prepare(TRANSFER, &plan, Asks::Continue, stop).unwrap().load
    }

    fn schema(name: &str) -> Vec<u8> {
        testing::schema(vec![testing::table(name)]).to_bytes()
    }

    fn take(load: &dyn TargetLoad, part: u32, plain: &[u8]) -> Outcome {
        let writers = load.writers();
        let mut out = writers.begin(PartIndex(part), &digests())?;
        let chunk = verified(part, plain, true);
        out.write(&chunk)?;
        let root = digests().part_root(PartIndex(part)).root();
        let plain_bytes = plain.len() as u64;
        out.finish(&WholePart { part: PartIndex(part), chunks: ChunkCount(1), plain_bytes, root }).map(drop)
    }

    /// Issue 9, D4: a drill looks at rows, documents and digests.
    #[test]
    fn rows_are_counted_and_digested() {
        let load = planned();
        take(&*load, 0, &schema("t")).unwrap();
        take(&*load, 1, &rows(&[&[Value::Integer(1)], &[Value::Null]])).unwrap();
        let finish = FinishDocument { views: Vec::new(), triggers: Vec::new() };
        take(&*load, 2, &finish.to_bytes()).unwrap();
        let mut digest = digests().multiset();
        for value in [Value::Null, Value::Integer(1)] {
            let mut row = BytesMut::new();
            put_value(&mut row, value);
            digest.add(&row);
        }
        let proven = load.prove(&digests()).ok().unwrap();
        assert_eq!(proven.evidence(), &Evidence { tables: vec![digest.digest()], ..Evidence::bare(Proof::Discarded) });
    }

    #[test]
    fn what_no_target_could_take_fails_a_drill() {
        let code = |load: &dyn TargetLoad, part, plain: &[u8]| take(load, part, plain).unwrap_err().code;
        assert_eq!(code(&*planned(), 0, b"garbage"), Code::ProtocolViolation);
        assert_eq!(code(&*planned(), 0, &schema("other")), Code::PlanRefused);
        assert_eq!(code(&*planned(), 0, &vec![0; DOCUMENT_BYTES_MAX.min(4 << 20)]), Code::ProtocolViolation);
        let stopped = prepared(Arc::new(Ended));
        assert_eq!(code(&*stopped, 1, &[]), Code::Interrupted, "rows whose schema does not come any more");
        assert_eq!(code(&*planned(), 2, b"garbage"), Code::ProtocolViolation);
        let load = planned();
        take(&*load, 0, &schema("t")).unwrap();
        assert_eq!(code(&*load, 1, &rows(&[&[Value::Null, Value::Null]])), Code::RowMalformed, "a column too many");
        assert_eq!(code(&*load, 1, &[1, 9]), Code::RowMalformed, "no such value");
        assert_eq!(code(&*load, 1, &[5, 0]), Code::RowMalformed, "half a row");
        assert_eq!(code(&*load, 1, &rows(&[&[Value::Blob(&[0; 1000])]])), Code::TargetFailed, "a row over the limit");
    }

    /// Issue 10, item 3: a long row is looked at in pieces, as one that is whole.
    #[test]
    fn long_rows_are_counted_and_digested_too() {
        let long = vec![7; 200_000];
        let row = rows(&[&[Value::Blob(&long)]]);
        let load = prepared_for(&["t"], 1 << 20, Arc::new(Never));
        take(&*load, 0, &schema("t")).unwrap();
        take(&*load, 1, &row).unwrap();
        let mut digest = digests().multiset();
        let mut encoded = BytesMut::new();
        put_value(&mut encoded, Value::Blob(&long));
        digest.add(&encoded);
        assert_eq!(load.prove(&digests()).ok().unwrap().evidence().tables, [digest.digest()]);

        let load = prepared_for(&["t"], 1 << 20, Arc::new(Never));
        take(&*load, 0, &schema("t")).unwrap();
        let wide = rows(&[&[Value::Blob(&long), Value::Null]]);
        assert_eq!(take(&*load, 1, &wide).unwrap_err().code, Code::RowMalformed, "a column too many");
        assert_eq!(take(&*load, 1, &row[..row.len() - 1]).unwrap_err().code, Code::RowMalformed, "not whole");
    }
}
