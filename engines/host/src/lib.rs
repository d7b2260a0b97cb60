//! What any program uses of its host, with whichever engine: files, names, randomness, fail points.
#![forbid(unsafe_code)]

pub mod fail_point;
pub mod path;
pub mod place;
pub mod random;
pub mod rename;
pub mod stdout;
pub mod units;
