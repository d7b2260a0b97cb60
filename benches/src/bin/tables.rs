//! `tables`: databases of many small tables, beside `sqlite3 .dump | sqlite3`. What a table costs
//! should not grow with their number.

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use clap::Parser;
use sealift_benches::{
    Outcome,
    agents::Transfer,
    exit,
    measure::{Usage, children, median},
    network::Places,
    table::{Table, verdict},
};
use sealift_tests::sqlite::create_small_tables;

/// What a table of the largest database may cost beside one of the smallest, in processor time.
const GROWTH_MAX: f64 = 1.3;

/// Many small tables
#[derive(Parser)]
struct Args {
    /// How many tables of one row, one database for each number
    #[arg(long, value_delimiter = ',', default_value = "1000,2000,4000,10000")]
    tables: Vec<u32>,
    /// Runs of each, in turn; the figures are medians
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

fn main() -> ExitCode {
    exit("tables", run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let heads = [
        "tables",
        "wall s",
        "CPU-s",
        "CPU-µs a table",
        ".dump | sqlite3, wall s",
        "CPU-s",
        "wall to that",
        "CPU to that",
    ];
    let mut table = Table::new(&heads);
    let mut costs = Vec::new();
    for &tables in &args.tables {
        let folder = tempfile::tempdir()?;
        let source = folder.path().join("source.db");
        create_small_tables(&source, tables);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for run in 0..args.runs.max(1) {
            ours.push(transfer(folder.path(), &source, run)?);
            theirs.push(dump(folder.path(), &source, run)?);
        }
        let (ours, theirs) = (medians(&ours), medians(&theirs));
        let cost = ours.cpu_seconds / f64::from(tables.max(1));
        costs.push(cost);
        let seconds = |seconds: f64| format!("{seconds:.2}");
        table.row(&[
            tables.to_string(),
            seconds(ours.wall_seconds),
            seconds(ours.cpu_seconds),
            format!("{:.0}", cost * 1e6),
            seconds(theirs.wall_seconds),
            seconds(theirs.cpu_seconds),
            seconds(ours.wall_seconds / theirs.wall_seconds),
            seconds(ours.cpu_seconds / theirs.cpu_seconds),
        ]);
    }
    table.print("Tables of one row, over loopback");
    if let (Some(first), Some(last)) = (costs.first(), costs.last()) {
        let target = format!("a table costs at most {GROWTH_MAX} times as much among the most as among the fewest");
        verdict(&target, last / first <= GROWTH_MAX, &format!("{:.2}", last / first));
    }
    Ok(())
}

fn transfer(folder: &Path, source: &Path, run: usize) -> Outcome<Usage> {
    let state = folder.join(format!("agents-{run}"));
    std::fs::create_dir(&state)?;
    let (source, target) = (sqlite_url(source), sqlite_url(&state.join("target.db")));
    let places = Places::loopback();
    let transfer = Transfer {
        source: &source,
        target: &target,
        compression: "1",
        suite: "auto",
        folder: &state,
        places: &places,
        relay: None,
    };
    let (usage, done) = children(|| transfer.listen()?.push()?.wait())?;
    done?;
    Ok(usage)
}

fn dump(folder: &Path, source: &Path, run: usize) -> Outcome<Usage> {
    let target = folder.join(format!("dumped-{run}.db"));
    let (usage, done) = children(|| {
        let mut dumping = Command::new("sqlite3").arg(source).arg(".dump").stdout(Stdio::piped()).spawn()?;
        let script = dumping.stdout.take().ok_or("no pipe from sqlite3")?;
        let loaded = Command::new("sqlite3").arg(&target).stdin(script).status()?;
        match (dumping.wait()?.success(), loaded.success()) {
            (true, true) => Outcome::Ok(()),
            _ => Err("sqlite3 failed".into()),
        }
    })?;
    done?;
    Ok(usage)
}

fn sqlite_url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

fn medians(usages: &[Usage]) -> Usage {
    let of = |figure: fn(&Usage) -> f64| median(&usages.iter().map(figure).collect::<Vec<_>>());
    Usage {
        wall_seconds: of(|usage| usage.wall_seconds),
        cpu_seconds: of(|usage| usage.cpu_seconds),
        rss_bytes_max: usages.iter().map(|usage| usage.rss_bytes_max).max().unwrap_or(0),
    }
}
