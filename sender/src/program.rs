//! The program: parse, protect the process, run.

use std::process::ExitCode;

use sealift_agent::{cli, process, report::Report, role::Role};
use sealift_engine_api::Engines;

use crate::{
    cli::{Cli, Command},
    dry_run::dry_run,
    preflight::check,
    push::push,
    seal::seal,
    unfinished::{abandon, status},
};

/// Runs the command of this process, with these engines.
pub fn run(engines: Engines) -> ExitCode {
    let cli = match cli::parse_agent::<Cli>(Role::Sender) {
        Ok(cli) => cli,
        Err(exit_code) => return exit_code,
    };
    match cli.command {
        Command::Doc(doc) => cli::exit("sender", doc.run::<Cli>()),
        Command::Check(args) => run_async(args.json, check(args, engines)),
        Command::Push(args) if args.dry_run => run_async(false, dry_run(args, engines)),
        Command::Push(args) => run_async(args.transfer.json, push(args, engines)),
        Command::Seal(args) => run_async(args.transfer.json, seal(args, engines)),
        Command::Abandon(args) => run_async(false, abandon(args)),
        Command::Identity(args) => protected(|| cli::exit("sender", cli::identity(&args, Role::Sender))),
        Command::Status(args) => protected(|| status(&args)),
    }
}

fn protected(work: impl FnOnce() -> ExitCode) -> ExitCode {
    match process::harden() {
        Ok(()) => work(),
        Err(failure) => cli::exit("sender", Err(failure)),
    }
}

fn run_async(json: bool, work: impl Future<Output = ExitCode>) -> ExitCode {
    match process::harden().and_then(|()| process::runtime()) {
        Ok(runtime) => {
            let exit_code = runtime.block_on(work);
            // A thread may still wait for a pipe that is never written to: the process ends all
            // the same.
            runtime.shutdown_background();
            exit_code
        }
        Err(failure) => Report::new(Role::Sender, json).finish(&Err(failure)),
    }
}
