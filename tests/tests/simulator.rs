//! Thousands of transfers, each drawn from a seed. A failure prints its seed; to play it again:
//!
//! ```text
//! SEALIFT_SIM_SEED=… SEALIFT_SIM_RUNS=1 cargo nextest run -p sealift-tests simulator
//! ```

use std::{collections::BTreeMap, panic, thread};

use sealift_protocol::close::Code;
use sealift_tests::sim::{Ended, Fault, ReceiverFault, Scenario, SenderFault, run};

const RUNS: u64 = 2000;

/// Longer than any run may take by its own clock: fault-matrix N15 sends some 30 KB at 64 kbit/s.
const VIRTUAL_MS_MAX: u64 = 600_000;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// fault-matrix N1, N2, N3, N8, N15 (as streams see them), N11, N12, X1 to X6, X12, X13 and the part order, over any
/// interleaving: the target is exactly the source if there is a receipt, and nothing is published if there is none.
#[test]
fn a_receipt_means_an_exact_target() {
    let (first, runs) = (number("SEALIFT_SIM_SEED", 1), number("SEALIFT_SIM_RUNS", RUNS));
    let middle = first + runs / 2;
    let halves = [first..middle, middle..first + runs];
    let counts = halves.map(|seeds| thread::spawn(move || seeds.fold(BTreeMap::new(), play)));
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for half in counts {
        for (kind, count) in half.join().expect("the seed is printed above") {
            *kinds.entry(kind).or_default() += count;
        }
    }
    println!("{kinds:#?}");
    if runs >= RUNS {
        // A simulator that never meets a fault proves nothing.
        assert!(kinds.len() >= 20, "{kinds:?}");
    }
}

fn play(mut kinds: BTreeMap<String, u64>, seed: u64) -> BTreeMap<String, u64> {
    let scenario = Scenario::draw(seed);
    let played = panic::catch_unwind(|| {
        let ended = run(&scenario);
        judge(&scenario, &ended);
        ended.triggered
    });
    match played {
        Ok(triggered) => {
            let kind = match scenario.fault {
                fault if !triggered => format!("not met ({})", kind_of(fault)),
                fault => kind_of(fault),
            };
            *kinds.entry(kind).or_default() += 1;
            kinds
        }
        Err(panic) => {
            println!("SEALIFT_SIM_SEED={seed} SEALIFT_SIM_RUNS=1 plays this again ({:?})", scenario.fault);
            panic::resume_unwind(panic)
        }
    }
}

fn kind_of(fault: Fault) -> String {
    match fault {
        Fault::Sender(fault, _) => format!("{fault:?}"),
        Fault::Receiver(fault, _) => format!("{fault:?}"),
        fault => format!("{fault:?}").split('(').next().unwrap_or_default().to_owned(),
    }
}

fn judge(scenario: &Scenario, ended: &Ended) {
    let (sender, receiver) = (ended.sender.as_ref().map(|_| ()), ended.receiver.as_ref().map(|_| ()));
    let both = (sender.map_err(|code| *code), receiver.map_err(|code| *code));
    assert!(ended.virtual_ms < VIRTUAL_MS_MAX, "{} ms", ended.virtual_ms);
    assert_eq!(ended.target.published, both.1.is_ok(), "published if and only if there is a receipt");
    if ended.target.published {
        assert_eq!(ended.target.staged, scenario.plain(), "what is published is the source");
    }
    if let (Ok(mine), Ok(theirs)) = (&ended.sender, &ended.receiver) {
        assert_eq!(mine, theirs);
    }
    assert!(both.0.is_err() || both.1.is_ok(), "a sender's receipt is the receiver's: {both:?}");
    for code in [both.0, both.1].into_iter().filter_map(Result::err) {
        assert!(!matches!(code, Code::Internal | Code::RandomBroken), "{code:?}");
    }
    if !ended.triggered {
        assert_eq!(both, (Ok(()), Ok(())), "nothing went wrong");
    } else if let Some(allowed) = outcomes(scenario.fault) {
        assert!(allowed.contains(&both), "{both:?}");
    }
}

type Both = (Result<(), Code>, Result<(), Code>);

/// How a run with this fault may end for sender and receiver.
fn outcomes(fault: Fault) -> Option<Vec<Both>> {
    let good: Both = (Ok(()), Ok(()));
    let refused = |codes: &[Code]| codes.iter().map(|code| (Err(*code), Err(*code))).collect::<Vec<Both>>();
    Some(match fault {
        Fault::None => vec![good],
        // The receipt may be on its way when the link goes.
        Fault::CutAt(_) => vec![(Err(Code::Interrupted), Err(Code::Interrupted)), (Err(Code::Interrupted), Ok(()))],
        Fault::CutAfterCommit(_) | Fault::CutBeforeReceipt => refused(&[Code::Interrupted]),
        // Anything but a wrong target.
        Fault::Corrupt(_) => return None,
        Fault::Sender(fault, _) => match fault {
            // The window may close over the chunk that never comes, and then nothing does.
            SenderFault::Skip | SenderFault::Swap => refused(&[Code::ChunkOrder, Code::Interrupted]),
            SenderFault::Repeat | SenderFault::AfterLast => refused(&[Code::ChunkOrder]),
            SenderFault::EndPart => refused(&[Code::PartTruncated]),
            SenderFault::OtherPart => refused(&[Code::ChunkOrder, Code::ChunkForeign]),
            SenderFault::ForeignKeys => refused(&[Code::ChunkForged]),
            // Too early for the sender's rules may be in time when it arrives.
            SenderFault::AllPartsAtOnce => {
                [vec![good], refused(&[Code::ProtocolViolation, Code::LimitExceeded])].concat()
            }
            SenderFault::Manifest => refused(&[Code::ManifestMismatch]),
            SenderFault::RowsMiscounted => refused(&[Code::TargetMismatch]),
        },
        Fault::Receiver(fault, _) => match fault {
            ReceiverFault::AckAhead | ReceiverFault::AckBackwards => {
                vec![(Err(Code::AckImpossible), Err(Code::AckImpossible)), (Err(Code::AckImpossible), Ok(()))]
            }
            // What was forgotten may not have mattered.
            ReceiverFault::Forget => vec![good, (Err(Code::Interrupted), Err(Code::Interrupted))],
            ReceiverFault::OtherReceipt => vec![(Err(Code::ManifestMismatch), Ok(()))],
            ReceiverFault::ChangedRows => refused(&[Code::TargetMismatch]),
            ReceiverFault::Twice => vec![good],
        },
    })
}
