//! `sealift-receiver listen`, for a program that has the engine of the tests besides its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use sealift_agent::{cli, process, report::Report, role::Role};
use sealift_receiver::{
    cli::{Cli, Command},
    listen::listen,
    unfinished::abandon,
};
use sealift_tests::grid::ENGINES;

fn main() -> ExitCode {
    let cli = match cli::parse_agent::<Cli>(Role::Receiver) {
        Ok(cli) => cli,
        Err(exit_code) => return exit_code,
    };
    let runtime = match process::harden().and_then(|()| process::runtime()) {
        Ok(runtime) => runtime,
        Err(failure) => return Report::new(Role::Receiver, true).finish(&Err(failure)),
    };
    let exit_code = match cli.command {
        Command::Listen(args) => runtime.block_on(listen(args, ENGINES)),
        Command::Abandon(args) => abandon(&args, ENGINES),
        other => panic!("not for tests: {other:?}"),
    };
    runtime.shutdown_background();
    exit_code
}
