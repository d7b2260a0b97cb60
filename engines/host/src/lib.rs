//! What a program does with the host that it runs on, whatever its engine is.
#![forbid(unsafe_code)]

pub mod fail_point;
pub mod path;
pub mod place;
pub mod random;
pub mod rename;
pub mod stdout;
pub mod units;
