//! A short crash loop (faults C1, C2, C3, C4, C5, D7, D8); `scripts/crash-loop` runs longer ones.

use sealift_tests::{crash_loop, random::Random};

/// Four of each kind. `scripts/test` runs 200.
const ROUNDS: u64 = 44;

#[test]
fn agents_and_loaders_are_killed_and_links_cut_at_random() {
    let seed = Random::of_this_run("crash loop").number() >> 32;
    let (tally, failed) = crash_loop::run(seed, ROUNDS, &crash_loop::Engine::ALL, 16);
    println!("{tally}");
    assert!(failed.is_empty(), "rounds failed, of seeds {failed:?}");
    assert!(tally.senders_killed > 0 && tally.receivers_killed > 0 && tally.cuts > 0, "{tally}");
}

#[test]
fn the_script_names_every_engine() {
    let script = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/crash-loop")).unwrap();
    let names = crash_loop::Engine::ALL.map(crash_loop::Engine::name).join("|");
    assert!(script.contains(&format!("ROUNDS {names}|all\n")), "{names}");
}
