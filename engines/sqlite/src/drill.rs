//! The drill of a database: looks at everything that a target would look at, and keeps nothing.
//!
//! The documents are decoded and compared with the plan, and the rows are decoded, counted and
//! digested as they come, so that the receipt can say that they are the rows that the manifest
//! promises. What no drill can show is that an engine takes the definitions and the rows.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use sealift_engine_api::{
    Abandoned, Commit, Durability, FinishedLoad, LeftAt, LoadFailure, PartSink, PreparedLoad, ProvenLoad, Recovery,
    StagedLoad, StopToken, Target, TargetCapabilities, TargetLoad, TargetOptions, Writers,
};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::{Digests, MultisetDigest, RowsDigest},
    disposition::Asks,
    error::Error,
    failure::{Failure, Outcome},
    id::{PartIndex, TableIndex, TransferId},
    limits::CHUNK_PLAIN_BYTES_MAX,
    manifest::{Engine, Evidence, Plan, PlannedPart, Proof, Section},
    receive::WholePart,
    row::{RowReader, read_cells},
};

use crate::{
    document::{DOCUMENT_BYTES_MAX, FinishDocument, SchemaDocument, Table},
    engine,
    target::{check_plan, row_too_long},
};

/// A row of which every part may hold one: as much as a chunk may have.
const ROW_BYTES_EACH: usize = CHUNK_PLAIN_BYTES_MAX;

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
            state: Mutex::new(DrillState { schema: None, stopped: false, holds_large_row: None, tables }),
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
    /// The part that has begun a row over [`ROW_BYTES_EACH`]. Others wait, so that one such row is
    /// held at a time. Its end comes over the lane of that part, which waits for no other.
    holds_large_row: Option<PartIndex>,
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

    /// The part has begun a large row: waits while another one holds such a row.
    fn hold_large_row(&self, part: PartIndex) -> Outcome {
        let mut state = self.state();
        while state.holds_large_row.is_some_and(|holder| holder != part) {
            if state.stopped {
                return Err(given_up());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.holds_large_row = Some(part);
        Ok(())
    }

    fn release_large_row(&self, part: PartIndex) {
        let mut state = self.state();
        if state.holds_large_row == Some(part) {
            state.holds_large_row = None;
            self.changed.notify_all();
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
                let digest = digests.multiset();
                Box::new(Rows { drill: self, part, table, values: self.values(table)?, reader, digest })
            }
            PlannedPart { section, .. } => Box::new(Document { drill: self, part, section, bytes: BytesMut::new() }),
        })
    }
}

fn given_up() -> Failure {
    Failure::new(Code::Interrupted, "the drill was given up", "")
}

fn out_of_order() -> Failure {
    Failure::new(Code::Internal, "the target was used out of order", "")
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

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let at_part = |error: Error| error.at_part(self.part);
        if self.section == Section::PostData {
            FinishDocument::from_bytes(&self.bytes).map_err(at_part)?;
            return Ok(vec![self.part]);
        }
        let schema = SchemaDocument::from_bytes(&self.bytes).map_err(at_part)?;
        check_plan(&self.drill.plan, &schema)?;
        self.drill.state().schema = Some(schema);
        self.drill.changed.notify_all();
        Ok(vec![self.part])
    }
}

/// Decodes, counts and digests the rows of one table.
struct Rows<'a> {
    drill: &'a Drilling,
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
            Code::LimitExceeded => row_too_long(self.drill.row_bytes_max).at_part(self.part),
            _ => error.at_part(self.part).into(),
        })?;
        if self.reader.incomplete_row_bytes() > ROW_BYTES_EACH {
            return self.drill.hold_large_row(self.part);
        }
        self.drill.release_large_row(self.part);
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.digest.rows()
    }

    fn finish(mut self: Box<Self>, _whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let part = self.part;
        let table = self.table;
        std::mem::replace(&mut self.reader, RowReader::new(0)).finish().map_err(|error| error.at_part(part))?;
        let mut state = self.drill.state();
        let arrived = state.tables.get_mut(table.0 as usize).ok_or_else(out_of_order)?;
        let too_many = || Error::new(Code::LimitExceeded, "rows of a table").at_part(part);
        *arrived = arrived.merge(self.digest.digest()).ok_or_else(too_many)?;
        Ok(vec![part])
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        self.drill.release_large_row(self.part);
    }
}

#[cfg(test)]
mod tests {
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
        let plan = Plan { engine: engine::rows(), tables, parts, empty: None };
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

    /// Issue 10, item 3: one row that is larger than a chunk is held at a time, and those that wait
    /// for it end with the drill.
    #[test]
    fn large_rows_are_held_one_at_a_time() {
        let names = ["t", "u", "v"];
        let load = prepared_for(&names, 1 << 30, Arc::new(Never));
        take(&*load, 0, &testing::schema(names.map(testing::table).into()).to_bytes()).unwrap();
        let row = rows(&[&[Value::Blob(&vec![7; ROW_BYTES_EACH])]]);
        let (begins, ends) = row.split_at(1000);
        let (first, second) = (verified(1, begins, true), verified(2, begins, true));
        let (rest, third) = (verified(1, ends, true), verified(3, begins, true));

        let writers = load.writers();
        let mut holder = writers.begin(PartIndex(1), &digests()).unwrap();
        holder.write(&first).unwrap();
        std::thread::scope(|scope| {
            // Dropped as a part that is given up, it holds nothing for others.
            let waiting = scope.spawn(|| writers.begin(PartIndex(2), &digests())?.write(&second));
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!waiting.is_finished());
            holder.write(&rest).unwrap();
            assert_eq!(holder.rows(), 1);
            waiting.join().unwrap().unwrap();
            holder.write(&first).unwrap();
            let waiting = scope.spawn(|| writers.begin(PartIndex(3), &digests())?.write(&third));
            drop(load);
            assert_eq!(waiting.join().unwrap().unwrap_err().code, Code::Interrupted);
        });
    }
}
