//! How many parts stand where. Counted as they move on, so that no step of a transfer looks at more
//! parts than the one it is about: a database may have tens of thousands of them.

use super::part::PartProgress;
use crate::manifest::{Plan, Section};

/// Over all parts of a transfer.
#[derive(Default)]
pub(super) struct Tally {
    /// Started on this connection, and not all verified: each holds a lane.
    pub(super) in_flight: usize,
    pub(super) ended: usize,
    pub(super) unverified: usize,
    /// Of each section.
    undurable: [usize; Section::COUNT],
}

/// Where one part stands, as the tally has counted it.
#[derive(Clone, Copy, Default)]
pub(super) struct Standing {
    started: bool,
    ended: bool,
    verified: bool,
    durable: bool,
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

    /// A part of this section may have moved on.
    pub(super) fn update(&mut self, progress: &mut PartProgress, section: Section) {
        self.remove(progress.counted, section);
        progress.counted = progress.standing();
        self.add(progress.counted, section);
    }

    /// Whether all parts of the kinds before this one are durable.
    pub(super) fn may_follow(&self, section: Section) -> bool {
        self.undurable[..section as usize].iter().all(|parts| *parts == 0)
    }

    fn add(&mut self, standing: Standing, section: Section) {
        self.in_flight += usize::from(standing.started && !standing.verified);
        self.ended += usize::from(standing.ended);
        self.unverified += usize::from(!standing.verified);
        self.undurable[section as usize] += usize::from(!standing.durable);
    }

    fn remove(&mut self, standing: Standing, section: Section) {
        self.in_flight -= usize::from(standing.started && !standing.verified);
        self.ended -= usize::from(standing.ended);
        self.unverified -= usize::from(!standing.verified);
        self.undurable[section as usize] -= usize::from(!standing.durable);
    }
}

impl PartProgress {
    fn standing(&self) -> Standing {
        Standing {
            started: self.started,
            ended: self.ended.is_some(),
            verified: self.is_verified(),
            durable: self.is_durable(),
        }
    }
}
