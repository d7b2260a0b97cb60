//! `push --dry-run`: what would be moved, and what would not.
//!
//! The source is planned as for a transfer, and nothing else happens: nothing is sent, and nothing
//! is written on either host.

use std::process::ExitCode;

use sealift_agent::{
    cli,
    failure::{Failure, Outcome},
    output,
    report::Report,
    role::Role,
    shutdown::Shutdown,
    stop::Stop,
    telemetry::printable,
    units::{counted, grouped, human_bytes},
};
use sealift_engine_api::{Engines, Finding, Severity, refuse_errors};
use sealift_protocol::manifest::{Plan, PlannedPart, RowsMoved, Section};
use serde_json::{Value, json};

use crate::{
    cli::PushArgs,
    preflight::look,
    reader::{Opened, Reader, Reading, empty_dump},
};

pub async fn dry_run(args: PushArgs, engines: Engines) -> ExitCode {
    cli::exit("sender", run(&args, engines).await)
}

async fn run(args: &PushArgs, engines: Engines) -> Outcome {
    args.transfer.apply()?;
    let endpoint = engines.parse(&args.source)?;
    args.form.check(&*endpoint)?;
    args.chosen.check(&*endpoint)?;
    if endpoint.engine(args.form.of_engine()).capabilities.has(Section::Opaque) {
        let next = "Leave --dry-run away: what a file or a program gives is known only when it is read.";
        return Err(Failure::usage("--dry-run is for a source that is moved as its tables", next));
    }
    let stop = Stop::on(Shutdown::listen()?);
    let waivers = args.waivers.parse(engines.findings(&args.source))?;
    let source = endpoint.open_source(args.source_options(waivers.clone()))?;
    let (source, mut findings) = stop.or(look(source, stop.within())).await?;
    waivers.apply(&mut findings);
    let row_bytes_max = args.transfer.row_bytes_max as usize;
    let reading = Reading { waivers: waivers.clone(), row_bytes_max, empty: args.empty.said(), is_empty: empty_dump };
    // No lock is taken in vain: what refuses the source is said without a plan.
    if refuse_errors(&findings).is_err() {
        return show(args, None, &findings);
    }
    let Opened { plan, findings: planned, .. } = stop.or(Reader::start(source, reading, stop.within())).await?;
    findings.retain(|finding| finding.severity > Severity::Fact && !planned.contains(finding));
    findings.extend(planned);
    show(args, Some(&plan), &findings)
}

/// Prints the plan, if there is one, and what was found; fails if an error is among that.
fn show(args: &PushArgs, plan: Option<&Plan>, findings: &[Finding]) -> Outcome {
    if args.transfer.json {
        output::print(format!("{}\n", object(plan, findings)).as_bytes())?;
    } else {
        let report = Report::new(Role::Sender, false);
        let reported = findings.iter().filter(|finding| finding.severity > Severity::Fact);
        reported.for_each(|finding| report.finding(finding));
        output::print(plan.map(table).unwrap_or_default().as_bytes())?;
    }
    refuse_errors(findings)
}

/// One object with everything.
fn object(plan: Option<&Plan>, findings: &[Finding]) -> Value {
    let part = |plan: &Plan, part: &PlannedPart| {
        let table = part.table.and_then(|table| plan.tables.get(table.0 as usize));
        json!({
            "section": section(part.section),
            "schema": table.and_then(|table| table.schema.as_deref()),
            "table": table.map(|table| table.name.as_str()),
            "from": part.range.map(|range| range.from),
            "to": part.range.and_then(|range| range.to),
            "rows_estimate": part.rows_estimate,
            "bytes_estimate": part.bytes_estimate,
            "filtered": table.is_some_and(|table| table.filtered.is_some()),
        })
    };
    let finding = |Finding { name, severity, what, hint, is_waived }: &Finding| {
        let severity = severity.as_str();
        json!({ "name": name, "severity": severity, "what": what, "hint": hint, "waived": is_waived })
    };
    json!({
        "schema": "sealift.plan/1",
        "engine": plan.map(|plan| &plan.engine.name),
        "tables": plan.map(|plan| plan.tables.len()),
        "left_out": plan.map(|plan| plan.left_out.unwrap_or(0)),
        "definitions_only": plan.map(|plan| plan.rows == Some(RowsMoved::None)),
        "parts": plan.map(|plan| plan.parts.iter().map(|planned| part(plan, planned)).collect::<Vec<_>>()),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// The parts in their order, one a line.
fn table(plan: &Plan) -> String {
    let mut lines = vec![format!("{:>5}  {:>10}  {:>14}  what", "part", "about", "rows, about")];
    for (part, number) in plan.parts.iter().zip(0..) {
        let bytes = part.bytes_estimate.map_or_else(String::new, human_bytes);
        let rows = part.rows_estimate.map_or_else(String::new, grouped);
        let table = part.table.and_then(|table| plan.tables.get(table.0 as usize));
        let what = table.map_or_else(|| section(part.section).to_owned(), |table| printable(&table.full_name()));
        let range = part.range.map_or_else(String::new, |range| match range.to {
            Some(to) => format!(", {} to {to}", range.from),
            None => format!(", from {} on", range.from),
        });
        let filtered = if table.is_some_and(|table| table.filtered.is_some()) { ", filtered by --where" } else { "" };
        lines.push(format!("{number:>5}  {bytes:>10}  {rows:>14}  {what}{range}{filtered}"));
    }
    let bytes: u64 = plan.parts.iter().filter_map(|part| part.bytes_estimate).sum();
    let (tables, parts) = (counted(plan.tables.len() as u64, "table"), counted(plan.parts.len() as u64, "part"));
    lines.push(format!("{tables} in {parts}, about {}; nothing was sent", human_bytes(bytes)));
    lines.join("\n") + "\n"
}

fn section(section: Section) -> &'static str {
    match section {
        Section::PreData => "pre-data",
        Section::Data => "data",
        Section::PostData => "post-data",
        Section::Opaque => "opaque",
    }
}
