//! `sealift-sender`, with the engines of the tests.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use sealift_agent::{helper, role::Role, threads};
use sealift_sender::program;
use sealift_tests::grid::ENGINES;

fn main() -> ExitCode {
    helper::run(Role::Sender, ENGINES).unwrap_or_else(|| threads::run_program(|| program::run(ENGINES)))
}
