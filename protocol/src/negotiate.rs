//! Negotiation of protocol version and suite.

use crate::{
    close::Code,
    error::{Error, Result},
    message::VERSION,
    seal::Suite,
};

/// The suites that `--suite auto` allows, in order of preference: both, the accelerated one first.
pub fn suites_auto(aes_accelerated: bool) -> Vec<Suite> {
    match aes_accelerated {
        true => vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
        false => vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm],
    }
}

/// The suite for both: AES-256-GCM if both prefer it, otherwise ChaCha20-Poly1305 if both allow it,
/// otherwise the one that both allow; else `SuiteUnsupported`.
pub fn choose_suite(offered: &[Suite], allowed: &[Suite]) -> Result<Suite> {
    if offered.first() == Some(&Suite::Aes256Gcm) && allowed.first() == Some(&Suite::Aes256Gcm) {
        return Ok(Suite::Aes256Gcm);
    }
    [Suite::ChaCha20Poly1305, Suite::Aes256Gcm]
        .into_iter()
        .find(|suite| offered.contains(suite) && allowed.contains(suite))
        .ok_or(Error::new(Code::SuiteUnsupported, "suites"))
}

/// The version for both: [`VERSION`], if it was offered; else `VersionUnsupported`.
pub fn choose_version(offered: &[u16]) -> Result<u16> {
    match offered.contains(&VERSION) {
        true => Ok(VERSION),
        false => Err(Error::new(Code::VersionUnsupported, "versions")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Suite::{Aes256Gcm as Aes, ChaCha20Poly1305 as ChaCha};

    #[test]
    fn auto_takes_aes_only_where_both_accelerate_it() {
        let pick = |a, b| choose_suite(&suites_auto(a), &suites_auto(b));
        assert_eq!(pick(true, true), Ok(Aes));
        assert_eq!(pick(true, false), Ok(ChaCha));
        assert_eq!(pick(false, true), Ok(ChaCha));
        assert_eq!(pick(false, false), Ok(ChaCha));
        assert_eq!(choose_suite(&[Aes], &suites_auto(false)), Ok(Aes));
        assert!(choose_suite(&[Aes], &[ChaCha]).is_err());
        assert!(choose_suite(&[], &[ChaCha]).is_err());
    }
}
