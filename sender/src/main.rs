//! `sealift-sender`, with the engines of the product.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use sealift_agent::threads;
use sealift_engines::ENGINES;
use sealift_sender::program;

fn main() -> ExitCode {
    threads::run_program(|| program::run(ENGINES))
}
