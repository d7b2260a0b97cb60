//! Fingerprints of public keys, for two people to compare by voice.

use std::fmt;

use crate::{archive::ReceiverKey, codec, sign::PublicKey};

const CONTEXT_SENDER: &str = "sealift/1 2026-11 sender key fingerprint";
const CONTEXT_RECEIVER: &str = "sealift/1 2026-11 receiver key fingerprint";

/// 160 bits: nobody finds a second key with the same, and two people read it to each other in half a minute.
const BYTES: usize = 20;

/// Hexadecimal digits that are read in one breath.
const GROUP_DIGITS: usize = 4;

/// The first 20 bytes of BLAKE3 in key-derivation mode over a public key. Written as ten groups of four hexadecimal
/// digits with `-` between them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; BYTES]);

impl Fingerprint {
    /// Of the key that signed an archive.
    pub fn of_sender(key: &PublicKey) -> Self {
        Self::of(CONTEXT_SENDER, &key.0)
    }

    /// Of both keys of a receiver.
    pub fn of_receiver(key: &ReceiverKey) -> Self {
        Self::of(CONTEXT_RECEIVER, &codec::encode(key))
    }

    fn of(context: &str, bytes: &[u8]) -> Self {
        let hash = blake3::derive_key(context, bytes);
        Self(hash[..BYTES].try_into().expect("a BLAKE3 hash has 32 bytes"))
    }

    /// Reads what `Display` writes, in capitals too, and with or without something between the groups.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !b"- :".contains(byte)).collect();
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

    /// The digits alone: part of an identity's name.
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
        let fingerprint = Fingerprint::of_sender(&PublicKey([7; 32]));
        let text = fingerprint.to_string();
        assert_eq!(text.len(), 49);
        let spoken = text.to_uppercase().replace('-', " ");
        for text in [&text, &fingerprint.digits(), &spoken] {
            assert_eq!(Fingerprint::parse(text), Some(fingerprint));
        }
        for bad in ["", "x", &text[..48], &format!("{text}0"), &text.replace(&text[..1], "g")] {
            assert_eq!(Fingerprint::parse(bad), None, "{bad}");
        }
        assert_ne!(fingerprint, Fingerprint::of_sender(&PublicKey([8; 32])));
    }
}
