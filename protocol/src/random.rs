//! Sources of randomness: the agents pass that of the system, the simulator a seeded one.

use zeroize::Zeroizing;

use crate::{
    close::Code,
    error::{Error, Result},
};

/// A cryptographically secure source of bytes. An implementation that cannot deliver aborts the
/// process.
pub trait Random: Send {
    /// Fills all of `out` with random bytes.
    fn fill(&mut self, out: &mut [u8]);
}

impl<R: Random + ?Sized> Random for &mut R {
    fn fill(&mut self, out: &mut [u8]) {
        (**self).fill(out);
    }
}

/// Random secret bytes that are zeroized on drop.
pub fn secret<const N: usize>(random: &mut dyn Random) -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    random.fill(&mut *bytes);
    bytes
}

/// The nonce of one seal: 24 random bytes, of which AES-256-GCM uses the first 12.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub(crate) [u8; 24]);

/// Draws nonces, and fails when two in a row share the 12 bytes that AES-256-GCM uses: a continuous
/// test of the source (fault X14). By chance that happens once in 2^96 draws.
pub struct Nonces<R> {
    random: R,
    last: [u8; 24],
}

impl<R: Random> Nonces<R> {
    /// Draws the bytes that the first nonce is compared with.
    pub fn new(mut random: R) -> Self {
        let mut last = [0; 24];
        random.fill(&mut last);
        Self { random, last }
    }

    /// The next nonce. Fails with `RandomBroken` if it repeats the one before.
    pub fn draw(&mut self) -> Result<Nonce> {
        let mut next = [0; 24];
        self.random.fill(&mut next);
        if next[..12] == self.last[..12] {
            return Err(Error::new(Code::RandomBroken, "two nonces in a row are the same"));
        }
        self.last = next;
        Ok(Nonce(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stuck;
    impl Random for Stuck {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(7);
        }
    }

    /// Fault X14.
    #[test]
    fn a_stuck_source_stops_the_sealing() {
        let got = Nonces::new(Stuck).draw().map(|_| ());
        assert_eq!(got.map_err(|error| error.code), Err(Code::RandomBroken));
    }
}
