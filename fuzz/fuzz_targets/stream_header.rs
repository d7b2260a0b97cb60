#![no_main]
//! The start of a part's stream: read, it is written the same.

use libfuzzer_sys::fuzz_target;
use sealift_protocol::frame::StreamHeader;

fuzz_target!(|bytes: &[u8]| {
    let Ok(bytes) = bytes.try_into() else { return };
    if let Ok(header) = StreamHeader::from_bytes(bytes) {
        assert_eq!(header.to_bytes(), *bytes);
    }
});
