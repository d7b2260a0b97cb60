//! Data, acknowledgements, manifest and receipt: what a peer that holds good keys may still try.

mod connections;
mod lanes;
mod synced;

use bytes::{Bytes, BytesMut};
use sealift_protocol::{
    audit_head::AuditHead,
    chunk::{Chunk, Sealed},
    close::Code,
    compress::{Compression, Packer, Unpacker},
    digest::RowsDigest,
    error::Result,
    frame::{ChunkHeader, StreamHeader},
    id::{ChunkCount, ChunkIndex, PartIndex},
    limits::CHUNK_HEADER_BYTES,
    manifest::{
        Authority, CatalogueCheck, Check, Evidence, Manifest, Plan, Proof, Receipt, SignedManifest, SignedReceipt,
    },
    message::{Ack, Message},
    random::Nonces,
    receive::{Arrived, PartStream, ReceiptFacts},
    seal::{Suite, open, seal},
    sign::{PublicKey, Purpose, Signer},
};
use sealift_tests::wire::{Pair, Parties, Seeded, Terms, opaque_plan, table_plan};

/// Of the sender's log.
const HEAD: AuditHead = AuditHead { sequence: 7, hash: [7; 32] };

fn code<T>(result: Result<T>) -> Code {
    result.err().map_or(Code::Done, |error| error.code)
}

/// Two endpoints after the exchange, and what seals and opens for them.
struct Flow {
    parties: Parties,
    pair: Pair,
    nonces: Nonces<Seeded>,
}

impl Flow {
    fn new(plan: Plan) -> Self {
        let mut parties = Parties::new(11);
        let pair = parties.agree(&Terms::new(plan, Suite::Aes256Gcm));
        Self { parties, pair, nonces: Nonces::new(Seeded::new("flow", 1)) }
    }

    fn sealed(&mut self, part: u32, index: u64, last: bool) -> Sealed {
        let plain = Bytes::from(format!("row {index} of part {part}"));
        let chunk = Chunk::new(PartIndex(part), ChunkIndex(index), last, plain);
        let keys = &self.pair.session.keys;
        let packed = Packer::new(Compression::Off).unwrap().pack(chunk, keys.digests());
        seal(packed, keys, self.nonces.draw().unwrap()).unwrap()
    }

    fn stream(&mut self, part: u32) -> Result<()> {
        self.pair
            .receiving
            .handle_stream(&self.pair.loading, StreamHeader { part: PartIndex(part), first: ChunkIndex(0) })
    }

    /// All that a receiver does with a frame that came on the stream of `part`.
    fn arrive(&mut self, part: u32, sealed: &Sealed) -> Result<()> {
        let header = ChunkHeader::from_bytes(sealed.frame[..CHUNK_HEADER_BYTES].try_into().unwrap())?;
        self.pair.receiving.handle_header(PartIndex(part), &header)?;
        let body = BytesMut::from(&sealed.frame[CHUNK_HEADER_BYTES..]);
        let keys = self.pair.receiving.keys().clone();
        let chunk = open(&header, body, &keys, &mut Unpacker::new()?)?;
        self.pair.loading.handle_taken(chunk.taken());
        Ok(())
    }

    fn send(&mut self, sealed: &Sealed) {
        self.pair.transfer.handle_sealed(sealed, &self.pair.session.keys);
    }

    fn may_start(&self, part: u32) -> bool {
        self.pair.transfer.may_start(PartIndex(part), &self.pair.session)
    }

    fn may_send(&mut self, part: u32, index: u64) -> bool {
        let header = self.sealed(part, index, false).header;
        self.pair.transfer.may_send(&header, &self.pair.session)
    }

    /// Sends a part of one chunk, up to the end of its stream.
    fn send_whole(&mut self, part: u32) -> Sealed {
        let only = self.sealed(part, 0, true);
        self.send(&only);
        self.pair.transfer.handle_part_end(PartIndex(part), RowsDigest::default());
        self.pair.transfer.handle_stream_end(PartIndex(part));
        only
    }

    /// A whole part of `chunks` chunks, faultless, from start to durable.
    fn whole_part(&mut self, part: u32, chunks: u64) {
        self.verified_part(part, chunks);
        self.pair.loading.handle_finished(PartIndex(part));
        self.acknowledge().unwrap();
    }

    /// The same up to where the target has taken all of it.
    fn verified_part(&mut self, part: u32, chunks: u64) {
        let index = PartIndex(part);
        assert!(self.pair.transfer.may_start(index, &self.pair.session));
        self.pair.transfer.handle_start(index);
        self.stream(part).unwrap();
        assert!(self.pair.loading.may_begin(index));
        self.pair.loading.handle_begun(index);
        for place in 0..chunks {
            let sealed = self.sealed(part, place, place + 1 == chunks);
            self.send(&sealed);
            self.arrive(part, &sealed).unwrap();
        }
        self.pair.transfer.handle_part_end(index, RowsDigest { rows: 5, sum: [3; 32] });
        self.pair.receiving.handle_stream_end(index).unwrap();
    }

    /// Delivers what is due; returns how many messages that were.
    fn acknowledge(&mut self) -> Result<usize> {
        let mut messages = 0;
        while let Some(Message::Ack(ack)) = self.pair.receiving.poll_ack(&mut self.pair.loading) {
            self.pair.transfer.handle_ack(&ack)?;
            messages += 1;
        }
        Ok(messages)
    }

    fn manifest(&mut self) -> SignedManifest {
        self.pair.transfer.poll_manifest(&self.parties.sender, Some(HEAD)).expect("all of it is verified")
    }

    /// What a target that was loaded faithfully says.
    fn facts(&self, manifest: &Manifest) -> ReceiptFacts {
        ReceiptFacts {
            evidence: Evidence {
                tables: manifest.tables.clone(),
                checks: vec![Check::Catalogue(CatalogueCheck { definitions: 3 })],
                ..Evidence::bare(Proof::RowsReadBack)
            },
            link: Some(self.parties.link()),
            started_ms: 1,
            finished_ms: 2,
            software: "test".into(),
            target_host: "target".into(),
            target: "file:dump".into(),
            audit_head: Some(AuditHead { sequence: 9, hash: [9; 32] }),
        }
    }
}

/// Fault X2: two frames swapped, one left out, one repeated.
#[test]
fn the_order_of_chunks_is_fixed() {
    let mut swapped = Flow::new(opaque_plan());
    swapped.stream(0).unwrap();
    let frames: Vec<Sealed> = (0..3).map(|index| swapped.sealed(0, index, index == 2)).collect();
    assert_eq!(code(swapped.arrive(0, &frames[1])), Code::ChunkOrder, "swapped at the start, or the first left out");
    let mut skipped = Flow::new(opaque_plan());
    skipped.stream(0).unwrap();
    skipped.arrive(0, &frames[0]).unwrap();
    assert_eq!(code(skipped.arrive(0, &frames[2])), Code::ChunkOrder, "one left out");
    assert_eq!(code(skipped.arrive(0, &frames[0])), Code::ChunkOrder, "one repeated");
    skipped.arrive(0, &frames[1]).unwrap();
    assert_eq!(code(skipped.arrive(0, &frames[1])), Code::ChunkOrder, "the one before repeated");
}

/// Fault X3: a frame on the stream of another part; a stream for a part that does not exist or was
/// sent.
#[test]
fn parts_keep_to_their_streams() {
    let mut flow = Flow::new(table_plan(2));
    flow.whole_part(0, 1);
    flow.stream(1).unwrap();
    flow.stream(2).unwrap();
    let of_second = flow.sealed(2, 0, false);
    assert_eq!(code(flow.arrive(1, &of_second)), Code::ChunkForeign);
    assert_eq!(code(flow.stream(9)), Code::ProtocolViolation, "no such part");
    assert_eq!(code(flow.stream(u32::MAX)), Code::ProtocolViolation);
    assert_eq!(code(flow.stream(1)), Code::ChunkOrder, "sent twice");
    let later = StreamHeader { part: PartIndex(3), first: ChunkIndex(0) };
    assert_eq!(
        code(flow.pair.receiving.handle_stream(&flow.pair.loading, later)),
        Code::ProtocolViolation,
        "before the rows are verified"
    );
    let mut other = Flow::new(opaque_plan());
    let in_the_middle = StreamHeader { part: PartIndex(0), first: ChunkIndex(1) };
    assert_eq!(code(other.pair.receiving.handle_stream(&other.pair.loading, in_the_middle)), Code::ChunkOrder);
}

/// Faults X4, X5: the mark of the last chunk early, missing or twice, chunks after it, an end
/// before it.
#[test]
fn the_last_chunk_is_the_last() {
    let mut early = Flow::new(opaque_plan());
    early.stream(0).unwrap();
    let (first, second) = (early.sealed(0, 0, true), early.sealed(0, 1, false));
    early.arrive(0, &first).unwrap();
    assert_eq!(code(early.arrive(0, &second)), Code::ChunkOrder, "a chunk after the last");
    let last_again = early.sealed(0, 1, true);
    assert_eq!(code(early.arrive(0, &last_again)), Code::ChunkOrder, "the mark twice");
    assert_eq!(code(early.pair.receiving.handle_stream_end(PartIndex(0))), Code::Done);

    let mut missing = Flow::new(opaque_plan());
    missing.stream(0).unwrap();
    let first = missing.sealed(0, 0, false);
    missing.arrive(0, &first).unwrap();
    assert_eq!(code(missing.pair.receiving.handle_stream_end(PartIndex(0))), Code::PartTruncated);
    let mut empty = Flow::new(opaque_plan());
    empty.stream(0).unwrap();
    assert_eq!(code(empty.pair.receiving.handle_stream_end(PartIndex(0))), Code::PartTruncated);
    assert!(empty.pair.loading.poll_complete().is_none());
}

/// Fault X5: a part's stream that is cut at each of its bytes, and one that ends where it may.
#[test]
fn a_stream_may_end_only_behind_its_last_chunk() {
    let whole = {
        let mut flow = Flow::new(opaque_plan());
        let mut bytes = BytesMut::from(&StreamHeader { part: PartIndex(0), first: ChunkIndex(0) }.to_bytes()[..]);
        for (index, last) in [(0, false), (1, true)] {
            bytes.extend_from_slice(&flow.sealed(0, index, last).frame);
        }
        bytes
    };
    for cut in 0..=whole.len() {
        let mut flow = Flow::new(opaque_plan());
        let (mut arriving, mut incoming, mut frames) = (PartStream::default(), BytesMut::from(&whole[..cut]), 0);
        while incoming.len() >= arriving.awaited_bytes() {
            let bytes = incoming.split_to(arriving.awaited_bytes());
            let arrived = arriving.handle(bytes, &mut flow.pair.receiving, &flow.pair.loading).unwrap();
            frames += u32::from(matches!(arrived, Arrived::Frame(..)));
        }
        let ended = code(arriving.handle_end(incoming.len(), &mut flow.pair.receiving));
        let expected = if cut == whole.len() { Code::Done } else { Code::PartTruncated };
        assert_eq!(ended, expected, "cut at byte {cut}");
        assert!(frames == 2 || cut < whole.len(), "cut at byte {cut}");
    }
}

/// Fault X12: acknowledgements of what was never sent, or that take something back.
#[test]
fn impossible_acknowledgements_end_the_transfer() {
    let ack = |part, verified, durable| Ack {
        part: PartIndex(part),
        verified: ChunkCount(verified),
        durable: ChunkCount(durable),
    };
    let check = |acks: &[Ack]| {
        let mut flow = Flow::new(table_plan(1));
        for index in 0..5 {
            let sealed = flow.sealed(1, index, false);
            flow.send(&sealed);
        }
        let results: Vec<Code> = acks.iter().map(|ack| code(flow.pair.transfer.handle_ack(ack))).collect();
        *results.last().unwrap()
    };
    assert_eq!(check(&[ack(1, 3, 1), ack(1, 3, 1), ack(1, 5, 3)]), Code::Done);
    assert_eq!(check(&[ack(1, 6, 0)]), Code::AckImpossible, "more than was sent");
    assert_eq!(check(&[ack(1, u64::MAX, 0)]), Code::AckImpossible);
    assert_eq!(check(&[ack(0, 1, 0)]), Code::AckImpossible, "of a part of which nothing was sent");
    assert_eq!(check(&[ack(3, 0, 0)]), Code::AckImpossible, "of no part");
    assert_eq!(check(&[ack(1, 2, 3)]), Code::AckImpossible, "durable and not verified");
    assert_eq!(check(&[ack(1, 4, 0), ack(1, 3, 0)]), Code::AckImpossible, "verified goes back");
    assert_eq!(check(&[ack(1, 4, 4), ack(1, 5, 3)]), Code::AckImpossible, "durable goes back");
}

fn resigned(flow: &Flow, manifest: Manifest) -> SignedManifest {
    manifest.sign(&flow.parties.sender)
}

/// Fault X13: each field of the manifest, wrong and signed all the same.
#[test]
fn every_field_of_the_manifest_is_compared() {
    type Change = fn(&mut Manifest);
    let changes: [(&str, Code, Change); 16] = [
        ("nothing", Code::Done, |_| {}),
        ("transfer", Code::ManifestMismatch, |manifest| manifest.transfer.0[0] ^= 1),
        ("grant", Code::ManifestMismatch, |manifest| manifest.grant_hash[0] ^= 1),
        ("plan", Code::ManifestMismatch, |manifest| manifest.plan_hash[0] ^= 1),
        ("a part less", Code::ManifestMismatch, |manifest| manifest.parts.truncate(manifest.parts.len() - 1)),
        ("a part more", Code::ManifestMismatch, |manifest| manifest.parts.push(manifest.parts[0].clone())),
        ("parts swapped", Code::ManifestMismatch, |manifest| manifest.parts.swap(1, 2)),
        ("chunks", Code::ManifestMismatch, |manifest| manifest.parts[1].chunks.0 += 1),
        ("bytes", Code::ManifestMismatch, |manifest| manifest.parts[1].plain_bytes -= 1),
        ("root of a part", Code::ManifestMismatch, |manifest| manifest.parts[1].root.0[0] ^= 1),
        ("root", Code::ManifestMismatch, |manifest| manifest.root.0[0] ^= 1),
        ("rows of a schema", Code::ManifestMismatch, |manifest| manifest.parts[0].rows = Some(RowsDigest::default())),
        ("rows of a range, of a whole table", Code::ManifestMismatch, |manifest| {
            manifest.parts[1].rows = Some(manifest.tables[0]);
        }),
        ("a table less", Code::ManifestMismatch, |manifest| manifest.tables.truncate(1)),
        ("rows of a table", Code::TargetMismatch, |manifest| manifest.tables[0].rows += 1),
        ("digest of a table", Code::TargetMismatch, |manifest| manifest.tables[0].sum[0] ^= 1),
    ];
    for (name, expected, change) in changes {
        let mut flow = Flow::new(table_plan(2));
        (0..4).for_each(|part| flow.whole_part(part, u64::from(part) + 1));
        let honest = flow.manifest();
        let facts = flow.facts(&honest.manifest);
        let mut manifest = honest.manifest.clone();
        change(&mut manifest);
        let manifest = resigned(&flow, manifest);
        flow.pair.receiving.handle_finish(&mut flow.pair.loading, manifest).unwrap();
        let checked = code(flow.pair.loading.poll_complete().expect("everything is there"));
        let got = match checked {
            Code::Done => code(flow.pair.loading.receipt(&flow.pair.receiving, facts, &flow.parties.receiver)),
            refused => refused,
        };
        assert_eq!(got, expected, "{name}");
    }
}

/// Fault X13: a manifest by another signer, or a second one.
#[test]
fn one_manifest_by_the_sender_alone() {
    let mut flow = Flow::new(opaque_plan());
    flow.whole_part(0, 2);
    let good = flow.manifest();
    let by_stranger = good.manifest.clone().sign(&flow.parties.receiver);
    assert_eq!(code(flow.pair.receiving.handle_finish(&mut flow.pair.loading, by_stranger)), Code::ManifestMismatch);
    let other_purpose = flow.parties.sender.sign(Purpose::Begin, &sealift_protocol::codec::encode(&good.manifest));
    let relabelled = SignedManifest { signature: other_purpose, ..good.clone() };
    assert_eq!(code(flow.pair.receiving.handle_finish(&mut flow.pair.loading, relabelled)), Code::ManifestMismatch);
    assert_eq!(code(flow.pair.receiving.handle_finish(&mut flow.pair.loading, good.clone())), Code::Done);
    assert_eq!(
        code(flow.pair.receiving.handle_finish(&mut flow.pair.loading, good)),
        Code::ProtocolViolation,
        "a second one"
    );
}

/// The sender believes only a receipt for exactly this transfer, signed by exactly this receiver.
#[test]
fn every_field_of_the_receipt_is_compared() {
    type Change = fn(&mut Receipt);
    let changes: [(&str, Code, Change); 24] = [
        ("nothing", Code::Done, |_| {}),
        ("a row less in a drill", Code::TargetMismatch, |receipt| {
            receipt.evidence.proof = Proof::Discarded;
            receipt.evidence.checks.clear();
            receipt.evidence.tables[0].rows -= 1;
        }),
        ("a check of a drill", Code::TargetMismatch, |receipt| receipt.evidence.proof = Proof::Discarded),
        ("a loader's proof", Code::TargetMismatch, |receipt| receipt.evidence.proof = Proof::LoaderExit),
        ("times", Code::ManifestMismatch, |receipt| receipt.finished_ms = receipt.started_ms - 1),
        ("after the grant", Code::GrantExpired, |receipt| receipt.finished_ms = u64::MAX),
        ("a text of 4 MB", Code::LimitExceeded, |receipt| receipt.software = "x".repeat(4 << 20)),
        ("manifest", Code::AckImpossible, |receipt| receipt.manifest.manifest.tables[0].rows += 1),
        ("manifest's signature", Code::AckImpossible, |receipt| receipt.manifest.signature.0[0] ^= 1),
        ("grant", Code::AckImpossible, |receipt| receipt.grant.grant.purpose.push('x')),
        ("sender", Code::AckImpossible, |receipt| receipt.sender_key = receipt.receiver_key),
        ("receiver", Code::AckImpossible, |receipt| receipt.receiver_key = receipt.sender_key),
        ("no connection", Code::AckImpossible, |receipt| receipt.link = None),
        ("certificates of the other side", Code::IdentityRefused, |receipt| {
            let link = receipt.link.as_mut().unwrap();
            std::mem::swap(&mut link.sender, &mut link.receiver);
        }),
        ("an operator", Code::GrantInvalid, |receipt| receipt.authority = Authority::Operator(PublicKey([9; 32]))),
        ("the head of the sender's log", Code::AckImpossible, |receipt| {
            receipt.manifest.manifest.audit_head = None;
        }),
        ("suite", Code::AckImpossible, |receipt| receipt.suite = Suite::ChaCha20Poly1305),
        ("plan", Code::ManifestMismatch, |receipt| receipt.plan.tables[0].name.push('x')),
        ("rows loaded", Code::TargetMismatch, |receipt| receipt.evidence.tables[0].rows += 1),
        ("digest loaded", Code::TargetMismatch, |receipt| receipt.evidence.tables[0].sum[0] ^= 1),
        ("a table not loaded", Code::TargetMismatch, |receipt| receipt.evidence.tables.clear()),
        ("not read back", Code::TargetMismatch, |receipt| receipt.evidence.proof = Proof::Written),
        ("not checked", Code::TargetMismatch, |receipt| receipt.evidence.checks.clear()),
        ("bytes of rows", Code::TargetMismatch, |receipt| {
            receipt.evidence.bytes = Some(receipt.manifest.manifest.root)
        }),
    ];
    let mut flow = Flow::new(table_plan(1));
    (0..3).for_each(|part| flow.whole_part(part, 1));
    let manifest = flow.manifest();
    flow.pair.receiving.handle_finish(&mut flow.pair.loading, manifest.clone()).unwrap();
    let facts = flow.facts(&manifest.manifest);
    let good = flow.pair.loading.receipt(&flow.pair.receiving, facts, &flow.parties.receiver).unwrap();
    for (name, expected, change) in changes {
        let mut receipt = good.receipt.clone();
        change(&mut receipt);
        let signed = receipt.sign(&flow.parties.receiver);
        assert_eq!(code(flow.pair.transfer.handle_receipt(&signed, &flow.pair.session)), expected, "{name}");
    }
    // What an earlier connection was agreed on with may still stand in it; what was only offered
    // may not (above).
    let earlier = Receipt { suite: Suite::ChaCha20Poly1305, ..good.receipt.clone() }.sign(&flow.parties.receiver);
    flow.pair.transfer.handle_agreed(Suite::ChaCha20Poly1305);
    assert_eq!(code(flow.pair.transfer.handle_receipt(&earlier, &flow.pair.session)), Code::Done);
    let mut unsigned = good.clone();
    unsigned.receipt.software.push('x');
    let got = flow.pair.transfer.handle_receipt(&unsigned, &flow.pair.session);
    assert_eq!(code(got), Code::TranscriptMismatch);
    assert_eq!(SignedReceipt::from_bytes(&good.to_bytes()), Ok(good.clone()));
    good.verify().unwrap();

    let empty_handed = Flow::new(table_plan(1));
    let got = empty_handed.pair.transfer.handle_receipt(&good, &empty_handed.pair.session);
    assert_eq!(code(got), Code::AckImpossible, "before the manifest");
}

/// Issue 9, B8: a part is acknowledged when it is verified and when it is durable, whatever else
/// there is.
#[test]
fn acknowledgements_grow_with_the_parts() {
    let acknowledgements = |tables: u32| {
        let mut flow = Flow::new(table_plan(tables as usize));
        flow.whole_part(0, 1);
        let mut acknowledgements = 0;
        for first in (1..=tables).step_by(100) {
            let last = tables.min(first + 99);
            for part in first..=last {
                flow.verified_part(part, 1);
                acknowledgements += flow.acknowledge().unwrap();
            }
            // They share a commit.
            (first..=last).for_each(|part| flow.pair.loading.handle_finished(PartIndex(part)));
            acknowledgements += flow.acknowledge().unwrap();
        }
        flow.whole_part(tables + 1, 1);
        flow.manifest();
        acknowledgements
    };
    assert_eq!([acknowledgements(100), acknowledgements(1000)], [200, 2000]);
}
