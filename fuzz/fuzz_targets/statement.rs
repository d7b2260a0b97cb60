#![no_main]
//! A statement of a carried archive: whatever is read is written the same, and is checked without a
//! panic.

use libfuzzer_sys::fuzz_target;
use sealift_protocol::{archive::Statement, codec};

fuzz_target!(|bytes: &[u8]| {
    let Ok(statement) = Statement::from_bytes(bytes) else { return };
    assert_eq!(codec::encode(&statement), bytes);
    if let Statement::Offer(offer) = statement {
        let _ = offer.plan.check();
        offer.plan.hash();
        let _ = offer.grant.verify(&[]);
    }
});
