//! Counts of parts by state, kept up to date, so that a step of a transfer looks only at the part
//! concerned: a database may have tens of thousands of them.

use super::part::PartProgress;
use crate::manifest::{Plan, Section};

/// The counts over all parts of a transfer.
#[derive(Default)]
pub(super) struct Tally {
    /// Parts that are started on this connection and not all verified: each holds a lane.
    pub(super) in_flight: usize,
    pub(super) ended: usize,
    /// Of each section.
    unverified: [usize; Section::COUNT],
}

/// The state of one part, as counted.
#[derive(Clone, Copy, Default)]
pub(super) struct Standing {
    started: bool,
    ended: bool,
    verified: bool,
}

impl Tally {
    /// Counts all parts again.
    pub(super) fn of(parts: &mut [PartProgress], plan: &Plan) -> Self {
        let mut tally = Self::default();
        for (progress, planned) in parts.iter_mut().zip(&plan.parts) {
            progress.counted = progress.standing();
            tally.add(progress.counted, planned.section);
        }
        tally
    }

    /// Counts a part of this section again.
    pub(super) fn update(&mut self, progress: &mut PartProgress, section: Section) {
        self.remove(progress.counted, section);
        progress.counted = progress.standing();
        self.add(progress.counted, section);
    }

    /// Whether all parts of the sections before this one are verified. The receiver sees to it that
    /// the target has them before it begins with a part of this one.
    pub(super) fn may_follow(&self, section: Section) -> bool {
        self.unverified[..section as usize].iter().all(|parts| *parts == 0)
    }

    pub(super) fn is_all_verified(&self) -> bool {
        self.unverified.iter().all(|parts| *parts == 0)
    }

    fn add(&mut self, standing: Standing, section: Section) {
        self.in_flight += usize::from(standing.started && !standing.verified);
        self.ended += usize::from(standing.ended);
        self.unverified[section as usize] += usize::from(!standing.verified);
    }

    fn remove(&mut self, standing: Standing, section: Section) {
        self.in_flight -= usize::from(standing.started && !standing.verified);
        self.ended -= usize::from(standing.ended);
        self.unverified[section as usize] -= usize::from(!standing.verified);
    }
}

impl PartProgress {
    fn standing(&self) -> Standing {
        Standing { started: self.started, ended: self.ended.is_some(), verified: self.is_verified() }
    }
}
