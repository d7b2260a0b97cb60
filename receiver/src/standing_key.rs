//! The receiver's standing keys: what archives are sealed to, and what signs the receipts of their loads. Made once, kept
//! in the state directory for as long as archives are to be opened.

use std::fs::File;

use minicbor::{Decode, Encode};
use nix::fcntl::{Flock, FlockArg};
use sealift_agent::{
    audit::AuditLog,
    failure::{Failure, Outcome},
    output::Output,
    own_file::read_own,
    process::eprintln_safe,
    random::SystemRandom,
    receiver_key::to_text,
    signing_key::SigningKey,
    state::{StateDir, write_durably},
};
use sealift_protocol::{
    archive::ReceiverKey, close::Code, codec, envelope::SealingKey, fingerprint::Fingerprint, sign::Signer,
};
use serde_json::json;
use zeroize::{Zeroize, Zeroizing};

use crate::cli::KeyArgs;

const NAME: &str = "receiver.key";

/// Two keys of under 100 bytes each.
const KEPT_BYTES_MAX: usize = 1 << 10;

pub struct StandingKey {
    pub sealing: SealingKey,
    pub signing: SigningKey,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Kept {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    sealing: Vec<u8>,
    /// PKCS #8.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    signing: Vec<u8>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.sealing.zeroize();
        self.signing.zeroize();
    }
}

impl StandingKey {
    /// The keys, if this receiver has any.
    pub fn open(state: &StateDir) -> Outcome<Option<Self>> {
        let path = state.path().join(NAME);
        let Some(bytes) = read_own(&path, KEPT_BYTES_MAX)? else { return Ok(None) };
        let damaged = |_| {
            let next = "Restore it from a copy, if you have one. Without it no archive that was sealed to it can be opened; \
                        move it away, make a new key, and have the archives made again.";
            Failure::new(Code::Preflight, format!("{} is damaged", path.display()), next)
        };
        let kept: Kept = codec::decode(&bytes, KEPT_BYTES_MAX, "receiver key").map_err(damaged)?;
        let sealing = SealingKey::from_bytes(&kept.sealing).map_err(damaged)?;
        Ok(Some(Self { sealing, signing: SigningKey::from_pkcs8(&kept.signing)? }))
    }

    /// The keys; made the first time.
    fn make(state: &StateDir, audit: &AuditLog) -> Outcome<Self> {
        let unusable = |error: std::io::Error| {
            let what = format!("the key cannot be kept in {}", state.path().display());
            Failure::io(Code::Preflight, what, &error, "Check --state-dir: owner, mode, free space.")
        };
        // Of two that are started at once, one makes the key and the other finds it.
        let folder = File::open(state.path()).map_err(unusable)?;
        let _lock = Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, errno)| unusable(errno.into()))?;
        if let Some(found) = Self::open(state)? {
            return Ok(found);
        }
        let sealing = SealingKey::generate(&mut SystemRandom::default());
        let signing = SigningKey::generate_pkcs8()?;
        let kept = Kept { sealing: sealing.expose().to_vec(), signing: signing.to_vec() };
        let made = Self { sealing, signing: SigningKey::from_pkcs8(&signing)? };
        audit.append("key.make", None, &[("fingerprint", json!(made.fingerprint().to_string()))])?;
        write_durably(&state.path().join(NAME), &Zeroizing::new(codec::encode(&kept))).map_err(unusable)?;
        Ok(made)
    }

    pub fn public(&self) -> ReceiverKey {
        ReceiverKey { sealing: self.sealing.public_key(), signing: self.signing.public_key() }
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_receiver(&self.public())
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
    eprintln_safe(&format!("receiver: the fingerprint of this receiver's key is\n  {}", key.fingerprint()));
    Ok(())
}
