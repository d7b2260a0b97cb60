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

use super::{out_of_order, post_data, pre_data, shared::SharedLoad};
use crate::document::DOCUMENT_BYTES_MAX;

/// Gathers a schema or finish part.
pub struct DocumentSink<'a> {
    shared: &'a SharedLoad,
    part: PartIndex,
    section: Section,
    bytes: Vec<u8>,
    chunks: u64,
    ended: bool,
}

impl<'a> DocumentSink<'a> {
    pub fn new(shared: &'a SharedLoad, part: PartIndex, section: Section) -> Self {
        Self { shared, part, section, bytes: Vec::new(), chunks: 0, ended: false }
    }
}

impl PartSink for DocumentSink<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.shared.check_stop()?;
        if self.bytes.len() + chunk.plain().len() > DOCUMENT_BYTES_MAX {
            let what = format!("the schema of the source is over {DOCUMENT_BYTES_MAX} bytes");
            return Err(Failure::new(Code::LimitExceeded, what, "Split the database.").at_part(self.part));
        }
        self.bytes.extend_from_slice(chunk.plain());
        self.chunks += 1;
        self.ended = chunk.is_last();
        Ok(())
    }

    fn finish(self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let Self { shared, part, section, bytes, chunks, ended } = *self;
        if !ended || (whole.part, whole.chunks.0) != (part, chunks) {
            return Err(out_of_order());
        }
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
