//! `tables`: databases of many small tables, beside `sqlite3 .dump | sqlite3`. What a table costs
//! should not grow with their number, nor with the length of the line.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use clap::Parser;
use sealift_benches::{
    Outcome,
    agents::Transfer,
    exit,
    measure::{Usage, children, median},
    network::{Emulated, Places},
    table::{Table, say, verdict},
};
use sealift_tests::sqlite::create_small_tables;

/// What a table of the largest database may cost beside one of the smallest, in processor time.
const GROWTH_MAX: f64 = 1.3;

/// The line: 80 ms round trip, 500 Mbit/s.
const LINE: [&str; 4] = ["--delay", "40", "--rate", "500"];
/// How many tables go over it.
const LINE_TABLES: u32 = 2000;
/// What both agents may have in flight, which is room for so many lanes.
const LANES: [(&str, &str); 3] = [("1", "17MiB"), ("3", "64MiB"), ("16", "288MiB")];

/// Many small tables
#[derive(Parser)]
struct Args {
    /// Folder with linkem.c
    #[arg(long, default_value = "../shared/linkem")]
    linkem: PathBuf,
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
        ".dump into sqlite3, wall s",
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
            ours.push(transfer(folder.path(), &source, &run.to_string(), &Places::loopback(), None)?);
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
    over_a_long_line(args)
}

/// One database, with room for few lanes and for many.
fn over_a_long_line(args: &Args) -> Outcome {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("source.db");
    create_small_tables(&source, LINE_TABLES);
    let line = match Emulated::lay(&args.linkem, folder.path(), &LINE) {
        Ok(line) => line,
        Err(error) => {
            say(&format!("SKIP the long line: it needs root, ip, cc and linkem.c ({error})"));
            return Ok(());
        }
    };
    let places = line.places();
    let mut usages = LANES.map(|_| Vec::new());
    for run in 0..args.runs.max(1) {
        for ((lanes, memory), usages) in LANES.iter().zip(&mut usages) {
            usages.push(transfer(folder.path(), &source, &format!("{lanes}-{run}"), &places, Some(memory))?);
        }
    }
    let mut table = Table::new(&["lanes", "--memory", "wall s", "CPU-s"]);
    for ((lanes, memory), usages) in LANES.iter().zip(&usages) {
        let usage = medians(usages);
        let (wall, cpu) = (format!("{:.2}", usage.wall_seconds), format!("{:.2}", usage.cpu_seconds));
        table.row(&[(*lanes).to_owned(), (*memory).to_owned(), wall, cpu]);
    }
    table.print(&format!("{LINE_TABLES} tables of one row, 80 ms, 500 Mbit/s"));
    Ok(())
}

fn transfer(folder: &Path, source: &Path, run: &str, places: &Places, memory: Option<&str>) -> Outcome<Usage> {
    let state = folder.join(format!("agents-{run}"));
    std::fs::create_dir(&state)?;
    let (source, target) = (sqlite_url(source), sqlite_url(&state.join("target.db")));
    let transfer = Transfer {
        source: &source,
        target: &target,
        compression: "1",
        suite: "auto",
        folder: &state,
        places,
        relay: None,
        memory,
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
