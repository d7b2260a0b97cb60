//! Identifiers, indices and counts, each a type of its own, so that none is mistaken for another.

use std::fmt;

use minicbor::{Decode, Encode};

/// The identifier of a transfer: 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct TransferId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

impl TransferId {
    /// Parses the 32 hexadecimal digits that `Display` writes.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 32 {
            return None;
        }
        let mut id = [0u8; 16];
        for (byte, pair) in id.iter_mut().zip(bytes.chunks_exact(2)) {
            let high = (pair[0] as char).to_digit(16)?;
            let low = (pair[1] as char).to_digit(16)?;
            *byte = (high << 4 | low) as u8;
        }
        Some(Self(id))
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Place of a part in the plan, from 0.
    PartIndex(u32)
);
number!(
    /// Place of a table in the plan, from 0.
    TableIndex(u32)
);
number!(
    /// Place of a chunk in its part, from 0.
    ChunkIndex(u64)
);
number!(
    /// The number of chunks of one part, from its first. It equals the index of the next chunk.
    ChunkCount(u64)
);
number!(
    /// The span of one set of data keys: one connection has one epoch, and no two of a transfer are
    /// the same.
    Epoch(u32)
);

impl ChunkCount {
    /// The index of the chunk after these.
    pub fn next_index(self) -> ChunkIndex {
        ChunkIndex(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfer_id_reads_what_it_writes() {
        let id = TransferId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255]);
        assert_eq!(TransferId::from_hex(&id.to_string()), Some(id));
        assert_eq!(TransferId::from_hex("zz"), None);
        assert_eq!(TransferId::from_hex(&"+1".repeat(16)), None);
    }
}
