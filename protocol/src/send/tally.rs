//! Counts of parts by state, kept up to date, so that a step of a transfer looks only at the part
//! concerned: a database may have tens of thousands of them.

use std::collections::BTreeSet;

use crate::{id::PartIndex, manifest::Section};

/// The counts over all parts of a transfer.
#[derive(Default)]
pub(super) struct Tally {
    /// Parts that are started on this connection and not verified: each has a stream.
    pub(super) in_flight: usize,
    /// Those of them that are not sent whole: each has a lane.
    pub(super) sending: BTreeSet<PartIndex>,
    /// The weight of what is not verified of the others.
    pub(super) sent_bytes: u64,
    pub(super) verified: usize,
    /// Of each section.
    unverified: [usize; Section::COUNT],
}

/// The state of one part, as counted.
#[derive(Clone, Copy, Default)]
pub(super) struct PartState {
    pub(super) started: bool,
    /// All of it was sent on this connection.
    pub(super) sent: bool,
    pub(super) verified: bool,
    pub(super) kept_bytes: u64,
}

impl PartState {
    fn is_in_flight(self) -> bool {
        self.started && !self.verified
    }

    fn is_sending(self) -> bool {
        self.is_in_flight() && !self.sent
    }

    /// What it takes of the window without having a lane.
    fn sent_bytes(self) -> u64 {
        if self.is_sending() { 0 } else { self.kept_bytes }
    }
}

impl Tally {
    /// Whether all parts of the sections before this one are verified. The receiver sees to it that
    /// the target has them before it begins with a part of this one.
    pub(super) fn may_follow(&self, section: Section) -> bool {
        self.unverified[..section as usize].iter().all(|parts| *parts == 0)
    }

    pub(super) fn is_all_verified(&self) -> bool {
        self.unverified.iter().all(|parts| *parts == 0)
    }

    pub(super) fn add(&mut self, part: PartIndex, state: PartState, section: Section) {
        self.in_flight += usize::from(state.is_in_flight());
        self.sent_bytes += state.sent_bytes();
        if state.is_sending() {
            self.sending.insert(part);
        }
        self.verified += usize::from(state.verified);
        self.unverified[section as usize] += usize::from(!state.verified);
    }

    pub(super) fn remove(&mut self, part: PartIndex, state: PartState, section: Section) {
        self.in_flight -= usize::from(state.is_in_flight());
        self.sent_bytes -= state.sent_bytes();
        self.sending.remove(&part);
        self.verified -= usize::from(state.verified);
        self.unverified[section as usize] -= usize::from(!state.verified);
    }
}
