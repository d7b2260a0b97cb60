//! Thousands of transfers, each drawn from a seed. A failure prints its seed; to play it again:
//!
//! ```text
//! SEALIFT_SIM_SEED=… SEALIFT_SIM_RUNS=1 cargo nextest run --workspace -E 'binary(simulator)'
//! ```
//!
//! Faults N1, N2, N3, N5, N6, N7, N8, N11, N12, N15, C1, C2, C3, C10, C11, C15, C16, T1, T2, T3,
//! T7, X1 to X6, X12, X13, D7 (faults N1, N2, N3, N8, N15 as streams see them) and the part order,
//! over any interleaving: what is visible is exactly the source as it was at one moment, and only
//! if there is a receipt; and a transfer completes unless something prevents it that no retry can
//! change.

use std::{collections::BTreeMap, panic};

use sealift_protocol::{close::Code, manifest::Section};
use sealift_tests::sim::{
    Action, End, Ended, Hostile, PartContent, ReceiverFault, Scenario, SenderFault, Side, SourceKind, TargetKind,
    Theme, Version, run,
};

/// Over all shards.
const RUNS: u64 = 20_000;
const SHARDS: u64 = 4;

/// Longer than any run may take by its own clock: some outages of a minute each, and patience until
/// the grant ends.
const VIRTUAL_MS_MAX: u64 = 2 * 3_600_000;

// One test a shard, so that they run side by side.
#[test]
fn a_receipt_means_an_exact_target_1() {
    play_shard(0);
}

#[test]
fn a_receipt_means_an_exact_target_2() {
    play_shard(1);
}

#[test]
fn a_receipt_means_an_exact_target_3() {
    play_shard(2);
}

#[test]
fn a_receipt_means_an_exact_target_4() {
    play_shard(3);
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

fn play_shard(shard: u64) {
    let (first, runs) = (number("SEALIFT_SIM_SEED", 1), number("SEALIFT_SIM_RUNS", RUNS));
    let seeds = (first..first + runs).filter(|seed| seed % SHARDS == shard);
    let kinds = seeds.fold(BTreeMap::new(), play);
    println!("{kinds:#?}");
    if runs >= RUNS {
        // A simulator that never meets a fault proves nothing.
        assert!(kinds.len() >= 25, "{kinds:?}");
    }
}

fn play(mut kinds: BTreeMap<String, u64>, seed: u64) -> BTreeMap<String, u64> {
    let scenario = Scenario::draw(seed);
    let played = panic::catch_unwind(|| {
        let ended = run(&scenario);
        check(&scenario, &ended);
        ended
    });
    match played {
        Ok(ended) => {
            *kinds.entry(kind_of(&scenario, &ended)).or_default() += 1;
            if scenario.spools {
                *kinds.entry(format!("spooled: {}", outcome(&ended.sender))).or_default() += 1;
            }
            if scenario.target == TargetKind::Synced {
                *kinds.entry(format!("synced chunks: {}", outcome(&ended.receiver))).or_default() += 1;
            }
            *kinds.entry("connections".to_owned()).or_default() += ended.connections;
            *kinds.entry("steps".to_owned()).or_default() += ended.steps;
            kinds
        }
        Err(panic) => {
            println!("SEALIFT_SIM_SEED={seed} SEALIFT_SIM_RUNS=1 plays this again");
            println!("{:?} {:?} {:?}", scenario.theme, scenario.source, scenario.target);
            println!("{:?} {:?}", scenario.hostile, scenario.planned);
            panic::resume_unwind(panic)
        }
    }
}

/// What the run was, and how it ended.
fn kind_of(scenario: &Scenario, ended: &Ended) -> String {
    let theme = match scenario.hostile {
        Some(Hostile::Sender(fault, _)) => format!("{fault:?}"),
        Some(Hostile::Receiver(fault, _)) => format!("{fault:?}"),
        Some(Hostile::Corrupt(_)) => "Corrupt".to_owned(),
        None => format!("{:?}", scenario.theme),
    };
    format!("{theme}: {}, {}", outcome(&ended.sender), outcome(&ended.receiver))
}

fn outcome(end: &End) -> &'static str {
    end.as_ref().map_or_else(|code| code.as_str(), |_| "done")
}

fn check(scenario: &Scenario, ended: &Ended) {
    let both = (
        ended.sender.as_ref().map(|_| ()).map_err(|code| *code),
        ended.receiver.as_ref().map(|_| ()).map_err(|code| *code),
    );
    assert!(scenario.theme == Theme::Clocks || ended.virtual_ms < VIRTUAL_MS_MAX, "{} ms", ended.virtual_ms);
    for code in [both.0, both.1].into_iter().filter_map(Result::err) {
        assert!(!matches!(code, Code::Internal | Code::RandomBroken), "{both:?}");
    }
    check_target(scenario, ended);
    if let (Ok(mine), Ok(theirs)) = (&ended.sender, &ended.receiver) {
        assert_eq!(mine, theirs, "both hold the same receipt");
    }
    match scenario.hostile {
        Some(_) if !ended.harmed => assert_eq!(both, (Ok(()), Ok(())), "nothing went wrong"),
        Some(hostile) => {
            if let Some(allowed) = outcomes(scenario, hostile) {
                assert!(allowed.contains(&both), "{both:?}");
            }
        }
        None => {
            let excused =
                [both.0, both.1].into_iter().filter_map(Result::err).all(|code| is_excused(scenario, ended, code));
            assert!(excused, "{both:?} after {:?}", ended.happened);
        }
    }
}

/// What is visible is the source at one moment, whole, and there is a receipt that says so.
fn check_target(scenario: &Scenario, ended: &Ended) {
    let rolled_back = ended.happened.contains(&Action::RollBack(Side::Receiver));
    let Some(published) = &ended.published else {
        assert!(ended.receiver.is_err(), "a receipt, and nothing is published");
        assert!(ended.sender.is_err() || rolled_back, "the sender has a receipt, and nothing is published");
        return;
    };
    let is_shown = |version: &Version| version.iter().map(PartContent::plain).eq(published.iter().cloned());
    assert!(scenario.versions.iter().any(is_shown), "what is published is no version of the source");
    if scenario.hostile.is_some() {
        assert!(ended.receiver.is_ok(), "published without a receipt");
    }
    for receipt in [&ended.sender, &ended.receiver].into_iter().flatten() {
        let Some(Hostile::Receiver(ReceiverFault::OtherReceipt, _)) = scenario.hostile else {
            receipt.verify().expect("a receipt verifies");
            let sent = receipt.receipt.manifest.manifest.parts.iter().map(|part| part.plain_bytes as usize);
            assert!(sent.eq(published.iter().map(Vec::len)), "the receipt is of what is published");
            continue;
        };
    }
}

/// Whether a run without a hostile side may end like this for one of them, given what happened to
/// it.
fn is_excused(scenario: &Scenario, ended: &Ended, code: Code) -> bool {
    let happened = |wanted: &dyn Fn(&Action) -> bool| ended.happened.iter().any(wanted);
    let rolled_back = |side| happened(&|action| *action == Action::RollBack(side));
    let receiver_lost = happened(&|action| match action {
        Action::Kill { receiver, .. } => *receiver,
        Action::LosePower(side) | Action::RollBack(side) => *side == Side::Receiver,
        _ => false,
    });
    // The other side gives up, or waits in vain, after one has ended for a reason.
    let waited = matches!(code, Code::Interrupted | Code::Unreachable | Code::TransferBusy | Code::GrantExpired);
    if scenario.theme == Theme::Clocks {
        return waited || matches!(code, Code::GrantNotYetValid | Code::ClocksApart | Code::ResumeImpossible);
    }
    let changed = happened(&|action| *action == Action::ChangeSource) && scenario.can_repeat();
    if changed {
        return waited || code == Code::SourceChanged;
    }
    let lost_pipe =
        scenario.source == SourceKind::Pipe && receiver_lost && !scenario.keeps_verified() && !scenario.spools;
    if lost_pipe && (waited || code == Code::ResumeImpossible) {
        return true;
    }
    // A sender without its record is another; a receiver without what it said it had is not to be
    // trusted.
    let went_back = rolled_back(Side::Sender) || rolled_back(Side::Receiver);
    went_back
        && (waited
            || matches!(
                code,
                Code::ResumeImpossible | Code::ManifestMismatch | Code::AckImpossible | Code::SourceChanged
            ))
}

/// What one row too many is found by: the target that is read again; or, of a table without a byte,
/// the manifest itself, which cannot be.
fn miscounted(scenario: &Scenario) -> Vec<Code> {
    let tables =
        scenario.plan.parts.iter().zip(&scenario.versions[0]).filter(|(part, _)| part.section == Section::Data);
    let code = |content: &PartContent| match content.rows.is_empty() {
        true => Code::ManifestMismatch,
        false => Code::TargetMismatch,
    };
    tables.map(|(_, content)| code(content)).collect()
}

type Both = (Result<(), Code>, Result<(), Code>);

/// How a run with a hostile side may end for sender and receiver.
fn outcomes(scenario: &Scenario, hostile: Hostile) -> Option<Vec<Both>> {
    let good: Both = (Ok(()), Ok(()));
    let refused = |codes: &[Code]| codes.iter().map(|code| (Err(*code), Err(*code))).collect::<Vec<Both>>();
    Some(match hostile {
        // Anything but a wrong target.
        Hostile::Corrupt(_) => return None,
        Hostile::Sender(fault, _) => match fault {
            // The window may close over the chunk that never comes, and then nothing does.
            SenderFault::Skip | SenderFault::Swap => refused(&[Code::ChunkOrder, Code::Interrupted]),
            // What comes after everything may not be looked at any more.
            SenderFault::Repeat | SenderFault::AfterLast => [vec![good], refused(&[Code::ChunkOrder])].concat(),
            // The early end comes on one stream, and the manifest, or the next part in a lane that
            // is not free for it, on another: whichever comes first is refused for what it is.
            SenderFault::EndPart => refused(&[Code::PartTruncated, Code::ProtocolViolation, Code::LimitExceeded]),
            SenderFault::OtherPart => refused(&[Code::ChunkOrder, Code::ChunkForeign]),
            SenderFault::ForeignKeys => refused(&[Code::ChunkForged]),
            // Too early for the sender's rules may be in time when it arrives.
            SenderFault::AllPartsAtOnce => {
                [vec![good], refused(&[Code::ProtocolViolation, Code::LimitExceeded])].concat()
            }
            SenderFault::Manifest => refused(&[Code::ManifestMismatch]),
            SenderFault::RowsMiscounted => refused(&miscounted(scenario)),
        },
        Hostile::Receiver(fault, _) => match fault {
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
