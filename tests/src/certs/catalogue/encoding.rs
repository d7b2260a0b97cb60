//! Bytes that are no certificate, or not in the one form that DER allows.

use super::{
    super::{
        blueprint::Extension,
        der::{sequence, tlv},
    },
    Bad,
};

pub const CASES: &[Bad] = &[
    Bad::bytes("no bytes", |_| vec![]),
    Bad::bytes("a byte", |_| vec![0x30]),
    Bad::bytes("text", |_| b"-----BEGIN CERTIFICATE-----\n".to_vec()),
    Bad::bytes("cut in half", |mut leaf| {
        leaf.truncate(leaf.len() / 2);
        leaf
    }),
    Bad::bytes("a byte short", |mut leaf| {
        leaf.pop();
        leaf
    }),
    Bad::bytes("a byte after the end", |mut leaf| {
        leaf.push(0);
        leaf
    }),
    Bad::bytes("a bit of the signature flipped", |leaf| flipped(leaf, |length| length - 1)),
    Bad::bytes("a bit of the name flipped", |leaf| {
        let at = leaf.windows(6).position(|window| window == b"spiffe").unwrap();
        flipped(leaf, |_| at)
    }),
    Bad::bytes("no signature", |leaf| {
        let signature_at = leaf.len() - 64; // Ed25519, or near enough the end of an ECDSA signature
        leaf[..signature_at].to_vec()
    }),
    Bad::bytes("indefinite length", |leaf| {
        let header = if leaf[1] & 0x80 == 0 { 2 } else { 2 + usize::from(leaf[1] & 0x7f) };
        [&[0x30, 0x80][..], &leaf[header..], &[0, 0]].concat()
    }),
    Bad::bytes("a length of four gigabytes", |leaf| [&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff][..], &leaf[4..]].concat()),
    Bad::bytes("a megabyte of zeros", |_| tlv(0x30, &vec![0; 1 << 20])),
    Bad::leaf("I13", "three thousand sequences in each other", |leaf, _, _| {
        let nested = (0..3000).fold(vec![5, 0], |inner, _| sequence(&[inner]));
        leaf.with(Extension { id: &[1, 3, 6, 1, 4, 1, 99_999, 3], critical: false, value: nested }).with(Extension {
            id: super::super::blueprint::SAN,
            critical: false,
            value: deep_name(),
        })
    }),
];

fn flipped(mut bytes: Vec<u8>, at: impl Fn(usize) -> usize) -> Vec<u8> {
    let at = at(bytes.len());
    bytes[at] ^= 1;
    bytes
}

/// A directory name (RFC 5280, `[4]`) of sequences without an end.
fn deep_name() -> Vec<u8> {
    sequence(&[tlv(0xa4, &(0..3000).fold(vec![5, 0], |inner, _| sequence(&[inner])))])
}
