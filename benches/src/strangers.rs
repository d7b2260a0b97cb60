//! How long a sender takes to be admitted, and a running transfer to come back, while others
//! without a ticket begin handshakes, and while holders of tickets dribble.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use sealift_agent::ticket::Ticket;
use sealift_tests::{
    agents::{Agent, Launch, RECEIVER},
    dribble::Dribblers,
    exit,
    link::Faults,
    place::{Kind, Place},
    port::free_udp_port,
    stranger::Strangers,
};

use crate::{
    Outcome,
    measure::median,
    table::{Table, tell, verdict},
};

/// What is promised on an idle machine of two cores.
const START_SECONDS_MAX: f64 = 2.0;
const BACK_SECONDS_MAX: f64 = 10.0;

const WITHIN: Duration = Duration::from_secs(120);

/// Until the places of their address are full.
const ESTABLISHED: Duration = Duration::from_secs(2);

/// They share the honest sender's address, which is the worst case.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Of each of two holders of tickets.
const CONNECTIONS_EACH: usize = 12;

/// Of a standing receiver with `memory = "64MiB"`, which they must not fill.
const MEMORY_MIB_MAX: u64 = 128;

#[derive(Clone, Copy)]
enum Kinds {
    Nobody,
    HalfOpen(u64),
    Complete(u64),
}

const ALL: [(Kinds, &str); 5] = [
    (Kinds::Nobody, "nobody"),
    (Kinds::HalfOpen(10), "10 half-open handshakes a second"),
    (Kinds::HalfOpen(100), "100 half-open handshakes a second"),
    (Kinds::HalfOpen(1000), "1,000 half-open handshakes a second"),
    (Kinds::Complete(1000), "1,000 complete handshakes a second, without a proof"),
];

impl Kinds {
    fn begin(self, victim: SocketAddr) -> Option<Strangers> {
        let strangers = match self {
            Kinds::Nobody => return None,
            Kinds::HalfOpen(per_second) => Strangers::half_open(victim, ADDRESS, per_second),
            Kinds::Complete(per_second) => Strangers::foreign(victim, ADDRESS, per_second),
        };
        std::thread::sleep(ESTABLISHED);
        Some(strangers)
    }
}

/// Runs each so often and prints the medians.
pub fn run(runs: usize) -> Outcome {
    let mut table = Table::new(&["beside", "start s", "of nobody", "back s", "of nobody", "begun a second"]);
    let (mut base, mut worst) = ((0.0, 0.0), (0.0f64, 0.0f64));
    for (kinds, name) in ALL {
        let (mut starts, mut backs, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=runs {
            let (start, rate) = start_seconds(kinds)?;
            let back = back_seconds(kinds)?;
            tell(&format!("{name}, round {round}: start {start:.2} s, back {back:.2} s"));
            starts.push(start);
            backs.push(back);
            rates.push(rate);
        }
        let (start, back) = (median(&starts), median(&backs));
        if matches!(kinds, Kinds::Nobody) {
            base = (start, back);
        }
        worst = (worst.0.max(start), worst.1.max(back));
        table.row(&[
            name.to_owned(),
            format!("{start:.2}"),
            format!("{:.1}", start / base.0),
            format!("{back:.2}"),
            format!("{:.1}", back / base.1),
            format!("{:.0}", median(&rates)),
        ]);
    }
    let (start, peak_mib) = start_beside_holders(runs)?;
    worst.0 = worst.0.max(start);
    let [none, ratio] = ["-".to_owned(), format!("{:.1}", start / base.0)];
    let holders = "24 connections of two holders of tickets, one of them spent, each dribbling 4 MiB".to_owned();
    table.row(&[holders, format!("{start:.2}"), ratio, none.clone(), none.clone(), none]);
    table.print(&format!("Beside strangers: medians of {runs}"));
    verdict("a sender starts within 2 s", worst.0 <= START_SECONDS_MAX, &format!("{:.2} s", worst.0));
    verdict("holders of tickets do not fill memory", peak_mib <= MEMORY_MIB_MAX, &format!("{peak_mib} MiB"));
    verdict("a transfer comes back within 10 s", worst.1 <= BACK_SECONDS_MAX, &format!("{:.2} s", worst.1));
    Ok(())
}

/// One small transfer from its command to its end, and how many strangers began a second.
fn start_seconds(kinds: Kinds) -> Outcome<(f64, f64)> {
    let folder = tempfile::Builder::new().prefix("sealift-bench-").tempdir()?;
    let source = folder.path().join("source");
    std::fs::write(&source, "rows")?;
    let mut receiver = Launch::receiver("discard:").bind_loopback().start();
    let ticket = receiver.ticket();
    let address = Ticket::from_text(&std::fs::read_to_string(&ticket)?).map_err(|failure| failure.to_string())?;
    let strangers = kinds.begin(address.addresses[0].parse()?);
    let (begun, since) = (strangers.as_ref().map_or(0, Strangers::begun), Instant::now());
    let sender = Launch::sender(&format!("file:{}", source.display()), ticket).start();
    sender.wait(WITHIN).assert_code(exit::DONE);
    let seconds = since.elapsed().as_secs_f64();
    let rate = (strangers.as_ref().map_or(0, Strangers::begun) - begun) as f64 / seconds;
    drop(strangers);
    receiver.wait(WITHIN).assert_code(exit::DONE);
    Ok((seconds, rate))
}

/// As `start_seconds`, at a standing receiver beside holders of its tickets; and the most memory,
/// in MiB, that the receiver had.
fn start_beside_holders(runs: usize) -> Outcome<(f64, u64)> {
    let folder = tempfile::Builder::new().prefix("sealift-bench-").tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let (config, source) = (path("receiver.toml"), path("source"));
    fs::write(&source, "rows")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_udp_port()));
    let state = path("state");
    let settings =
        format!("listen = [\"{address}\"]\naddresses = [\"{address}\"]\nstate_dir = \"{}\"", state.display());
    let bounds = "transfers_max = 2\nmemory = \"64MiB\"";
    fs::write(&config, format!("{settings}\n{bounds}\n[targets.drill]\nurl = \"discard:\"\n"))?;
    let mut receiver = Launch::bare(RECEIVER, &["serve", "--json", "--config"]).arg(&config).start();
    receiver.wait_for_event("listening", 1, WITHIN);
    let ticket = |name: &str| {
        let launch = Launch::bare(RECEIVER, &["ticket", "--target", "drill", "--config"]).arg(&config);
        launch.arg("--ticket-out").arg(path(name)).start().wait(WITHIN).assert_code(exit::DONE);
        path(name)
    };
    let push = |ticket: &Path| {
        let sender = Launch::sender(&format!("file:{}", source.display()), ticket).start();
        sender.wait(WITHIN).assert_code(exit::DONE);
    };
    let held = ["spent", "unused"].map(ticket);
    push(&held[0]);
    let read =
        |ticket: &Path| Ticket::from_text(&fs::read_to_string(ticket)?).map_err(|failure| failure.to_string().into());
    let holders = held.iter().map(|ticket| read(ticket)).collect::<Outcome<Vec<_>>>()?;
    let holders = Dribblers::start(holders, CONNECTIONS_EACH);
    std::thread::sleep(ESTABLISHED);
    let mut starts = Vec::new();
    for round in 1..=runs {
        let ticket = ticket(&format!("honest-{round}"));
        let since = Instant::now();
        push(&ticket);
        starts.push(since.elapsed().as_secs_f64());
    }
    drop(holders);
    receiver.signal(Signal::SIGTERM);
    let peak_bytes = receiver.wait(WITHIN).assert_code(exit::DONE).peak_memory_bytes;
    Ok((median(&starts), peak_bytes >> 20))
}

/// From the moment at which a link that was lost is there again until data flows.
fn back_seconds(kinds: Kinds) -> Outcome<f64> {
    let slow = Faults { bits_per_second: Some(12_000_000), ..Faults::default() };
    let place = Place::new(Kind::File(6 << 20), slow, 13);
    let (mut sender, mut receiver): (Agent, Agent) = place.start();
    place.wait_until_passed(&mut sender, 1 << 20);
    let strangers = kinds.begin(place.to);
    place.link.cut();
    receiver.wait_for_event("link_down", 1, WITHIN);
    place.link.heal();
    let since = Instant::now();
    sender.wait_for_event("link_up", 1, WITHIN);
    let seconds = since.elapsed().as_secs_f64();
    drop(strangers);
    sender.wait(WITHIN).assert_code(exit::DONE);
    receiver.wait(WITHIN).assert_code(exit::DONE);
    Ok(seconds)
}
