//! `discard:`: takes any plan, looks at everything that a target would look at, and keeps nothing. For drills.
//!
//! Of a database, the documents are decoded and compared with the plan, and the rows are decoded, counted and digested as
//! they come, so that the receipt can say that they are the rows that the manifest promises. What no drill can show is
//! that an engine takes the definitions and the rows.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use sealift_agent::failure::{Failure, Outcome};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::{Digests, MultisetDigest},
    error::Error,
    id::{PartIndex, TransferId},
    manifest::{LoadedPart, PartKind, Plan, Proof},
    receive::{Found, WholePart},
    row::{RowReader, check_values},
    sqlite::{DOCUMENT_BYTES_MAX, FinishDocument, SchemaDocument},
};

use super::{
    PartSink, Sink,
    sqlite::{check_plan, row_too_long},
};

pub struct DiscardSink {
    row_bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    schema: Option<SchemaDocument>,
    /// By part: what was in it.
    loaded: Vec<LoadedPart>,
}

impl DiscardSink {
    pub fn new(row_bytes_max: usize) -> Self {
        Self { row_bytes_max, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for DiscardSink {
    fn prepare(&self, _transfer: TransferId, plan: &Plan, _fresh: bool) -> Outcome<Vec<Found>> {
        plan.check()?;
        let loaded = vec![LoadedPart { rows: 0, digest: None }; plan.parts.len()];
        *self.state() = State { plan: Some(plan.clone()), schema: None, loaded };
        Ok(Vec::new())
    }

    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        let state = self.state();
        let planned = state.plan.as_ref().and_then(|plan| plan.parts.get(part.0 as usize)).ok_or_else(out_of_order)?;
        Ok(match planned.kind {
            PartKind::Opaque => Box::new(Bytes),
            PartKind::Schema | PartKind::Finish => {
                Box::new(Document { sink: self, part, kind: planned.kind, bytes: BytesMut::new() })
            }
            PartKind::Rows => {
                // The schema is the part before the first table.
                let table = (part.0 as usize).checked_sub(1).ok_or_else(out_of_order)?;
                let table =
                    state.schema.as_ref().and_then(|schema| schema.tables.get(table)).ok_or_else(out_of_order)?;
                let (reader, digest) = (RowReader::new(self.row_bytes_max), digests.multiset());
                Box::new(Rows { sink: self, part, values: table.values(), reader, digest })
            }
        })
    }

    fn prove(&self, _digests: &Digests) -> Outcome<(Proof, Vec<LoadedPart>)> {
        Ok((Proof::Discarded, self.state().loaded.clone()))
    }

    fn publish(&self, _transfer: TransferId) -> Outcome {
        Ok(())
    }

    fn abandon_earlier(&self, _transfer: TransferId, _proven: bool) -> Outcome<bool> {
        Ok(false)
    }

    fn suspend(&self) {}

    fn abandon(&self) {}
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
    sink: &'a DiscardSink,
    part: PartIndex,
    kind: PartKind,
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
        if self.kind == PartKind::Finish {
            FinishDocument::from_bytes(&self.bytes).map_err(at_part)?;
            return Ok(());
        }
        let schema = SchemaDocument::from_bytes(&self.bytes).map_err(at_part)?;
        let mut state = self.sink.state();
        check_plan(state.plan.as_ref().ok_or_else(out_of_order)?, &schema)?;
        state.schema = Some(schema);
        Ok(())
    }
}

/// Decodes, counts and digests the rows of one table.
struct Rows<'a> {
    sink: &'a DiscardSink,
    part: PartIndex,
    values: usize,
    reader: RowReader,
    digest: MultisetDigest,
}

impl PartSink for Rows<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        let Self { values, reader, digest, .. } = self;
        let read = reader.feed(chunk.plain().clone(), |row| {
            check_values(row, *values)?;
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
        let Self { sink, part, reader, digest, .. } = *self;
        reader.finish().map_err(|error| error.at_part(part))?;
        sink.state().loaded[part.0 as usize] = LoadedPart { rows: digest.rows(), digest: Some(digest.root()) };
        Ok(())
    }
}
