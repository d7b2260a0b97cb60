//! `sealift-sender push`, for a program that has the engine of the tests besides its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use sealift_agent::{cli, process, report::Report, role::Role};
use sealift_sender::{
    cli::{Cli, Command},
    push::push,
    unfinished::abandon,
};
use sealift_tests::grid::ENGINES;

fn main() -> ExitCode {
    let cli = match cli::parse_agent::<Cli>(Role::Sender) {
        Ok(cli) => cli,
        Err(exit_code) => return exit_code,
    };
    let runtime = match process::harden().and_then(|()| process::runtime()) {
        Ok(runtime) => runtime,
        Err(failure) => return Report::new(Role::Sender, true).finish(&Err(failure)),
    };
    let exit_code = match cli.command {
        Command::Push(args) => runtime.block_on(push(args, ENGINES)),
        Command::Abandon(args) => runtime.block_on(abandon(args)),
        other => panic!("not for tests: {other:?}"),
    };
    runtime.shutdown_background();
    exit_code
}
