//! Rounds of one transfer each, in which agents and loader are killed and the link is cut at random
//! moments; whatever ends is started again with the same command, until both sides are done. Then
//! the target equals the source, and no staging, no record and no key is left.
//!
//! One case cannot go on: a receiver killed while its loader was ending cannot know whether that
//! committed. It says so; the target then holds all or nothing, the operator states which, and
//! `abandon` clears up on both sides. And agents that were both killed on their way out, with
//! everything done, begin another transfer when they are started again: it is refused, since its
//! target is there.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
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

use crate::{
    agents::Agent,
    doubt_loop, exit,
    finished::Finished,
    grid::Content,
    link::Faults,
    memory::children,
    place::{Kind, Place},
    random::Random,
};

pub use self::tally::Tally;

mod tally;

/// Far more than any round needs: an outage costs ten seconds, and a killed sender as much.
const ROUND_WITHIN: Duration = Duration::from_secs(180);

/// For an agent that was killed or asked to stop.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks at the agents, and before an agent that gave up is started again.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const START_AGAIN_AFTER: Duration = Duration::from_millis(200);

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
    /// `psql` with a slow COMMIT: see [`doubt_loop`].
    Commit,
}

impl Engine {
    pub const ALL: [Engine; 10] = [
        Engine::Sqlite,
        Engine::Tables,
        Engine::Image,
        Engine::Drill,
        Engine::File,
        Engine::Loader,
        Engine::Program,
        Engine::Spool,
        Engine::Grid,
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
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= rounds {
                        return;
                    }
                    let (engine, seed) = (engines[number as usize % engines.len()], seed.wrapping_add(number));
                    let outcome = catch_unwind(AssertUnwindSafe(|| match (engine, &postgres) {
                        (Engine::Commit, Some(postgres)) => doubt_loop::Round::new(postgres, seed).run(),
                        (Engine::Commit, None) => Tally::default(),
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
    total.into_inner().unwrap()
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

/// One agent: the process that runs now, and how its last one ended if that was the end.
#[derive(Default)]
struct Side {
    agent: Option<Agent>,
    done: Option<Finished>,
    /// It reported that the transfer cannot be resumed.
    in_doubt: bool,
    /// It reported that something is there already.
    target_taken: bool,
    /// It reported that when it ended just now.
    loader_failed: bool,
    /// How each of its processes ended, to examine a round that failed.
    ends: Vec<String>,
}

impl Round {
    fn new(engine: Engine, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let megabits = 4 + random.below(60) as u64;
        let faults = Faults {
            bits_per_second: Some(megabits * 1_000_000),
            loss_percent: if random.chance(25.0) { 1.0 } else { 0.0 },
            ..Faults::default()
        };
        let place = Place::new(engine.kind(&mut random), faults, seed);
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
        if self.receiver.in_doubt || self.receiver.target_taken {
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
        let is_there = self.place.target().exists();
        let statement = if is_there { "--loaded" } else { "--not-loaded" };
        for transfer in self.place.transfers("receiver") {
            self.place.run(Role::Receiver, &["resolve", &transfer, statement]).assert_code(exit::DONE);
        }
        self.end_for_good();
        assert!(!is_there || self.place.is_same(), "the copy differs");
        self.place.assert_clean(if is_there { &["to"] } else { &[] });
        Tally { in_doubt: 1, ..self.tally }
    }

    fn is_done_before(&self) -> bool {
        self.place.target().exists() && ["sender", "receiver"].iter().all(|side| self.place.has_receipt(side))
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
        match self.random.below(100) {
            0..25 => self.kill_sender(),
            25..50 => self.kill_receiver(),
            50..65 => {
                self.kill_sender();
                self.kill_receiver();
            }
            65..80 => self.kill_loader(),
            80..96 => self.cut(Duration::ZERO, Duration::from_millis(1500)),
            _ => self.cut(Duration::from_millis(8500), Duration::from_millis(10_000)),
        }
    }

    fn kill_sender(&mut self) {
        self.tally.senders_killed += u64::from(self.sender.kill());
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

    fn check(self) -> Tally {
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

impl Side {
    fn is_missing(&self) -> bool {
        self.agent.is_none() && self.done.is_none()
    }

    /// An agent that ends by itself is done, or may be started again.
    /// `false` if it ended as none should.
    fn take_end(&mut self) -> bool {
        let Some(agent) = &mut self.agent else { return true };
        if agent.is_running() {
            return true;
        }
        let ended = self.agent.take().expect("looked at above").wait(ENDS_WITHIN);
        self.note(&ended);
        self.loader_failed =
            ended.code() == Some(exit::UNUSABLE) && ended.finished_event()["outcome"] == "loader_failed";
        match ended.code() {
            Some(exit::DONE) => self.done = Some(ended),
            Some(exit::UNUSABLE) if ended.finished_event()["outcome"] == "target_not_empty" => self.target_taken = true,
            Some(exit::INTERRUPTED) if ended.resume().as_deref() == Some("in_doubt") => self.in_doubt = true,
            // Unreachable or busy before anything was agreed, interrupted, or a loader that was
            // killed.
            Some(exit::PEER | exit::INTERRUPTED | exit::REFUSED | exit::UNUSABLE) => thread::sleep(START_AGAIN_AFTER),
            _ => {
                self.done = Some(ended);
                return false;
            }
        }
        true
    }

    fn note(&mut self, ended: &Finished) {
        self.ends.push(format!("{:?} after {:?}: {}\n", ended.status, ended.took, ended.last_words()));
    }

    fn kill(&mut self) -> bool {
        let Some(agent) = self.agent.take() else { return false };
        agent.kill9();
        let ended = agent.wait(ENDS_WITHIN);
        self.note(&ended);
        // It may have been quicker.
        if ended.code() == Some(exit::DONE) {
            self.done = Some(ended);
        }
        true
    }
}
