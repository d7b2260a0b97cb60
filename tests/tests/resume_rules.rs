//! Faults X11, X12: what a receiver can say that it has, and what it cannot; and counters that end.

use sealift_protocol::{
    chunk::Chunk,
    close::Code,
    codec,
    compress::{Compression, Packer},
    digest::Root,
    disposition::Asks,
    error::Result,
    id::{ChunkCount, ChunkIndex, Epoch, PartIndex},
    limits::EPOCH_MAX,
    message::{Ack, Have, Message},
    random::Nonces,
    seal::{Suite, seal},
    send::{Resume, SenderSession, SenderTransfer},
    sign::{Purpose, Signer},
    transcript::Transcript,
};
use sealift_tests::wire::{NOW_SECONDS, Parties, Seeded, Terms, begin, table_plan};

const TABLES: usize = 2;

/// Where a test does not care: each receiver here begins to count from 1.
const EPOCH: Epoch = Epoch(0);

/// Agrees with a receiver that holds its keys and says that it has this.
fn agree(parties: &mut Parties, transfer: &SenderTransfer, have: &[Have], asks: Asks) -> Result<SenderSession> {
    let terms = Terms::new(table_plan(TABLES), Suite::Aes256Gcm);
    let sealing_key = sealift_protocol::envelope::SealingKey::generate(&mut parties.random);
    let expected = parties.expected(&sealing_key);
    let (offering, offer) = transfer.offer(&parties.channel, expected, asks, NOW_SECONDS, &mut parties.random);
    let mut transcript = Transcript::new(&parties.channel, &parties.grant());
    transcript.absorb(&codec::encode(&offer));
    let Message::Offer(offer) = offer else { unreachable!() };
    let deciding = parties.listening(&terms).handle_offer(offer, &parties.channel, NOW_SECONDS)?;
    let received = deciding.new_transfer();
    let public_key = sealing_key.public_key();
    let (_, accept) = deciding.accept(&received, terms.window, public_key, &parties.receiver, &mut parties.random)?;
    let Message::Accept(mut accept) = accept else { unreachable!() };
    accept.body.have = have.to_vec();
    transcript.absorb(&codec::encode(&accept.body));
    accept.signature = parties.receiver.sign(Purpose::Accept, &transcript.hash());
    transcript.absorb(&accept.signature.0);
    let (beginning, begin) = begin(offering.handle_accept(transfer, accept, &parties.sender, &mut parties.random)?)?;
    let Message::Begin(begin) = begin else { unreachable!() };
    transcript.absorb(&codec::encode(&begin.body));
    beginning.handle_ready(sealift_protocol::message::Ready { transcript: transcript.hash() })
}

fn have(part: u32, verified: u64, durable: u64) -> Have {
    let (verified, durable) = (ChunkCount(verified), ChunkCount(durable));
    Have { part: PartIndex(part), verified, durable, ended: false, root: Root([0; 32]) }
}

fn parties() -> (Parties, SenderTransfer) {
    let mut parties = Parties::new(1);
    let terms = Terms::new(table_plan(TABLES), Suite::Aes256Gcm);
    let transfer = parties.transfer(&terms);
    (parties, transfer)
}

fn code<T>(result: Result<T>) -> Code {
    result.err().map_or(Code::Done, |error| error.code)
}

/// Sends chunks of the first part, as one connection would.
fn send(transfer: &mut SenderTransfer, session: &SenderSession, chunks: std::ops::Range<u64>) {
    let mut nonces = Nonces::new(Seeded::new("nonces", chunks.start));
    let mut packer = Packer::new(Compression::Off).unwrap();
    transfer.handle_start(PartIndex(0));
    for index in chunks {
        let chunk = Chunk::new(PartIndex(0), ChunkIndex(index), false, b"row".to_vec());
        let packed = packer.pack(chunk, session.keys.digests());
        let sealed = seal(packed, &session.keys, nonces.draw().unwrap()).unwrap();
        transfer.handle_sealed(&sealed, &session.keys);
    }
}

#[test]
fn a_receiver_cannot_have_what_cannot_be() {
    let checked = |have: &[Have], asks| {
        let (mut parties, transfer) = parties();
        code(agree(&mut parties, &transfer, have, asks))
    };
    assert_eq!(checked(&[], Asks::Continue), Code::Done);
    assert_eq!(checked(&[], Asks::StartOver), Code::Done);
    assert_eq!(checked(&[have(0, 2, 1), have(1, 1, 1)], Asks::Continue), Code::Done);
    let last = TABLES as u32 + 1;
    assert_eq!(checked(&[have(last, 1, 0)], Asks::Continue), Code::Done);
    for (what, have, asks) in [
        ("more durable than verified", vec![have(0, 1, 2)], Asks::Continue),
        ("nothing of a part", vec![have(0, 0, 0)], Asks::Continue),
        ("parts out of order", vec![have(1, 1, 0), have(0, 1, 0)], Asks::Continue),
        ("a part twice", vec![have(1, 1, 0), have(1, 2, 0)], Asks::Continue),
        ("a part that is not planned", vec![have(last + 1, 1, 0)], Asks::Continue),
        ("something, though it was to be dropped", vec![have(0, 1, 0)], Asks::StartOver),
    ] {
        assert_eq!(checked(&have, asks), Code::AckImpossible, "{what}");
    }
}

#[test]
fn a_receiver_cannot_have_more_than_was_sent() {
    let (mut parties, mut transfer) = parties();
    let session = agree(&mut parties, &transfer, &[], Asks::Continue).unwrap();
    send(&mut transfer, &session, 0..3);
    assert_eq!(code(transfer.handle_have(&[have(0, 4, 0)], EPOCH)), Code::AckImpossible);
}

/// A part that is read again has to come to the root that the receiver named, with its last chunk
/// where it was.
#[test]
fn a_receiver_with_another_root_is_not_gone_on_with() {
    let (mut parties, mut transfer) = parties();
    let mut right = transfer.digests().part_root(PartIndex(0));
    let hashes: Vec<_> = (0..2u8).map(|byte| transfer.digests().chunk_hash(&[byte])).collect();
    hashes.iter().for_each(|hash| right.add(hash, 1));
    let said = Have { root: right.root(), ..have(0, 2, 0) };
    let wrong = Have { root: Root([1; 32]), ..said };
    let ended = Have { ended: true, ..said };
    for (have, lasts, checked) in [
        (said, [false, false], Code::Done),
        (ended, [false, true], Code::Done),
        (wrong, [false, false], Code::SourceChanged),
        (said, [false, true], Code::SourceChanged),
        (ended, [false, false], Code::SourceChanged),
        (said, [true, true], Code::SourceChanged),
    ] {
        let session = agree(&mut parties, &transfer, &[have], Asks::Continue).unwrap();
        let resumed = transfer.handle_have(&session.have, EPOCH).unwrap();
        assert_eq!(resumed[0], Resume::Repeat);
        let mut proven = hashes.iter().zip(lasts);
        let first = proven.find_map(|(hash, last)| transfer.handle_repeated(PartIndex(0), hash, 1, last).err());
        assert_eq!(first.map_or(Code::Done, |error| error.code), checked, "{have:?} {lasts:?}");
        // The next connection begins to prove from the start.
        transfer.handle_have(&[], EPOCH).unwrap();
    }
}

/// While a part is read again, the receiver can only come to have made more of it durable.
#[test]
fn acknowledgements_of_a_part_that_is_read_again_are_bounded() {
    let (_, mut transfer) = parties();
    transfer.handle_have(&[have(0, 3, 1)], EPOCH).unwrap();
    let ack = |verified, durable| {
        let (verified, durable) = (ChunkCount(verified), ChunkCount(durable));
        Ack { part: PartIndex(0), verified, durable }
    };
    let more = [ack(3, 2), ack(3, 2)].map(|ack| transfer.handle_ack(&ack).unwrap());
    assert_eq!(more, [true, false], "said twice, it is no progress");
    for impossible in [ack(4, 2), ack(2, 2), ack(3, 1), ack(3, 4)] {
        assert_eq!(code(transfer.handle_ack(&impossible)), Code::AckImpossible, "{impossible:?}");
    }
    assert_eq!(code(transfer.handle_ack(&Ack { part: PartIndex(99), ..ack(1, 1) })), Code::AckImpossible);
}

/// A source has one thread, and reads in the order in which it is asked: what was being read behind
/// a part that was lost has to be asked for again, behind it.
#[test]
fn what_is_read_behind_a_lost_part_is_read_again() {
    let (mut parties, mut transfer) = parties();
    let session = agree(&mut parties, &transfer, &[], Asks::Continue).unwrap();
    send(&mut transfer, &session, 0..2);
    let ack = Ack { part: PartIndex(0), verified: ChunkCount(2), durable: ChunkCount(0) };
    transfer.handle_ack(&ack).unwrap();
    let resumed = transfer.handle_have(&[], EPOCH).unwrap();
    assert_eq!(resumed, vec![Resume::Repeat; TABLES + 2]);
}

/// Issue 9, A3: an epoch that is not later than the last was never agreed on by an honest receiver,
/// or by one that was restored from a snapshot: either way, what it says that it has cannot be
/// believed.
#[test]
fn an_epoch_that_comes_twice_is_refused() {
    let (mut parties, mut transfer) = parties();
    let first = agree(&mut parties, &transfer, &[], Asks::Continue).unwrap();
    send(&mut transfer, &first, 0..2);
    transfer.handle_have(&first.have, first.keys.epoch()).unwrap();
    assert_eq!(code(agree(&mut parties, &transfer, &[], Asks::Continue)), Code::AckImpossible);
}

/// Issue 9, A3: a receiver that lies on a later connection, about what the sender still knows.
#[test]
fn a_receiver_that_contradicts_what_it_said_is_refused() {
    let sent = || {
        let (mut parties, mut transfer) = parties();
        let session = agree(&mut parties, &transfer, &[], Asks::Continue).unwrap();
        let mut root = transfer.digests().part_root(PartIndex(0));
        for _ in 0..2 {
            root.add(&transfer.digests().chunk_hash(b"row"), 3);
        }
        send(&mut transfer, &session, 0..3);
        let ack = Ack { part: PartIndex(0), verified: ChunkCount(2), durable: ChunkCount(2) };
        transfer.handle_ack(&ack).unwrap();
        (transfer, Have { root: root.root(), ..have(0, 2, 2) })
    };
    let after = |change: fn(&mut Have)| {
        let (mut transfer, mut have) = sent();
        change(&mut have);
        code(transfer.handle_have(&[have], EPOCH))
    };
    assert_eq!(after(|_| {}), Code::Done);
    assert_eq!(after(|have| have.durable.0 = 1), Code::AckImpossible, "durable counts fall");
    assert_eq!(after(|have| have.root.0[0] ^= 1), Code::AckImpossible, "another root");
    assert_eq!(after(|have| have.ended = true), Code::AckImpossible, "another last chunk");
    let (mut transfer, _) = sent();
    assert_eq!(code(transfer.handle_have(&[], EPOCH)), Code::AckImpossible, "nothing is left of what was durable");
}

/// Issue 9, A1, A4: the sealing key of Accept is the one of the ticket, and not one of the keys
/// with which every reader could open the envelope.
#[test]
fn another_sealing_key_is_refused() {
    let terms = Terms::new(table_plan(TABLES), Suite::Aes256Gcm);
    let with_key = |change: fn(&mut Vec<u8>)| {
        let mut parties = Parties::new(1);
        code(parties.resigned(&terms, |accept| change(&mut accept.sealing_key.0), |_| {}))
    };
    assert_eq!(with_key(|_| {}), Code::Done);
    assert_eq!(with_key(|key| key[7] ^= 1), Code::IdentityRefused);
    assert_eq!(with_key(|key| key.fill(0)), Code::IdentityRefused);
}

/// Fault X11: after the last epoch there is no connection.
#[test]
fn epochs_end() {
    let mut parties = Parties::new(1);
    let mut agreed = |epoch| {
        let terms = Terms { epoch: Epoch(epoch), ..Terms::new(table_plan(TABLES), Suite::Aes256Gcm) };
        code(parties.exchange(&terms, &sealift_tests::wire::Exchange::default()))
    };
    assert_eq!(agreed(EPOCH_MAX), Code::Done);
    assert_eq!(agreed(EPOCH_MAX + 1), Code::LimitExceeded);
}
