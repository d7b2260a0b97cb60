#![no_main]
//! A control message: whatever is read encodes to the bytes it was read from, and is checked
//! without a panic.

use libfuzzer_sys::fuzz_target;
use sealift_protocol::{frame::control_length, message::Message};

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::from_bytes(bytes) else { return };
    let frame = message.to_frame().expect("what was short enough to read is short enough to send");
    let (prefix, body) = frame.split_first_chunk().expect("a frame starts with its length");
    assert_eq!(control_length(*prefix), Ok(body.len()));
    assert_eq!(body, bytes);
    match message {
        Message::Offer(offer) => {
            let _ = offer.plan.check();
            offer.plan.hash();
            let _ = offer.grant.verify(&[]);
        }
        Message::Receipt(receipt) => {
            let _ = receipt.verify();
        }
        _ => {}
    }
});
