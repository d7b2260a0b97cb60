//! Taking in what comes before and after the rows.

use sealift_engine_api::{GatheredDocument, PartSink};
use sealift_protocol::{chunk::VerifiedChunk, failure::Outcome, id::PartIndex, manifest::Section, receive::WholePart};

use super::{post_data, pre_data, shared::SharedLoad};
use crate::document::DOCUMENT_BYTES_MAX;

/// Gathers a schema or finish part.
pub struct DocumentSink<'a> {
    shared: &'a SharedLoad,
    part: PartIndex,
    section: Section,
    document: GatheredDocument,
}

impl<'a> DocumentSink<'a> {
    pub fn new(shared: &'a SharedLoad, part: PartIndex, section: Section) -> Self {
        Self { shared, part, section, document: GatheredDocument::new(part, DOCUMENT_BYTES_MAX) }
    }
}

impl PartSink for DocumentSink<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.shared.check_stop()?;
        self.document.append(chunk)
    }

    fn finish(self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let Self { shared, part, section, document } = *self;
        let bytes = document.whole(whole)?;
        shared.check_stop()?;
        let made = match section {
            Section::PreData => pre_data::make(shared, &bytes, whole),
            _ => post_data::make(shared, &bytes, whole),
        };
        made.map_err(|failure| shared.reason(failure).at_part(part))?;
        shared.note_committed(part);
        Ok(vec![part])
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
