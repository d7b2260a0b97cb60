//! What ends before Ready: it is no part of the transfer yet, and takes nothing from it.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;
use sealift_agent::{
    audit::AuditLog, budget::Budget, cli::MEMORY_BYTES_MIN, control::open_control, failure::Failure,
    identity::Identity, link::Dialer, random::SystemRandom, role::Role, state::StateDir, ticket::Ticket, trust::Trust,
};
use sealift_protocol::{
    close::Code, compress::Compression, disposition::Asks, key::DigestSecret, manifest::Origin, negotiate::suites_auto,
    send::SenderTransfer,
};
use sealift_sender::{
    lane::Sealer,
    outgoing::Outgoing,
    pipeline::{OfferTerms, negotiate},
    transfer::proof_of,
    workers::Workers,
};
use sealift_tests::{
    agents::SENDER,
    exit,
    link::Faults,
    place::{Kind, Place},
    wire::opaque_plan,
};

use super::{GRID, MIB, WITHIN, assert_done, assert_resumed, rate};

const KILLED: Option<i32> = Some(Signal::SIGKILL as i32);

/// Fault C6: a stop while an offer is being answered. Its sender has the Accept and has said
/// nothing since; the ticket stays good, and the same commands continue it.
#[test]
fn a_stop_while_an_offer_is_answered_keeps_the_ticket() {
    for (signal, kind) in
        [(Signal::SIGINT, Kind::Sqlite(300)), (Signal::SIGTERM, Kind::Loader(MIB)), (Signal::SIGHUP, GRID)]
    {
        let place = Place::new(kind, Faults::default(), 61);
        let mut receiver = place.receiver().start();
        receiver.ticket();
        let sender = place.sender().env("SEALIFT_FAIL_POINT", "begin-kept").start();
        assert_eq!(sender.wait(WITHIN).killed_by(), KILLED);
        receiver.signal(signal);
        let stopped = receiver.wait(WITHIN);
        stopped.assert_code(exit::USER_INTERRUPT).assert_one_message();
        assert!(!stopped.message().contains("void"), "{}", stopped.message());
        assert_eq!(place.transfers("receiver").len(), 1, "the ticket is good for it");
        let ticket = fs::read(place.ticket()).unwrap();
        let (sender, receiver) = place.start();
        assert_eq!(fs::read(place.ticket()).unwrap(), ticket, "the same ticket");
        assert_done(&place, sender, receiver);
    }
}

/// Issue 9, A3: a receiver that waits for no lost link is offered the transfer again, by the sender
/// that began it, which then cannot go on. What had been loaded stays.
#[test]
fn a_peer_that_fails_before_ready_ends_nothing_without_grace() {
    let place = Place::new(Kind::File(6 * MIB), rate(12), 62);
    let receiver = || place.receiver().args(&["--grace", "0s"]).start();
    let mut first = receiver();
    first.ticket();
    let mut sender = place.sender().start();
    place.wait_until_passed(&mut sender, 3 << 20);
    sender.kill9();
    assert_eq!(sender.wait(WITHIN).killed_by(), KILLED);
    first.wait(WITHIN).assert_code(exit::INTERRUPTED);

    let mut second = receiver();
    second.wait_for_event("listening", 1, WITHIN);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(fail_before_begin(&place));
    let second = second.wait(WITHIN);
    second.assert_code(exit::UNUSABLE).assert_one_message();
    assert_eq!(second.finished_event()["outcome"], "source_failed");
    assert_eq!(place.transfers("receiver").len(), 1, "what was begun stays");

    let mut third = receiver();
    third.wait_for_event("listening", 1, WITHIN);
    assert_resumed(&place, place.sender().start(), third);
}

/// Says what the sender of this place would, up to the answer to its offer; then that its source
/// failed.
async fn fail_before_begin(place: &Place) {
    let state = StateDir::open(Some(place.path("sender")), SENDER).unwrap();
    let identity = Identity::open(&state, Role::Sender, &AuditLog::open(&state, SENDER).unwrap()).unwrap();
    let ticket = Ticket::from_text(&fs::read_to_string(place.ticket()).unwrap()).unwrap();
    let dialer = Dialer::new(&identity, Trust::Pinned(ticket.receiver)).unwrap();
    let link = dialer.connect(&ticket.addresses).await.unwrap();
    let (mut writer, mut control) = open_control(&link, &proof_of(&ticket, &identity, &link)).await.unwrap();
    let secret = DigestSecret::generate(&mut SystemRandom::default());
    let transfer =
        SenderTransfer::new(suites_auto(true), ticket.grant.clone(), opaque_plan(), secret, Origin::unknown()).unwrap();
    let outgoing =
        Outgoing::new(transfer, None, Sealer::new(Workers::new(Compression::Off), Budget::new(MEMORY_BYTES_MIN)));
    let terms = OfferTerms { asks: Asks::Continue, sealing_key: ticket.sealing_key };
    let fails = |_| Err(Failure::new(Code::SourceFailed, "the source failed", ""));
    let negotiated = negotiate(&outgoing, terms, &link, &identity, &mut writer, &mut control, fails).await;
    let failure = negotiated.err().expect("it failed");
    assert_eq!(failure.code, Code::SourceFailed, "{failure}");
    writer.refuse(&link, &failure).await;
    let _ = tokio::time::timeout(Duration::from_secs(3), link.wait_idle()).await;
}
