//! `sealift-receiver`: parse, protect the process, run.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use sealift_agent::{cli, failure::Outcome, identity::Role, process, report::Report};
use sealift_engines::ENGINES;
use sealift_receiver::{
    archive::load,
    cli::{Cli, Command},
    config::Config,
    guard,
    listen::listen,
    resolve::resolve,
    serve::serve,
    standing_key,
    ticket::ticket,
    unfinished,
};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let cli = match cli::parse_agent::<Cli>(Role::Receiver) {
        Ok(cli) => cli,
        Err(exit_code) => return exit_code,
    };
    match cli.command {
        Command::Doc(doc) => cli::exit("receiver", doc.run::<Cli>()),
        Command::LoaderGuard { words } => guard::run(&words),
        Command::GuardedLoader { guard, words } => guard::become_loader(guard, &words),
        Command::Identity(args) => protected(|| cli::exit("receiver", cli::identity(&args, Role::Receiver))),
        Command::Key(args) => protected(|| cli::exit("receiver", standing_key::write(&args))),
        Command::Load(args) => run_async(args.transfer.json, hardened_runtime(), load(args, ENGINES)),
        Command::Listen(args) => run_async(args.transfer.json, hardened_runtime(), listen(args, ENGINES)),
        Command::Serve(args) => {
            let config = match process::harden().and_then(|()| Config::load(&args.config, ENGINES)) {
                Ok(config) => config,
                Err(failure) => return Report::new(Role::Receiver, args.json).stop(&Err(failure)),
            };
            run_async(args.json, process::runtime_for(config.transfers_max as usize), serve(args, config))
        }
        Command::Ticket(args) => protected(|| ticket(&args, ENGINES)),
        Command::Status(args) => protected(|| unfinished::status(&args, ENGINES)),
        Command::Abandon(args) => protected(|| unfinished::abandon(&args, ENGINES)),
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
