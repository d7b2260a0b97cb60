//! A sender that holds good keys and breaks one rule, once, as soon as it can.

use sealift_protocol::{
    chunk::Sealed, key::EpochSecret, manifest::Section, message::Message, seal::EpochKeys, send::SenderSession,
    sign::Signer,
};

use super::super::{
    fault::{Hostile, SenderFault},
    scenario::Scenario,
};
use crate::wire::Seeded;

pub struct Sabotage {
    fault: Option<(SenderFault, u64)>,
    chunks: u64,
    pub done: bool,
}

impl Sabotage {
    pub fn new(scenario: &Scenario) -> Self {
        let fault = match scenario.hostile {
            Some(Hostile::Sender(fault, at)) => Some((fault, at)),
            _ => None,
        };
        Self { fault, chunks: 0, done: false }
    }

    /// Whether it is time for `fault`; at a later chunk if it was not possible before.
    pub fn due(&mut self, fault: SenderFault) -> bool {
        let due = !self.done && self.fault.is_some_and(|(wanted, at)| wanted == fault && at <= self.chunks);
        self.done |= due;
        due
    }

    fn is(&mut self, fault: SenderFault) -> bool {
        let is = self.fault.is_some_and(|(wanted, _)| wanted == fault);
        self.done |= is;
        is
    }

    pub fn hurries(&mut self) -> bool {
        self.is(SenderFault::AllPartsAtOnce)
    }

    /// What a stream says that it carries.
    pub fn named(&mut self, part: u32) -> u32 {
        if part > 0 && self.due(SenderFault::OtherPart) { part - 1 } else { part }
    }

    pub fn foreign_keys(&mut self, session: &SenderSession, random: &mut Seeded) -> Option<EpochKeys> {
        if !self.due(SenderFault::ForeignKeys) {
            return None;
        }
        let (keys, secret) = (&session.keys, EpochSecret::generate(random));
        let transfer = crate::wire::TRANSFER;
        Some(EpochKeys::new(keys.suite(), transfer, keys.epoch(), secret, keys.digests().clone()))
    }

    /// The bytes that go out for a frame.
    pub fn frame(&mut self, sealed: &Sealed, held_back: &mut Vec<u8>) -> Vec<u8> {
        self.chunks += 1;
        let (frame, last) = (sealed.frame.to_vec(), sealed.header.last);
        let earlier = std::mem::take(held_back);
        if !earlier.is_empty() {
            return [frame, earlier].concat();
        }
        if !last && self.due(SenderFault::Skip) {
            return Vec::new();
        }
        if !last && self.due(SenderFault::Swap) {
            *held_back = frame;
            return Vec::new();
        }
        match self.due(SenderFault::Repeat) || last && self.due(SenderFault::AfterLast) {
            true => [&frame[..], &frame].concat(),
            false => frame,
        }
    }

    pub fn rows_miscounted(&mut self, section: Section) -> u64 {
        u64::from(section == Section::Data && self.due(SenderFault::RowsMiscounted))
    }

    pub fn finish(&mut self, finish: Message, signer: &dyn Signer) -> Message {
        let Message::Finish(signed) = finish else { return finish };
        if !self.is(SenderFault::Manifest) {
            return Message::Finish(signed);
        }
        let mut changed = signed.manifest;
        changed.root.0[self.chunks as usize % 32] ^= 1;
        Message::Finish(changed.sign(signer))
    }
}
