//! What a standing receiver is known by: an authority of its own, which signs its tickets, and its identity under that.
//! Made at the first start, kept in the state directory, mode 0600.

use std::{fs::OpenOptions, path::Path, time::Duration};

use minicbor::{Decode, Encode};
use nix::fcntl::{Flock, FlockArg};
use sealift_protocol::{close::Code, codec, random::Random};
use time::OffsetDateTime;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    authority::{Authority, KeptAuthority},
    failure::{Failure, Outcome},
    identity::{Identity, Role},
    own_file::{open_own, read_own, unusable},
    random::SystemRandom,
    state::{StateDir, write_durably},
};

/// How long the authority is good for. It is trusted by nobody but the holders of its tickets, and by them for one.
const AUTHORITY_VALID_FOR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How long the receiver's identity is good for, and what must be left of it at a start; else it is made anew. A service
/// that runs longer than the difference without a start has to be restarted.
const IDENTITY_VALID_FOR: Duration = Duration::from_secs(398 * 86_400);
const IDENTITY_LEFT_MIN: Duration = Duration::from_secs(180 * 86_400);

/// The longest that a ticket may be good for: every receiver that starts has this much left.
pub const TICKET_VALID_FOR_MAX: Duration = Duration::from_secs(90 * 86_400);
const _: () = assert!(TICKET_VALID_FOR_MAX.as_secs() < IDENTITY_LEFT_MIN.as_secs());

/// A certificate, some keys and a name.
const FILE_BYTES_MAX: usize = 16 << 10;

/// The receiver's name under its own authority.
const NAME: &str = "standing";

pub struct Standing {
    pub authority: Authority,
    pub identity: Identity,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Kept {
    #[n(0)]
    authority: KeptAuthority,
    #[n(1)]
    authority_not_after_seconds: u64,
    /// DER of the receiver's certificate, and PKCS #8 of its key.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    certificate: Vec<u8>,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    key: Vec<u8>,
    #[n(4)]
    identity_not_after_seconds: u64,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Standing {
    /// Opens what is kept in the state directory, and makes or renews what is missing or near its end.
    pub fn open(state: &StateDir, now: OffsetDateTime) -> Outcome<Self> {
        let path = state.path().join("authority");
        let _alone = lock(&state.path().join("authority.lock"))?;
        let bytes = read_own(&path, FILE_BYTES_MAX)?;
        let kept = match bytes {
            Some(bytes) => {
                Some(codec::decode::<Kept>(&bytes, FILE_BYTES_MAX, "authority").map_err(|_| damaged(&path))?)
            }
            None => None,
        };
        let left = |not_after_seconds: u64| not_after_seconds.saturating_sub(now.unix_timestamp().max(0) as u64);
        // One that is about to end can certify nobody for long. Its tickets end before it does.
        let kept = kept.filter(|kept| left(kept.authority_not_after_seconds) > IDENTITY_VALID_FOR.as_secs());
        let kept = match kept {
            Some(kept) if left(kept.identity_not_after_seconds) > IDENTITY_LEFT_MIN.as_secs() => kept,
            Some(kept) => renewed(&path, kept, now)?,
            None => made(&path, now)?,
        };
        let authority = Authority::from_kept(&kept.authority).map_err(|_| damaged(&path))?;
        let key = Zeroizing::new(kept.key.clone());
        let identity = Identity::new(vec![kept.certificate.clone().into()], key, Role::Receiver);
        Ok(Self { authority, identity: identity.map_err(|_| damaged(&path))? })
    }
}

fn made(path: &Path, now: OffsetDateTime) -> Outcome<Kept> {
    let mut id = [0; 8];
    SystemRandom::default().fill(&mut id);
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let authority = Authority::generate(&format!("receiver-{hex}"), now, AUTHORITY_VALID_FOR)?;
    let kept = Kept {
        authority: authority.keep(),
        authority_not_after_seconds: seconds(now + AUTHORITY_VALID_FOR),
        certificate: Vec::new(),
        key: Vec::new(),
        identity_not_after_seconds: 0,
    };
    renewed(path, kept, now)
}

fn renewed(path: &Path, mut kept: Kept, now: OffsetDateTime) -> Outcome<Kept> {
    let authority = Authority::from_kept(&kept.authority).map_err(|_| damaged(path))?;
    let issued = authority.issue(Role::Receiver, NAME, now, IDENTITY_VALID_FOR)?;
    kept.key.zeroize();
    (kept.certificate, kept.key) = (issued.chain[0].to_vec(), issued.pkcs8.to_vec());
    kept.identity_not_after_seconds = seconds(now + IDENTITY_VALID_FOR);
    let bytes = Zeroizing::new(codec::encode(&kept));
    write_durably(path, &bytes).map_err(|error| unusable(path, &error))?;
    Ok(kept)
}

/// The service and whoever makes a ticket for it may come at the same time.
fn lock(path: &Path) -> Outcome<Flock<std::fs::File>> {
    let file = open_own(path, OpenOptions::new().write(true).create(true)).map_err(|error| unusable(path, &error))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| unusable(path, &error.into()))
}

fn seconds(at: OffsetDateTime) -> u64 {
    at.unix_timestamp().max(0) as u64
}

fn damaged(path: &Path) -> Failure {
    let next = "Remove it, and issue new tickets: those that it signed are then good no longer.";
    Failure::new(Code::Preflight, format!("{} is damaged", path.display()), next)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(folder.path().join("state")), "test").unwrap();
        (folder, state)
    }

    /// fault-matrix I16: whoever has a ticket finds the same identity, under the same root.
    #[test]
    fn what_is_kept_is_opened_again_and_renewed_in_time() {
        let (_folder, state) = state();
        let now = OffsetDateTime::now_utc();
        let first = Standing::open(&state, now).unwrap();
        let root = first.authority.root().clone();
        let again = Standing::open(&state, now).unwrap();
        assert_eq!(again.authority.root(), &root);
        assert_eq!(again.identity.leaf(), first.identity.leaf());
        let later = now + IDENTITY_VALID_FOR - IDENTITY_LEFT_MIN;
        let renewed = Standing::open(&state, later).unwrap();
        assert_eq!(renewed.authority.root(), &root);
        assert_eq!(renewed.identity.id, first.identity.id);
        assert_ne!(renewed.identity.leaf(), first.identity.leaf());
        let much_later = Standing::open(&state, now + AUTHORITY_VALID_FOR).unwrap();
        assert_ne!(much_later.authority.root(), &root);
    }

    /// fault-matrix S9.
    #[test]
    fn keys_that_others_may_read_are_refused() {
        let (_folder, state) = state();
        Standing::open(&state, OffsetDateTime::now_utc()).unwrap();
        let path = state.path().join("authority");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let failure = Standing::open(&state, OffsetDateTime::now_utc()).err().unwrap();
        assert_eq!(failure.code, Code::Preflight);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"no authority").unwrap();
        assert!(Standing::open(&state, OffsetDateTime::now_utc()).err().unwrap().what.contains("damaged"));
    }
}
