#![no_main]
//! A certificate as a peer shows it: verified without a panic, good for one role at most, and only
//! as it stands. What it is found to say, it says.

use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use sealift_agent::{
    certificate::{SpiffeId, verify_intermediate, verify_leaf},
    identity::certified_key,
    role::Role,
};

fuzz_target!(|bytes: &[u8]| {
    let certificate = CertificateDer::from(bytes);
    let verified = [Role::Sender, Role::Receiver].map(|role| verify_leaf(&certificate, role).ok());
    assert!(verified.iter().flatten().count() < 2, "good for both roles");
    for (peer, role) in verified.into_iter().zip([Role::Sender, Role::Receiver]) {
        let Some(peer) = peer else { continue };
        assert_eq!(SpiffeId::parse(peer.id.as_str(), role), Some(peer.id.clone()));
        let holds = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        assert!(holds(peer.id.as_str().as_bytes()) && holds(&peer.key.0));
        let longer = CertificateDer::from([bytes, &[0]].concat());
        assert!(verify_leaf(&longer, role).is_err(), "bytes after the certificate");
    }
    let _ = verify_intermediate(&certificate);
    if let Some(key) = certified_key(&certificate) {
        assert!(bytes.windows(key.0.len()).any(|window| window == key.0));
    }
});
