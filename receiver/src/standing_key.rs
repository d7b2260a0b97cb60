//! The receiver's standing sealing key: what archives are sealed to, vouched for by the receiver's
//! identity. Made once, kept in the state directory for as long as archives are to be opened.

use minicbor::{Decode, Encode};
use sealift_agent::{
    audit::{AuditLog, entry::Entry},
    failure::{Failure, Outcome},
    identity::Identity,
    output::Output,
    own_file::read_own,
    process::eprintln_safe,
    random::SystemRandom,
    receiver_key::to_text,
    role::Role,
    state::{StateDir, write_durably},
};
use sealift_protocol::{archive::ReceiverKey, close::Code, codec, envelope::SealingKey, fingerprint::Fingerprint};
use zeroize::{Zeroize, Zeroizing};

use crate::cli::KeyArgs;

const NAME: &str = "receiver.key";

/// One key of under 100 bytes.
const KEPT_BYTES_MAX: usize = 1 << 10;

pub struct StandingKey {
    pub sealing: SealingKey,
    pub identity: Identity,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct KeptKey {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    sealing: Vec<u8>,
}

impl Drop for KeptKey {
    fn drop(&mut self) {
        self.sealing.zeroize();
    }
}

impl StandingKey {
    /// The key, if this receiver has one.
    pub fn open(state: &StateDir, audit: &AuditLog) -> Outcome<Option<Self>> {
        let path = state.path().join(NAME);
        let Some(bytes) = read_own(&path, KEPT_BYTES_MAX)? else { return Ok(None) };
        let damaged = |_| {
            let next = "Restore it from a copy, if you have one. Without it no archive that was sealed to it can be opened; \
                        move it away, make a new key, and have the archives made again.";
            Failure::new(Code::Preflight, format!("{} is damaged", path.display()), next)
        };
        let kept: KeptKey = codec::decode(&bytes, KEPT_BYTES_MAX, "receiver key").map_err(damaged)?;
        let sealing = SealingKey::from_bytes(&kept.sealing).map_err(damaged)?;
        Ok(Some(Self { sealing, identity: Identity::open(state, Role::Receiver, audit)? }))
    }

    /// The key; made the first time.
    fn make(state: &StateDir, audit: &AuditLog) -> Outcome<Self> {
        let unusable = |error: std::io::Error| {
            let what = format!("the key cannot be kept in {}", state.path().display());
            Failure::io(Code::Preflight, what, &error, "Check --state-dir: owner, mode, free space.")
        };
        let identity = Identity::open(state, Role::Receiver, audit)?;
        // Of two that are started at once, one makes the key and the other finds it.
        let lock = state.lock()?;
        if state.path().join(NAME).exists() {
            drop(lock);
            let missing = || Failure::new(Code::Internal, "a key that was just made is missing", "");
            return Self::open(state, audit)?.ok_or_else(missing);
        }
        let sealing = SealingKey::generate(&mut SystemRandom::default());
        let kept = KeptKey { sealing: sealing.expose().to_vec() };
        let made = Self { sealing, identity };
        audit.append(None, &Entry::KeyMake { fingerprint: made.fingerprint() })?;
        write_durably(&state.path().join(NAME), &Zeroizing::new(codec::encode(&kept))).map_err(unusable)?;
        Ok(made)
    }

    pub fn public(&self) -> ReceiverKey {
        ReceiverKey::sign(self.sealing.public_key(), &self.identity)
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }
}

/// `key`: writes the public half.
pub fn write(args: &KeyArgs) -> Outcome {
    let out = Output::find("--out", &args.out)?;
    let state = StateDir::open(args.state_dir.clone(), "sealift-receiver")?;
    let audit = AuditLog::open(&state, "sealift-receiver")?;
    let key = StandingKey::make(&state, &audit)?;
    let text = to_text(&key.public());
    out.put_public(&text)?;
    eprintln_safe(&format!("receiver: its fingerprint is\n  {}", key.fingerprint()));
    Ok(())
}
