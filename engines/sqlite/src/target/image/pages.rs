//! Writing the pages as they arrive.

use std::os::unix::fs::FileExt;

use sealift_engine_api::{PartSink, WrittenChunks, out_of_order};
use sealift_protocol::{
    chunk::VerifiedChunk,
    digest::PartRoot,
    failure::{Failure, Outcome},
    id::PartIndex,
    receive::WholePart,
};

use super::{super::Turn, IMAGE_PART, Image};
use crate::{
    fail_point::{IMAGE_NOTED, IMAGE_SYNCED, hit},
    image::{HEADER_BYTES, check_chunk, page_bytes},
};

/// Appends chunks to the staging file.
pub struct PagesLoad<'a> {
    turn: Turn<'a>,
    /// Known with the first page.
    page_bytes: Option<u32>,
    /// Over the chunks that are written.
    root: PartRoot,
    /// Of those that are not noted.
    hashes: Vec<u8>,
    written: WrittenChunks,
}

impl<'a> PagesLoad<'a> {
    /// Begins behind what is durable. What lies there beyond it was never told of, and is written
    /// again.
    pub fn begin(mut turn: Turn<'a>) -> Outcome<Self> {
        let staging = &turn.shared.staging;
        let image = turn.image.as_mut().ok_or_else(out_of_order)?;
        image.file.set_len(image.durable_bytes).map_err(|error| staging.refused("written", &error))?;
        let root = turn.digests.part_root_of(IMAGE_PART, &image.hashes, image.durable_bytes);
        let page_bytes = match image.durable_bytes {
            0 => None,
            _ => {
                let mut header = [0; HEADER_BYTES];
                image.file.read_exact_at(&mut header, 0).map_err(|error| staging.refused("read", &error))?;
                Some(page_bytes(&header)?)
            }
        };
        let written = WrittenChunks::prefix(root.chunks().0);
        Ok(Self { turn, page_bytes, root, hashes: Vec::new(), written })
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
        let (staging, at) = (&self.turn.shared.staging, self.root.plain_bytes());
        let image = self.turn.image.as_mut().ok_or_else(out_of_order)?;
        image.file.write_all_at(plain, at).map_err(|error| staging.refused("written", &error))?;
        self.root.add(chunk.hash(), plain.len() as u64);
        self.hashes.extend_from_slice(chunk.hash());
        self.written.add(chunk);
        Ok(())
    }

    fn make_durable(&mut self, so_far: &WholePart, is_whole: bool) -> Outcome {
        let staging = &self.turn.shared.staging;
        staging.check(self.turn.shared.identity)?;
        let image = self.turn.image.as_mut().ok_or_else(out_of_order)?;
        image.file.sync_all().map_err(|error| staging.refused("synced", &error))?;
        hit(IMAGE_SYNCED);
        let noted = match is_whole {
            true => image.ledger.note_whole(so_far),
            false => image.ledger.note(so_far, &self.hashes),
        };
        noted.map_err(|error| staging.refused("noted as durable", &error))?;
        hit(IMAGE_NOTED);
        image.hashes.append(&mut self.hashes);
        image.durable_bytes = so_far.plain_bytes;
        Ok(())
    }
}

impl PartSink for PagesLoad<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.append(chunk).map_err(|failure| Failure { chunk: Some(chunk.index()), ..failure.at_part(IMAGE_PART) })
    }

    fn sync(&mut self) -> Outcome {
        self.make_durable(&WholePart::of(IMAGE_PART, &self.root), false)
    }

    fn finish(mut self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        self.written.check_whole(IMAGE_PART, whole)?;
        self.turn.shared.check_stop()?;
        self.make_durable(whole, true)?;
        self.image()?.whole = Some(*whole);
        self.turn.note_committed(&[IMAGE_PART]);
        Ok(self.turn.take_finished())
    }
}
