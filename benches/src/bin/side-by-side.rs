//! `side-by-side`: the agents as processes beside other tools, on the same dump, in turn.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use clap::{Parser, Subcommand};
use sealift_agent::{threads::processors, units::parse_bytes};
use sealift_benches::{
    Outcome,
    contender::{
        ALL, Contender, Job, SEALIFT_1, SEALIFT_1_CHACHA, SEALIFT_OFF, SEALIFT_OFF_CHACHA, SEALIFT_OFF_FILE, missing,
    },
    dump, exit,
    measure::{GB, Usage, median},
    network::{Ethernet, Places},
    quic,
    ssh::Keys,
    stages::{SEED, Stages, busy_cpu_per_gb},
    table::{Table, say, tell, verdict},
};
use sealift_protocol::{compress::Compression, seal::Suite};

/// The share of the wall time of `zstd | age | ssh` that Sealift may take at level 1.
const AGE_SHARE_MAX: f64 = 0.65;
/// The share of what the processors could do that Sealift must reach.
const LIMIT_SHARE_MIN: f64 = 0.85;
/// What the raw link is measured with.
const LINK_BYTES: u64 = 1_000_000_000;
const STAGE_PASSES: usize = 5;

/// Sealift, scp, rsync, and zstd | age | ssh, moving one dump in turn
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    /// Bytes of the dump
    #[arg(long, default_value = "1500MB", value_parser = parse_bytes)]
    size: u64,
    /// Runs of each; the table has their medians
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Where dump and landed files lie; a tmpfs keeps the disk out of the figures
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Only these, by a part of their names
    #[arg(long, default_value = "")]
    only: String,
    #[command(subcommand)]
    once: Option<Once>,
}

#[derive(Subcommand)]
enum Once {
    /// One run of one contender, in a process of its own so that memory is counted right
    #[command(hide = true)]
    Once { contender: usize, dump: PathBuf, folder: PathBuf, places: String },
}

fn main() -> ExitCode {
    let args = Args::parse();
    exit("side-by-side", args.once.as_ref().map_or_else(|| run(&args), once))
}

fn once(Once::Once { contender, dump, folder, places }: &Once) -> Outcome {
    let places = serde_json::from_str(places)?;
    let contender = *ALL.get(*contender).ok_or("no such contender")?;
    let usage = Job { contender, dump, folder, places: &places }.run()?;
    say(&serde_json::to_string(&usage)?);
    Ok(())
}

fn run(args: &Args) -> Outcome {
    let missing = missing();
    if !missing.is_empty() {
        return Err(format!("install first: {} (scripts/bench does)", missing.join(" ")).into());
    }
    let folder = tempfile::Builder::new().prefix("sealift-bench-").tempdir_in(&args.dir)?;
    let path = folder.path().join("dump.sql");
    Keys::make(folder.path())?;
    dump::write_file(&path, SEED, args.size)?;
    let gb = args.size as f64 / GB;

    let all = Series::new(args, &path, folder.path(), &ALL);
    // The processors of a shared machine are not the same from minute to minute: their limit is
    // taken in every round.
    let mut limits = Limits::default();
    let loopback = all.measure(&Places::loopback(), || limits.measure())?;
    loopback.print(&format!("Side by side on loopback, {gb:.2} GB, median of {}", args.runs));
    limits.print();
    check_loopback(&loopback, &limits, gb);

    match Ethernet::lay() {
        Ok(ethernet) => {
            let contenders = [SEALIFT_OFF_FILE, Contender::Scp, SEALIFT_OFF, SEALIFT_1];
            let ordinary =
                Series::new(args, &path, folder.path(), &contenders).measure(&ethernet.places(), || Ok(()))?;
            ordinary.print(&format!("Between two network namespaces, MTU 1500, {gb:.2} GB, median of {}", args.runs));
            for (contender, into) in [(SEALIFT_OFF, "to discard:"), (SEALIFT_OFF_FILE, "into a file, synced")] {
                if let (Some(sealift), Some(scp)) = (ordinary.wall(contender), ordinary.wall(Contender::Scp)) {
                    let figure = format!("{sealift:.2} s against {scp:.2} s");
                    verdict(&format!("not compressed, {into}, ahead of scp at MTU 1500"), sealift < scp, &figure);
                }
            }
        }
        Err(error) => say(&format!("SKIP the comparison at MTU 1500: it needs root and ip ({error})")),
    }
    Ok(())
}

/// Contenders that take turns.
struct Series<'a> {
    runs: usize,
    dump: &'a Path,
    folder: &'a Path,
    contenders: Vec<Contender>,
}

/// What each took, in every run.
struct Results(Vec<(Contender, Vec<Usage>)>);

impl<'a> Series<'a> {
    fn new(args: &Args, dump: &'a Path, folder: &'a Path, contenders: &[Contender]) -> Self {
        let wanted = |contender: &&Contender| contender.name().contains(&args.only);
        Self { runs: args.runs, dump, folder, contenders: contenders.iter().filter(wanted).copied().collect() }
    }

    fn measure(&self, places: &Places, mut after_round: impl FnMut() -> Outcome) -> Outcome<Results> {
        let mut results: Vec<_> = self.contenders.iter().map(|&contender| (contender, Vec::new())).collect();
        for round in 1..=self.runs {
            for (contender, usages) in &mut results {
                let usage = self.run_once(*contender, places)?;
                tell(&format!("{round}/{} {}: {:.2} s", self.runs, contender.name(), usage.wall_seconds));
                usages.push(usage);
            }
            after_round()?;
        }
        Ok(Results(results))
    }

    fn run_once(&self, contender: Contender, places: &Places) -> Outcome<Usage> {
        let place = ALL.iter().position(|&other| other == contender).ok_or("no such contender")?;
        let output = Command::new(std::env::current_exe()?)
            .args(["once", &place.to_string()])
            .args([self.dump, self.folder])
            .arg(serde_json::to_string(places)?)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("{} did not run to its end", contender.name()).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Results {
    fn median(&self, contender: Contender, figure: impl Fn(&Usage) -> f64) -> Option<f64> {
        let (_, usages) = self.0.iter().find(|(other, _)| *other == contender)?;
        Some(median(&usages.iter().map(figure).collect::<Vec<_>>()))
    }

    fn wall(&self, contender: Contender) -> Option<f64> {
        self.median(contender, |usage| usage.wall_seconds)
    }

    fn print(&self, title: &str) {
        let mut table = Table::new(&["", "wall s", "CPU-s", "largest process MB", "wall to the first"]);
        let first = self.0.first().and_then(|(contender, _)| self.wall(*contender)).unwrap_or(f64::NAN);
        for &(contender, _) in &self.0 {
            let of = |figure: fn(&Usage) -> f64| self.median(contender, figure).unwrap_or(f64::NAN);
            let wall = of(|usage| usage.wall_seconds);
            table.row(&[
                contender.name(),
                format!("{wall:.2}"),
                format!("{:.2}", of(|usage| usage.cpu_seconds)),
                format!("{:.0}", of(|usage| usage.rss_bytes_max as f64 / 1e6)),
                format!("{:.2}", wall / first),
            ]);
        }
        table.print(title);
    }
}

/// What the processors of this machine could do if nothing ever waited: all stages of both agents
/// and the link, shared out over the cores.
#[derive(Default)]
struct Limits {
    /// Of each round: contender, processor seconds a GB of its stages and of its share of the link.
    rounds: Vec<Vec<(Contender, f64, f64)>>,
}

impl Limits {
    /// One round's.
    fn measure(&mut self) -> Outcome {
        let link_cpu_per_gb = quic::transfer(LINK_BYTES)?.cpu_seconds / (LINK_BYTES as f64 / GB);
        let stages = Stages::new(STAGE_PASSES)?;
        let mut of = Vec::new();
        for (contender, suite, compression) in [
            (SEALIFT_1, Suite::Aes256Gcm, Compression::Level(1)),
            (SEALIFT_1_CHACHA, Suite::ChaCha20Poly1305, Compression::Level(1)),
            (SEALIFT_OFF, Suite::Aes256Gcm, Compression::Off),
            (SEALIFT_OFF_CHACHA, Suite::ChaCha20Poly1305, Compression::Off),
        ] {
            let link = stages.wire_ratio(compression)? * link_cpu_per_gb;
            of.push((contender, busy_cpu_per_gb(STAGE_PASSES, suite, compression)?, link));
        }
        self.rounds.push(of);
        Ok(())
    }

    /// Medians of the rounds: processor seconds a GB of a contender's stages, and of its link.
    fn cpu_per_gb(&self, contender: Contender) -> Option<(f64, f64)> {
        let of: Vec<_> = self.rounds.iter().flatten().filter(|(other, ..)| *other == contender).collect();
        let figures = |figure: fn(&(Contender, f64, f64)) -> f64| of.iter().copied().map(figure).collect::<Vec<_>>();
        (!of.is_empty()).then(|| (median(&figures(|of| of.1)), median(&figures(|of| of.2))))
    }

    fn gb_per_second(&self, contender: Contender) -> Option<f64> {
        let (stages, link) = self.cpu_per_gb(contender)?;
        Some(processors() as f64 / (stages + link))
    }

    fn print(&self) {
        let mut table = Table::new(&["", "stages CPU-s/GB", "link CPU-s/GB", "limit GB/s"]);
        for &(contender, ..) in self.rounds.first().into_iter().flatten() {
            let (stages, link) = self.cpu_per_gb(contender).unwrap_or((f64::NAN, f64::NAN));
            let limit = self.gb_per_second(contender).unwrap_or(f64::NAN);
            table.row(&[contender.name(), format!("{stages:.2}"), format!("{link:.2}"), format!("{limit:.2}")]);
        }
        table.print(&format!("What {} processors could do, all of them at work, median of the rounds", processors()));
    }
}

fn check_loopback(loopback: &Results, limits: &Limits, gb: f64) {
    say("");
    if let (Some(sealift), Some(age)) = (loopback.wall(SEALIFT_1), loopback.wall(Contender::ZstdAgeSsh)) {
        let share = sealift / age;
        let target = format!("level 1 takes at most {AGE_SHARE_MAX} of the wall time of zstd | age | ssh");
        verdict(&target, share <= AGE_SHARE_MAX, &format!("{share:.2}"));
    }
    let share = |contender| Some(gb / loopback.wall(contender)? / limits.gb_per_second(contender)?);
    if let Some(share) = share(SEALIFT_1) {
        let target = format!("level 1 reaches {:.0} % of its limit", LIMIT_SHARE_MIN * 100.0);
        verdict(&target, share >= LIMIT_SHARE_MIN, &format!("{:.0} %", share * 100.0));
    }
    if let Some(share) = share(SEALIFT_OFF) {
        say(&format!("not compressed, it reaches {:.0} % of its limit", share * 100.0));
    }
}
