//! A receiver of the tests' own: its keys, and the ticket that leads a real sender to it.

use std::{
    fs::{OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use sealift_agent::{clock::now_seconds, identity::Identity, random::SystemRandom, role::Role, ticket::Ticket};
use sealift_protocol::{
    envelope::SealingKey, grant::Grant, id::TransferId, random::Random, sealed_log::KeyFingerprint,
    ticket_proof::TicketSecret,
};

/// Puts a ticket into a file as its holder has to keep it: closed to others.
pub fn write_ticket(path: &Path, text: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_ref()).unwrap();
    file.set_permissions(Permissions::from_mode(0o600)).unwrap();
}

pub struct Invited {
    pub identity: Arc<Identity>,
    pub sealing_key: SealingKey,
    pub ticket: Ticket,
}

impl Invited {
    /// A ticket for one transfer at `address`, good for a while.
    pub fn at(address: String) -> Self {
        let mut random = SystemRandom::default();
        let identity = Arc::new(Identity::generate(Role::Receiver).unwrap());
        let sealing_key = SealingKey::generate(&mut random);
        let mut transfer = [0; 16];
        random.fill(&mut transfer);
        let now_seconds = now_seconds();
        let grant = Grant {
            transfer: TransferId(transfer),
            sender: None,
            receiver: identity.fingerprint(),
            source: String::new(),
            target: "listen".into(),
            purpose: String::new(),
            not_before_seconds: now_seconds,
            begin_before_seconds: now_seconds + 600,
            finish_before_seconds: now_seconds + 600,
            retain_until_seconds: now_seconds + 600,
            scope: None,
            policy: None,
        };
        let ticket = Ticket {
            addresses: vec![address],
            receiver: identity.fingerprint(),
            sealing_key: KeyFingerprint::of(&sealing_key.public_key()),
            grant: grant.sign(&*identity),
            secret: Some(TicketSecret::generate(&mut random)),
        };
        Self { identity, sealing_key, ticket }
    }
}
