//! The program: parse, protect the process, run.

use std::process::ExitCode;

use sealift_agent::{cli, failure::Outcome, process, report::Report, role::Role};
use sealift_engine_api::Engines;
use tokio::runtime::Runtime;

use crate::{
    archive::load,
    cli::{Cli, Command},
    config::Config,
    listen::listen,
    preflight::check,
    resolve::resolve,
    serve::serve,
    standing_key,
    ticket::ticket,
    unfinished,
};

/// Runs the command of this process, with these engines.
pub fn run(engines: Engines) -> ExitCode {
    let cli = match cli::parse_agent::<Cli>(Role::Receiver) {
        Ok(cli) => cli,
        Err(exit_code) => return exit_code,
    };
    match cli.command {
        Command::Doc(doc) => cli::exit("receiver", doc.run::<Cli>()),
        Command::Identity(args) => protected(|| cli::exit("receiver", cli::identity(&args, Role::Receiver))),
        Command::Key(args) => protected(|| cli::exit("receiver", standing_key::write(&args))),
        Command::Load(args) => run_async(args.transfer.json, hardened_runtime(), load(args, engines)),
        Command::Check(args) => run_async(args.json, hardened_runtime(), check(args, engines)),
        Command::Listen(args) => run_async(args.transfer.json, hardened_runtime(), listen(args, engines)),
        Command::Serve(args) => {
            let config = match process::harden().and_then(|()| Config::load(&args.config, engines)) {
                Ok(config) => config,
                Err(failure) => return Report::new(Role::Receiver, args.json).stop(&Err(failure)),
            };
            run_async(args.json, process::runtime_for(config.transfers_max as usize), serve(args, config))
        }
        Command::Ticket(args) => protected(|| ticket(&args, engines)),
        Command::Status(args) => protected(|| unfinished::status(&args, engines)),
        Command::Abandon(args) => protected(|| unfinished::abandon(&args, engines)),
        Command::Resolve(args) => protected(|| resolve(&args)),
    }
}

fn hardened_runtime() -> Outcome<Runtime> {
    process::harden().and_then(|()| process::runtime())
}

fn run_async(json: bool, runtime: Outcome<Runtime>, work: impl Future<Output = ExitCode>) -> ExitCode {
    match runtime {
        Ok(runtime) => {
            let exit_code = runtime.block_on(work);
            runtime.shutdown_background();
            exit_code
        }
        Err(failure) => Report::new(Role::Receiver, json).finish(&Err(failure)),
    }
}

fn protected(work: impl FnOnce() -> ExitCode) -> ExitCode {
    match process::harden() {
        Ok(()) => work(),
        Err(failure) => cli::exit("receiver", Err(failure)),
    }
}
