//! The exchange before data flows: what an attacker on the path, or a false peer, can try.

use sealift_protocol::{
    close::Code,
    codec,
    digest::Root,
    disposition::Asks,
    envelope::{KeyEnvelope, SealingKey, SealingPublicKey},
    error::Result,
    fingerprint::Fingerprint,
    grant::{DocumentHash, Grant},
    id::{ChunkCount, Epoch, PartIndex},
    key::{DigestSecret, EpochSecret},
    limits::{
        CONTROL_BYTES_MAX, EPOCH_MAX, LANE_WINDOW_BYTES_MAX, LANE_WINDOW_BYTES_MIN, LANES_MAX, NAME_BYTES_MAX,
        PARTS_MAX,
    },
    message::{AcceptBody, Have, Message, Offer},
    seal::{Suite, SuiteNumber},
    sign::Signer,
};
use sealift_tests::wire::{Exchange, NOW_SECONDS, Parties, Seeded, Terms, opaque_plan, table_plan};

const HASH: DocumentHash = DocumentHash([7; 32]);

fn code<T>(result: Result<T>) -> Code {
    result.err().map_or(Code::Done, |error| error.code)
}

fn terms() -> Terms {
    Terms { offered: both(), allowed: both(), ..Terms::new(table_plan(2), Suite::Aes256Gcm) }
}

fn both() -> Vec<Suite> {
    vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
}

/// What comes of the exchange if `change` is applied to each message on its way.
fn tampered(change: &dyn Fn(&mut Message)) -> Code {
    let message = |mut message: Message| {
        change(&mut message);
        message
    };
    code(Parties::new(1).exchange(&terms(), &Exchange { message: &message, ..Exchange::default() }))
}

#[test]
fn untouched_it_succeeds() {
    assert_eq!(tampered(&|_| {}), Code::Done);
}

/// Fault X7: a suite struck from the offer, or another put into the answer, is found out.
#[test]
fn a_suite_cannot_be_talked_down() {
    let struck = tampered(&|message| {
        if let Message::Offer(offer) = message {
            offer.suites = vec![Suite::ChaCha20Poly1305.into()];
        }
    });
    assert_eq!(struck, Code::TranscriptMismatch);
    let swapped = tampered(&|message| {
        if let Message::Accept(accept) = message {
            accept.body.suite = Suite::ChaCha20Poly1305;
        }
    });
    assert_eq!(swapped, Code::TranscriptMismatch);
    let only = |suite| Terms { offered: vec![suite], ..terms() };
    let one_sided = Terms { allowed: vec![Suite::ChaCha20Poly1305], ..only(Suite::Aes256Gcm) };
    assert_eq!(code(Parties::new(1).exchange(&one_sided, &Exchange::default())), Code::SuiteUnsupported);
}

/// Faults X7, X11: terms that were never offered, or that nobody may set, under a receiver's good
/// signature.
#[test]
fn terms_are_checked_though_signed() {
    let agree = |change: fn(&mut AcceptBody)| code(Parties::new(2).resigned(&terms_of_one(), change, |_| {}));
    assert_eq!(agree(|_| {}), Code::Done);
    assert_eq!(agree(|body| body.suite = Suite::ChaCha20Poly1305), Code::SuiteUnsupported);
    assert_eq!(agree(|body| body.version = 2), Code::VersionUnsupported);
    assert_eq!(agree(|body| body.epoch = Epoch(0)), Code::LimitExceeded);
    assert_eq!(agree(|body| body.epoch = Epoch(u32::MAX)), Code::LimitExceeded);
    assert_eq!(agree(|body| body.lanes = 0), Code::LimitExceeded);
    assert_eq!(agree(|body| body.lanes = LANES_MAX + 1), Code::LimitExceeded);
    assert_eq!(agree(|body| body.lane_window_bytes = LANE_WINDOW_BYTES_MIN - 1), Code::LimitExceeded);
    assert_eq!(agree(|body| body.lane_window_bytes = LANE_WINDOW_BYTES_MAX + 1), Code::LimitExceeded);
    assert_eq!(agree(|body| body.sealing_key.0.truncate(32)), Code::IdentityRefused);
}

fn terms_of_one() -> Terms {
    Terms { offered: vec![Suite::Aes256Gcm], ..terms() }
}

fn have(part: u32, verified: u64, durable: u64) -> Have {
    let (part, verified, durable) = (PartIndex(part), ChunkCount(verified), ChunkCount(durable));
    Have { part, verified, durable, ended: false, root: Root([0; 32]) }
}

/// Fault X12: what a receiver cannot have, under its good signature.
#[test]
fn what_is_there_is_checked_though_signed() {
    let agree = |found: &[Have]| {
        let tell = |body: &mut AcceptBody| body.have = found.to_vec();
        code(Parties::new(2).resigned(&terms_of_one(), tell, |_| {}))
    };
    // It passes the sender; this receiver had said something else.
    assert_eq!(agree(&[have(0, 3, 1), have(3, 1, 1)]), Code::TranscriptMismatch);
    assert_eq!(agree(&[have(0, 1, 2)]), Code::AckImpossible, "durable and not verified");
    assert_eq!(agree(&[have(0, 0, 0)]), Code::AckImpossible, "nothing, told as something");
    assert_eq!(agree(&[have(4, 1, 0)]), Code::AckImpossible, "of no part");
    assert_eq!(agree(&[have(1, 1, 0), have(1, 1, 0)]), Code::AckImpossible, "twice");
    assert_eq!(agree(&[have(2, 1, 0), have(1, 1, 0)]), Code::AckImpossible, "out of order");
}

/// Every field of every message is covered: by a signature, by the envelope, or by the transcript.
#[test]
fn every_field_of_the_exchange_counts() {
    type Change = fn(&mut Message);
    let changes: [(&str, Code, Change); 17] = [
        ("offer nonce", Code::TranscriptMismatch, |m| offer(m, |o| o.nonce[0] ^= 1)),
        ("offer fresh", Code::TranscriptMismatch, |m| offer(m, |o| o.fresh = true)),
        ("offer versions", Code::TranscriptMismatch, |m| offer(m, |o| o.versions.push(2))),
        ("offer plan", Code::TranscriptMismatch, |m| offer(m, |o| o.plan.tables[0].name.push('x'))),
        ("offer estimates", Code::TranscriptMismatch, |m| offer(m, |o| o.plan.parts[1].rows_estimate = Some(1))),
        ("offer grant", Code::GrantInvalid, |m| offer(m, |o| o.grant.grant.finish_before_seconds += 1)),
        ("offer grant signature", Code::GrantInvalid, |m| offer(m, |o| o.grant.signature.0[5] ^= 1)),
        ("accept version", Code::TranscriptMismatch, |m| accept(m, |a| a.body.version = 2)),
        ("accept key", Code::TranscriptMismatch, |m| accept(m, |a| a.body.sealing_key.0[0] ^= 1)),
        ("accept epoch", Code::TranscriptMismatch, |m| accept(m, |a| a.body.epoch.0 += 1)),
        ("accept lanes", Code::TranscriptMismatch, |m| accept(m, |a| a.body.lanes -= 1)),
        ("accept window", Code::TranscriptMismatch, |m| accept(m, |a| a.body.lane_window_bytes += 1)),
        ("accept have", Code::TranscriptMismatch, |m| accept(m, |a| a.body.have.push(have(0, 1, 0)))),
        ("accept nonce", Code::TranscriptMismatch, |m| accept(m, |a| a.body.nonce[31] ^= 1)),
        ("begin epoch", Code::TranscriptMismatch, |m| begin(m, |b| b.body.epoch.0 += 1)),
        ("begin envelope", Code::TranscriptMismatch, |m| begin(m, |b| b.body.envelope.sealed[0] ^= 1)),
        ("begin commitment", Code::TranscriptMismatch, |m| begin(m, |b| b.body.commitment[0] ^= 1)),
    ];
    for (name, expected, change) in changes {
        assert_eq!(tampered(&|message| change(message)), expected, "{name}");
    }
    assert_eq!(tampered(&|m| accept(m, |a| a.signature.0[0] ^= 1)), Code::TranscriptMismatch);
    assert_eq!(tampered(&|m| begin(m, |b| b.signature.0[0] ^= 1)), Code::TranscriptMismatch);
    let ready = tampered(&|message| {
        if let Message::Ready(ready) = message {
            ready.transcript[0] ^= 1;
        }
    });
    assert_eq!(ready, Code::TranscriptMismatch);
}

fn offer(message: &mut Message, change: fn(&mut sealift_protocol::message::Offer)) {
    if let Message::Offer(offer) = message {
        change(offer);
    }
}

fn accept(message: &mut Message, change: fn(&mut sealift_protocol::message::Accept)) {
    if let Message::Accept(accept) = message {
        change(accept);
    }
}

fn begin(message: &mut Message, change: fn(&mut sealift_protocol::message::Begin)) {
    if let Message::Begin(begin) = message {
        change(begin);
    }
}

/// Faults I15, I17: the same messages on another connection, between others, or with the roles
/// exchanged.
#[test]
fn a_splice_into_another_connection_fails() {
    let other = |change: fn(&mut sealift_protocol::transcript::Channel)| {
        let mut parties = Parties::new(3);
        let mut channel = parties.channel.clone();
        change(&mut channel);
        let tamper = Exchange { sender_channel: Some(channel), ..Exchange::default() };
        code(parties.exchange(&terms(), &tamper))
    };
    assert_eq!(other(|_| {}), Code::Done);
    assert_eq!(other(|channel| channel.exporter[0] ^= 1), Code::TranscriptMismatch, "two TLS connections");
    assert_eq!(other(|channel| channel.sender_certificate[9] ^= 1), Code::TranscriptMismatch);
    assert_eq!(other(|channel| channel.receiver_certificate[9] ^= 1), Code::TranscriptMismatch);
    let reflected = other(|channel| std::mem::swap(&mut channel.sender_certificate, &mut channel.receiver_certificate));
    assert_eq!(reflected, Code::TranscriptMismatch, "roles exchanged");
    let shifted = other(|channel| {
        // The same bytes, cut elsewhere.
        let moved = channel.receiver_certificate.remove(0);
        channel.sender_certificate.push(moved);
    });
    assert_eq!(shifted, Code::TranscriptMismatch);
}

/// Fault X11: a receiver does not name an epoch out of bounds.
#[test]
fn the_epoch_never_wraps() {
    let agree = |epoch| code(Parties::new(4).exchange(&Terms { epoch: Epoch(epoch), ..terms() }, &Exchange::default()));
    assert_eq!(agree(1), Code::Done);
    assert_eq!(agree(EPOCH_MAX), Code::Done);
    assert_eq!(agree(EPOCH_MAX + 1), Code::LimitExceeded);
}

/// Fault X6: a commitment to other keys, under a good signature, is refused before anything is
/// opened.
#[test]
fn a_wrong_commitment_is_refused_though_signed() {
    type Sabotage = fn(&mut sealift_protocol::message::BeginBody);
    let sabotage: [(&str, Code, Sabotage); 5] = [
        ("nothing", Code::Done, |_| {}),
        ("commitment", Code::KeyCommitment, |body| body.commitment[31] ^= 1),
        ("epoch", Code::ProtocolViolation, |body| body.epoch.0 += 1),
        ("envelope", Code::KeyCommitment, |body| body.envelope.sealed[0] ^= 1),
        ("envelope suite", Code::SuiteUnsupported, |body| body.envelope.suite[2] = 1),
    ];
    for (name, expected, change) in sabotage {
        let mut parties = Parties::new(5);
        let got = parties.resigned(&terms(), |_| {}, change);
        assert_eq!(code(got), expected, "{name}");
    }
}

/// Faults G2, G4, T1, T3, T6 at the protocol: whose grant it is, and when.
#[test]
fn grants_are_for_one_use() {
    type Change = fn(&mut Grant);
    let now = 1_800_000_000;
    let cases: [(&str, Code, Change); 12] = [
        ("good", Code::Done, |_| {}),
        ("another sender", Code::GrantForeign, |grant| grant.sender = Some(Fingerprint([9; 32]))),
        ("another receiver", Code::GrantForeign, |grant| grant.receiver = Fingerprint([9; 32])),
        ("another target", Code::GrantForeign, |grant| grant.target.push('x')),
        ("another transfer", Code::GrantForeign, |grant| grant.transfer.0[0] ^= 1),
        ("nobody in particular", Code::Done, |grant| grant.sender = None),
        ("limited to a scope, which is not enforced yet", Code::GrantInvalid, |grant| grant.scope = Some(HASH)),
        ("with a policy, which is not enforced yet", Code::GrantInvalid, |grant| grant.policy = Some(HASH)),
        ("expired", Code::GrantExpired, |grant| grant.begin_before_seconds = 1_800_000_000),
        ("to be finished before it begins", Code::GrantExpired, |grant| grant.finish_before_seconds = 1_800_000_000),
        ("not yet valid", Code::GrantNotYetValid, |grant| grant.not_before_seconds = 1_800_000_061),
        ("within the skew", Code::Done, |grant| grant.not_before_seconds = 1_800_000_060),
    ];
    for (name, expected, change) in cases {
        let mut parties = Parties::new(6);
        let mut grant = parties.grant().grant;
        change(&mut grant);
        let grant = grant.sign(&parties.receiver);
        let transfer = parties.transfer(&terms());
        let expected_receiver = parties.anybody();
        let (_, offer) =
            transfer.offer(&parties.channel, expected_receiver, Asks::Continue, NOW_SECONDS, &mut parties.random);
        let Message::Offer(mut offer) = offer else { unreachable!() };
        offer.grant = grant.clone();
        let decided = parties.listening(&terms()).handle_offer(offer, &parties.channel, now);
        assert_eq!(code(decided), expected, "{name}");
        assert_eq!(
            code(grant.verify(&[parties.sender.public_key()])),
            Code::GrantInvalid,
            "{name}: signed by a stranger"
        );
    }
}

/// Fault T6: a minute of difference is forgiven, whichever clock is ahead.
#[test]
fn clocks_may_be_a_minute_apart() {
    for (by, expected) in [(-61, Code::ClocksApart), (-60, Code::Done), (60, Code::Done), (61, Code::ClocksApart)] {
        let mut parties = Parties::new(8);
        let transfer = parties.transfer(&terms());
        let now = NOW_SECONDS.saturating_add_signed(by);
        let receiver = parties.anybody();
        let (_, offer) = transfer.offer(&parties.channel, receiver, Asks::Continue, now, &mut parties.random);
        let Message::Offer(offer) = offer else { unreachable!() };
        assert_eq!(code(parties.listening(&terms()).handle_offer(offer, &parties.channel, NOW_SECONDS)), expected);
    }
}

/// Fault X17: another version, an unknown message, an unknown suite: a clean refusal.
#[test]
fn strangers_are_refused_cleanly() {
    let mut parties = Parties::new(7);
    let long = Grant { purpose: "x".repeat(NAME_BYTES_MAX + 1), ..parties.grant().grant }.sign(&parties.receiver);
    assert_eq!(code(long.verify(&[parties.receiver.public_key()])), Code::LimitExceeded);
    let transfer = parties.transfer(&terms());
    let receiver = parties.anybody();
    let (_, message) = transfer.offer(&parties.channel, receiver, Asks::Continue, NOW_SECONDS, &mut parties.random);
    let Message::Offer(mut offer) = message.clone() else { unreachable!() };
    offer.versions = vec![2, 3];
    let got = parties.listening(&terms()).handle_offer(offer, &parties.channel, 1_800_000_000);
    assert_eq!(code(got), Code::VersionUnsupported);

    // A suite of a later release beside those of this one is passed over; alone, there is none in
    // common.
    let Message::Offer(offer) = message.clone() else { unreachable!() };
    let later = |suites: Vec<SuiteNumber>| {
        let message = Message::Offer(Offer { suites, ..offer.clone() });
        let Message::Offer(offer) = Message::from_bytes(&codec::encode(&message)).unwrap() else { unreachable!() };
        code(parties.listening(&terms()).handle_offer(offer, &parties.channel, 1_800_000_000))
    };
    assert_eq!(later(vec![SuiteNumber(3), Suite::Aes256Gcm.into(), SuiteNumber(u16::MAX)]), Code::Done);
    assert_eq!(later(vec![SuiteNumber(3), SuiteNumber(0x0101)]), Code::SuiteUnsupported);

    let bytes = codec::encode(&message);
    assert_eq!(bytes[..2], [0x82, 0x01], "a message is [kind, [body]]");
    for kind in [0, 9, 23] {
        let unknown = [&[0x82, kind][..], &bytes[2..]].concat();
        assert_eq!(code(Message::from_bytes(&unknown)), Code::ProtocolViolation, "kind {kind}");
    }
    for cut in 0..bytes.len() {
        assert_eq!(code(Message::from_bytes(&bytes[..cut])), Code::ProtocolViolation, "cut at {cut}");
    }
    assert_eq!(code(Message::from_bytes(&[&bytes[..], &[0]].concat())), Code::ProtocolViolation, "a byte more");
    assert_eq!(code(Message::from_bytes(&vec![0; CONTROL_BYTES_MAX + 1])), Code::LimitExceeded);
}

/// Faults X16, X18: a few bytes that claim more than memory holds cost nothing.
#[test]
fn counts_that_lie_are_refused() {
    let huge = |prefix: &[u8]| [prefix, &[0xbb, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
    assert_eq!(code(Message::from_bytes(&huge(&[0x82, 0x01, 0x81]))), Code::ProtocolViolation);
    // Offer with an array of 2^40 versions.
    let versions = [&[0x82, 0x01, 0x81, 0xa5, 0x00, 0x9b, 0, 0, 1][..], &[0; 5]].concat();
    assert_eq!(code(Message::from_bytes(&versions)), Code::LimitExceeded);
}

/// A plan at its bounds is taken, one over them is not.
#[test]
fn plans_are_bounded() {
    let code_of = |plan: &sealift_protocol::manifest::Plan| code(plan.check());
    assert_eq!(code_of(&table_plan(PARTS_MAX - 2)), Code::Done);
    assert_eq!(code_of(&table_plan(PARTS_MAX - 1)), Code::PlanRefused);
    let mut long = table_plan(3000);
    long.tables.iter_mut().for_each(|table| table.name = "x".repeat(1000));
    assert_eq!(code_of(&long), Code::PlanRefused, "its receipt could not be sent");
    let mut unordered = table_plan(2);
    unordered.parts.swap(0, 1);
    assert_eq!(code_of(&unordered), Code::PlanRefused);
    let mut two = opaque_plan();
    two.parts.push(two.parts[0].clone());
    assert_eq!(code_of(&two), Code::PlanRefused);
    two.parts.clear();
    assert_eq!(code_of(&two), Code::PlanRefused);
}

/// The key envelope opens with the one key, under the one transcript, for the one epoch, whole.
#[test]
fn an_envelope_opens_in_its_place_alone() {
    let mut random = Seeded::new("envelope", 1);
    let (mine, other) = (SealingKey::generate(&mut random), SealingKey::generate(&mut random));
    let (secret, digest) = (EpochSecret::generate(&mut random), DigestSecret::generate(&mut random));
    let (info, epoch) = ([4; 32], Epoch(2));
    let good = KeyEnvelope::seal(&secret, &digest, &mine.public_key(), &info, epoch, &mut random).unwrap();
    let (got, got_digest) = good.open(&mine, &info, epoch).unwrap();
    let id = sealift_protocol::id::TransferId([0; 16]);
    assert_eq!(got.commitment(id, epoch), secret.commitment(id, epoch));
    assert_eq!(got_digest.expose(), digest.expose());

    let refused = |envelope: &KeyEnvelope| code(envelope.open(&mine, &info, epoch));
    assert_eq!(code(good.open(&other, &info, epoch)), Code::KeyCommitment, "another receiver");
    assert_eq!(code(good.open(&mine, &[5; 32], epoch)), Code::KeyCommitment, "another transcript");
    assert_eq!(code(good.open(&mine, &info, Epoch(3))), Code::KeyCommitment, "another epoch");
    for byte in 0..good.sealed.len() {
        let mut changed = good.clone();
        changed.sealed[byte] ^= 0x80;
        assert_eq!(refused(&changed), Code::KeyCommitment, "sealed byte {byte}");
        changed.sealed.truncate(byte);
        assert_eq!(refused(&changed), Code::KeyCommitment, "cut at {byte}");
    }
    for byte in (0..good.encapsulated.len()).step_by(37) {
        let mut changed = good.clone();
        changed.encapsulated[byte] ^= 1;
        assert_eq!(refused(&changed), Code::KeyCommitment, "encapsulated byte {byte}");
        changed.encapsulated.truncate(byte);
        assert_eq!(refused(&changed), Code::KeyCommitment, "encapsulated, cut at {byte}");
    }
    for place in 0..3 {
        let mut changed = good.clone();
        changed.suite[place] ^= 1;
        assert_eq!(refused(&changed), Code::SuiteUnsupported);
    }
    for length in [0, 32, 1215, 1217] {
        let key = SealingPublicKey(vec![1; length]);
        let got = KeyEnvelope::seal(&secret, &digest, &key, &info, epoch, &mut random);
        assert_eq!(code(got), Code::ProtocolViolation, "a sealing key of {length} bytes");
    }
}
