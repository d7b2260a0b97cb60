//! Resuming from a spool, as both state machines decide it (faults S6, S7, X3, X12): whose it is,
//! which keys open it, and what a receiver can have of it.

use bytes::BytesMut;
use sealift_protocol::{
    chunk::{Chunk, Sealed},
    close::Code,
    compress::{Compression, Packer, Unpacker},
    digest::RowsDigest,
    disposition::Asks,
    envelope::{KeyEnvelope, SealingKey},
    error::Result,
    id::{ChunkCount, ChunkIndex, Epoch, PartIndex, TransferId},
    key::{DigestSecret, EpochSecret},
    limits::{CHUNK_HEADER_BYTES, LANE_WINDOW_BYTES_MIN},
    manifest::Origin,
    message::{Ack, Have},
    random::Nonces,
    receive,
    seal::{Suite, open, seal},
    sealed_log::{EpochRecord, KeyFingerprint},
    send::{Readable, SenderSession, SenderTransfer, SpooledStep},
};
use sealift_tests::wire::{Exchange, Pair, Parties, Seeded, TRANSFER, Terms, opaque_plan};

const PART: PartIndex = PartIndex(0);

fn code<T>(result: Result<T>) -> Code {
    result.err().map_or(Code::Done, |error| error.code)
}

fn terms() -> Terms {
    Terms::new(opaque_plan(), Suite::Aes256Gcm)
}

/// Two parties, and a first connection on which a spool is begun.
fn begun() -> (Parties, Pair) {
    let mut parties = Parties::new(5);
    parties.sealing_key = Some(SealingKey::generate(&mut parties.random));
    let pair = parties.agree(&terms());
    (parties, pair)
}

/// The chunks of a spool: `bytes` each, sealed once for all.
fn frames(session: &SenderSession, count: u64, bytes: usize) -> Vec<Sealed> {
    let mut nonces = Nonces::new(Seeded::new("nonces", count));
    let mut packer = Packer::new(Compression::Off).unwrap();
    let sealed = (0..count).map(|index| {
        let chunk = Chunk::new(PART, ChunkIndex(index), index + 1 == count, vec![index as u8; bytes]);
        seal(packer.pack(chunk, session.keys.digests()), &session.keys, nonces.draw().unwrap()).unwrap()
    });
    sealed.collect()
}

/// The sender after a restart: it knows the secret of its hashes, and nothing that opens the spool.
fn restarted(parties: &Parties, pair: &Pair) -> SenderTransfer {
    let secret = parties.last_secret();
    let mut transfer =
        SenderTransfer::new(vec![Suite::Aes256Gcm], parties.grant(), opaque_plan(), secret, Origin::unknown()).unwrap();
    transfer.handle_spool(pair.session.spool.clone());
    transfer
}

fn again(
    parties: &mut Parties,
    pair: Pair,
    transfer: &SenderTransfer,
) -> Result<(SenderSession, receive::ReceiverSession)> {
    parties.connect(&terms(), transfer, &mut Some(pair.loading), Asks::Continue, &Exchange::default())
}

fn checked(frame: &Sealed, receiving: &receive::ReceiverSession) -> Code {
    let body = BytesMut::from(&frame.frame[CHUNK_HEADER_BYTES..]);
    code(open(&frame.header, body, receiving.keys_of(frame.header.epoch), &mut Unpacker::new().unwrap()))
}

#[test]
fn frames_of_a_spool_are_opened_on_a_later_connection() {
    let (mut parties, pair) = begun();
    let frames = frames(&pair.session, 3, 10);
    let transfer = restarted(&parties, &pair);
    let (session, receiving) = again(&mut parties, pair, &transfer).unwrap();
    assert_eq!(session.keys.epoch(), Epoch(2));
    assert!(frames.iter().all(|frame| checked(frame, &receiving) == Code::Done));
    // What is sealed on this connection itself is opened, too.
    let own = self::frames(&session, 1, 10);
    assert_eq!(checked(&own[0], &receiving), Code::Done);
}

/// Fault X3: of whichever epoch a frame is, its keys have to be said in Begin.
#[test]
fn x3_frames_of_a_spool_that_begin_does_not_name_are_foreign() {
    let (mut parties, mut pair) = begun();
    let frames = frames(&pair.session, 1, 10);
    pair.reconnect(&mut parties, &terms()).unwrap();
    assert_eq!(checked(&frames[0], &pair.receiving), Code::ChunkForeign);
}

/// A record of some epoch, as a sender that holds its keys could make it.
struct Forged {
    epoch: Epoch,
    suite: Suite,
    transfer: TransferId,
    digest_secret: Option<DigestSecret>,
    key: Option<SealingKey>,
    /// Of the envelope and of the record.
    info: [[u8; 32]; 2],
}

fn forged(change: impl Fn(&mut Forged)) -> Code {
    let mut parties = Parties::new(5);
    let key = SealingKey::generate(&mut parties.random);
    let public_key = key.public_key();
    parties.sealing_key = Some(key);
    let mut random = Seeded::new("forged", 1);
    let mut forged = Forged {
        epoch: Epoch(2),
        suite: Suite::Aes256Gcm,
        transfer: TRANSFER,
        digest_secret: None,
        key: None,
        info: [[4; 32]; 2],
    };
    change(&mut forged);
    let terms = Terms { epoch: Epoch(3), ..terms() };
    // Drawn once beforehand, by parties of the same seed, for the record to hold it.
    let mut twin = Parties::new(5);
    twin.sealing_key = Some(SealingKey::generate(&mut twin.random));
    let _ = twin.transfer(&terms);
    let digest_secret = forged.digest_secret.unwrap_or(twin.last_secret());
    let secret = EpochSecret::generate(&mut random);
    let to = forged.key.map_or(public_key, |key| key.public_key());
    let envelope = KeyEnvelope::seal(&secret, &digest_secret, &to, &forged.info[0], forged.epoch, &mut random).unwrap();
    let commitment = secret.commitment(forged.transfer, forged.epoch);
    let record = EpochRecord { epoch: forged.epoch, suite: forged.suite, envelope, info: forged.info[1], commitment };
    code(parties.resigned(&terms, |_| {}, |begin| begin.spool = Some(Box::new(record.clone()))))
}

/// The receiver has said Ready; and the sender sees by that, that its Begin was changed.
const TAKEN: Code = Code::TranscriptMismatch;

/// Faults S6, S7: the receiver checks a spool's record as it checks the envelope of a connection.
#[test]
fn s6_a_spool_that_is_not_of_this_transfer_is_refused() {
    assert_eq!(forged(|_| {}), TAKEN);
    assert_eq!(forged(|forged| forged.epoch = Epoch(1)), TAKEN);
    for epoch in [0, 3, 4, u32::MAX] {
        assert_eq!(forged(|forged| forged.epoch = Epoch(epoch)), Code::ProtocolViolation, "epoch {epoch} on the third");
    }
    assert_eq!(forged(|forged| forged.suite = Suite::ChaCha20Poly1305), Code::SuiteUnsupported);
    assert_eq!(forged(|forged| forged.transfer = TransferId([8; 16])), Code::KeyCommitment);
    assert_eq!(forged(|forged| forged.digest_secret = Some(DigestSecret::from_bytes([1; 32]))), Code::TransferBusy);
    let other = |forged: &mut Forged| forged.key = Some(SealingKey::generate(&mut Seeded::new("other", 1)));
    assert_eq!(forged(other), Code::KeyCommitment);
    assert_eq!(forged(|forged| forged.info[1] = [5; 32]), Code::KeyCommitment);
}

/// Fault S7: what the receiver can no longer open is not sent to it, and is said before Begin.
#[test]
fn s7_a_receiver_with_another_key_is_not_gone_on_with() {
    let (mut parties, pair) = begun();
    let transfer = restarted(&parties, &pair);
    parties.sealing_key = Some(SealingKey::generate(&mut parties.random));
    assert_eq!(code(again(&mut parties, pair, &transfer)), Code::ResumeImpossible);
}

/// Fault C15: nor one that counts its connections from before the spool.
#[test]
fn c15_a_receiver_that_was_set_back_is_not_gone_on_with() {
    let (mut parties, pair) = begun();
    let transfer = restarted(&parties, &pair);
    let connected = parties.connect(&terms(), &transfer, &mut None, Asks::Continue, &Exchange::default());
    assert_eq!(code(connected), Code::ResumeImpossible);
}

#[test]
fn a_suite_that_is_no_longer_allowed_is_not_gone_on_with() {
    let (mut parties, pair) = begun();
    let other = Terms::new(opaque_plan(), Suite::ChaCha20Poly1305);
    let mut transfer = SenderTransfer::new(
        other.offered.clone(),
        parties.grant(),
        opaque_plan(),
        parties.last_secret(),
        Origin::unknown(),
    )
    .unwrap();
    transfer.handle_spool(pair.session.spool.clone());
    let connected = parties.connect(&other, &transfer, &mut Some(pair.loading), Asks::Continue, &Exchange::default());
    assert_eq!(code(connected), Code::SuiteUnsupported);
}

#[test]
fn a_spool_says_whose_key_it_needs() {
    let (parties, pair) = begun();
    let key = parties.sealing_key.as_ref().unwrap().public_key();
    assert_eq!(pair.session.spool.key, KeyFingerprint::of(&key));
    let (secret, _) = pair.session.spool.epoch.open(parties.sealing_key.as_ref().unwrap(), TRANSFER).unwrap();
    assert_eq!(secret.commitment(TRANSFER, Epoch(1)), pair.session.spool.epoch.commitment);
}

fn ack(verified: u64) -> Ack {
    Ack { part: PART, verified: ChunkCount(verified), durable: ChunkCount(verified) }
}

/// Fault X12: frames go out in their order, within the window, and only what went out can be
/// acknowledged.
#[test]
fn x12_what_is_sent_from_a_spool_is_counted() {
    let (parties, pair) = begun();
    let mut transfer = restarted(&parties, &pair);
    let frames = frames(&pair.session, 12, 1 << 20);
    transfer.handle_have(&[], Epoch(1)).unwrap();
    assert_eq!(code(transfer.handle_spooled(&frames[1].header)), Code::LogDamaged);
    let fit = LANE_WINDOW_BYTES_MIN as usize / frames[0].frame.len();
    for frame in &frames[..fit] {
        assert!(transfer.may_send(&frame.header, &pair.session));
        transfer.handle_spooled(&frame.header).unwrap();
    }
    assert!(!transfer.may_send(&frames[fit].header, &pair.session));
    assert_eq!(code(transfer.handle_spooled(&frames[0].header)), Code::LogDamaged);
    assert_eq!(code(transfer.handle_ack(&ack(fit as u64 + 1))), Code::AckImpossible);
    transfer.handle_ack(&Ack { durable: ChunkCount(1), ..ack(2) }).unwrap();
    assert!(transfer.may_send(&frames[fit].header, &pair.session));
    assert_eq!(code(transfer.handle_ack(&ack(1))), Code::AckImpossible);
    // What was durable is not gone, and nothing is there that was not spooled.
    assert_eq!(
        code(transfer.handle_have(&[Have { verified: ChunkCount(1), ..nothing() }], Epoch(2))),
        Code::AckImpossible
    );
    let session = SenderSession { have: vec![Have { verified: ChunkCount(3), ..nothing() }], ..pair.session };
    assert_eq!(code(transfer.resume(&session, Readable::Spooled(2))), Code::AckImpossible);
    // The next connection goes on behind what the receiver has, be it less.
    transfer
        .handle_have(&[Have { part: PART, verified: ChunkCount(1), durable: ChunkCount(1), ..nothing() }], Epoch(2))
        .unwrap();
    assert_eq!(transfer.held(PART), ChunkCount(1));
    assert_eq!(transfer.poll_spooled(&frames[0].header, &session), Ok(SpooledStep::Held));
    assert_eq!(transfer.poll_spooled(&frames[1].header, &session), Ok(SpooledStep::Send));
    transfer.handle_ack(&Ack { durable: ChunkCount(1), ..ack(2) }).unwrap();
    assert_eq!(code(transfer.handle_ack(&Ack { durable: ChunkCount(0), ..ack(2) })), Code::AckImpossible);
    assert_eq!(transfer.parts_verified(), 0, "more of it is to come");
    assert!(transfer.poll_manifest(&parties.sender, None).is_none(), "not all of it is verified");
}

fn nothing() -> Have {
    let root = sealift_protocol::digest::Root([0; 32]);
    Have { part: PART, verified: ChunkCount(0), durable: ChunkCount(0), ended: false, root }
}

/// Fault X12: with its manifest the sender knows what there can be, though it cannot open what it
/// sent.
#[test]
fn x12_a_receiver_cannot_have_what_the_manifest_does_not() {
    let (parties, mut pair) = begun();
    let frames = frames(&pair.session, 3, 10);
    pair.transfer.handle_start(PART);
    frames.iter().for_each(|frame| pair.transfer.handle_sealed(frame, &pair.session.keys));
    pair.transfer.handle_part_end(PART, RowsDigest::default());
    pair.transfer.handle_ack(&ack(3)).unwrap();
    let Some(manifest) = pair.transfer.poll_manifest(&parties.sender, None) else { panic!("a manifest") };
    let root = manifest.manifest.parts[0].root;
    let have = |verified, ended, root| Have { verified: ChunkCount(verified), ended, root, ..nothing() };
    let other = nothing().root;
    for (have, checked) in [
        (have(2, false, other), Code::Done),
        (have(3, true, root), Code::Done),
        (have(3, true, other), Code::AckImpossible),
        (have(3, false, root), Code::AckImpossible),
        (have(2, true, root), Code::AckImpossible),
        (have(4, true, root), Code::AckImpossible),
    ] {
        let mut transfer = restarted(&parties, &pair);
        transfer.handle_earlier(manifest.clone());
        assert_eq!(code(transfer.handle_have(&[have], Epoch(2))), checked, "{have:?}");
        let is_all = checked == Code::Done && have.ended;
        assert_eq!(transfer.poll_manifest(&parties.sender, None).is_some(), is_all, "{have:?}");
    }
}

/// The last chunk is acknowledged before the manifest is durable, and the link is lost: there is no
/// other manifest than that of the spool.
#[test]
fn what_is_there_whole_has_the_manifest_of_the_spool() {
    let (parties, pair) = begun();
    let frames = frames(&pair.session, 2, 10);
    let mut transfer = restarted(&parties, &pair);
    transfer.handle_have(&[], Epoch(1)).unwrap();
    frames.iter().for_each(|frame| transfer.handle_spooled(&frame.header).unwrap());
    transfer.handle_ack(&ack(2)).unwrap();
    assert!(transfer.poll_manifest(&parties.sender, None).is_none());
    transfer
        .handle_have(&[Have { verified: ChunkCount(2), durable: ChunkCount(2), ended: true, ..nothing() }], Epoch(2))
        .unwrap();
    assert!(!transfer.is_open(PART));
    assert!(transfer.poll_manifest(&parties.sender, None).is_none());
}
