//! Taking in what comes before and after the rows.

use sealift_engine_api::{GatheredDocument, PartSink};
use sealift_protocol::{chunk::VerifiedChunk, failure::Outcome, id::PartIndex, manifest::Section, receive::WholePart};

use super::{
    Turn,
    load::{Load, check_plan},
};
use crate::document::{DOCUMENT_BYTES_MAX, FinishDocument, SchemaDocument};

/// Gathers a schema or finish part.
pub struct DocumentLoad<'a> {
    turn: Turn<'a>,
    part: PartIndex,
    section: Section,
    document: GatheredDocument,
}

impl<'a> DocumentLoad<'a> {
    pub fn new(turn: Turn<'a>, part: PartIndex, section: Section) -> Self {
        Self { turn, part, section, document: GatheredDocument::new(part, DOCUMENT_BYTES_MAX) }
    }
}

impl PartSink for DocumentLoad<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.turn.shared.check_stop()?;
        self.document.append(chunk)
    }

    fn finish(self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let Self { mut turn, part, section, document } = *self;
        let bytes = document.whole(whole)?;
        let load = |turn: &mut Turn<'_>| {
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
