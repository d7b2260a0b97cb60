//! A source is looked at before it is planned: by `check`, which prints what was found, and by
//! every transfer.

use std::{process::ExitCode, sync::Arc};

use sealift_agent::{
    failure::{Failure, Outcome},
    preflight::{of_failure, print},
    report::Report,
    role::Role,
    shutdown::Shutdown,
    stop::Stop,
    threads,
};
use sealift_engine_api::{Endpoint, Engines, Finding, Source, SourceOptions};
use sealift_protocol::close::Code;
use tokio::sync::oneshot;

use crate::cli::CheckArgs;

/// Looks at a source, on a thread of its own, and gives it back with what was found. Not
/// cancel-safe: the thread ends by itself, or with `stop`.
pub async fn look(source: Box<dyn Source>, stop: Stop) -> Outcome<(Box<dyn Source>, Vec<Finding>)> {
    let (found_out, found) = oneshot::channel();
    let looking = move || {
        let findings = source.check(Arc::new(stop));
        let _ = found_out.send(findings.map(|findings| (source, findings)));
    };
    threads::spawn("preflight", looking)
        .map_err(|error| Failure::io(Code::Internal, "the preflight's thread cannot be started", &error, ""))?;
    found.await.map_err(|_| Failure::new(Code::Internal, "the preflight's thread ended early", ""))?
}

pub async fn check(args: CheckArgs, engines: Engines) -> ExitCode {
    let report = Report::new(Role::Sender, args.json);
    let outcome = run(&args, engines, &report).await;
    report.stop(&outcome)
}

async fn run(args: &CheckArgs, engines: Engines, report: &Report) -> Outcome {
    args.log_level.start();
    let endpoint = engines.parse(&args.source)?;
    args.form.check(&*endpoint)?;
    args.chosen.check(&*endpoint)?;
    let waivers = args.waivers.parse(engines.findings(&args.source))?;
    let options = SourceOptions {
        form: args.form.of_engine(),
        filter: args.chosen.filter(),
        waivers: waivers.clone(),
        ..SourceOptions::default()
    };
    let stop = Stop::on(Shutdown::listen()?);
    let findings = match found(&*endpoint, options, &stop).await {
        Ok(findings) => findings,
        Err(failure) => vec![of_failure(failure)?],
    };
    print(report, &waivers, findings, None)
}

async fn found(endpoint: &dyn Endpoint, options: SourceOptions, stop: &Stop) -> Outcome<Vec<Finding>> {
    let source = endpoint.open_source(options)?;
    let (_, findings) = stop.or(look(source, stop.within())).await?;
    Ok(findings)
}
