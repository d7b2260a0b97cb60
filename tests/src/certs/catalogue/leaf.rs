//! Leaves with wrong times, uses or keys.

use super::{
    super::blueprint::{
        ANY_PURPOSE, CODE_SIGNING, DIGITAL_SIGNATURE, EXTENDED_KEY_USAGE, Extension, KEY_CERT_SIGN, KEY_ENCIPHERMENT,
        KEY_USAGE, OCSP_SIGNING, TIME_STAMPING, basic_constraints, key_usage, purposes,
    },
    super::{
        authority::{DAY, now},
        key::Kind,
    },
    Bad,
};

pub const CASES: &[Bad] = &[
    // Times.
    Bad::leaf("I2", "leaf expired a day ago", |mut leaf, _, _| {
        (leaf.not_before, leaf.not_after) = (now() - 2 * DAY, now() - DAY);
        leaf
    }),
    Bad::leaf("I2", "leaf expired five minutes ago", |mut leaf, _, _| {
        (leaf.not_before, leaf.not_after) = (now() - DAY, now() - 300);
        leaf
    }),
    Bad::leaf("I2", "leaf of 1970", |mut leaf, _, _| {
        (leaf.not_before, leaf.not_after) = (0, DAY);
        leaf
    }),
    Bad::leaf("I2", "leaf not valid before tomorrow", |mut leaf, _, _| {
        (leaf.not_before, leaf.not_after) = (now() + DAY, now() + 2 * DAY);
        leaf
    }),
    Bad::leaf("I2", "leaf not valid for another five minutes", |mut leaf, _, _| {
        leaf.not_before = now() + 300;
        leaf
    }),
    Bad::leaf("I2", "leaf that ends before it begins", |mut leaf, _, _| {
        (leaf.not_before, leaf.not_after) = (now() + 60, now() - 60);
        leaf
    }),
    // A leaf that may do what only an authority may, or may not sign a handshake.
    Bad::leaf("I4", "leaf that is an authority", |leaf, _, _| leaf.with(basic_constraints(true, None))),
    Bad::leaf("I4", "leaf that is an authority of path length 0", |leaf, _, _| {
        leaf.with(basic_constraints(true, Some(0)))
    }),
    Bad::leaf("I4", "leaf that may sign certificates", |leaf, _, _| {
        leaf.with(key_usage(DIGITAL_SIGNATURE | KEY_CERT_SIGN))
    }),
    Bad::leaf("I4", "leaf that may only encipher keys", |leaf, _, _| leaf.with(key_usage(KEY_ENCIPHERMENT))),
    Bad::leaf("I4", "leaf without key usage", |leaf, _, _| leaf.without(KEY_USAGE)),
    // Purposes.
    Bad::leaf("I5", "purpose of the other role", |leaf, _, role| leaf.with(purposes(&[role.other().purpose()]))),
    Bad::leaf("I5", "purposes of both roles", |leaf, _, role| {
        leaf.with(purposes(&[role.purpose(), role.other().purpose()]))
    }),
    Bad::leaf("I5", "no purpose", |leaf, _, _| leaf.without(EXTENDED_KEY_USAGE)),
    Bad::leaf("I5", "an empty list of purposes", |leaf, _, _| leaf.with(purposes(&[]))),
    Bad::leaf("I5", "any purpose", |leaf, _, _| leaf.with(purposes(&[ANY_PURPOSE]))),
    Bad::leaf("I5", "right purpose and any purpose", |leaf, _, role| {
        leaf.with(purposes(&[role.purpose(), ANY_PURPOSE]))
    }),
    Bad::leaf("I5", "code signing only", |leaf, _, _| leaf.with(purposes(&[CODE_SIGNING]))),
    Bad::leaf("I5", "right purpose and code signing", |leaf, _, role| {
        leaf.with(purposes(&[role.purpose(), CODE_SIGNING]))
    }),
    Bad::leaf("I5", "right purpose and time stamping", |leaf, _, role| {
        leaf.with(purposes(&[role.purpose(), TIME_STAMPING]))
    }),
    Bad::leaf("I5", "right purpose and OCSP signing", |leaf, _, role| {
        leaf.with(purposes(&[role.purpose(), OCSP_SIGNING]))
    }),
    // Keys and signatures: leaves have Ed25519, chains are signed with Ed25519 or ECDSA P-256 or
    // P-384.
    Bad::leaf_key("leaf key RSA-1024", Kind::Rsa1024Sha256),
    Bad::leaf_key("leaf key RSA-2048", Kind::Rsa2048Sha256),
    Bad::leaf_key("leaf key P-192", Kind::P192),
    Bad::leaf_key("leaf key P-256", Kind::P256),
    Bad::leaf_key("leaf key P-384", Kind::P384),
    Bad::leaf_key("leaf key P-521", Kind::P521),
    Bad::leaf_key("leaf key Ed448", Kind::Ed448),
    Bad::authority_key("signed by RSA-1024", Kind::Rsa1024Sha256),
    Bad::authority_key("signed by RSA-2048", Kind::Rsa2048Sha256),
    Bad::authority_key("signed by RSA with SHA-1", Kind::Rsa2048Sha1),
    Bad::authority_key("signed by ECDSA with SHA-1", Kind::P256Sha1),
    Bad::authority_key("signed by P-192", Kind::P192),
    Bad::authority_key("signed by P-521", Kind::P521),
    Bad::authority_key("signed by Ed448", Kind::Ed448),
    Bad::leaf("I8", "one algorithm inside and another outside", |mut leaf, _, _| {
        leaf.claimed_algorithm = Some(Kind::P384.signature_algorithm());
        leaf
    }),
    // Forms that no authority issues.
    Bad::leaf("I13", "version 1", |mut leaf, _, _| {
        leaf.version = 0;
        leaf.extensions.clear();
        leaf
    }),
    Bad::leaf("I13", "an unknown critical extension", |leaf, _, _| {
        leaf.with(Extension { id: &[1, 3, 6, 1, 4, 1, 99_999, 1], critical: true, value: vec![5, 0] })
    }),
    Bad::leaf("I13", "key usage twice", |leaf, _, _| leaf.with_another(key_usage(DIGITAL_SIGNATURE))),
    Bad::leaf("I13", "purposes twice", |leaf, _, role| leaf.with_another(purposes(&[role.purpose()]))),
    Bad::leaf("I13", "a megabyte of an extension", |leaf, _, _| {
        leaf.with(Extension { id: &[1, 3, 6, 1, 4, 1, 99_999, 2], critical: false, value: vec![0; 1 << 20] })
    }),
];
