//! `crash-loop SEED ROUNDS ENGINE`: see `sealift_tests::crash_loop`. `SEALIFT_AT_ONCE` sets how
//! many rounds run at a time.

use std::{env, process::ExitCode, time::Instant};

use sealift_tests::crash_loop::{Engine, Tally, run};

/// Rounds wait more than they work: so many keep two processors busy.
const AT_ONCE: usize = 16;

/// Rounds after which a long run says how far it is. A multiple of the number of engines, which
/// take turns.
const TOLD_EVERY: u64 = 500;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let parsed = match &arguments[..] {
        [seed, rounds, engine] => seed.parse::<u64>().ok().zip(rounds.parse().ok()).zip(Engine::named(engine)),
        _ => None,
    };
    let Some(((seed, rounds), engines)) = parsed else {
        let names = Engine::ALL.map(Engine::name).join("|");
        eprintln!("usage: crash-loop SEED ROUNDS {names}|all");
        return ExitCode::from(2);
    };
    let at_once =
        env::var("SEALIFT_AT_ONCE").map_or(AT_ONCE, |text| text.parse().expect("SEALIFT_AT_ONCE is a number"));
    let started = Instant::now();
    let (mut tally, mut failed) = (Tally::default(), Vec::new());
    for first in (0..rounds).step_by(TOLD_EVERY as usize) {
        let of_these = run(seed.wrapping_add(first), TOLD_EVERY.min(rounds - first), &engines, at_once);
        tally += of_these.0;
        failed.extend(of_these.1);
        println!("{tally}; {:.0} s", started.elapsed().as_secs_f64());
    }
    if !failed.is_empty() {
        println!("{} rounds FAILED, of seeds {failed:?}", failed.len());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
