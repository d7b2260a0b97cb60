#![no_main]
//! The length in front of a control message: never more than may be allocated.

use libfuzzer_sys::fuzz_target;
use sealift_protocol::{frame::control_length, limits::CONTROL_BYTES_MAX};

fuzz_target!(|prefix: [u8; 4]| {
    if let Ok(length) = control_length(prefix) {
        assert!((1..=CONTROL_BYTES_MAX).contains(&length));
    }
});
