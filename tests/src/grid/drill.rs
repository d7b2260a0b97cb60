//! The drill of a grid: looks at everything that its target would look at, side by side, and keeps
//! nothing.

use std::sync::{Arc, Mutex, PoisonError};

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
    manifest::{Engine, Evidence, Plan, Proof},
    receive::WholePart,
    row::{RowReader, read_cells},
};

use super::{COLUMNS, Content, engine};

/// The target of a drill, if the plan is of a grid.
pub fn drill(planned: &Engine, options: &TargetOptions) -> Option<Arc<dyn Target>> {
    let row_bytes_max = options.row_bytes_max as usize;
    (planned.name == engine().name).then(|| Arc::new(GridDrill { row_bytes_max }) as Arc<dyn Target>)
}

struct GridDrill {
    row_bytes_max: usize,
}

impl Recovery for GridDrill {
    fn abandon(&self, _transfer: TransferId, _left_at: LeftAt) -> Outcome<Abandoned> {
        Ok(Abandoned::Dropped)
    }
}

impl Target for GridDrill {
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
        engine().check_same(&plan.engine)?;
        let tables = Mutex::new(vec![RowsDigest::default(); plan.tables.len()]);
        let drilling = Drilling { plan: plan.clone(), row_bytes_max: self.row_bytes_max, tables, stop };
        Ok(PreparedLoad::empty(DrillLoad(Arc::new(drilling))))
    }
}

struct DrillLoad(Arc<Drilling>);

impl StagedLoad for DrillLoad {
    fn abandon(self: Box<Self>) {}
}

impl TargetLoad for DrillLoad {
    fn writers(&self) -> Arc<dyn Writers> {
        Arc::clone(&self.0) as Arc<dyn Writers>
    }

    fn prove(self: Box<Self>, _digests: &Digests) -> Result<Box<dyn ProvenLoad>, LoadFailure> {
        let tables = self.0.tables.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Box::new(FinishedLoad(Evidence { tables, ..Evidence::bare(Proof::Discarded) })))
    }
}

struct Drilling {
    plan: Plan,
    row_bytes_max: usize,
    /// The rows that arrived, of each table.
    tables: Mutex<Vec<RowsDigest>>,
    stop: Arc<dyn StopToken>,
}

impl Writers for Drilling {
    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        Ok(match self.plan.parts[part.0 as usize].table {
            Some(table) => {
                let (reader, digest) = (RowReader::new(self.row_bytes_max), digests.multiset());
                Box::new(Rows { drill: self, part, table, reader, digest })
            }
            None => Box::new(Text { drill: self, part, text: Vec::new() }),
        })
    }
}

/// What comes before and after the rows.
struct Text<'a> {
    drill: &'a Drilling,
    part: PartIndex,
    text: Vec<u8>,
}

impl PartSink for Text<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.drill.stop.check()?;
        self.text.extend_from_slice(chunk.plain());
        Ok(())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let content = std::str::from_utf8(&self.text).ok().and_then(Content::parse);
        let tables = content.ok_or_else(|| Failure::new(Code::PlanRefused, "the text is no grid's", ""))?.tables;
        match tables as usize == self.drill.plan.tables.len() {
            true => Ok(vec![self.part]),
            false => Err(Failure::new(Code::PlanRefused, "the text is another grid's", "")),
        }
    }
}

struct Rows<'a> {
    drill: &'a Drilling,
    part: PartIndex,
    table: TableIndex,
    reader: RowReader,
    digest: MultisetDigest,
}

impl PartSink for Rows<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.drill.stop.check()?;
        let Self { reader, digest, .. } = self;
        reader.feed(chunk.plain().clone(), |row| {
            read_cells(row, COLUMNS, |_| Ok(()))?;
            digest.add(row);
            Ok::<(), Error>(())
        })?;
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.digest.rows()
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let Self { drill, part, table, reader, digest } = *self;
        reader.finish()?;
        let mut tables = drill.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let too_many = || Error::new(Code::LimitExceeded, "rows of a table").at_part(part);
        let arrived = &mut tables[table.0 as usize];
        *arrived = arrived.merge(digest.digest()).ok_or_else(too_many)?;
        Ok(vec![part])
    }
}
