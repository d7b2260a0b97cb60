//! The exit codes that the agents promise, written down a second time on purpose: a slip in the
//! product must not move the expectation with it.

pub const DONE: i32 = 0;
pub const OTHER: i32 = 1;
pub const USAGE: i32 = 2;
pub const PREFLIGHT: i32 = 3;
pub const PEER: i32 = 4;
pub const INTERRUPTED: i32 = 5;
pub const MISMATCH: i32 = 6;
pub const REFUSED: i32 = 7;
pub const UNUSABLE: i32 = 8;
pub const AUDIT: i32 = 9;
pub const USER_INTERRUPT: i32 = 130;
