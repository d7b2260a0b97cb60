//! Fingerprints of public keys, for two people to compare out of band.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use minicbor::{Decode, Encode};

use crate::sign::PublicKey;

const BYTES: usize = 32;

/// Hexadecimal digits in a group, as people read them out.
const GROUP_DIGITS: usize = 4;

/// The SHA-256 hash of a key's SubjectPublicKeyInfo (RFC 5280, 4.1.2.7): what `openssl pkey -pubin
/// -outform DER | sha256sum` prints. Written as sixteen groups of four hexadecimal digits with `-`
/// between them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Fingerprint(#[cbor(with = "minicbor::bytes")] pub [u8; BYTES]);

impl Fingerprint {
    /// The fingerprint of an Ed25519 key.
    pub fn of(key: &PublicKey) -> Self {
        let hash = digest(&SHA256, &key.to_spki());
        Self(hash.as_ref().try_into().expect("a SHA-256 hash has 32 bytes"))
    }

    /// Parses what `Display` writes, in either case, with or without separators and the prefix
    /// `SHA256:`. `None` unless it is exactly 64 digits.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bare = text.strip_prefix("SHA256:").or_else(|| text.strip_prefix("sha256:")).unwrap_or(text);
        let digits: Vec<u8> = bare.bytes().filter(|byte| !b"- :".contains(byte)).collect();
        let mut out = [0; BYTES];
        if digits.len() != 2 * BYTES {
            return None;
        }
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| (digit as char).to_digit(16);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(Self(out))
    }

    /// The 64 lower-case digits without separators.
    pub fn digits(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.digits();
        let groups = digits.as_bytes().chunks(GROUP_DIGITS).map(|group| String::from_utf8_lossy(group));
        f.write_str(&groups.collect::<Vec<_>>().join("-"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_what_it_writes() {
        let fingerprint = Fingerprint::of(&PublicKey([7; 32]));
        let text = fingerprint.to_string();
        assert_eq!(text.len(), 79);
        let spoken = text.to_uppercase().replace('-', " ");
        for text in [&text, &fingerprint.digits(), &spoken, &format!("SHA256:{text}")] {
            assert_eq!(Fingerprint::parse(text), Some(fingerprint));
        }
        for bad in ["", "x", &text[..78], &format!("{text}0"), &text.replace(&text[..1], "g")] {
            assert_eq!(Fingerprint::parse(bad), None, "{bad}");
        }
        assert_ne!(fingerprint, Fingerprint::of(&PublicKey([8; 32])));
    }

    /// Known answer: `openssl pkey -pubin -inform DER -outform DER | sha256sum` of the key of RFC
    /// 8032, 7.1, TEST 1.
    #[test]
    fn a_fingerprint_is_that_of_the_subject_public_key_info() {
        let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&key[2 * at..][..2], 16).unwrap()).collect();
        let fingerprint = Fingerprint::of(&PublicKey(bytes.try_into().unwrap()));
        assert_eq!(fingerprint.digits(), "06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9");
    }
}
