//! `audit-log`: what an agent's start costs where its audit log is long. The whole chain is checked each time.

use std::{
    fs::OpenOptions,
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    process::ExitCode,
};

use clap::Parser;
use sealift_agent::{
    audit::AuditLog,
    audit_chain::{Link, SCHEMA},
    state::StateDir,
};
use sealift_benches::{
    Outcome, exit,
    measure::{GB, median, own},
    table::Table,
};
use serde_json::json;

/// The check of a long audit log at an agent's start
#[derive(Parser)]
struct Args {
    /// Entries of the log
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Runs; the table has their median
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

fn main() -> ExitCode {
    exit("audit-log", run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let folder = tempfile::tempdir()?;
    let state = StateDir::open(Some(folder.path().join("state")), "bench").map_err(|failure| failure.to_string())?;
    let path = state.path().join("audit.jsonl");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let mut out = BufWriter::new(file);
    let mut link = Link::first();
    for number in 0..args.entries {
        let line = line(&link, number);
        writeln!(out, "{line}")?;
        link = link.next(line.as_bytes());
    }
    out.flush()?;
    let bytes = path.metadata()?.len();
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..args.runs {
        let (usage, opened) = own(|| AuditLog::open(&state, "bench"))?;
        opened.map_err(|failure| failure.to_string())?;
        walls.push(usage.wall_seconds);
        cpus.push(usage.cpu_seconds);
    }
    let mut table = Table::new(&["entries", "MB", "wall s", "CPU-s"]);
    table.row(&[
        args.entries.to_string(),
        format!("{:.0}", bytes as f64 / (GB / 1000.0)),
        format!("{:.2}", median(&walls)),
        format!("{:.2}", median(&cpus)),
    ]);
    table.print("An agent's start: its audit log is read and checked");
    Ok(())
}

/// An entry of usual length, in its canonical spelling.
fn line(link: &Link, number: u64) -> String {
    let entry = json!({
        "schema": SCHEMA, "seq": link.seq, "prev": link.prev, "ts": "2026-11-29T20:55:55.636Z",
        "program": "sealift-receiver", "uid": 0, "event": "transfer.connect", "transfer": format!("{number:032x}"),
        "address": "192.0.2.17:53011", "epoch": 1, "suite": "aes-256-gcm",
        "sender": "4255-a619-fd8f-0cfa-e9d2-7cb8-ffa5-7dc1-e92e-fd7e-236f-09c4-9910-cecf-9a36-da3a",
    });
    entry.to_string()
}
