//! What any program uses of its host, with whichever engine: files, names, randomness, fail points.
#![forbid(unsafe_code)]

pub mod fail_point;
pub mod holder;
pub mod path;
pub mod place;
pub mod random;
pub mod rename;
pub mod stdout;
pub mod units;

/// The program that runs, even if an upgrade has put another in its place since it was started.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
