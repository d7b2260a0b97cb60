//! Rounds of one transfer each, in which agents and loader are killed and the link is cut at random
//! moments; whatever ends is started again with the same command, until both sides are done. Then
//! the target equals the source, and no staging, no record and no key is left.
//!
//! One case cannot go on: a receiver killed while its loader was ending cannot know whether that
//! committed. It says so; the target then holds all or nothing, the operator states which, and
//! `abandon` clears up on both sides. So it does where a server has crashed between the proof of a
//! load and its publication, and has emptied its unlogged tables: that load is never published. And
//! agents that were both killed on their way out, with everything done, begin another transfer when
//! they are started again: it is refused, since its target is there.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use sealift_agent::role::Role;
use sealift_host::holder;

use crate::{
    doubt_loop, exit,
    finished::Finished,
    grid::Content,
    link::Faults,
    memory::children,
    place::{Kind, Place},
    postgres::{Clusters, Databases},
    random::Random,
};

use self::side::{ENDS_WITHIN, START_AGAIN_AFTER, Side};
pub use self::tally::Tally;

mod side;
mod tally;

/// Far more than any round needs: an outage costs ten seconds, and a killed sender as much.
const ROUND_WITHIN: Duration = Duration::from_secs(180);

/// Between two looks at the agents.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// For the second of two agents to end.
const WORDS_WITHIN: Duration = Duration::from_secs(5);

/// Of what to what the rounds go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Tables,
    Image,
    Drill,
    File,
    Loader,
    Program,
    Spool,
    /// The engine of the tests.
    Grid,
    /// Databases of two clusters, which are killed, too, and changed meanwhile.
    Postgres,
    /// `psql` with a slow COMMIT: see [`doubt_loop`].
    Commit,
}

impl Engine {
    pub const ALL: [Engine; 11] = [
        Engine::Sqlite,
        Engine::Tables,
        Engine::Image,
        Engine::Drill,
        Engine::File,
        Engine::Loader,
        Engine::Program,
        Engine::Spool,
        Engine::Grid,
        Engine::Postgres,
        Engine::Commit,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Engine::Sqlite => "sqlite",
            Engine::Tables => "tables",
            Engine::Image => "image",
            Engine::Drill => "drill",
            Engine::File => "file",
            Engine::Loader => "loader",
            Engine::Program => "program",
            Engine::Spool => "spool",
            Engine::Grid => "grid",
            Engine::Postgres => "postgres",
            Engine::Commit => "commit",
        }
    }

    /// The engines of this name; `all` is each of them in turn.
    pub fn named(name: &str) -> Option<Vec<Engine>> {
        let found: Vec<_> = Self::ALL.into_iter().filter(|engine| name == "all" || engine.name() == name).collect();
        (!found.is_empty()).then_some(found)
    }

    fn kind(self, random: &mut Random) -> Kind {
        let bytes = random.below(4 << 20);
        match self {
            Engine::Sqlite => Kind::Sqlite(20 + random.below(10_000) as u32),
            Engine::Tables => Kind::Tables(2 + random.below(400) as u32),
            Engine::Image => Kind::Image(20 + random.below(10_000) as u32),
            Engine::Drill => Kind::Drill(20 + random.below(10_000) as u32),
            Engine::File => Kind::File(bytes),
            Engine::Loader => Kind::Loader(bytes),
            Engine::Program => Kind::Program(bytes),
            Engine::Spool => Kind::Spool(bytes),
            Engine::Grid => Kind::Grid(Content {
                tables: 1 + random.below(4) as u32,
                ranges: 1 + random.below(5) as u64,
                rows: 1 + random.below(200) as u64,
                bytes: 1000,
                widest: random.below(4 << 20),
                finding: None,
            }),
            Engine::Postgres => Kind::Postgres,
            // Rounds of its own.
            Engine::Commit => Kind::Loader(bytes),
        }
    }
}

/// Runs so many rounds, some at a time; they wait more than they work. Returns the seeds of those
/// that failed, too.
pub fn run(seed: u64, rounds: u64, engines: &[Engine], at_once: usize) -> (Tally, Vec<u64>) {
    let (next, total) = (AtomicU64::new(0), Mutex::new((Tally::default(), Vec::new())));
    let postgres = if engines.contains(&Engine::Commit) { doubt_loop::server() } else { None };
    let clusters = if engines.contains(&Engine::Postgres) { Clusters::start() } else { None };
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= rounds {
                        return;
                    }
                    let (engine, seed) = (engines[number as usize % engines.len()], seed.wrapping_add(number));
                    let outcome = catch_unwind(AssertUnwindSafe(|| match (engine, &postgres, &clusters) {
                        (Engine::Commit, Some(postgres), _) => doubt_loop::Round::new(postgres, seed).run(),
                        (Engine::Postgres, _, Some(clusters)) => Round::of_databases(clusters, seed).run(),
                        (Engine::Commit | Engine::Postgres, ..) => Tally::default(),
                        _ => Round::new(engine, seed).run(),
                    }));
                    let mut total = total.lock().unwrap();
                    match outcome {
                        Ok(tally) => total.0 += tally,
                        Err(_) => {
                            eprintln!(
                                "round {number} failed: scripts/crash-loop {seed} 1 {} plays it again",
                                engine.name()
                            );
                            total.1.push(seed);
                        }
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    if let Some(clusters) = clusters.filter(|_| total.1.is_empty()) {
        clusters.assert_empty();
    }
    total
}

fn faults(random: &mut Random) -> Faults {
    let megabits = 4 + random.below(60) as u64;
    Faults {
        bits_per_second: Some(megabits * 1_000_000),
        loss_percent: if random.chance(25.0) { 1.0 } else { 0.0 },
        ..Faults::default()
    }
}

fn kill9(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
}

/// One transfer.
struct Round {
    place: Place,
    random: Random,
    tally: Tally,
    sender: Side,
    receiver: Side,
}

impl Round {
    fn new(engine: Engine, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let faults = faults(&mut random);
        let place = Place::new(engine.kind(&mut random), faults, seed);
        Self::at(place, random)
    }

    fn of_databases(clusters: &Arc<Clusters>, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let faults = faults(&mut random);
        let place = Place::of_databases(Databases::make(clusters, seed), faults, seed);
        Self::at(place, random)
    }

    fn at(place: Place, random: Random) -> Self {
        let tally = Tally { rounds: 1, ..Tally::default() };
        Self { place, random, tally, sender: Side::default(), receiver: Side::default() }
    }

    fn run(mut self) -> Tally {
        let deadline = Instant::now() + ROUND_WITHIN;
        let mut left = 1 + self.random.below(5);
        let mut next = self.moment();
        while self.sender.done.is_none() || self.receiver.done.is_none() {
            assert!(Instant::now() < deadline, "not done:\n{}", self.words());
            self.keep_going();
            if self.receiver.in_doubt {
                return self.abandon();
            }
            if self.receiver.emptied {
                return self.give_up();
            }
            if self.receiver.target_taken {
                return self.done_before();
            }
            if left > 0 && Instant::now() >= next {
                self.interfere();
                left -= 1;
                next = self.moment();
            }
            thread::sleep(LOOK_EVERY);
        }
        self.check()
    }

    fn moment(&mut self) -> Instant {
        Instant::now() + self.random.between(Duration::ZERO, Duration::from_millis(1500))
    }

    /// Starts what does not run, and takes note of what has ended.
    fn keep_going(&mut self) {
        self.receiver.loader_failed = false;
        let expected = self.receiver.take_end() & self.sender.take_end();
        // With a receipt at both: it was the loader of another transfer, which takes nothing over
        // what is there.
        self.receiver.target_taken |= self.receiver.loader_failed && self.is_done_before();
        if !expected {
            // The other side knows more of it, and is about to say so.
            thread::sleep(WORDS_WITHIN);
            panic!("ended as it should not:\n{}", self.words());
        }
        if self.receiver.in_doubt || self.receiver.target_taken || self.receiver.emptied {
            return;
        }
        if self.receiver.is_missing() && self.sender.done.is_none() {
            self.receiver.agent = Some(self.place.receiver().start());
            self.tally.starts += 1;
        }
        if self.sender.is_missing() && self.place.ticket().exists() {
            self.sender.agent = Some(self.place.sender().start());
            self.tally.starts += 1;
        }
        if self.sender.done.is_some() && self.receiver.done.is_none() {
            self.end_receiver();
        }
        if self.receiver.done.is_some() && self.sender.done.is_none() {
            self.end_sender();
        }
    }

    /// It is not known whether the loader committed: a person looks, and ends the transfer on both
    /// sides.
    fn abandon(mut self) -> Tally {
        self.sender.kill();
        self.receiver.kill();
        let is_there = self.place.is_published();
        let statement = if is_there { "--loaded" } else { "--not-loaded" };
        for transfer in self.place.transfers("receiver") {
            self.place.run(Role::Receiver, &["resolve", &transfer, statement]).assert_code(exit::DONE);
        }
        self.end_for_good();
        assert!(!is_there || self.place.is_same(), "the copy differs");
        self.place.assert_clean(if is_there { &["to"] } else { &[] });
        Tally { in_doubt: 1, ..self.tally }
    }

    /// The server lost what is proven, and nothing can bring it back: the sender has no receipt,
    /// and nothing is published.
    fn give_up(mut self) -> Tally {
        self.end_for_good();
        assert!(!self.place.is_published() && !self.place.has_receipt("sender"), "{}", self.words());
        self.place.assert_clean(&[]);
        Tally { emptied: 1, ..self.tally }
    }

    fn is_done_before(&self) -> bool {
        self.place.is_published() && ["sender", "receiver"].iter().all(|side| self.place.has_receipt(side))
    }

    /// Both were killed when nothing was left to do, and began another transfer.
    fn done_before(mut self) -> Tally {
        self.end_for_good();
        for side in ["sender", "receiver"] {
            assert!(self.place.has_receipt(side), "no receipt at the {side}, and a target:\n{}", self.words());
        }
        self.place.assert_done();
        self.tally
    }

    fn end_for_good(&mut self) {
        self.sender.kill();
        self.receiver.kill();
        for side in [Role::Receiver, Role::Sender] {
            self.place.run(side, &["abandon", "--all"]).assert_code(exit::DONE);
        }
    }

    /// The sender has its receipt. A receiver that was killed at that moment does not know, and
    /// waits for it.
    fn end_receiver(&mut self) {
        let mut receiver = self.receiver.agent.take().unwrap_or_else(|| self.place.receiver().start());
        let by = Instant::now() + START_AGAIN_AFTER * 5;
        while receiver.is_running() && Instant::now() < by {
            thread::sleep(LOOK_EVERY);
        }
        if receiver.is_running() {
            receiver.signal(Signal::SIGTERM);
        }
        let ended = receiver.wait(ENDS_WITHIN);
        // One that was killed when it had cleaned up already began another transfer: it is refused
        // by a target that is there, or waits.
        if ended.code() == Some(exit::UNUSABLE) && self.is_done_before() {
            self.receiver.target_taken = true;
            return;
        }
        assert!(matches!(ended.code(), Some(exit::DONE | exit::USER_INTERRUPT)), "{}", ended.message());
        self.receiver.note(&ended);
        self.receiver.done = Some(ended);
    }

    /// The receiver knows that the sender has its receipt. A sender that was killed at that moment
    /// finds it.
    fn end_sender(&mut self) {
        let sender = self.sender.agent.take().unwrap_or_else(|| self.place.sender().start());
        let ended = sender.wait(ENDS_WITHIN);
        self.sender.note(&ended);
        // One that was killed when it had cleaned up already finds its ticket used.
        assert!(
            matches!(ended.code(), Some(exit::DONE | exit::REFUSED)) || ended.code().is_none(),
            "{}",
            ended.message()
        );
        if ended.code().is_some() {
            self.sender.done = Some(ended);
        }
    }

    fn interfere(&mut self) {
        if let Some(databases) = self.place.databases.as_ref().filter(|_| self.random.chance(50.0)) {
            self.tally.servers_disturbed += u64::from(databases.disturb(&mut self.random));
            return;
        }
        match self.random.below(100) {
            0..25 => self.kill_sender(),
            25..50 => self.kill_receiver(),
            50..65 => {
                self.kill_sender();
                self.kill_receiver();
            }
            65..80 if self.place.databases.is_some() => self.kill_holder(),
            65..80 => self.kill_loader(),
            80..96 => self.cut(Duration::ZERO, Duration::from_millis(1500)),
            _ => self.cut(Duration::from_millis(8500), Duration::from_millis(10_000)),
        }
    }

    /// Sometimes together with what holds the snapshot of its source.
    fn kill_sender(&mut self) {
        self.tally.senders_killed += u64::from(self.sender.kill());
        if self.place.databases.is_some() && self.random.chance(25.0) {
            self.kill_holder();
        }
    }

    /// Half of the time together with its loader's guard. What a shell had started waits in vain
    /// then, until it is ended.
    fn kill_receiver(&mut self) {
        let guards = if self.random.chance(50.0) { self.guards() } else { Vec::new() };
        guards.iter().for_each(|guard| kill9(*guard));
        self.tally.receivers_killed += u64::from(self.receiver.kill());
        if !guards.is_empty() {
            // Long enough to load what an input that had ended would have left.
            thread::sleep(LOOK_EVERY);
        }
        for guard in guards {
            let _ = killpg(guard, Signal::SIGKILL);
        }
    }

    fn kill_loader(&mut self) {
        let guards = self.guards();
        self.tally.loaders_killed += u64::from(!guards.is_empty());
        guards.into_iter().for_each(kill9);
    }

    /// What holds the snapshot of the source, whether or not its sender runs.
    fn kill_holder(&mut self) {
        let transfers = self.place.path("sender/transfers");
        for transfer in self.place.transfers("sender") {
            if let Some(held) = holder::look(&transfers.join(transfer)) {
                self.tally.holders_killed += 1;
                kill9(Pid::from_raw(held.pid as i32));
            }
        }
    }

    /// What the receiver has started.
    fn guards(&self) -> Vec<Pid> {
        let pids = self.receiver.agent.as_ref().map_or_else(Vec::new, |receiver| children(receiver.pid()));
        pids.into_iter().map(|pid| Pid::from_raw(pid as i32)).collect()
    }

    fn cut(&mut self, least: Duration, most: Duration) {
        self.tally.cuts += 1;
        self.place.link.cut();
        thread::sleep(self.random.between(least, most));
        self.place.link.heal();
    }

    fn check(mut self) -> Tally {
        if let Some(databases) = &mut self.place.databases {
            self.tally.changes += databases.settle();
        }
        for side in ["sender", "receiver"] {
            let left = self.place.transfers(side);
            assert!(left.is_empty(), "unfinished at the {side}: {left:?}\n{}", self.words());
        }
        self.place.assert_done();
        let mut tally = self.tally;
        let told =
            self.sender.done.as_ref().filter(|ended| ended.code() == Some(exit::DONE)).and_then(Finished::resume);
        match told.as_deref() {
            Some("resumed") => tally.resumed += 1,
            Some("restarted") => tally.restarted += 1,
            _ => {}
        }
        tally
    }

    fn words(&self) -> String {
        let words = |side: &Side| match (&side.agent, &side.done) {
            (Some(agent), _) => format!("{}now: {}", side.ends.concat(), agent.last_words()),
            (None, _) => side.ends.concat(),
        };
        format!("--- sender\n{}\n--- receiver\n{}", words(&self.sender), words(&self.receiver))
    }
}
