//! `sealift-receiver`: parse, protect the process, run.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use sealift_agent::{cli, process};
use sealift_receiver::{
    archive::load,
    cli::{Cli, Command},
    guard,
    listen::listen,
    standing_key,
};

fn main() -> ExitCode {
    let cli = match cli::parse::<Cli>() {
        Ok(cli) => cli,
        Err(exit_code) => return exit_code,
    };
    match cli.command {
        Command::Doc(doc) => cli::exit("receiver", doc.run::<Cli>()),
        Command::LoaderGuard { words } => guard::run(&words),
        Command::Key(args) => cli::exit("receiver", process::harden().and_then(|()| standing_key::write(&args))),
        Command::Listen(args) => run(listen(args)),
        Command::Load(args) => run(load(args)),
    }
}

/// A command that touches data.
fn run(command: impl Future<Output = ExitCode>) -> ExitCode {
    match process::harden().and_then(|()| process::runtime()) {
        Ok(runtime) => {
            let exit_code = runtime.block_on(command);
            runtime.shutdown_background();
            exit_code
        }
        Err(failure) => cli::exit("receiver", Err(failure)),
    }
}
