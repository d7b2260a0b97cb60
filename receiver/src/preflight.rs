//! `check`: looks at one target, or at those of a configuration, and prints what was found. Each
//! load does the same before there is a ticket.

use std::{process::ExitCode, sync::Arc};

use sealift_agent::{
    failure::{Failure, Outcome},
    preflight::{of_failure, print},
    report::Report,
    role::Role,
    shutdown::Shutdown,
    stop::Stop,
};
use sealift_engine_api::{Engines, Finding, Readiness, Target, TargetOptions};
use sealift_protocol::{close::Code, limits::ROW_BYTES_MAX};

use crate::{cli::CheckArgs, config::Config};

/// A target that is looked at.
struct Looked {
    /// Its name in the configuration.
    name: Option<String>,
    url: String,
    options: TargetOptions,
}

pub async fn check(args: CheckArgs, engines: Engines) -> ExitCode {
    let report = Report::new(Role::Receiver, args.json);
    let outcome = run(&args, engines, &report).await;
    report.stop(&outcome)
}

async fn run(args: &CheckArgs, engines: Engines, report: &Report) -> Outcome {
    args.log_level.start();
    let targets = targets(args, engines)?;
    let stop = Stop::on(Shutdown::listen()?);
    let mut outcome = Ok(());
    for Looked { name, url, options } in targets {
        let waivers = options.waivers.clone();
        let looking = async {
            let looked = tokio::task::spawn_blocking(move || look(&url, &options, engines)).await;
            looked.map_err(|_| Failure::new(Code::Internal, "the preflight's thread ended early", ""))?
        };
        let printed = print(report, &waivers, stop.or(looking).await?, name.as_deref());
        // The rest is looked at, too.
        outcome = outcome.and(printed);
    }
    outcome
}

/// What the arguments name.
fn targets(args: &CheckArgs, engines: Engines) -> Outcome<Vec<Looked>> {
    let Some(path) = &args.config else {
        let url = args.target.clone().unwrap_or_default();
        let options = TargetOptions {
            row_bytes_max: ROW_BYTES_MAX as u64,
            danger_plaintext_file: args.danger_plaintext_file,
            waivers: args.waivers.parse(engines.findings(&url))?,
            ..TargetOptions::default()
        };
        engines.parse(&url)?.check_target(&options)?;
        return Ok(vec![Looked { name: None, url, options }]);
    };
    let config = Config::load(path, engines)?;
    let named = |name: &String| {
        let target = config.target(name)?;
        let options = target.options(config.row_bytes_max, engines)?;
        Ok(Looked { name: Some(name.clone()), url: target.url.clone(), options })
    };
    match &args.target {
        Some(name) => Ok(vec![named(name)?]),
        None => config.targets.keys().map(named).collect(),
    }
}

/// Looks as far as nothing is removed of what earlier loads have left.
fn look(url: &str, options: &TargetOptions, engines: Engines) -> Outcome<Vec<Finding>> {
    let target: Arc<dyn Target> = match engines.parse(url)?.open_target(options, engines) {
        Ok(target) => target,
        Err(failure) => return Ok(vec![of_failure(failure)?]),
    };
    let found = match target.check(Readiness::Place) {
        Ok(found) => found,
        Err(failure) => return Ok(vec![of_failure(failure)?]),
    };
    match target.check(Readiness::Name) {
        Ok(found) => Ok(found),
        Err(failure) => Ok(found.into_iter().chain([of_failure(failure)?]).collect()),
    }
}
