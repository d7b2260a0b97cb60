//! `postgres`: a hospital's database from one PostgreSQL server to another, beside what moves such
//! databases today, in turn. Both servers sync what they commit.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use sealift_benches::{
    Outcome,
    agents::Transfer,
    exit,
    measure::{children, cpu_seconds_of_family, median},
    network::Places,
    table::{Table, tell, verdict},
};
use sealift_tests::postgres::Postgres;

/// The share of the wall time of pgcopydb that Sealift may take, with the proof.
const PGCOPYDB_SHARE_MAX: f64 = 1.0;
/// What an agent may have in memory.
const AGENT_BYTES_MAX: u64 = 160 << 20;

const SOURCE: &str = "hospital";

/// How long the last of a server's sessions takes to end, and to be waited for.
const SESSIONS_END: Duration = Duration::from_millis(300);

/// Sealift, pgcopydb, pg_dump with psql and with pg_restore, and zstd | age
#[derive(Parser)]
struct Args {
    /// The folder of public databases, which has the generator
    #[arg(long, default_value = "../shared/data")]
    data: PathBuf,
    /// Patients of the hospital, 20 KB each
    #[arg(long, default_value_t = 50_000)]
    patients: u32,
    /// Runs of each, in turn; the figures are medians, and those of ratios in the same turn
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Only these, by a part of their names
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Contender {
    Sealift { compression: &'static str },
    Pgcopydb,
    DumpPsql,
    DumpFolder,
    ZstdAge,
}

const ALL: [Contender; 6] = [
    Contender::Pgcopydb,
    Contender::Sealift { compression: "off" },
    Contender::Sealift { compression: "1" },
    Contender::DumpPsql,
    Contender::DumpFolder,
    Contender::ZstdAge,
];

impl Contender {
    fn name(self) -> String {
        match self {
            Contender::Sealift { compression } => format!("sealift, compression {compression}, with proof"),
            Contender::Pgcopydb => "pgcopydb, 2 table and 2 index jobs".to_owned(),
            Contender::DumpPsql => "pg_dump | psql".to_owned(),
            Contender::DumpFolder => "pg_dump -Fd -j2 -Z0, pg_restore -j2".to_owned(),
            Contender::ZstdAge => "pg_dump | zstd | age | age -d | zstd -d | psql".to_owned(),
        }
    }

    /// Sealift makes its database itself.
    fn needs_database(self) -> bool {
        !matches!(self, Contender::Sealift { .. })
    }
}

/// One run.
#[derive(Clone, Copy)]
struct Figures {
    wall_seconds: f64,
    client_cpu_seconds: f64,
    source_cpu_seconds: f64,
    target_cpu_seconds: f64,
    /// Of each agent; 0 for others.
    sender_bytes: u64,
    receiver_bytes: u64,
}

struct Servers {
    from: Postgres,
    to: Postgres,
}

fn main() -> ExitCode {
    exit("postgres", run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let (from, to) = (Postgres::start_durable(), Postgres::start_durable());
    let servers = Servers { from: from.ok_or("no PostgreSQL")?, to: to.ok_or("no PostgreSQL")? };
    tell(&format!("making a hospital of {} patients", args.patients));
    make_source(args, &servers.from)?;
    let bytes: f64 = servers.from.query(SOURCE, &format!("select pg_database_size('{SOURCE}')")).parse()?;
    let contenders: Vec<Contender> = ALL.into_iter().filter(|one| one.name().contains(&args.only)).collect();
    let folder = tempfile::tempdir()?;
    let mut runs: Vec<Vec<Figures>> = contenders.iter().map(|_| Vec::new()).collect();
    for turn in 0..args.runs.max(1) {
        for (place, contender) in contenders.iter().enumerate() {
            let state = folder.path().join(format!("{turn}-{place}"));
            fs::create_dir(&state)?;
            let figures = measure(*contender, &servers, &state)?;
            tell(&format!("{}: {:.1} s", contender.name(), figures.wall_seconds));
            runs[place].push(figures);
            fs::remove_dir_all(&state)?;
        }
    }
    print(&contenders, &runs, bytes / 1e6);
    Ok(())
}

/// The generated hospital, without what one of the others cannot move: pgcopydb fails on exclusion
/// constraints and loses the rows of unlogged tables.
fn make_source(args: &Args, server: &Postgres) -> Outcome {
    server.create_database(SOURCE);
    let script = args.data.join("gen-hospital/gen_hospital.sql");
    let mut psql = server.client("psql", SOURCE);
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", &format!("patients={}", args.patients), "-f"]).arg(script);
    succeed(psql.stdout(Stdio::null()))?;
    let reduce = "do $$ declare r record; begin
        for r in select conrelid::regclass t, conname from pg_constraint where contype = 'x' loop
            execute format('alter table %s drop constraint %I', r.t, r.conname); end loop;
        for r in select oid::regclass t from pg_class where relpersistence = 'u' and relkind = 'r' loop
            execute format('alter table %s set logged', r.t); end loop; end $$";
    server.query(SOURCE, reduce);
    server.query(SOURCE, "vacuum analyze");
    server.query(SOURCE, "checkpoint");
    Ok(())
}

fn measure(contender: Contender, servers: &Servers, state: &Path) -> Outcome<Figures> {
    if contender.needs_database() {
        servers.to.create_database(SOURCE);
    }
    servers.to.query("postgres", "checkpoint");
    let (source_before, target_before) = (server_cpu(&servers.from)?, server_cpu(&servers.to)?);
    let mut peaks = (0, 0);
    let (usage, wall_seconds) = children(|| match contender {
        Contender::Sealift { compression } => {
            let (seconds, sender_bytes, receiver_bytes) = sealift(compression, servers, state)?;
            peaks = (sender_bytes, receiver_bytes);
            Ok(seconds)
        }
        _ => other(contender, servers, state),
    })?;
    let wall_seconds = wall_seconds?;
    let (source_after, target_after) = (server_cpu(&servers.from)?, server_cpu(&servers.to)?);
    let rows = "select count(*) from pg_class where relkind in ('r', 'i', 'm', 'S')";
    if servers.from.query(SOURCE, rows) != servers.to.query(SOURCE, rows) {
        return Err(format!("{} has not moved everything", contender.name()).into());
    }
    servers.to.query("postgres", &format!("drop database {SOURCE}"));
    Ok(Figures {
        wall_seconds,
        client_cpu_seconds: usage.cpu_seconds,
        source_cpu_seconds: source_after - source_before,
        target_cpu_seconds: target_after - target_before,
        sender_bytes: peaks.0,
        receiver_bytes: peaks.1,
    })
}

/// What a server has taken since it was started, once its sessions have ended: then it has waited
/// for their processes, and has their times.
fn server_cpu(server: &Postgres) -> Outcome<f64> {
    server.wait_until_idle(SOURCE);
    thread::sleep(SESSIONS_END);
    Ok(cpu_seconds_of_family(server.pid()).ok_or("a server has ended")?)
}

/// The wall time from the start of the sender to the end of both, and the peaks of both.
fn sealift(compression: &str, servers: &Servers, state: &Path) -> Outcome<(f64, u64, u64)> {
    let places = Places::loopback();
    let transfer = Transfer {
        source: &servers.from.url(SOURCE),
        target: &servers.to.url(SOURCE),
        compression,
        suite: "auto",
        folder: state,
        places: &places,
        relay: None,
        memory: None,
    };
    let listening = transfer.listen()?;
    let start = Instant::now();
    let peaks = listening.push()?.wait_for_peaks()?;
    Ok((start.elapsed().as_secs_f64(), peaks.sender_bytes, peaks.receiver_bytes))
}

fn other(contender: Contender, servers: &Servers, state: &Path) -> Outcome<f64> {
    let (from, to) = (&servers.from, &servers.to);
    let start = Instant::now();
    match contender {
        Contender::Pgcopydb => {
            let mut pgcopydb = Command::new("pgcopydb");
            pgcopydb.args(["clone", "--table-jobs", "2", "--index-jobs", "2", "--source", &libpq(from)]);
            pgcopydb.args(["--target", &libpq(to), "--dir"]).arg(state.join("pgcopydb"));
            succeed(pgcopydb.stdout(Stdio::null()).stderr(Stdio::null()))?;
        }
        Contender::DumpFolder => {
            let dump = state.join("dump");
            let mut dumping = from.client("pg_dump", SOURCE);
            succeed(dumping.args(["-Fd", "-j2", "-Z0", "-f"]).arg(&dump))?;
            succeed(to.client("pg_restore", SOURCE).args(["-j2", "-d", SOURCE]).arg(&dump))?;
        }
        Contender::ZstdAge => {
            let key = state.join("key");
            succeed(Command::new("age-keygen").arg("-o").arg(&key).stderr(Stdio::null()))?;
            let through = "zstd -q -1 | age -r \"$(age-keygen -y \"$KEY\")\" | age -d -i \"$KEY\" | zstd -q -d |";
            pipe(through, servers, &key)?;
        }
        _ => pipe("", servers, Path::new(""))?,
    }
    Ok(start.elapsed().as_secs_f64())
}

/// `pg_dump`, what is in between, and `psql`.
fn pipe(between: &str, servers: &Servers, key: &Path) -> Outcome {
    let script = format!(
        "set -o pipefail; pg_dump {} | {between} psql -X -q {}",
        servers.from.address(SOURCE),
        servers.to.address(SOURCE)
    );
    succeed(Command::new("bash").args(["-c", &script]).env("KEY", key).stdout(Stdio::null()))
}

fn libpq(server: &Postgres) -> String {
    format!("host={} port={} user=postgres dbname={SOURCE}", server.socket_folder().display(), server.port())
}

fn succeed(command: &mut Command) -> Outcome {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{:?} ended with {status}", command.get_program()).into()) }
}

fn print(contenders: &[Contender], runs: &[Vec<Figures>], megabytes: f64) {
    let mut table = Table::new(&[
        "",
        "wall s",
        "to the first",
        "client CPU-s",
        "source CPU-s",
        "target CPU-s",
        "sender MiB",
        "receiver MiB",
    ]);
    let of = |runs: &[Figures], figure: fn(&Figures) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
    let ratio = |place: usize| {
        let pairs = runs[place].iter().zip(&runs[0]);
        median(&pairs.map(|(one, first)| one.wall_seconds / first.wall_seconds).collect::<Vec<_>>())
    };
    for (place, contender) in contenders.iter().enumerate() {
        let runs = &runs[place];
        let peak = |bytes: fn(&Figures) -> u64| runs.iter().map(bytes).max().unwrap_or(0) >> 20;
        table.row(&[
            contender.name(),
            format!("{:.1}", of(runs, |run| run.wall_seconds)),
            format!("{:.2}", ratio(place)),
            format!("{:.1}", of(runs, |run| run.client_cpu_seconds)),
            format!("{:.1}", of(runs, |run| run.source_cpu_seconds)),
            format!("{:.1}", of(runs, |run| run.target_cpu_seconds)),
            peak(|run| run.sender_bytes).to_string(),
            peak(|run| run.receiver_bytes).to_string(),
        ]);
    }
    table.print(&format!("A hospital of {megabytes:.0} MB, from server to server on this host"));
    let peak = runs.iter().flatten().map(|run| run.sender_bytes.max(run.receiver_bytes)).max().unwrap_or(0);
    if peak > 0 {
        verdict("an agent takes at most 160 MiB", peak <= AGENT_BYTES_MAX, &format!("{} MiB", peak >> 20));
    }
    if contenders.first() == Some(&Contender::Pgcopydb) {
        let best = (1..contenders.len()).filter(|place| !contenders[*place].needs_database()).map(ratio);
        let best = best.fold(f64::INFINITY, f64::min);
        verdict("no slower than pgcopydb, proof included", best <= PGCOPYDB_SHARE_MAX, &format!("{best:.2}"));
    }
}
