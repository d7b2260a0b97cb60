//! `pipeline`: read, pack and seal, open, discard, in one process.

use std::{fs::File, process::ExitCode};

use clap::Parser;
use sealift_agent::{threads::processors, units::parse_bytes};
use sealift_benches::{
    Outcome, dump, exit,
    measure::{GB, median, own},
    pipeline,
    stages::{SEED, Stages, name_of},
    table::Table,
};
use sealift_protocol::{compress::Compression, seal::Suite};

/// The way of the data without a link
#[derive(Parser)]
struct Args {
    /// Bytes of the dump
    #[arg(long, default_value = "1GB", value_parser = parse_bytes)]
    size: u64,
    /// Runs; the table has their median
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

fn main() -> ExitCode {
    exit("pipeline", run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("dump.sql");
    dump::write_file(&path, SEED, args.size)?;
    let stages = Stages::new(1)?;
    let gb = args.size as f64 / GB;
    let mut table = Table::new(&["suite, compression", "GB/s", "CPU-s/GB"]);
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        for compression in [Compression::Off, Compression::Level(1), Compression::Level(3)] {
            let keys = stages.keys(suite);
            let (mut walls, mut cpus) = (Vec::new(), Vec::new());
            for _ in 0..args.runs {
                let source = File::open(&path)?;
                let (usage, verified_bytes) = own(|| pipeline::run(source, &keys, compression, processors()))?;
                if verified_bytes? != args.size {
                    return Err("not all of the dump came out".into());
                }
                walls.push(usage.wall_seconds);
                cpus.push(usage.cpu_seconds);
            }
            let name = format!("{}, {}", suite.name(), name_of(compression));
            table.row(&[name, format!("{:.2}", gb / median(&walls)), format!("{:.2}", median(&cpus) / gb)]);
        }
    }
    table.print(&format!("Pipeline in one process, {gb:.2} GB, {} threads a stage", processors()));
    Ok(())
}
