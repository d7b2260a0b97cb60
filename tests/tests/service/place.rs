//! A standing receiver's place: its configuration, its state, its targets, and what senders send
//! into them.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sealift_tests::{
    agents::{Agent, Launch, RECEIVER, SENDER},
    finished::Finished,
    link::{Faults, Link},
    port::free_udp_port,
    sqlite,
};
use serde_json::Value;
use tempfile::TempDir;

pub const WITHIN: Duration = Duration::from_secs(60);

/// Some seconds of transfer over `slow`.
const ROWS: u32 = 12_000;

pub fn slow() -> Faults {
    Faults { bits_per_second: Some(6_000_000), ..Faults::default() }
}

pub struct Place {
    pub folder: TempDir,
    port: u16,
    pub link: Link,
}

impl Place {
    /// A receiver with these lines before its targets, and these targets. `{}` in a URL is the
    /// folder of targets.
    pub fn new(settings: &str, targets: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
        for name in ["receiver", "target"] {
            fs::DirBuilder::new().mode(0o700).create(folder.path().join(name)).unwrap();
        }
        let port = free_udp_port();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let link = Link::start(to, Faults::default(), 1);
        let place = Self { folder, port, link };
        let mut config = format!(
            "listen = [\"{to}\"]\naddresses = [\"{}\"]\nstate_dir = \"{}\"\n{settings}\n",
            place.link.address(),
            place.state_dir().display()
        );
        for (name, url) in targets {
            let url = url.replace("{}", &place.path("target").display().to_string());
            config += &format!("[targets.{name}]\nurl = \"{url}\"\n");
        }
        fs::write(place.config(), config).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("receiver.toml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.path("receiver")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn launch(&self) -> Launch {
        Launch::bare(RECEIVER, &["serve", "--json", "--config"]).arg(self.config())
    }

    /// Starts the receiver; returns when it serves.
    pub fn serve(&self) -> Agent {
        let mut receiver = self.launch().start();
        wait_for_events(&mut receiver, "listening", 1);
        receiver
    }

    pub fn ticket(&self, target: &str) -> PathBuf {
        let ticket = self.path(&format!("{target}.ticket"));
        self.ticket_command(target, &ticket).assert_code(0);
        ticket
    }

    pub fn ticket_command(&self, target: &str, out: &Path) -> Finished {
        let launch = Launch::bare(RECEIVER, &["ticket", "--target", target, "--valid-for", "10m", "--config"]);
        launch.arg(self.config()).arg("--ticket-out").arg(out).start().wait(WITHIN)
    }

    /// A source of its own for each name: a database of patients.
    pub fn database(&self, name: &str) -> PathBuf {
        let path = self.path(&format!("{name}.db"));
        sqlite::create_hospital(&path, ROWS);
        path
    }

    /// A source of bytes that do not compress.
    pub fn dump(&self, name: &str) -> PathBuf {
        let path = self.path(&format!("{name}.dump"));
        let mut random = sealift_tests::random::Random::new(7);
        let bytes: Vec<u8> = (0..3 << 17).flat_map(|_| random.number().to_le_bytes()).collect();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A sender with a state directory that outlives it.
    pub fn push(&self, source: &str, ticket: &Path) -> Agent {
        let launch = Launch::bare(SENDER, &["push", "--json", "--source", source, "--ticket"]).arg(ticket);
        launch.arg("--state-dir").arg(self.sender_state()).start()
    }

    pub fn sender_state(&self) -> PathBuf {
        let path = self.path("sender");
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&path).unwrap();
        path
    }

    /// A command about unfinished transfers, at one of the agents.
    pub fn run(&self, program: &str, words: &[&str]) -> Finished {
        let state = if program == SENDER { self.sender_state() } else { self.state_dir() };
        Launch::bare(program, words).arg("--state-dir").arg(state).start().wait(WITHIN)
    }

    pub fn status(&self, program: &str) -> Vec<Value> {
        let told = self.run(program, &["status", "--json"]);
        let status: Value = serde_json::from_slice(&told.assert_code(0).stdout()).unwrap();
        assert_eq!(status["schema"], "sealift.status/1");
        status["transfers"].as_array().unwrap().clone()
    }

    pub fn files(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Nothing unfinished is kept on either side, and nothing staged.
    #[track_caller]
    pub fn assert_nothing_left(&self, targets: &[&str]) {
        assert_eq!(self.files("receiver/transfers"), Vec::<String>::new());
        assert_eq!(self.files("sender/transfers"), Vec::<String>::new());
        assert_eq!(self.files("target"), targets);
    }

    #[track_caller]
    pub fn assert_same(&self, source: &Path, target: &str) {
        let target = self.path("target").join(target);
        assert_eq!(sqlite::integrity(&target), "ok");
        assert!(sqlite::content(source) == sqlite::content(&target), "the copy differs");
    }
}

pub fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

/// The events that an agent has told so far.
pub fn events(agent: &Agent, event: &str) -> Vec<Value> {
    let stdout = String::from_utf8(agent.stdout()).unwrap();
    let whole = stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let events = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|found| found["event"] == event).collect()
}

pub fn wait_for_events(agent: &mut Agent, event: &str, count: usize) {
    agent.wait_for(&format!("{count} events {event}"), WITHIN, |agent| events(agent, event).len() >= count);
}

/// Waits until so many bytes have come to `agent` of each of so many transfers.
pub fn wait_for_progress(agent: &mut Agent, transfers: usize, bytes: u64) {
    agent.wait_for("progress", WITHIN, |agent| {
        let far = |event: &Value| event["plain_bytes"].as_u64().is_some_and(|found| found >= bytes);
        let moved: std::collections::BTreeSet<String> =
            events(agent, "progress").iter().filter(|event| far(event)).map(|e| e["transfer"].to_string()).collect();
        moved.len() >= transfers
    });
}
