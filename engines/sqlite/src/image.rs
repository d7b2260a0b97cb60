//! The exact form of a database: its pages, as one snapshot has them, in one opaque part.
//!
//! The part's bytes are the pages 1, 2, … in order, which is the file that a backup would make.
//! Every chunk but the last holds [`CHUNK_PLAIN_BYTES`], a multiple of every page size, so that the
//! hashes of the chunks can be computed again from the file alone.

use sealift_protocol::{
    close::Code,
    error::{Error, Result},
    limits::CHUNK_PLAIN_BYTES,
};

/// What the first page of every database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The header at the beginning of the first page.
pub const HEADER_BYTES: usize = 100;

/// The page size stands here, in two bytes; 65,536 as 1.
const PAGE_BYTES_AT: usize = 16;

const _: () = assert!(CHUNK_PLAIN_BYTES.is_multiple_of(65_536));

/// The page size that the first bytes of an image state.
pub fn page_bytes(first: &[u8]) -> Result<u32> {
    let refused = |check| Err(Error::new(Code::PlanRefused, check));
    if first.len() < HEADER_BYTES || !first.starts_with(MAGIC) {
        return refused("header of an image");
    }
    let page_bytes = match u16::from_be_bytes([first[PAGE_BYTES_AT], first[PAGE_BYTES_AT + 1]]) {
        1 => 65_536,
        other => u32::from(other),
    };
    if page_bytes.is_power_of_two() && page_bytes >= 512 { Ok(page_bytes) } else { refused("page size of an image") }
}

/// Whether a chunk of an image may have this many bytes.
pub fn check_chunk(plain_bytes: usize, last: bool, page_bytes: u32) -> Result<()> {
    let fits = match last {
        false => plain_bytes == CHUNK_PLAIN_BYTES,
        true => (1..=CHUNK_PLAIN_BYTES).contains(&plain_bytes) && plain_bytes.is_multiple_of(page_bytes as usize),
    };
    if fits { Ok(()) } else { Err(Error::new(Code::ProtocolViolation, "length of a chunk of an image")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(page_bytes: u16) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.extend(page_bytes.to_be_bytes());
        header.resize(HEADER_BYTES, 0);
        header
    }

    #[test]
    fn page_sizes_are_read_or_refused() {
        assert_eq!(page_bytes(&header(512)), Ok(512));
        assert_eq!(page_bytes(&header(32_768)), Ok(32_768));
        assert_eq!(page_bytes(&header(1)), Ok(65_536));
        for bad in [header(0), header(256), header(1000), header(512)[..99].to_vec(), vec![0; 4096]] {
            assert_eq!(page_bytes(&bad).map_err(|error| error.code), Err(Code::PlanRefused));
        }
    }

    #[test]
    fn all_chunks_but_the_last_are_full() {
        assert!(check_chunk(CHUNK_PLAIN_BYTES, false, 512).is_ok());
        assert!(check_chunk(CHUNK_PLAIN_BYTES, true, 65_536).is_ok());
        assert!(check_chunk(512, true, 512).is_ok());
        assert!(check_chunk(512, false, 512).is_err());
        assert!(check_chunk(2 * CHUNK_PLAIN_BYTES, false, 512).is_err());
        assert!(check_chunk(0, true, 512).is_err());
        assert!(check_chunk(512, true, 1024).is_err());
        assert!(check_chunk(CHUNK_PLAIN_BYTES + 512, true, 512).is_err());
    }
}
