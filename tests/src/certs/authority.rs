//! An authority for tests, and what an agent presents.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    blueprint::{
        Alternative, Blueprint, CLIENT_AUTH, CRL_SIGN, DIGITAL_SIGNATURE, KEY_CERT_SIGN, SERVER_AUTH, alternatives,
        basic_constraints, key_usage, purposes,
    },
    key::{Key, Kind},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Sender,
    Receiver,
}

impl Role {
    pub const BOTH: [Role; 2] = [Role::Sender, Role::Receiver];

    pub fn other(self) -> Self {
        match self {
            Role::Sender => Role::Receiver,
            Role::Receiver => Role::Sender,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Sender => "sender",
            Role::Receiver => "receiver",
        }
    }

    /// The one purpose that a certificate of this role has.
    pub fn purpose(self) -> &'static [u64] {
        match self {
            Role::Sender => CLIENT_AUTH,
            Role::Receiver => SERVER_AUTH,
        }
    }
}

/// What an agent shows in a handshake: its certificate first, then intermediates, and its private
/// key.
pub struct Presented {
    /// DER.
    pub chain: Vec<Vec<u8>>,
    /// PKCS #8; the key of the certificate, except where that is the defect.
    pub private_key: Vec<u8>,
    /// DER of the one authority that the peer trusts.
    pub trusted: Vec<u8>,
}

pub const DAY: i64 = 86_400;

pub struct Authority {
    /// The trust domain of the identities it gives.
    pub domain: String,
    pub key: Key,
    pub blueprint: Blueprint,
    /// DER: what the peer trusts.
    pub certificate: Vec<u8>,
}

impl Authority {
    pub fn new(domain: &str, kind: Kind) -> Self {
        let key = Key::generate(kind);
        let subject = format!("{domain} authority");
        let blueprint = issuing_blueprint(&subject, &subject, &key, Some(1));
        let certificate = blueprint.sign(&key);
        Self { domain: domain.into(), key, blueprint, certificate }
    }

    pub fn identity(&self, role: Role) -> String {
        format!("spiffe://{}/sealift/{}/test", self.domain, role.as_str())
    }

    /// A faultless certificate of this role for `key`, not yet signed.
    pub fn leaf(&self, role: Role, key: &Key) -> Blueprint {
        Blueprint {
            version: 2,
            serial: serial(&key.public),
            issuer: self.blueprint.subject.clone(),
            subject: "test".into(),
            not_before: now() - 60,
            not_after: now() + DAY,
            public_key: key.public.clone(),
            extensions: vec![],
            claimed_algorithm: None,
        }
        .with(alternatives(&[Alternative::uri(&self.identity(role))]))
        .with(purposes(&[role.purpose()]))
        .with(key_usage(DIGITAL_SIGNATURE))
        .with(basic_constraints(false, None))
    }

    /// An intermediate authority's certificate, not yet signed.
    pub fn intermediate(&self, subject: &str, key: &Key, path_length: Option<u8>) -> Blueprint {
        issuing_blueprint(subject, &self.blueprint.subject, key, path_length)
    }

    /// A faultless identity, to begin with.
    pub fn present(&self, role: Role) -> Presented {
        let key = Key::generate(Kind::Ed25519);
        let leaf = self.leaf(role, &key);
        self.present_leaf(&leaf, &key)
    }

    pub fn present_leaf(&self, leaf: &Blueprint, key: &Key) -> Presented {
        self.present_chain(vec![leaf.sign(&self.key)], key)
    }

    pub fn present_chain(&self, chain: Vec<Vec<u8>>, key: &Key) -> Presented {
        Presented { chain, private_key: key.private.clone(), trusted: self.certificate.clone() }
    }
}

fn issuing_blueprint(subject: &str, issuer: &str, key: &Key, path_length: Option<u8>) -> Blueprint {
    Blueprint {
        version: 2,
        serial: serial(&key.public),
        issuer: issuer.into(),
        subject: subject.into(),
        not_before: now() - 60,
        not_after: now() + 30 * DAY,
        public_key: key.public.clone(),
        extensions: vec![],
        claimed_algorithm: None,
    }
    .with(basic_constraints(true, path_length))
    .with(key_usage(KEY_CERT_SIGN | CRL_SIGN))
}

/// Sixteen bytes that differ for each key and are positive as a number.
fn serial(public_key: &[u8]) -> Vec<u8> {
    let mut serial = blake3::hash(public_key).as_bytes()[..16].to_vec();
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}
