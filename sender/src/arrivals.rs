//! What of a transfer has arrived, for a person or a program that watches it: progress counts what
//! the receiver has acknowledged. What was handed to the link may still be in a buffer of this
//! host, which for a small transfer is all of it.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

use sealift_protocol::{
    frame::ChunkHeader,
    id::{ChunkCount, ChunkIndex, PartIndex},
};

/// A chunk on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentChunk {
    pub part: PartIndex,
    pub index: ChunkIndex,
    pub plain_bytes: u64,
    pub frame_bytes: u64,
    /// That were read since the chunk before it was sent.
    pub rows: u64,
}

/// The chunks of all parts that this process has sent or has found at the receiver. No larger than
/// what is kept to be sent again.
#[derive(Default)]
pub struct Arrivals {
    parts: BTreeMap<PartIndex, PartArrivals>,
    /// Rows of the source that a chunk was counted with.
    rows: u64,
}

#[derive(Default)]
struct PartArrivals {
    /// That were sent at least once.
    sent: ChunkCount,
    /// That are counted: the receiver has acknowledged them, or had them before.
    arrived: ChunkCount,
    /// Sent and not acknowledged, the oldest first.
    on_the_way: VecDeque<SentChunk>,
}

impl Arrivals {
    /// A chunk is sent, when so many rows have been read of the source; whether for the first time.
    pub fn handle_sent(&mut self, header: &ChunkHeader, rows_read: u64) -> bool {
        let rows = self.rows_since(rows_read);
        let part = self.parts.entry(header.part).or_default();
        let is_first = header.index.0 >= part.sent.0;
        part.sent.0 = part.sent.0.max(header.index.0 + 1);
        part.on_the_way.push_back(SentChunk {
            part: header.part,
            index: header.index,
            plain_bytes: header.plain_bytes.into(),
            frame_bytes: header.frame_bytes() as u64,
            rows,
        });
        is_first
    }

    /// The receiver has verified so many chunks of a part. Returns those that count as arrived now.
    pub fn handle_verified(&mut self, part: PartIndex, verified: ChunkCount) -> Vec<SentChunk> {
        let Some(part) = self.parts.get_mut(&part) else { return Vec::new() };
        let acknowledged = part.on_the_way.partition_point(|chunk| chunk.index.0 < verified.0);
        let before = part.arrived;
        let arrived: Vec<_> = part.on_the_way.drain(..acknowledged).filter(|chunk| chunk.index.0 >= before.0).collect();
        if let Some(last) = arrived.last() {
            part.arrived = ChunkCount(last.index.0 + 1);
        }
        arrived
    }

    /// A chunk was read again, and is at the receiver. Returns how many rows were read with it, or
    /// `None` if it was counted before.
    pub fn handle_held(&mut self, part: PartIndex, index: ChunkIndex, rows_read: u64) -> Option<u64> {
        let part = self.parts.entry(part).or_default();
        if index.0 < part.arrived.0 {
            return None;
        }
        part.arrived.0 = index.0 + 1;
        Some(self.rows_since(rows_read))
    }

    /// What is on its way of this part is lost, and sent once more from what is read again.
    pub fn handle_repeat(&mut self, part: PartIndex) {
        let Some(part) = self.parts.get_mut(&part) else { return };
        let lost = mem::take(&mut part.on_the_way);
        self.rows -= lost.iter().map(|chunk| chunk.rows).sum::<u64>();
    }

    /// As [`Self::handle_repeat`], of every part.
    pub fn handle_repeat_all(&mut self) {
        let parts: Vec<_> = self.parts.keys().copied().collect();
        parts.into_iter().for_each(|part| self.handle_repeat(part));
    }

    /// Chunks of a part that are counted as arrived.
    pub fn arrived(&self, part: PartIndex) -> ChunkCount {
        self.parts.get(&part).map_or(ChunkCount(0), |part| part.arrived)
    }

    fn rows_since(&mut self, rows_read: u64) -> u64 {
        let rows = rows_read.saturating_sub(self.rows);
        self.rows += rows;
        rows
    }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::{
        chunk::Codec,
        id::{Epoch, TransferId},
        seal::Suite,
    };

    use super::*;

    const PART: PartIndex = PartIndex(3);

    fn header(index: u64) -> ChunkHeader {
        ChunkHeader {
            suite: Suite::Aes256Gcm,
            codec: Codec::Stored,
            last: false,
            transfer: TransferId([0; 16]),
            epoch: Epoch(1),
            part: PART,
            index: ChunkIndex(index),
            plain_bytes: 1000,
            packed_bytes: 1000,
            nonce: [0; 24],
        }
    }

    fn rows(arrived: &[SentChunk]) -> Vec<u64> {
        arrived.iter().map(|chunk| chunk.rows).collect()
    }

    /// Issue 9, C7.
    #[test]
    fn a_chunk_counts_once_and_when_it_is_acknowledged() {
        let mut arrivals = Arrivals::default();
        assert!(arrivals.handle_sent(&header(0), 5) && arrivals.handle_sent(&header(1), 7));
        assert_eq!(arrivals.arrived(PART), ChunkCount(0));
        assert_eq!(rows(&arrivals.handle_verified(PART, ChunkCount(1))), [5]);
        assert_eq!(rows(&arrivals.handle_verified(PART, ChunkCount(1))), [0; 0]);
        assert_eq!(rows(&arrivals.handle_verified(PART, ChunkCount(2))), [2]);
        assert_eq!(arrivals.arrived(PART), ChunkCount(2));
    }

    /// A part that is read again: its first chunk was counted, the second had arrived with an
    /// earlier process, the third was lost on its way, and its rows come again with it.
    #[test]
    fn a_part_that_is_read_again_counts_once() {
        let mut arrivals = Arrivals::default();
        for (index, rows_read) in [(0, 10), (1, 20), (2, 30)] {
            arrivals.handle_sent(&header(index), rows_read);
        }
        arrivals.handle_verified(PART, ChunkCount(1));
        arrivals.handle_repeat(PART);
        assert_eq!(arrivals.handle_held(PART, ChunkIndex(0), 30), None);
        assert_eq!(arrivals.handle_held(PART, ChunkIndex(1), 30), Some(20));
        assert!(!arrivals.handle_sent(&header(2), 33), "it is sent again");
        assert_eq!(rows(&arrivals.handle_verified(PART, ChunkCount(3))), [3]);
        // A receiver that was restored from a snapshot has less than it had acknowledged.
        arrivals.handle_repeat(PART);
        arrivals.handle_sent(&header(1), 33);
        assert_eq!(arrivals.handle_verified(PART, ChunkCount(2)), []);
    }
}
