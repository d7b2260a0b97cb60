//! `sealift-sender`, with the engines of the product.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use sealift_agent::{helper, role::Role, threads};
use sealift_engines::ENGINES;
use sealift_sender::program;

fn main() -> ExitCode {
    helper::run(Role::Sender, ENGINES).unwrap_or_else(|| threads::run_program(|| program::run(ENGINES)))
}
