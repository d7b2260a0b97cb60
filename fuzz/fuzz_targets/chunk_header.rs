#![no_main]
//! The header of a sealed chunk: read, it is written the same, and its lengths are safe to
//! allocate.

use libfuzzer_sys::fuzz_target;
use sealift_protocol::{frame::ChunkHeader, limits::FRAME_BYTES_MAX};

fuzz_target!(|bytes: &[u8]| {
    let Ok(bytes) = bytes.try_into() else { return };
    let Ok(header) = ChunkHeader::from_bytes(bytes) else { return };
    assert_eq!(header.to_bytes(), *bytes);
    assert!(header.frame_bytes() <= FRAME_BYTES_MAX);
});
