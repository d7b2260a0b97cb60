//! The system's randomness, as the protocol asks for it.

use aws_lc_rs::rand::{SecureRandom, SystemRandom as AwsLcRandom};
use sealift_protocol::random::Random;

/// aws-lc's generator, seeded and reseeded from the operating system.
#[derive(Default)]
pub struct SystemRandom(AwsLcRandom);

impl Random for SystemRandom {
    fn fill(&mut self, out: &mut [u8]) {
        // Sealing with bytes that are not random would be worse than to stop.
        assert!(self.0.fill(out).is_ok(), "the system's random source failed");
    }
}
