//! A source program never outlives a transfer that was stopped, or failed (fault C6).

use std::{fs, thread, time::Duration};

use sealift_tests::{agents::Agent, exit, link::Faults, memory::children, pair::Pair};

const WITHIN: Duration = Duration::from_secs(60);

/// It ignores every request to end, and nothing that it writes could tell it that nobody reads
/// any more.
const CLOSES_ITS_OUTPUT: &str = "trap \"\" TERM INT HUP; head -c 3000000 /dev/urandom; exec >&- 2>&-; sleep 600; exit";
const LEAVES_A_CHILD_WITH_THE_PIPE: &str = "sleep 600 & head -c 3000000 /dev/urandom; exit";
const LEAVES_A_CHILD_AND_FAILS: &str = "sleep 600 >&- 2>&- & head -c 3000000 /dev/urandom; exit 3";

/// Processes of this group that have not ended.
fn alive(group: u32) -> usize {
    let stats = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        (fields.next()? != "Z" && fields.nth(1)? == group.to_string()).then_some(())
    });
    stats.count()
}

fn assert_gone(group: u32) {
    for _ in 0..200 {
        if alive(group) == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the source program was left behind");
}

fn program_of(sender: &mut Agent) -> u32 {
    let mut program = None;
    sender.wait_for("a program", WITHIN, |sender| {
        program = children(sender.pid()).first().copied();
        program.is_some()
    });
    program.unwrap()
}

fn source(script: &str) -> String {
    format!("exec:sh -c '{script}'")
}

#[test]
fn c6_ctrl_c_ends_the_source_program_and_what_it_started() {
    for script in [CLOSES_ITS_OUTPUT, LEAVES_A_CHILD_WITH_THE_PIPE] {
        let mut running = Pair::new(source(script), "discard:").start();
        running.wait_until_started();
        let program = program_of(&mut running.sender);
        // What it prints has been read by then.
        thread::sleep(Duration::from_secs(1));
        running.sender.sigint();
        running.sender.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
        running.receiver.wait(WITHIN).assert_code(exit::INTERRUPTED);
        assert_gone(program);
    }
}

/// The second signal ends the sender while its farewells are still under way.
#[test]
fn c6_asked_twice_the_source_program_is_gone_too() {
    let mut running = Pair::new(source(CLOSES_ITS_OUTPUT), "discard:").over(Faults::default(), 1).start();
    running.wait_until_started();
    let program = program_of(&mut running.sender);
    thread::sleep(Duration::from_secs(1));
    running.link().cut();
    running.sender.sigint();
    thread::sleep(Duration::from_millis(500));
    assert!(running.sender.is_running(), "there was nothing to wait for");
    running.sender.sigint();
    running.sender.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
    assert_gone(program);
}

#[test]
fn a_source_program_that_failed_leaves_nothing_behind() {
    let mut running = Pair::new(source(LEAVES_A_CHILD_AND_FAILS), "discard:").start();
    let program = program_of(&mut running.sender);
    running.wait(WITHIN).assert_codes(exit::UNUSABLE, exit::UNUSABLE);
    assert_gone(program);
}
