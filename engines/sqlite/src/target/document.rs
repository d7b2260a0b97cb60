//! Taking in what comes before and after the rows.

use sealift_engine_api::PartSink;
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    failure::{Failure, Outcome},
    id::PartIndex,
    manifest::Section,
    receive::WholePart,
};

use super::{
    Turn,
    load::{Load, check_plan, check_whole},
};
use crate::document::{DOCUMENT_BYTES_MAX, FinishDocument, SchemaDocument};

/// Gathers a schema or finish part.
pub struct DocumentLoad<'a> {
    turn: Turn<'a>,
    part: PartIndex,
    section: Section,
    bytes: Vec<u8>,
    chunks: u64,
    ended: bool,
}

impl<'a> DocumentLoad<'a> {
    pub fn new(turn: Turn<'a>, part: PartIndex, section: Section) -> Self {
        Self { turn, part, section, bytes: Vec::new(), chunks: 0, ended: false }
    }
}

impl PartSink for DocumentLoad<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.turn.shared.check_stop()?;
        if self.bytes.len() + chunk.plain().len() > DOCUMENT_BYTES_MAX {
            let what = format!("the schema of the source is over {DOCUMENT_BYTES_MAX} bytes");
            return Err(Failure::new(Code::LimitExceeded, what, "Split the database.").at_part(self.part));
        }
        self.bytes.extend_from_slice(chunk.plain());
        (self.chunks, self.ended) = (self.chunks + 1, chunk.is_last());
        Ok(())
    }

    fn finish(self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let Self { mut turn, part, section, bytes, chunks, ended } = *self;
        let load = |turn: &mut Turn<'_>| {
            check_whole(whole, part, chunks, ended)?;
            turn.shared.check_stop()?;
            if section == Section::PostData {
                return turn.load()?.complete(FinishDocument::from_bytes(&bytes)?, &bytes, whole);
            }
            let schema = SchemaDocument::from_bytes(&bytes)?;
            check_plan(&turn.shared.plan, &schema)?;
            turn.load = Some(Load::create(turn, schema, &bytes, whole)?);
            Ok(())
        };
        load(&mut turn).map_err(|failure| failure.at_part(part))?;
        turn.note_committed(&[part]);
        Ok(turn.take_finished())
    }
}

/// A part that is committed already: it is taken again and changes nothing.
pub struct Repeated {
    pub part: PartIndex,
}

impl PartSink for Repeated {
    fn write(&mut self, _: &VerifiedChunk) -> Outcome {
        Ok(())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        Ok(vec![self.part])
    }
}
