//! The processes of an engine's own: the agent's program, started again.

use std::process::ExitCode;

use sealift_engine_api::Engines;

use crate::{cli, process, role::Role};

/// Runs what an engine has started this program again for, if that is why it runs. Call first in
/// `main`, before any thread.
pub fn run(role: Role, engines: Engines) -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1).map_while(|argument| argument.into_string().ok());
    let helper = engines.helper(&arguments.next()?)?;
    process::report_panics();
    match helper.is_hardened.then(process::harden) {
        Some(Err(failure)) => Some(cli::exit(role.name(), Err(failure))),
        _ => Some((helper.run)(&arguments.collect::<Vec<_>>())),
    }
}
