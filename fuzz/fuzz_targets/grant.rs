#![no_main]
//! A signed grant: read, it is written the same; no fuzzed grant is trusted.

use libfuzzer_sys::fuzz_target;
use sealift_protocol::{grant::SignedGrant, sign::PublicKey};

/// The public key of RFC 8032, 7.1, test 1: a valid point, which no fuzzed signature fits.
const SOMEBODY: PublicKey = PublicKey([
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1, 0x72,
    0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
]);

fuzz_target!(|bytes: &[u8]| {
    let Ok(grant) = SignedGrant::from_bytes(bytes) else { return };
    assert_eq!(grant.to_bytes(), bytes);
    assert!(grant.verify(&[]).is_err());
    assert!(grant.verify(&[SOMEBODY]).is_err());
    for begun in [false, true] {
        let end = grant.grant.end_seconds(begun);
        assert!(grant.grant.check_time(end, begun).is_err(), "a grant is over at its end");
    }
});
