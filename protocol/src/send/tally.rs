//! Counts of parts by state, kept up to date, so that a step of a transfer looks only at the part
//! concerned: a database may have tens of thousands of them.

use crate::manifest::Section;

/// The counts over all parts of a transfer.
#[derive(Default)]
pub(super) struct Tally {
    /// Parts that are started on this connection and not all verified: each holds a lane.
    pub(super) in_flight: usize,
    pub(super) verified: usize,
    /// Of each section.
    unverified: [usize; Section::COUNT],
}

/// The state of one part, as counted.
#[derive(Clone, Copy, Default)]
pub(super) struct PartState {
    pub(super) started: bool,
    pub(super) verified: bool,
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

    pub(super) fn add(&mut self, state: PartState, section: Section) {
        self.in_flight += usize::from(state.started && !state.verified);
        self.verified += usize::from(state.verified);
        self.unverified[section as usize] += usize::from(!state.verified);
    }

    pub(super) fn remove(&mut self, state: PartState, section: Section) {
        self.in_flight -= usize::from(state.started && !state.verified);
        self.verified -= usize::from(state.verified);
        self.unverified[section as usize] -= usize::from(!state.verified);
    }
}
