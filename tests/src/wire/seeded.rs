use sealift_protocol::random::Random;

/// As many bytes as are asked for, the same for the same label and seed: BLAKE3's extendable
/// output.
pub struct Seeded(blake3::OutputReader);

impl Seeded {
    pub fn new(label: &str, seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(label.as_bytes()).update(&[0]).update(&seed.to_be_bytes());
        Self(hasher.finalize_xof())
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.fill(&mut bytes);
        bytes
    }
}

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }
}
