//! Rounds in which something happens to a receiver whose loader is ending: `psql`, whose COMMIT
//! takes a while (fault E1). Signals, drains, kills, expiries and abandons at random moments;
//! whatever ends is started again with the same command, and what is in doubt is resolved by what
//! the table holds. No row is ever loaded twice, and nothing is done that is not there.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agents::{Agent, Launch, RECEIVER, SENDER},
    crash_loop::Tally,
    exit,
    finished::Finished,
    port::free_udp_port,
    postgres::Postgres,
    random::Random,
};

/// Far more than any round needs.
const ROUND_WITHIN: Duration = Duration::from_secs(120);
const ENDS_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Rows of one load; the first is slow to commit.
const ROWS: u64 = 50;

/// One database for all rounds, with a table each.
const DATABASE: &str = "doubt";

/// The server of all rounds; `None`, and a word, where PostgreSQL is not installed.
pub fn server() -> Option<Postgres> {
    let postgres = Postgres::start()?;
    postgres.create_database(DATABASE);
    postgres.query(
        DATABASE,
        "create function slow() returns trigger language plpgsql as \
         'begin perform pg_sleep(tg_argv[0]::float8); return null; end'",
    );
    Some(postgres)
}

/// What happens to the receiver while its loader is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Signal,
    TwoSignals,
    Kill,
    SenderAbandons,
    OperatorAbandons,
    Expires,
}

pub struct Round<'a> {
    postgres: &'a Postgres,
    folder: TempDir,
    table: String,
    random: Random,
    /// A standing receiver instead of one for the one transfer.
    standing: bool,
    fault: Fault,
    bind: SocketAddr,
    tally: Tally,
    /// How each process ended.
    ends: Vec<String>,
}

impl<'a> Round<'a> {
    pub fn new(postgres: &'a Postgres, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
        for name in ["receiver", "sender"] {
            fs::DirBuilder::new().mode(0o700).create(folder.path().join(name)).unwrap();
        }
        let fault = match random.below(100) {
            0..30 => Fault::Signal,
            30..50 => Fault::TwoSignals,
            50..65 => Fault::Kill,
            65..80 => Fault::SenderAbandons,
            80..90 => Fault::OperatorAbandons,
            _ => Fault::Expires,
        };
        let standing = random.chance(40.0);
        let table = format!("visit_{seed}_{}", random.below(1 << 30));
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, free_udp_port()));
        let tally = Tally { rounds: 1, ..Tally::default() };
        let round = Self { postgres, folder, table, random, standing, fault, bind, tally, ends: Vec::new() };
        round.prepare()
    }

    fn prepare(mut self) -> Self {
        let seconds = match self.fault {
            // Longer than the ticket is good for.
            Fault::Expires => 6.0,
            _ => self.random.below(2500) as f64 / 1000.0,
        };
        let table = &self.table;
        self.postgres.query(
            DATABASE,
            &format!(
                "create table {table}(patient int); \
                 create constraint trigger c after insert on {table} deferrable initially deferred \
                 for each row when (new.patient = 1) execute function slow('{seconds}')"
            ),
        );
        let rows = (1..=ROWS).map(|row| format!("insert into {table} values ({row});\n"));
        let dump = format!("set application_name = '{table}';\n{}", rows.collect::<String>());
        fs::write(self.path("dump.sql"), dump).unwrap();
        if self.standing {
            let config = format!(
                "listen = [\"{0}\"]\naddresses = [\"{0}\"]\nstate_dir = \"{1}\"\n[targets.ehr]\nurl = \"{2}\"\n",
                self.bind,
                self.path("receiver").display(),
                self.target()
            );
            fs::write(self.path("receiver.toml"), config).unwrap();
        }
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn target(&self) -> String {
        let psql = self.postgres.program("psql");
        let address = self.postgres.address(DATABASE);
        format!("exec:{} {address} -X -q -o /dev/null -v ON_ERROR_STOP=1 --single-transaction", psql.display())
    }

    fn valid_for(&self) -> &'static str {
        if self.fault == Fault::Expires { "5s" } else { "10m" }
    }

    fn receiver(&mut self) -> Agent {
        self.tally.starts += 1;
        if self.standing {
            return Launch::bare(RECEIVER, &["serve", "--json", "--config"]).arg(self.path("receiver.toml")).start();
        }
        let launch = Launch::receiver(&self.target()).state(&self.path("receiver")).ticket_at(&self.path("ticket"));
        launch.args(&["--bind", &self.bind.to_string(), "--finish-within", self.valid_for()]).json().start()
    }

    fn sender(&mut self) -> Agent {
        self.tally.starts += 1;
        let source = format!("file:{}", self.path("dump.sql").display());
        let launch = Launch::sender(&source, self.path("ticket")).state(&self.path("sender"));
        launch.args(&["--retry-for", "3s"]).json().start()
    }

    fn run_command(&self, program: &str, words: &[&str]) -> Finished {
        let folder = if program == SENDER { "sender" } else { "receiver" };
        Launch::bare(program, words).arg("--state-dir").arg(self.path(folder)).start().wait(ENDS_WITHIN)
    }

    /// A ticket that its receiver has made, and a receiver that waits for its sender.
    fn begin(&mut self) -> Agent {
        let mut receiver = self.receiver();
        if self.standing {
            receiver.wait_for_event("listening", 1, ENDS_WITHIN);
            let words = ["ticket", "--target", "ehr", "--finish-within", self.valid_for(), "--config"];
            let ticket = Launch::bare(RECEIVER, &words).arg(self.path("receiver.toml"));
            let ticket = ticket.arg("--ticket-out").arg(self.path("ticket")).start();
            ticket.wait(ENDS_WITHIN).assert_code(exit::DONE);
        } else {
            receiver.ticket();
        }
        receiver
    }

    pub fn run(mut self) -> Tally {
        let mut receiver = self.begin();
        let mut sender = Some(self.sender());
        self.wait_for_commit();
        // Some come when it has committed, and before the receipt is there.
        let most = if self.random.chance(70.0) { 400 } else { 2700 };
        thread::sleep(self.random.between(Duration::ZERO, Duration::from_millis(most)));
        let mut told = None;
        match self.fault {
            Fault::Signal | Fault::TwoSignals => {
                let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
                for _ in 0..if self.fault == Fault::TwoSignals { 2 } else { 1 } {
                    if receiver.is_running() {
                        receiver.signal(signals[self.random.below(3)]);
                    }
                    thread::sleep(self.random.between(Duration::from_millis(250), Duration::from_millis(700)));
                }
            }
            Fault::Kill => {
                receiver.kill9();
                self.tally.receivers_killed += 1;
            }
            Fault::SenderAbandons => {
                if let Some(sender) = sender.take() {
                    sender.kill9();
                    let ended = sender.wait(ENDS_WITHIN);
                    self.note("sender", &ended);
                }
                told = Some(self.abandon_at_sender());
            }
            Fault::OperatorAbandons => {
                let words = ["abandon", "--all"];
                let ended = self.run_command(RECEIVER, &words);
                self.note("receiver abandon", &ended);
            }
            Fault::Expires => {}
        }
        self.finish(receiver, sender, told)
    }

    fn abandon_at_sender(&mut self) -> String {
        let ticket = self.path("ticket").display().to_string();
        let ended = self.run_command(SENDER, &["abandon", "--ticket", &ticket]);
        self.note("sender abandon", &ended);
        ended.stderr()
    }

    /// Returns when the loader is at its COMMIT, or that was missed.
    fn wait_for_commit(&self) {
        let sql = format!(
            "select count(*) from pg_stat_activity where application_name = '{}' and query = 'COMMIT'",
            self.table
        );
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.postgres.query("postgres", &sql) == "0" && self.rows() == 0 && Instant::now() < deadline {
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until no session of the loader is left.
    fn wait_until_idle(&self) {
        let sql = format!("select count(*) from pg_stat_activity where application_name = '{}'", self.table);
        let deadline = Instant::now() + ENDS_WITHIN;
        while self.postgres.query("postgres", &sql) != "0" {
            assert!(Instant::now() < deadline, "a session stays");
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Rows in the table, and never one twice.
    fn rows(&self) -> u64 {
        let counts =
            self.postgres.query(DATABASE, &format!("select count(*), count(distinct patient) from {}", self.table));
        let (all, distinct) = counts.split_once('|').unwrap();
        assert_eq!(all, distinct, "loaded twice:\n{}", self.words());
        let rows: u64 = all.parse().unwrap();
        assert!(rows == 0 || rows == ROWS, "{rows} rows:\n{}", self.words());
        rows
    }

    /// Starts again what has ended, until both are done, or nothing more can be expected of them.
    fn finish(mut self, receiver: Agent, sender: Option<Agent>, told: Option<String>) -> Tally {
        let deadline = Instant::now() + ROUND_WITHIN;
        let (mut receiver, mut sender) = (Some(receiver), sender);
        let abandoned = self.fault == Fault::SenderAbandons;
        loop {
            assert!(Instant::now() < deadline, "not done:\n{}", self.words());
            thread::sleep(LOOK_EVERY);
            if let Some(ended) = take_ended(&mut receiver) {
                self.note("receiver", &ended);
                match outcome(&ended).as_str() {
                    "in_doubt" => return self.resolve(sender, abandoned),
                    "done" if !self.standing => return self.done(sender),
                    _ if abandoned || self.fault == Fault::Expires => return self.given_up(sender, told),
                    _ => receiver = Some(self.receiver()),
                }
            }
            let Some(ended) = take_ended(&mut sender) else {
                if sender.is_none() && abandoned && receiver.is_some() && self.standing {
                    self.stop(receiver.take());
                    return self.given_up(None, told);
                }
                continue;
            };
            self.note("sender", &ended);
            match outcome(&ended).as_str() {
                "done" => {
                    self.stop(receiver.take());
                    return self.done(None);
                }
                "in_doubt" => {
                    self.stop(receiver.take());
                    return self.resolve(None, abandoned);
                }
                "grant_expired" => {
                    self.stop(receiver.take());
                    return self.given_up(None, told);
                }
                _ => sender = Some(self.sender()),
            }
        }
    }

    fn stop(&mut self, receiver: Option<Agent>) {
        let Some(mut receiver) = receiver else { return };
        // One that has fetched the receipt may be on its way out.
        let by = Instant::now() + Duration::from_secs(2);
        while !self.standing && receiver.is_running() && Instant::now() < by {
            thread::sleep(LOOK_EVERY);
        }
        if receiver.is_running() {
            receiver.signal(Signal::SIGTERM);
        }
        let ended = receiver.wait(ENDS_WITHIN);
        self.note("receiver", &ended);
    }

    /// One side at least says that it is done: then it is.
    fn done(mut self, sender: Option<Agent>) -> Tally {
        if let Some(sender) = sender {
            let ended = sender.wait(ENDS_WITHIN);
            self.note("sender", &ended);
        }
        self.wait_until_idle();
        assert_eq!(self.rows(), ROWS, "done, and not there:\n{}", self.words());
        self.check_receipts();
        self.tally
    }

    /// Abandoned or expired: the table holds all or nothing, and the messages fit that.
    fn given_up(mut self, sender: Option<Agent>, told: Option<String>) -> Tally {
        if let Some(mut sender) = sender {
            if sender.is_running() {
                sender.signal(Signal::SIGTERM);
            }
            let ended = sender.wait(ENDS_WITHIN);
            self.note("sender", &ended);
        }
        self.wait_until_idle();
        let rows = self.rows();
        let told = told.unwrap_or_default();
        assert!(!told.contains("had finished it") || rows == ROWS, "{rows} rows:\n{}", self.words());
        assert!(!told.contains("nothing of it is left") || rows == 0, "{rows} rows:\n{}", self.words());
        self.check_receipts();
        self.tally
    }

    /// In doubt: it stays so however often it is started or abandoned, and ends by what the
    /// operator finds in the table.
    fn resolve(mut self, sender: Option<Agent>, abandoned: bool) -> Tally {
        self.tally.in_doubt += 1;
        if let Some(sender) = sender {
            let ended = sender.wait(ENDS_WITHIN);
            self.note("sender", &ended);
        }
        self.wait_until_idle();
        let rows = self.rows();
        let refused = self.run_command(RECEIVER, &["abandon", "--all"]);
        refused.assert_code(exit::INTERRUPTED);
        if !self.standing {
            let again = self.receiver().wait(ENDS_WITHIN);
            self.note("receiver", &again);
            assert_eq!(outcome(&again), "in_doubt", "{}", self.words());
        }
        self.check_receipts();
        assert_eq!(self.rows(), rows, "loaded while in doubt:\n{}", self.words());
        let [transfer] = &self.transfers()[..] else { panic!("not one transfer:\n{}", self.words()) };
        let statement = if rows == ROWS { "--loaded" } else { "--not-loaded" };
        self.run_command(RECEIVER, &["resolve", transfer, statement]).assert_code(exit::DONE);
        if abandoned || self.fault == Fault::Expires {
            self.run_command(RECEIVER, &["abandon", "--all"]).assert_code(exit::DONE);
            assert_eq!(self.rows(), rows);
            return self.tally;
        }
        let receiver = self.receiver();
        let sender = self.sender();
        self.after_statement(receiver, sender, rows == ROWS)
    }

    fn after_statement(mut self, receiver: Agent, mut sender: Agent, loaded: bool) -> Tally {
        let expected = if loaded { "stated_loaded" } else { "done" };
        let deadline = Instant::now() + ROUND_WITHIN;
        loop {
            let ended = sender.wait(ENDS_WITHIN);
            self.note("sender", &ended);
            if outcome(&ended) == expected {
                break;
            }
            // It may have been there before its receiver.
            assert!(Instant::now() < deadline, "not {expected}:\n{}", self.words());
            sender = self.sender();
        }
        self.stop(Some(receiver));
        self.wait_until_idle();
        assert_eq!(self.rows(), ROWS, "{}", self.words());
        assert_eq!(self.transfers(), Vec::<String>::new(), "{}", self.words());
        assert_eq!(self.receipts() == 0, loaded, "a statement is no receipt:\n{}", self.words());
        self.tally
    }

    fn transfers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("receiver/transfers")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn receipts(&self) -> usize {
        let receipts = ["sender", "receiver"].map(|side| fs::read_dir(self.path(side).join("receipts")));
        receipts.into_iter().flatten().flatten().count()
    }

    /// Where there is a receipt, the load is there.
    fn check_receipts(&self) {
        assert!(self.receipts() == 0 || self.rows() == ROWS, "a receipt, and no load:\n{}", self.words());
    }

    fn note(&mut self, who: &str, ended: &Finished) {
        self.ends.push(format!("--- {who}: {:?} after {:?}: {}\n", ended.status, ended.took, ended.last_words()));
    }

    fn words(&self) -> String {
        format!("{:?}, standing: {}\n{}", self.fault, self.standing, self.ends.concat())
    }
}

fn take_ended(agent: &mut Option<Agent>) -> Option<Finished> {
    if agent.as_mut()?.is_running() {
        return None;
    }
    Some(agent.take()?.wait(ENDS_WITHIN))
}

/// The word of its last event; a process that was killed has none.
fn outcome(ended: &Finished) -> String {
    let stdout = String::from_utf8_lossy(&ended.stdout()).into_owned();
    let last = stdout.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    let last = last.filter(|event| event["event"] == "finished");
    last.and_then(|event| event["outcome"].as_str().map(str::to_owned)).unwrap_or_default()
}
