#![no_main]
//! A signed manifest: read, it is written the same, and its signature is verified without a panic.

use libfuzzer_sys::fuzz_target;
use sealift_protocol::{codec, limits::CONTROL_BYTES_MAX, manifest::SignedManifest, sign::PublicKey};

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = codec::decode::<SignedManifest>(bytes, CONTROL_BYTES_MAX, "manifest") else { return };
    assert_eq!(codec::encode(&manifest), bytes);
    let _ = manifest.verify(&PublicKey([0; 32]));
});
