//! A certificate as a plain description, every field of which can be wrong.

use super::{
    der::{bits, boolean, explicit, integer, octets, oid, sequence, time, tlv, utf8},
    key::Key,
};

pub const SAN: &[u64] = &[2, 5, 29, 17];
pub const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
pub const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
pub const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
pub const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];

/// Purposes of a key (RFC 5280, 4.2.1.12).
pub const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
pub const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];
pub const CODE_SIGNING: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 3];
pub const TIME_STAMPING: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 8];
pub const OCSP_SIGNING: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 9];
pub const ANY_PURPOSE: &[u64] = &[2, 5, 29, 37, 0];

/// Bits of KeyUsage, the first being the highest of the first byte.
pub const DIGITAL_SIGNATURE: u8 = 0x80;
pub const KEY_ENCIPHERMENT: u8 = 0x20;
pub const KEY_CERT_SIGN: u8 = 0x04;
pub const CRL_SIGN: u8 = 0x02;

#[derive(Clone, Debug)]
pub struct Extension {
    pub id: &'static [u64],
    pub critical: bool,
    pub value: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Blueprint {
    /// 2 means version 3.
    pub version: u8,
    pub serial: Vec<u8>,
    pub issuer: String,
    pub subject: String,
    /// Seconds since the Unix epoch.
    pub not_before: i64,
    pub not_after: i64,
    /// SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    pub extensions: Vec<Extension>,
    /// Says another algorithm than the one it is signed with.
    pub claimed_algorithm: Option<Vec<u8>>,
}

impl Blueprint {
    /// Replaces the extension of this kind, or adds it.
    pub fn with(mut self, extension: Extension) -> Self {
        self.extensions.retain(|other| other.id != extension.id);
        self.extensions.push(extension);
        self
    }

    pub fn without(mut self, id: &[u64]) -> Self {
        self.extensions.retain(|extension| extension.id != id);
        self
    }

    /// Adds an extension beside one of the same kind.
    pub fn with_another(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// The certificate in DER, signed with `issuer`.
    pub fn sign(&self, issuer: &Key) -> Vec<u8> {
        let algorithm = issuer.kind.signature_algorithm();
        let claimed = self.claimed_algorithm.clone().unwrap_or_else(|| algorithm.clone());
        let to_be_signed = self.to_be_signed(&claimed);
        let signature = issuer.sign(&to_be_signed);
        sequence(&[to_be_signed, algorithm, bits(&signature, 0)])
    }

    fn to_be_signed(&self, algorithm: &[u8]) -> Vec<u8> {
        let mut parts = Vec::new();
        if self.version > 0 {
            parts.push(explicit(0, &integer(&[self.version])));
        }
        parts.push(integer(&self.serial));
        parts.push(algorithm.to_vec());
        parts.push(name(&self.issuer));
        parts.push(sequence(&[time(self.not_before), time(self.not_after)]));
        parts.push(name(&self.subject));
        parts.push(self.public_key.clone());
        if !self.extensions.is_empty() {
            let extensions: Vec<_> = self.extensions.iter().map(encode_extension).collect();
            parts.push(explicit(3, &sequence(&extensions)));
        }
        sequence(&parts)
    }
}

fn encode_extension(extension: &Extension) -> Vec<u8> {
    let critical = if extension.critical { boolean(true) } else { vec![] };
    sequence(&[oid(extension.id), critical, octets(&extension.value)])
}

/// A distinguished name with nothing but a common name; empty for an empty one.
fn name(common_name: &str) -> Vec<u8> {
    if common_name.is_empty() {
        return sequence::<&[u8]>(&[]);
    }
    sequence(&[tlv(0x31, &sequence(&[oid(&[2, 5, 4, 3]), utf8(common_name)]))])
}

/// One name of a SubjectAltName.
#[derive(Clone, Debug)]
pub enum Alternative {
    Uri(Vec<u8>),
    Dns(&'static str),
    Email(&'static str),
    Ip([u8; 4]),
}

impl Alternative {
    pub fn uri(text: &str) -> Self {
        Alternative::Uri(text.as_bytes().to_vec())
    }

    /// GeneralName (RFC 5280, 4.2.1.6).
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Alternative::Email(text) => tlv(0x81, text.as_bytes()),
            Alternative::Dns(text) => tlv(0x82, text.as_bytes()),
            Alternative::Uri(text) => tlv(0x86, text),
            Alternative::Ip(address) => tlv(0x87, address),
        }
    }
}

pub fn alternatives(names: &[Alternative]) -> Extension {
    let names: Vec<_> = names.iter().map(Alternative::encode).collect();
    Extension { id: SAN, critical: false, value: sequence(&names) }
}

pub fn purposes(ids: &[&[u64]]) -> Extension {
    let ids: Vec<_> = ids.iter().map(|id| oid(id)).collect();
    Extension { id: EXTENDED_KEY_USAGE, critical: false, value: sequence(&ids) }
}

pub fn key_usage(usage: u8) -> Extension {
    Extension { id: KEY_USAGE, critical: true, value: bits(&[usage], usage.trailing_zeros() as u8 % 8) }
}

pub fn basic_constraints(authority: bool, path_length: Option<u8>) -> Extension {
    let mut parts = Vec::new();
    if authority {
        parts.push(boolean(true));
    }
    if let Some(length) = path_length {
        parts.push(integer(&[length]));
    }
    Extension { id: BASIC_CONSTRAINTS, critical: true, value: sequence(&parts) }
}

/// NameConstraints (RFC 5280, 4.2.1.10).
pub fn name_constraints(permitted: &[Alternative], excluded: &[Alternative]) -> Extension {
    let subtrees =
        |names: &[Alternative]| -> Vec<u8> { names.iter().flat_map(|name| sequence(&[name.encode()])).collect() };
    let mut parts = Vec::new();
    if !permitted.is_empty() {
        parts.push(explicit(0, &subtrees(permitted)));
    }
    if !excluded.is_empty() {
        parts.push(explicit(1, &subtrees(excluded)));
    }
    Extension { id: NAME_CONSTRAINTS, critical: true, value: sequence(&parts) }
}
