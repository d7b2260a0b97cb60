//! `sealift-sender`, with the engines of the tests.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use sealift_agent::threads;
use sealift_sender::program;
use sealift_tests::grid::ENGINES;

fn main() -> ExitCode {
    threads::run_program(|| program::run(ENGINES))
}
