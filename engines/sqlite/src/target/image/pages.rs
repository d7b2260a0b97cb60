//! Writing the pages as they arrive.

use std::os::unix::fs::FileExt;

use sealift_engine_api::PartSink;
use sealift_protocol::{
    chunk::VerifiedChunk,
    digest::{Digests, PartRoot},
    failure::{Failure, Outcome},
    id::PartIndex,
    limits::CHUNK_HASH_BYTES,
    receive::WholePart,
};

use super::{
    super::{Turn, load::check_whole, out_of_order},
    IMAGE_PART, Image,
};
use crate::{
    fail_point::{IMAGE_NOTED, IMAGE_SYNCED, hit},
    image::{HEADER_BYTES, check_chunk, page_bytes},
};

/// Appends chunks to the staging file.
pub struct PagesLoad<'a> {
    turn: Turn<'a>,
    /// Known with the first page.
    page_bytes: Option<u32>,
    written_bytes: u64,
    ended: bool,
}

impl<'a> PagesLoad<'a> {
    /// Begins behind what is durable. What lies there beyond it was never told of, and is written
    /// again.
    pub fn begin(mut turn: Turn<'a>) -> Outcome<Self> {
        let staging = &turn.shared.staging;
        let image = turn.image.as_mut().ok_or_else(out_of_order)?;
        let chunks = image.ledger.last().map_or(0, |last| last.chunks.0 as usize);
        image.hashes.truncate(chunks * CHUNK_HASH_BYTES);
        image.file.set_len(image.durable_bytes).map_err(|error| staging.refused("written", &error))?;
        let written_bytes = image.durable_bytes;
        let page_bytes = match written_bytes {
            0 => None,
            _ => {
                let mut header = [0; HEADER_BYTES];
                image.file.read_exact_at(&mut header, 0).map_err(|error| staging.refused("read", &error))?;
                Some(page_bytes(&header)?)
            }
        };
        Ok(Self { turn, page_bytes, written_bytes, ended: false })
    }

    fn image(&mut self) -> Outcome<&mut Image> {
        self.turn.image.as_mut().ok_or_else(out_of_order)
    }

    fn append(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.turn.shared.check_stop()?;
        let plain = chunk.plain();
        let page_bytes = match self.page_bytes {
            Some(page_bytes) => page_bytes,
            None => *self.page_bytes.insert(page_bytes(plain)?),
        };
        check_chunk(plain.len(), chunk.is_last(), page_bytes)?;
        let (staging, at) = (&self.turn.shared.staging, self.written_bytes);
        let image = self.turn.image.as_mut().ok_or_else(out_of_order)?;
        image.file.write_all_at(plain, at).map_err(|error| staging.refused("written", &error))?;
        image.hashes.extend_from_slice(chunk.hash());
        self.written_bytes += plain.len() as u64;
        self.ended = chunk.is_last();
        Ok(())
    }

    fn make_durable(&mut self, so_far: &WholePart, is_whole: bool) -> Outcome {
        let staging = &self.turn.shared.staging;
        staging.check(self.turn.shared.identity)?;
        let image = self.turn.image.as_mut().ok_or_else(out_of_order)?;
        image.file.sync_all().map_err(|error| staging.refused("synced", &error))?;
        hit(IMAGE_SYNCED);
        let noted_chunks = image.ledger.last().map_or(0, |last| last.chunks.0 as usize);
        let noted = match is_whole {
            true => image.ledger.note_whole(so_far),
            false => image.ledger.note(so_far, &image.hashes[noted_chunks * CHUNK_HASH_BYTES..]),
        };
        noted.map_err(|error| staging.refused("noted as durable", &error))?;
        hit(IMAGE_NOTED);
        image.durable_bytes = so_far.plain_bytes;
        Ok(())
    }
}

impl PartSink for PagesLoad<'_> {
    fn begun(&self, part: PartIndex, digests: &Digests) -> PartRoot {
        match &self.turn.image {
            Some(image) => digests.part_root_of(part, &image.hashes, image.durable_bytes),
            None => digests.part_root(part),
        }
    }

    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.append(chunk).map_err(|failure| Failure { chunk: Some(chunk.index()), ..failure.at_part(IMAGE_PART) })
    }

    fn edge(&mut self, so_far: &PartRoot) -> Outcome<bool> {
        let durable_bytes = self.image()?.durable_bytes;
        if so_far.plain_bytes() - durable_bytes < self.turn.shared.edge_bytes {
            return Ok(false);
        }
        let (chunks, plain_bytes, root) = (so_far.chunks(), so_far.plain_bytes(), so_far.root());
        self.make_durable(&WholePart { part: IMAGE_PART, chunks, plain_bytes, root }, false)?;
        Ok(true)
    }

    fn finish(mut self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let chunks = self.image()?.hashes.len() / CHUNK_HASH_BYTES;
        check_whole(whole, IMAGE_PART, chunks as u64, self.ended)?;
        self.turn.shared.check_stop()?;
        self.make_durable(whole, true)?;
        self.image()?.whole = Some(*whole);
        self.turn.note_committed(&[IMAGE_PART]);
        Ok(self.turn.take_finished())
    }
}
