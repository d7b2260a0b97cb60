#![no_main]
//! A plan: read, it is written the same; one that passes its check keeps the rules; estimates do
//! not change its hash.

use libfuzzer_sys::fuzz_target;
use sealift_protocol::{
    codec,
    limits::{CONTROL_BYTES_MAX, PARTS_MAX},
    manifest::Plan,
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut plan) = codec::decode::<Plan>(bytes, CONTROL_BYTES_MAX, "plan") else { return };
    assert_eq!(codec::encode(&plan), bytes);
    let hash = plan.hash();
    if plan.check().is_ok() {
        assert!((1..=PARTS_MAX).contains(&plan.parts.len()));
        assert!(plan.parts.is_sorted_by_key(|part| part.section));
    }
    for part in &mut plan.parts {
        (part.rows_estimate, part.bytes_estimate) = (Some(1), Some(2));
    }
    assert_eq!(plan.hash(), hash);
});
