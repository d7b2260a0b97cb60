//! What a crash loop did, in numbers.

use std::{fmt, ops::AddAssign};

/// What was done to the rounds, and what it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub rounds: u64,
    pub senders_killed: u64,
    pub receivers_killed: u64,
    pub loaders_killed: u64,
    /// Of the snapshot of a source.
    pub holders_killed: u64,
    /// Sessions that were ended, servers that were killed, and answers that were lost.
    pub servers_disturbed: u64,
    /// What was changed at a source meanwhile.
    pub changes: u64,
    pub cuts: u64,
    pub starts: u64,
    pub resumed: u64,
    pub restarted: u64,
    /// Killed while the loader was ending.
    pub in_doubt: u64,
    /// Proven, and lost by its server before it was published.
    pub emptied: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.rounds += other.rounds;
        self.senders_killed += other.senders_killed;
        self.receivers_killed += other.receivers_killed;
        self.loaders_killed += other.loaders_killed;
        self.holders_killed += other.holders_killed;
        self.servers_disturbed += other.servers_disturbed;
        self.changes += other.changes;
        self.cuts += other.cuts;
        self.starts += other.starts;
        self.resumed += other.resumed;
        self.restarted += other.restarted;
        self.in_doubt += other.in_doubt;
        self.emptied += other.emptied;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds: {} senders, {} receivers, {} loaders and {} holders killed, {} servers disturbed, {} changes, {} cuts, {} processes; {} resumed, {} restarted, {} in doubt, {} emptied",
            self.rounds,
            self.senders_killed,
            self.receivers_killed,
            self.loaders_killed,
            self.holders_killed,
            self.servers_disturbed,
            self.changes,
            self.cuts,
            self.starts,
            self.resumed,
            self.restarted,
            self.in_doubt,
            self.emptied
        )
    }
}
