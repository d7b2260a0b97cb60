#![no_main]
//! RECEIVER.pub as a person pastes it, and, as the armour's checksum keeps random text out, what
//! the armour would hold.

use libfuzzer_sys::fuzz_target;
use sealift_agent::receiver_key::{RECEIVER_KEY_TEXT_BYTES_MAX, from_text, to_text};
use sealift_protocol::{archive::ReceiverKey, codec};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = from_text(text);
    }
    let bytes_max = RECEIVER_KEY_TEXT_BYTES_MAX as usize;
    let Ok(key) = codec::decode::<ReceiverKey>(bytes, bytes_max, "receiver key") else { return };
    if let Ok(read) = from_text(&to_text(&key)) {
        assert_eq!(read, key);
    }
});
