//! Every cause, asked from a thread and awaited.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use sealift_agent::{
    failure::{Failure, Outcome},
    stop::Cause,
};
use sealift_protocol::close::Code;

use crate::running::{Running, run};

fn failure(what: &str) -> Failure {
    Failure::new(Code::Abandoned, what, "")
}

/// Issue 10, item 5: whatever the cause, a thread that asks and a call that waits end with it.
#[test]
fn each_cause_ends_threads_and_long_calls() {
    for cause in Cause::ALL {
        let running = Running::start();
        assert_eq!(running.stop.check(), Ok(()));
        let stop = running.stop.clone();
        let reading = thread::spawn(move || {
            loop {
                if let Err(failure) = stop.check() {
                    return failure;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let waited = run(async {
            let long_call = running.stop.or(std::future::pending::<Outcome>());
            let ending = async {
                tokio::task::yield_now().await;
                running.bring_up(cause);
            };
            tokio::join!(long_call, ending).0
        });
        let raised = running.stop.raised().unwrap();
        assert_eq!(raised.cause, cause);
        assert_eq!(waited, Err(raised.failure.clone()), "{cause:?}");
        assert_eq!(reading.join().unwrap(), raised.failure, "{cause:?}");
    }
}

/// Of several that are found at once the first in order counts; and then stays, whatever comes.
#[test]
fn the_first_cause_wins() {
    let running = Running::start();
    [Cause::Expired, Cause::Revoked, Cause::Shutdown].into_iter().for_each(|cause| running.bring_up(cause));
    assert_eq!(running.stop.raised().unwrap().cause, Cause::Shutdown);

    let running = Running::start();
    running.bring_up(Cause::Peer);
    running.bring_up(Cause::Shutdown);
    assert_eq!(running.stop.raised().unwrap().cause, Cause::Peer);
    assert_eq!(running.stop.check(), Err(failure("raised")));
    assert_eq!(run(running.stop.another(&[Cause::Peer])).cause, Cause::Shutdown);
    assert_eq!(run(running.stop.requested()).cause, Cause::Peer);
}

/// What runs is interrupted once, as soon as a cause is found or raised: also one that was found
/// before there was anything to interrupt, and one around the part of the work that runs.
#[test]
fn the_first_cause_interrupts_what_runs() {
    let interrupted = Arc::<AtomicU32>::default();
    let count = || {
        let interrupted = Arc::clone(&interrupted);
        move || {
            interrupted.fetch_add(1, Ordering::Relaxed);
        }
    };
    for cause in Cause::ALL {
        interrupted.store(0, Ordering::Relaxed);
        let running = Running::start();
        let part = running.stop.within();
        part.interrupts(count());
        assert_eq!(part.check(), Ok(()));
        running.bring_up(cause);
        assert!(part.check().is_err() && part.check().is_err());
        assert_eq!(interrupted.load(Ordering::Relaxed), 1, "{cause:?}");
        part.interrupts(count());
        assert_eq!(interrupted.load(Ordering::Relaxed), 2, "{cause:?}: at once");
    }
    let running = Running::start();
    running.stop.interrupts(count());
    running.stop.raise(Cause::Source, failure("source"));
    assert_eq!(interrupted.load(Ordering::Relaxed), 3, "before anything asks");
}

/// A loader that has everything is waited for: each cause is seen once, and none ends it.
#[test]
fn work_that_nothing_ends_sees_every_cause_once() {
    let running = Running::start();
    let mut seen = Vec::new();
    for cause in Cause::ALL {
        running.bring_up(cause);
        seen.push(run(running.stop.another(&seen)).cause);
    }
    assert_eq!(seen, Cause::ALL);
    let none = run(async { tokio::time::timeout(Duration::from_millis(50), running.stop.another(&seen)).await });
    assert!(none.is_err());
}

/// A source that failed is replaced by another; what ends the transfer ends every part of it.
#[test]
fn a_stop_within_another_ends_with_it_and_not_the_other_way_round() {
    let running = Running::start();
    let part = running.stop.within();
    part.raise(Cause::Source, failure("source"));
    assert_eq!(part.check(), Err(failure("source")));
    assert_eq!(running.stop.check(), Ok(()));
    let next = running.stop.within();
    let ended = run(async {
        let ending = async { running.bring_up(Cause::Expired) };
        tokio::join!(next.requested(), ending).0
    });
    assert_eq!(ended.cause, Cause::Expired);
}

/// Fault C7: the link was lost while the process was stopped, and the grant ended.
#[test]
fn an_ended_grant_outweighs_a_lost_link() {
    let running = Running::start();
    let code_of = |code: Code| running.stop.or_failure(Failure::new(code, "link", "")).code;
    assert_eq!(code_of(Code::Interrupted), Code::Interrupted);
    running.bring_up(Cause::Expired);
    assert_eq!(code_of(Code::Interrupted), Code::GrantExpired);
    assert_eq!(code_of(Code::ChunkForged), Code::ChunkForged);
}
