//! `flood`: what a transfer keeps of its speed while 10,000 packets a second that mean nothing come
//! to the receiver's port. Making them takes a processor's time too, and is not the receiver's
//! doing: what it is compared with is the same flood at a port where nobody reads.

use std::{
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::Parser;
use sealift_agent::units::parse_bytes;
use sealift_benches::{
    Outcome,
    agents::{Peaks, Transfer},
    dump, exit,
    measure::median,
    network::Places,
    stages::SEED,
    strangers,
    table::{Table, tell, verdict},
};
use sealift_tests::{flood::Flood, port::free_udp_port};

/// The share of its speed that a transfer keeps.
const KEPT_MIN: f64 = 0.80;

/// One transfer beside a flood of packets that mean nothing, and beside handshakes of those who
/// have no ticket
#[derive(Parser)]
struct Args {
    /// Bytes of the dump
    #[arg(long, default_value = "4GB", value_parser = parse_bytes)]
    size: u64,
    /// Runs of each; the table has their medians
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Where the dump lies; a tmpfs keeps the disk out of the figures
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Only beside handshakes: how long a sender takes to be admitted, and a transfer to come back
    #[arg(long)]
    handshakes: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum At {
    Nobody,
    AnotherPort,
    Receiver,
}

const ALL: [(At, &str); 3] =
    [(At::Nobody, "no flood"), (At::AnotherPort, "at a port where nobody reads"), (At::Receiver, "at the receiver")];

/// What one run took.
struct Run {
    seconds: f64,
    peaks: Peaks,
    packets_per_second: f64,
}

fn main() -> ExitCode {
    exit("flood", run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    strangers::run(args.runs)?;
    if args.handshakes {
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("sealift-bench-").tempdir_in(&args.dir)?;
    let dump = folder.path().join("dump.sql");
    dump::write_file(&dump, SEED, args.size)?;
    for compression in ["off", "1"] {
        let mut runs = ALL.map(|_| Vec::new());
        for round in 1..=args.runs {
            for ((at, name), runs) in ALL.iter().zip(&mut runs) {
                let run = once(*at, &dump, compression, folder.path())?;
                tell(&format!("compression {compression}, round {round}, {name}: {:.2} s", run.seconds));
                runs.push(run);
            }
        }
        show(args, compression, &runs);
    }
    Ok(())
}

fn once(at: At, dump: &Path, compression: &str, folder: &Path) -> Outcome<Run> {
    let source = format!("file:{}", dump.display());
    let port = free_udp_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let transfer = Transfer {
        source: &source,
        target: "discard:",
        compression,
        suite: "auto",
        folder,
        places: &Places::loopback(),
        relay: Some((port, address)),
        memory: None,
    };
    let listening = transfer.listen()?;
    let unread = UdpSocket::bind("127.0.0.1:0")?;
    let victim = match at {
        At::Nobody => None,
        At::AnotherPort => Some(unread.local_addr()?),
        At::Receiver => Some(address),
    };
    let flood = victim.map(Flood::start);
    let sent = || flood.as_ref().map_or(0, Flood::sent);
    let (start, before) = (Instant::now(), sent());
    let peaks = listening.push()?.wait_for_peaks()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Run { seconds, peaks, packets_per_second: (sent() - before) as f64 / seconds })
}

fn show(args: &Args, compression: &str, runs: &[Vec<Run>; ALL.len()]) {
    let mut table = Table::new(&["10,000 packets a second", "wall s", "receiver CPU-s", "receiver MiB", "packets/s"]);
    let middle = |runs: &[Run], of: fn(&Run) -> f64| median(&runs.iter().map(of).collect::<Vec<_>>());
    for ((_, name), runs) in ALL.iter().zip(runs) {
        table.row(&[
            (*name).to_owned(),
            format!("{:.2}", middle(runs, |run| run.seconds)),
            format!("{:.2}", middle(runs, |run| run.peaks.receiver_cpu_seconds)),
            format!("{:.0}", middle(runs, |run| run.peaks.receiver_bytes as f64 / f64::from(1 << 20))),
            format!("{:.0}", middle(runs, |run| run.packets_per_second)),
        ]);
    }
    let megabytes = args.size as f64 / 1e6;
    table.print(&format!("Under a flood: {megabytes:.0} MB, compression {compression}, medians of {}", args.runs));
    let [_, elsewhere, here] = runs;
    let kept = middle(elsewhere, |run| run.seconds) / middle(here, |run| run.seconds);
    let target = format!("compression {compression}: a flooded transfer keeps {:.0} % of its speed", KEPT_MIN * 100.0);
    verdict(&target, kept >= KEPT_MIN, &format!("{:.0} %", kept * 100.0));
}
