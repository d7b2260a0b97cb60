//! `memory`: the peak of each agent over a long stream, and before a target that is slow.

use std::{
    io::{Read, Write},
    net::UdpSocket,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};
use sealift_agent::units::{human_bytes, parse_bytes};
use sealift_benches::{
    Outcome,
    agents::{Peaks, Transfer},
    dump::Dump,
    exit,
    measure::GB,
    network::Places,
    stages::SEED,
    table::{Table, verdict},
};
use sealift_tests::link::{Faults, Link};

/// What each agent may take at most.
const PEAK_BYTES_MAX: u64 = 128 << 20;
/// The part of a stream that is generated; it is then repeated, as making it all would take longer
/// than moving it.
const REPEATED_BYTES: usize = 64 << 20;

/// A cut: longer than the silence that ends a connection.
const DOWN: Duration = Duration::from_secs(10);
/// How often it is looked at whether the next cut is due; the sender tells how far it is once a
/// second.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Peak memory of both agents
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    /// Bytes of the long stream
    #[arg(long, default_value = "10GB", value_parser = parse_bytes)]
    size: u64,
    /// Bytes that the slow target takes
    #[arg(long, default_value = "1GB", value_parser = parse_bytes)]
    slow_size: u64,
    /// Bytes that it takes a second
    #[arg(long, default_value = "50MB", value_parser = parse_bytes)]
    slow_rate: u64,
    /// How often the link is cut, for longer than a connection lives, evenly over another long
    /// stream
    #[arg(long, default_value_t = 0)]
    cuts: u32,
    #[command(subcommand)]
    helper: Option<Helper>,
}

#[derive(Subcommand)]
enum Helper {
    /// Prints a dump: the source of the long stream
    #[command(hide = true)]
    Source { bytes: u64 },
    /// Reads its input no faster than this, sleeping in between: the slow target
    #[command(hide = true)]
    Target { bytes_per_second: u64 },
}

fn main() -> ExitCode {
    let args = Args::parse();
    exit(
        "memory",
        match args.helper {
            None => run(&args),
            Some(Helper::Source { bytes }) => source(bytes),
            Some(Helper::Target { bytes_per_second }) => target(bytes_per_second),
        },
    )
}

fn source(bytes: u64) -> Outcome {
    let block = Dump::take_bytes(SEED, REPEATED_BYTES)?;
    let mut out = std::io::stdout().lock();
    let mut left = bytes;
    while left > 0 {
        let piece = &block[..left.min(block.len() as u64) as usize];
        out.write_all(piece)?;
        left -= piece.len() as u64;
    }
    Ok(out.flush()?)
}

fn target(bytes_per_second: u64) -> Outcome {
    let mut input = std::io::stdin().lock();
    let mut buffer = vec![0; 1 << 20];
    let (start, mut taken) = (Instant::now(), 0);
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(()),
            read => taken += read as u64,
        }
        let due = Duration::from_secs_f64(taken as f64 / bytes_per_second as f64);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
}

fn run(args: &Args) -> Outcome {
    let own = std::env::current_exe()?;
    let own = own.to_str().filter(|path| !path.contains('\'')).ok_or("the path of this program cannot be quoted")?;
    let long = format!("exec:'{own}' source {}", args.size);
    let short = format!("exec:'{own}' source {}", args.slow_size);
    let slow = format!("exec:'{own}' target {}", args.slow_rate);
    let mut table = Table::new(&["", "GB/s", "sender MiB", "receiver MiB"]);
    let mut largest = 0;
    for (name, source, target, bytes, compression) in [
        ("long stream, level 1", &long, "discard:", args.size, "1"),
        ("long stream, off", &long, "discard:", args.size, "off"),
        ("slow target, level 1", &short, slow.as_str(), args.slow_size, "1"),
        ("slow target, off", &short, slow.as_str(), args.slow_size, "off"),
    ] {
        let folder = tempfile::tempdir()?;
        let places = Places::loopback();
        let (folder, places) = (folder.path(), &places);
        let transfer =
            Transfer { source, target, compression, suite: "auto", folder, places, relay: None, memory: None };
        let start = Instant::now();
        let peaks = transfer.listen()?.push()?.wait_for_peaks()?;
        let rate = bytes as f64 / GB / start.elapsed().as_secs_f64();
        let mib = |bytes: u64| format!("{:.0}", bytes as f64 / f64::from(1 << 20));
        table.row(&[name.to_owned(), format!("{rate:.2}"), mib(peaks.sender_bytes), mib(peaks.receiver_bytes)]);
        largest = largest.max(peaks.sender_bytes).max(peaks.receiver_bytes);
    }
    if args.cuts > 0 {
        let (name, rate, peaks) = cut_stream(&long, args)?;
        let mib = |bytes: u64| format!("{:.0}", bytes as f64 / f64::from(1 << 20));
        table.row(&[name, format!("{rate:.2}"), mib(peaks.sender_bytes), mib(peaks.receiver_bytes)]);
        largest = largest.max(peaks.sender_bytes).max(peaks.receiver_bytes);
    }
    table.print("Peak memory (VmHWM)");
    let target = format!("each agent stays under {} MiB", PEAK_BYTES_MAX >> 20);
    verdict(&target, largest < PEAK_BYTES_MAX, &format!("{} MiB", largest >> 20));
    Ok(())
}

/// The long stream over a link that is down again and again.
fn cut_stream(source: &str, args: &Args) -> Outcome<(String, f64, Peaks)> {
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let link = Arc::new(Link::start(([127, 0, 0, 1], port).into(), Faults::default(), SEED));
    let (folder, places) = (tempfile::tempdir()?, Places::loopback());
    let transfer = Transfer {
        source,
        target: "discard:",
        compression: "1",
        suite: "auto",
        folder: folder.path(),
        places: &places,
        relay: Some((port, link.address())),
        memory: None,
    };
    let running = transfer.listen()?.push()?;
    let (cutting, cuts, size) = (Arc::clone(&link), args.cuts, args.size);
    let (events, over) = (folder.path().to_path_buf(), Arc::new(AtomicBool::new(false)));
    let ended = Arc::clone(&over);
    let start = Instant::now();
    let cutter = thread::spawn(move || {
        for cut in 1..=cuts {
            // Evenly over the stream, however fast it is.
            let due_bytes = size / u64::from(cuts + 1) * u64::from(cut);
            while Transfer::plain_bytes_so_far(&events) < due_bytes {
                if ended.load(Ordering::Relaxed) {
                    return cut - 1;
                }
                thread::sleep(LOOK_EVERY);
            }
            cutting.cut();
            thread::sleep(DOWN);
            cutting.heal();
        }
        cuts
    });
    let peaks = running.wait_for_peaks()?;
    let rate = args.size as f64 / GB / start.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    let cut = cutter.join().map_err(|_| "the cutter stopped")?;
    let said = transfer.said()?;
    let name = format!(
        "long stream, level 1, {cut} cuts: {} attempts, {} resent",
        said.retries,
        human_bytes(said.resent_bytes)
    );
    Ok((name, rate, peaks))
}
