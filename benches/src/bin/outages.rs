//! `outages`: one dump over a long, lossy line that is down again and again, beside what people run
//! in a loop today.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use clap::Parser;
use sealift_agent::units::parse_bytes;
use sealift_benches::{
    Outcome,
    agents::Transfer,
    dump, exit,
    network::{Emulated, End, Places},
    ssh::{Keys, Server, user},
    stages::SEED,
    table::{Table, say, tell, verdict},
};
use sealift_protocol::limits::LANE_WINDOW_BYTES_MAX;

/// The line: 50 ms round trip, 1 % loss, 100 Mbit/s, and 5 s of every 30 down.
const LINE: [&str; 10] = ["--delay", "25", "--loss", "1", "--rate", "100", "--flap", "25,5", "--seed", "7"];

/// One dump over a line with outages
#[derive(Parser)]
struct Args {
    /// Folder with linkem.c
    #[arg(long, default_value = "../shared/linkem")]
    linkem: PathBuf,
    /// Bytes of the dump
    #[arg(long, default_value = "500MB", value_parser = parse_bytes)]
    size: u64,
    /// Seconds after which a way of moving it is stopped, and counts with what had landed by then
    #[arg(long, default_value_t = 900)]
    seconds_max: u64,
}

/// How far one came.
struct Ran {
    name: String,
    wall: Duration,
    landed_bytes: u64,
    whole: bool,
    note: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    exit("outages", run(&args))
}

fn run(args: &Args) -> Outcome {
    if !args.linkem.join("linkem.c").is_file() {
        say(&format!("SKIP: no linkem.c in {}", args.linkem.display()));
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("sealift-bench-").tempdir_in("/dev/shm")?;
    let path = folder.path().join("dump.sql");
    let keys = Keys::make(folder.path())?;
    dump::write_file(&path, SEED, args.size)?;
    let bench = Bench { args, path: &path, folder: folder.path(), keys };
    let ran = [
        bench.sealift("1")?,
        bench.sealift("off")?,
        bench.in_a_loop(
            "rsync -z --partial",
            r#"rsync -z --zc=zstd --zl=1 --partial --inplace -e "ssh $SSH" "$1" "$2""#,
        )?,
        bench.in_a_loop("rsync --partial", r#"rsync --partial --inplace -e "ssh $SSH" "$1" "$2""#)?,
        bench.in_a_loop("scp", r#"scp -q $SSH "$1" "$2""#)?,
    ];
    let mut table = Table::new(&["", "wall s", "landed MB", "Mbit/s of plaintext", ""]);
    for one in &ran {
        let (wall, landed) = (one.wall.as_secs_f64(), one.landed_bytes as f64);
        let rate = format!("{:.1}", landed * 8.0 / 1e6 / wall);
        let note = if one.whole { one.note.clone() } else { "stopped".to_owned() };
        table.row(&[one.name.clone(), format!("{wall:.0}"), format!("{:.0}", landed / 1e6), rate, note]);
    }
    table.print("50 ms, 1 % loss, 100 Mbit/s, 5 s of every 30 down");
    let [packed, plain, rsync_packed, others @ ..] = &ran;
    check("compressed, ahead of rsync -z --partial", packed, std::slice::from_ref(rsync_packed));
    check("not compressed, ahead of rsync --partial and of scp", plain, others);
    Ok(())
}

fn check(target: &str, ours: &Ran, others: &[Ran]) {
    let ahead = ours.whole && others.iter().all(|other| !other.whole || other.wall > ours.wall);
    verdict(target, ahead, &format!("{:.0} s", ours.wall.as_secs_f64()));
}

struct Bench<'a> {
    args: &'a Args,
    path: &'a Path,
    folder: &'a Path,
    keys: Keys,
}

impl Bench<'_> {
    fn lay(&self) -> Outcome<(Emulated, Places)> {
        let line = Emulated::lay(&self.args.linkem, self.folder, &LINE)?;
        let places = line.places();
        Ok((line, places))
    }

    fn landing(&self) -> PathBuf {
        self.folder.join("landed.sql")
    }

    fn ran(&self, name: &str, wall: Duration, note: String) -> Outcome<Ran> {
        let landed_bytes = fs::metadata(self.landing()).map_or(0, |found| found.len());
        let whole = landed_bytes == self.args.size && fs::read(self.landing())? == fs::read(self.path)?;
        let _ = fs::remove_file(self.landing());
        tell(&format!("{name}: {:.0} s, {} MB", wall.as_secs_f64(), landed_bytes / 1_000_000));
        Ok(Ran { name: name.to_owned(), wall, landed_bytes, whole, note })
    }

    fn sealift(&self, compression: &str) -> Outcome<Ran> {
        let (_line, places) = self.lay()?;
        let transfer = Transfer {
            source: &format!("file:{}", self.path.display()),
            target: &format!("file:{}", self.landing().display()),
            compression,
            suite: "auto",
            folder: self.folder,
            places: &places,
            relay: None,
            memory: None,
        };
        let listening = transfer.listen()?;
        let start = Instant::now();
        listening.push()?.wait()?;
        let wall = start.elapsed();
        let said = transfer.said()?;
        let outages = wall.as_secs() / 30 + 1;
        let within = said.resent_bytes <= outages * LANE_WINDOW_BYTES_MAX;
        verdict("resent within the window for each outage", within, &format!("{} bytes", said.resent_bytes));
        let note = format!("{} MB resent, {} attempts", said.resent_bytes / 1_000_000, said.retries);
        self.ran(&format!("sealift {compression}"), wall, note)
    }

    /// `command` again and again until it succeeds: what stands in many a crontab.
    fn in_a_loop(&self, name: &str, command: &str) -> Outcome<Ran> {
        let (_line, places) = self.lay()?;
        let server = Server::start(&self.keys, &places)?;
        let mut options = self.keys.client_options(server.port);
        for alive in ["ServerAliveInterval=5", "ServerAliveCountMax=2", "ConnectTimeout=10"] {
            options.extend(["-o".into(), alive.into()]);
        }
        let options: Vec<_> = options.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let target = format!("{}@{}:{}", user()?, places.address, self.landing().display());
        let start = Instant::now();
        let mut bash = places.command(End::Connecting, "timeout");
        bash.arg(self.args.seconds_max.to_string())
            .args(["bash", "-c", &format!("until {command}; do sleep 1; done"), "bash"])
            .arg(self.path)
            .arg(target)
            .env("SSH", options.join(" "))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        let wall = start.elapsed();
        server.stop();
        self.ran(name, wall, String::new())
    }
}
