//! Over several connections: what outlives one, and what is due again on the next.

use sealift_protocol::{
    close::Code,
    disposition::Asks,
    envelope::SealingKey,
    error::Result,
    frame::StreamHeader,
    id::{ChunkCount, ChunkIndex, Epoch, PartIndex},
    manifest::Origin,
    message::{Ack, Message},
    receive::Accepting,
    seal::Suite,
    send::{Accepted, Resume, SenderRecord, SenderTransfer, Sent},
};
use sealift_tests::wire::{Exchange, NOW_SECONDS, Terms, begin, opaque_plan, ready};

use super::{Flow, code};

fn connect_again(flow: &mut Flow) -> Result<Vec<Resume>> {
    flow.pair.reconnect(&mut flow.parties, &Terms::new(opaque_plan(), Suite::Aes256Gcm))
}

/// A connection with five chunks sent, of which three arrived and two are acknowledged.
fn interrupted() -> Flow {
    let mut flow = Flow::new(opaque_plan());
    flow.pair.transfer.handle_start(PartIndex(0));
    flow.stream(0).unwrap();
    flow.pair.loading.handle_begun(PartIndex(0));
    for index in 0..5 {
        let sealed = flow.sealed(0, index, false);
        flow.send(&sealed);
        if index < 3 {
            flow.arrive(0, &sealed).unwrap();
        }
        if index == 1 {
            flow.acknowledge().unwrap();
        }
    }
    flow
}

/// Faults N5, N11: what arrived is not sent again though its acknowledgement was lost; what did not
/// is sealed with the keys of the new epoch, and the old frames are worth nothing there.
#[test]
fn a_new_connection_goes_on_where_the_receiver_is() {
    let mut flow = interrupted();
    let stale = flow.sealed(0, 3, false);
    assert_eq!(connect_again(&mut flow), Ok(vec![Resume::Continue]));
    assert_eq!((flow.pair.session.keys.epoch(), flow.pair.loading.epoch()), (Epoch(2), Epoch(2)));
    assert_eq!(flow.pair.transfer.held(PartIndex(0)), ChunkCount(3));
    assert_eq!(code(flow.stream(0)), Code::ChunkOrder, "from the beginning");
    let from_third = StreamHeader { part: PartIndex(0), first: ChunkIndex(3) };
    flow.pair.receiving.handle_stream(&flow.pair.loading, from_third).unwrap();
    assert_eq!(code(flow.arrive(0, &stale)), Code::ChunkForeign, "of the old epoch");
    let mut flow = interrupted();
    connect_again(&mut flow).unwrap();
    flow.pair.receiving.handle_stream(&flow.pair.loading, from_third).unwrap();
    for index in [3, 4] {
        let nonce = flow.nonces.draw().unwrap();
        let sealed = flow.pair.transfer.poll_resend(PartIndex(0), &flow.pair.session, || Ok(nonce)).unwrap().unwrap();
        assert_eq!((sealed.header.index, sealed.header.epoch), (ChunkIndex(index), Epoch(2)));
        flow.arrive(0, &sealed).unwrap();
    }
    let nonce = flow.nonces.draw().unwrap();
    assert!(flow.pair.transfer.poll_resend(PartIndex(0), &flow.pair.session, || Ok(nonce)).unwrap().is_none());
    flow.acknowledge().unwrap();
}

/// Offer and Accept of another connection.
fn accepted(flow: &mut Flow, key: &SealingKey) -> (Accepting, Accepted) {
    let terms = Terms::new(opaque_plan(), Suite::Aes256Gcm);
    let Flow { parties, pair, .. } = flow;
    let expected = parties.expected(key);
    let (offering, offer) =
        pair.transfer.offer(&parties.channel, expected, Asks::Continue, NOW_SECONDS, &mut parties.random);
    let Message::Offer(offer) = offer else { panic!("no offer") };
    let offered = parties.listening(&terms).handle_offer(offer, &parties.channel, NOW_SECONDS).unwrap();
    let (accepting, accept) =
        offered.accept(&pair.loading, terms.window, key.public_key(), &parties.receiver, &mut parties.random).unwrap();
    let Message::Accept(accept) = accept else { panic!("not accepted") };
    let accepted = offering.handle_accept(&pair.transfer, accept, &parties.sender, &mut parties.random).unwrap();
    (accepting, accepted)
}

/// A receiver may know the transfer from Begin on, and publish it from Finish on: the sender's
/// record says so before.
#[test]
fn begin_and_finish_wait_for_the_record() {
    let mut flow = Flow::new(opaque_plan());
    let key = SealingKey::generate(&mut flow.parties.random);
    let mut record = SenderRecord::default();
    record.handle_accepted(&accepted(&mut flow, &key).1);
    assert_eq!(code(record.begin(accepted(&mut flow, &key).1).map(drop)), Code::Internal);
    record.handle_written();
    record.handle_accepted(&accepted(&mut flow, &key).1);
    assert!(!record.is_unwritten() && record.begin(accepted(&mut flow, &key).1).is_ok(), "it says so already");
    flow.whole_part(0, 2);
    let manifest = flow.manifest();
    record.handle_all_sent(Sent { plan: opaque_plan(), manifest: manifest.clone() });
    assert_eq!(code(record.finish()), Code::Internal);
    record.handle_written();
    assert_eq!(record.finish().unwrap(), Message::Finish(manifest));
    record.handle_unsent();
    record.handle_written();
    assert_eq!(code(record.finish()), Code::Internal, "it is sent again");
    assert_eq!(code(SenderRecord::default().begin(accepted(&mut flow, &key).1).map(drop)), Code::Internal);
}

/// Issue 9, B8: an acknowledgement that an earlier connection took and did not deliver is due again
/// on the next, although that was offered what was there before.
#[test]
fn what_became_durable_between_two_connections_is_acknowledged() {
    let mut flow = interrupted();
    flow.acknowledge().unwrap();
    let key = SealingKey::generate(&mut flow.parties.random);
    let (accepting, accepted) = accepted(&mut flow, &key);
    let Flow { pair, .. } = &mut flow;
    // The target commits, and the connection that has ended takes the acknowledgement with it.
    pair.loading.handle_finished(PartIndex(0));
    let ack = Message::Ack(Ack { part: PartIndex(0), verified: ChunkCount(3), durable: ChunkCount(3) });
    assert_eq!(pair.receiving.poll_ack(&mut pair.loading), Some(ack.clone()));
    let (_, begin) = begin(accepted).unwrap();
    let Message::Begin(begin) = begin else { panic!("not begun") };
    let agreed = accepting.handle_begin(begin, &key, &mut pair.loading).unwrap();
    let (mut receiving, _) = ready(agreed, &pair.loading).unwrap();
    assert_eq!(receiving.poll_ack(&mut pair.loading), Some(ack));
    assert_eq!(receiving.poll_ack(&mut pair.loading), None);
}

/// A sender that was killed, with the same secret, as its record keeps it, and nothing else:
/// connected again.
fn restarted() -> Flow {
    let mut flow = interrupted();
    let secret = flow.parties.last_secret();
    let grant = flow.parties.grant();
    flow.pair.transfer =
        SenderTransfer::new(vec![Suite::Aes256Gcm], grant, opaque_plan(), secret, Origin::unknown()).unwrap();
    assert_eq!(connect_again(&mut flow), Ok(vec![Resume::Repeat]));
    flow
}

fn repeat(flow: &mut Flow, text: &str, last: bool) -> Result<()> {
    let hash = flow.pair.transfer.digests().chunk_hash(text.as_bytes());
    flow.pair.transfer.handle_repeated(PartIndex(0), &hash, text.len() as u64, last)
}

/// Fault C1: a sender that was killed reads again what is there, and sends nothing before that is
/// proven.
#[test]
fn a_new_sender_proves_what_is_there() {
    let repeat = |texts: &[&str], last: usize| {
        let mut flow = restarted();
        texts.iter().enumerate().try_for_each(|(index, text)| repeat(&mut flow, text, index == last))
    };
    let good = ["row 0 of part 0", "row 1 of part 0", "row 2 of part 0"];
    assert_eq!(code(repeat(&good, 9)), Code::Done);
    assert_eq!(code(repeat(&["row 0 of part 0", "row x of part 0", "row 2 of part 0"], 9)), Code::SourceChanged);
    assert_eq!(code(repeat(&good, 2)), Code::SourceChanged, "it ends where it did not");
    assert_eq!(code(repeat(&good[..2], 1)), Code::SourceChanged, "it is shorter");
}

/// Fault N5: reading again what is there may take longer than any connection stands, and goes on
/// over the next.
#[test]
fn a_proof_goes_on_over_the_next_connection() {
    let mut flow = restarted();
    for (index, connections) in [(0, 1), (1, 2), (2, 0)] {
        repeat(&mut flow, &format!("row {index} of part 0"), false).unwrap();
        for _ in 0..connections {
            assert_eq!(connect_again(&mut flow), Ok(vec![Resume::Continue]));
        }
    }
    assert_eq!(code(repeat(&mut flow, "row 3 of part 0", false)), Code::Internal, "all of it is proven");
    // Proven or not: what the receiver has lost meanwhile is read again.
    let mut flow = restarted();
    repeat(&mut flow, "row 0 of part 0", false).unwrap();
    flow.pair.loading = sealift_protocol::receive::ReceiverTransfer::new(flow.parties.grant(), opaque_plan());
    flow.pair.loading.handle_earlier(Epoch(2), None);
    assert_eq!(connect_again(&mut flow), Ok(vec![Resume::Repeat]));
}

/// Fault N13: who holds the same ticket and does not know the digest secret resumes nothing
/// and drops nothing.
#[test]
fn a_strangers_connection_changes_nothing() {
    for asks in Asks::ALL {
        let mut flow = interrupted();
        let terms = Terms::new(opaque_plan(), Suite::Aes256Gcm);
        let stranger = flow.parties.transfer(&terms);
        let mut loading = Some(std::mem::replace(
            &mut flow.pair.loading,
            sealift_protocol::receive::ReceiverTransfer::new(flow.parties.grant(), opaque_plan()),
        ));
        let got = flow.parties.connect(&terms, &stranger, &mut loading, asks, &Exchange::default());
        assert_eq!(code(got), Code::TransferBusy, "{asks:?}");
    }
}

/// What a fresh offer dropped is nowhere any more, and the epoch still grows.
#[test]
fn a_fresh_offer_begins_from_nothing() {
    let mut flow = interrupted();
    let terms = Terms::new(opaque_plan(), Suite::Aes256Gcm);
    let resumed = flow.pair.connect_again(&mut flow.parties, &terms, &Exchange::default(), Asks::StartOver);
    assert_eq!(resumed, Ok(vec![Resume::Repeat]));
    assert_eq!((flow.pair.loading.has_anything(), flow.pair.loading.epoch()), (false, Epoch(2)));
    assert_eq!(flow.pair.transfer.held(PartIndex(0)), ChunkCount(0));
}
