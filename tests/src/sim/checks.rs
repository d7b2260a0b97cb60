//! What must hold at every moment of a run, whatever goes wrong.

use std::collections::HashMap;

use sealift_protocol::{
    chunk::Sealed,
    key::KeyCommitment,
    limits::CHUNKS_PER_KEY,
    message::{Ack, Have},
};

use super::scenario::Scenario;

/// The keys of an epoch by their commitment, which stands for transfer, epoch and secret; part and
/// generation; nonce.
type Sealing = (KeyCommitment, u32, u64, [u8; 24]);

#[derive(Default)]
pub struct Checks {
    /// What was sealed with which key and nonce, over all processes of a run.
    sealed: HashMap<Sealing, blake3::Hash>,
    /// What was acknowledged of each part: verified, and durable.
    told: Vec<(u64, u64)>,
    /// The receiver lost its memory since it said what it has; its disk went back, or what it had
    /// was dropped as asked.
    pub receiver_forgot: bool,
    pub target_forgot: bool,
    /// A receiver runs that accepts connections.
    pub receiver_listens: bool,
}

impl Checks {
    pub fn new(parts: usize) -> Self {
        Self { told: vec![(0, 0); parts], ..Self::default() }
    }

    /// A key and a nonce seal one chunk, ever (fault C15).
    pub fn sealed(&mut self, keys: KeyCommitment, sealed: &Sealed) {
        let header = &sealed.header;
        let place = (keys, header.part.0, header.index.0 / CHUNKS_PER_KEY, header.nonce);
        let bytes = blake3::hash(&sealed.frame);
        let earlier = self.sealed.insert(place, bytes);
        assert!(earlier.is_none_or(|earlier| earlier == bytes), "a key and a nonce were used for two chunks");
    }

    /// A connection stands: what was acknowledged is still there, unless the receiver lost it, and
    /// what was acknowledged as durable even then. The scenario says what of it its target
    /// promises; `receiver_left`, whether the receiver that said this is there no longer.
    pub fn agreed(&mut self, have: &[Have], scenario: &Scenario, receiver_left: bool) {
        let (durable_survives, verified_survives) = (scenario.keeps_durable(), scenario.keeps_verified());
        let mut have = have.iter().peekable();
        for (told, part) in self.told.iter_mut().zip(0..) {
            let have = have.next_if(|have| have.part.0 == part);
            let (verified, durable) = have.map_or((0, 0), |have| (have.verified.0, have.durable.0));
            if !self.target_forgot {
                let may_lack = self.receiver_forgot && !verified_survives;
                assert!(may_lack || verified >= told.0, "part {part}: acknowledged, and asked for again");
                assert!(
                    !durable_survives && self.receiver_forgot || verified >= told.1 && durable >= told.1,
                    "part {part}: {} chunks were durable, and {durable} are there",
                    told.1
                );
            }
            *told = (verified, durable);
        }
        (self.receiver_forgot, self.target_forgot) = (receiver_left, receiver_left && self.target_forgot);
    }

    /// Acknowledgements only grow within a connection.
    pub fn acknowledged(&mut self, ack: &Ack) {
        let told = &mut self.told[ack.part.0 as usize];
        assert!(told.0 <= ack.verified.0 && told.1 <= ack.durable.0, "acknowledgements only grow");
        assert!(ack.durable <= ack.verified, "durable is at most verified");
        *told = (ack.verified.0, ack.durable.0);
    }
}
