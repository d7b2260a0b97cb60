//! `sealift-sender`: parse, protect the process, run.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use sealift_agent::{cli, process};
use sealift_sender::{
    cli::{Cli, Command},
    push::push,
    seal::seal,
};

fn main() -> ExitCode {
    let cli = match cli::parse::<Cli>() {
        Ok(cli) => cli,
        Err(exit_code) => return exit_code,
    };
    match cli.command {
        Command::Doc(doc) => cli::exit("sender", doc.run::<Cli>()),
        Command::Push(args) => run(push(args)),
        Command::Seal(args) => run(seal(args)),
    }
}

/// A command that touches data.
fn run(command: impl Future<Output = ExitCode>) -> ExitCode {
    match process::harden().and_then(|()| process::runtime()) {
        Ok(runtime) => {
            let exit_code = runtime.block_on(command);
            // A thread may still wait for a pipe that nobody will write to: the process ends all the same.
            runtime.shutdown_background();
            exit_code
        }
        Err(failure) => cli::exit("sender", Err(failure)),
    }
}
