#![no_main]
//! A receipt, as an auditor may be handed one: read, it is written the same, and it is verified
//! without a panic.

use libfuzzer_sys::fuzz_target;
use sealift_protocol::manifest::SignedReceipt;

fuzz_target!(|bytes: &[u8]| {
    let Ok(receipt) = SignedReceipt::from_bytes(bytes) else { return };
    assert_eq!(receipt.to_bytes(), bytes);
    let _ = receipt.receipt.check();
    let _ = receipt.verify();
});
