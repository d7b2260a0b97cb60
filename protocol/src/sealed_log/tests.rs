use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::{
    chunk::Codec,
    close::Code,
    envelope::{ENVELOPE_SUITE, KeyEnvelope},
    frame::ChunkHeader,
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    limits::{LOG_HEADER_BYTES, TAG_BYTES},
    random::Random,
    seal::Suite,
};

const TRANSFER: TransferId = TransferId([7; 16]);
const ID: LogId = LogId { kind: LogKind::Journal, transfer: TRANSFER, key: KeyFingerprint([9; 32]) };

struct Salt(u8);

impl Random for Salt {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(self.0);
    }
}

fn header() -> LogHeader {
    LogHeader::new(ID, &mut Salt(1))
}

fn chunk_of(transfer: TransferId, index: u64, plain_bytes: u32) -> Record {
    let header = ChunkHeader {
        suite: Suite::ChaCha20Poly1305,
        codec: Codec::Stored,
        last: plain_bytes == 0,
        transfer,
        epoch: Epoch(1),
        part: PartIndex(0),
        index: ChunkIndex(index),
        plain_bytes,
        packed_bytes: plain_bytes,
        nonce: [index as u8; 24],
    };
    Record::Chunk { header, sealed: vec![index as u8; header.sealed_bytes()].into() }
}

fn chunk(index: u64, plain_bytes: u32) -> Record {
    chunk_of(TRANSFER, index, plain_bytes)
}

fn epoch(epoch: u32) -> Record {
    let envelope = KeyEnvelope { suite: ENVELOPE_SUITE, encapsulated: vec![1; 1120], sealed: vec![2; 64 + TAG_BYTES] };
    let record = EpochRecord {
        epoch: Epoch(epoch),
        suite: Suite::ChaCha20Poly1305,
        envelope,
        info: [3; 32],
        commitment: [4; 32],
    };
    Record::Epoch(Box::new(record))
}

/// A log of these batches, each synced and marked, and where each record begins.
fn log_of(header: LogHeader, batches: &[Vec<Record>]) -> (Vec<u8>, Vec<u64>) {
    let mut writer = LogWriter::new(header);
    let (mut bytes, mut places) = (header.to_bytes().to_vec(), Vec::new());
    for batch in batches {
        for record in batch.iter().chain([&Record::Mark]) {
            if *record == Record::Mark {
                writer.synced();
            }
            let (at, expected) = (writer.offset(), writer.bytes_of(record).unwrap());
            places.push(at);
            bytes.extend(writer.encode(record).unwrap().pieces().concat());
            assert_eq!((writer.offset(), at + expected), (bytes.len() as u64, bytes.len() as u64));
        }
    }
    (bytes, places)
}

type ReadLog = (Vec<Record>, u64, Ending);

fn read(bytes: &[u8]) -> Result<ReadLog, Code> {
    let code = |error| match error {
        ReadError::Log(error) => error.code,
        ReadError::Source(never) => match never {},
    };
    let mut reader = LogReader::open(bytes).map_err(code)?;
    let mut records = Vec::new();
    loop {
        match reader.step().map_err(code)? {
            ReadStep::Record(record) => records.push(record),
            ReadStep::End(ending) => return Ok((records, reader.offset(), ending)),
        }
    }
}

fn small() -> Vec<Vec<Record>> {
    let statement = Record::Statement(Bytes::from_static(b"\xa0"));
    vec![vec![epoch(1), chunk(0, 20)], vec![chunk(1, 0), statement], vec![epoch(2)]]
}

/// Fault S5: whatever byte of a log changes is found, as rot where the log itself can know that a
/// sync was behind it, which is everywhere but in the mark at its end.
#[test]
fn s5_every_changed_byte_is_found() {
    let (bytes, places) = log_of(header(), &small());
    let (records, ..) = read(&bytes).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let hit = places.iter().rposition(|&place| place <= at as u64);
        let Some(hit) = hit else {
            assert_eq!(read(&changed), Err(Code::LogDamaged), "byte {at}");
            continue;
        };
        let ending = if hit == places.len() - 1 { Ending::Torn } else { Ending::Damaged };
        assert_eq!(read(&changed), Ok((records[..hit].to_vec(), places[hit], ending)), "byte {at}");
    }
}

/// Fault C11: cut anywhere, a log is what was whole of it.
#[test]
fn c11_a_log_cut_anywhere_is_its_whole_records() {
    let (bytes, places) = log_of(header(), &small());
    let (records, ..) = read(&bytes).unwrap();
    for end in 0..bytes.len() {
        let got = read(&bytes[..end]);
        let whole = places.iter().filter(|&&place| place <= end as u64).count();
        if whole == 0 {
            assert_eq!(got, Err(Code::LogDamaged));
            continue;
        }
        let last = places[whole - 1];
        let ending = if last == end as u64 { Ending::Whole } else { Ending::Torn };
        assert_eq!(got, Ok((records[..whole - 1].to_vec(), last, ending)), "{end} bytes");
    }
}

/// Fault S5: records that are dropped, doubled, swapped, or of another log of the same transfer.
#[test]
fn s5_records_that_were_moved_are_found() {
    let (bytes, places) = log_of(header(), &[vec![chunk(0, 9)], vec![chunk(1, 9)], vec![chunk(2, 9)]]);
    let (other, _) =
        log_of(LogHeader::new(ID, &mut Salt(2)), &[vec![chunk(0, 9)], vec![chunk(1, 9)], vec![chunk(2, 9)]]);
    let place = |index: usize| places[2 * index] as usize..places[2 * index + 1] as usize;
    let swapped = [&bytes[..place(0).start], &bytes[place(1)], &bytes[place(0).end..]].concat();
    let foreign = [&bytes[..place(1).start], &other[place(1)], &bytes[place(1).end..]].concat();
    let dropped = [&bytes[..place(1).start], &bytes[place(1).end..]].concat();
    let doubled = [&bytes[..place(1).end], &bytes[place(1).start..]].concat();
    for (name, changed) in [("swapped", swapped), ("foreign", foreign), ("dropped", dropped), ("doubled", doubled)] {
        let (records, _, ending) = read(&changed).unwrap();
        assert_eq!(ending, Ending::Damaged, "{name}");
        assert!(records.len() < places.len() && records[..] == read(&bytes).unwrap().0[..records.len()], "{name}");
    }
}

/// Fault S6.
#[test]
fn s6_another_transfer_key_or_kind_is_refused() {
    let expect = |id: LogId| header().expect(&id).err().map(|error| error.code);
    assert_eq!(expect(ID), None);
    assert_eq!(expect(LogId { transfer: TransferId([8; 16]), ..ID }), Some(Code::LogForeign));
    assert_eq!(expect(LogId { key: KeyFingerprint([8; 32]), ..ID }), Some(Code::LogForeign));
    assert_eq!(expect(LogId { kind: LogKind::Spool, ..ID }), Some(Code::LogForeign));
}

/// What nobody may write is refused by who writes, and by who reads it although its checks fit.
#[test]
fn records_are_checked_on_both_sides() {
    let foreign = chunk_of(TransferId([8; 16]), 0, 9);
    let Record::Chunk { header: chunk_header, .. } = chunk(0, 9) else { unreachable!() };
    let short = Record::Chunk { header: chunk_header, sealed: Bytes::from_static(b"short") };
    for (record, code) in [
        (foreign, Code::ChunkForeign),
        (short, Code::ChunkMalformed),
        (epoch(0), Code::LimitExceeded),
        (Record::Statement(Bytes::new()), Code::LimitExceeded),
    ] {
        let mut writer = LogWriter::new(header());
        assert_eq!(writer.bytes_of(&record).err().map(|error| error.code), Some(code));
        assert_eq!(writer.encode(&record).err().map(|error| error.code), Some(code));
        assert_eq!(writer.offset(), LOG_HEADER_BYTES as u64, "a refused record leaves no trace");
        let forged = writer.encode_unchecked(&record).unwrap().pieces().concat();
        assert_eq!(read(&[&header().to_bytes()[..], &forged].concat()), Err(code));
    }
}

/// A chunk that was read is opened in place.
#[test]
fn a_chunk_is_not_copied() {
    let (bytes, _) = log_of(header(), &[vec![chunk(0, 5000)]]);
    let mut reader = LogReader::open(&bytes[..]).unwrap();
    let ReadStep::Record(Record::Chunk { sealed, .. }) = reader.step().unwrap() else { panic!() };
    let place = sealed.as_ptr();
    assert_eq!(BytesMut::from(sealed).as_ptr(), place);
}

/// Fault C13: envelopes are found in a log that is whole, torn, rotten, or has lost some already.
#[test]
fn c13_envelopes_are_found_in_any_state() {
    let (bytes, places) = log_of(header(), &small());
    let found = |bytes: &[u8]| EnvelopePlaces::new(bytes).map(|place| place.unwrap()).collect::<Vec<_>>();
    let all = found(&bytes);
    assert_eq!(all.iter().map(|place| place.start - 32).collect::<Vec<_>>(), [places[0], places[6]]);
    let mut changed = bytes.clone();
    changed[all[0].start as usize..all[0].end as usize].fill(0);
    assert_eq!(found(&changed), all);
    for at in places[1] as usize..places[6] as usize {
        let mut changed = bytes.clone();
        changed[at] ^= 0x11;
        assert_eq!(found(&changed), all, "byte {at}");
    }
    let end = places[6] + 40;
    assert_eq!(found(&bytes[..end as usize]), [all[0].clone(), all[1].start..end]);
    assert_eq!(found(&[]), []);
}

fn any_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (1u32..9).prop_map(epoch),
        (0u64..99, 0u32..3000).prop_map(|(index, bytes)| chunk(index, bytes)),
        proptest::collection::vec(any::<u8>(), 1..200).prop_map(|bytes| Record::Statement(bytes.into())),
    ]
}

proptest! {
    #[test]
    fn a_log_reads_what_was_written(
        batches in proptest::collection::vec(proptest::collection::vec(any_record(), 0..5), 0..5),
    ) {
        let (bytes, _) = log_of(header(), &batches);
        let written: Vec<_> = batches.into_iter().flat_map(|batch| batch.into_iter().chain([Record::Mark])).collect();
        prop_assert_eq!(read(&bytes), Ok((written, bytes.len() as u64, Ending::Whole)));
    }

    /// Goes on where it was cut, as if it had never been.
    #[test]
    fn a_log_that_was_cut_goes_on(before in any_record(), after in any_record(), cut in 1usize..64) {
        let (mut bytes, places) = log_of(header(), &[vec![before.clone()]]);
        bytes.truncate(bytes.len() - cut);
        let mut reader = LogReader::open(&bytes[..]).unwrap();
        prop_assert_eq!(reader.step().unwrap(), ReadStep::Record(before.clone()));
        prop_assert_eq!(reader.step().unwrap(), ReadStep::End(Ending::Torn));
        prop_assert_eq!(reader.offset(), places[1]);
        let mut writer = reader.into_writer();
        bytes.truncate(writer.offset() as usize);
        bytes.extend(writer.encode(&after).unwrap().pieces().concat());
        prop_assert_eq!(read(&bytes).unwrap().0, [before, after]);
    }

    #[test]
    fn garbage_ends_a_log_and_never_panics(tail in proptest::collection::vec(any::<u8>(), 1..400)) {
        let got = read(&[&header().to_bytes()[..], &tail].concat()).unwrap();
        prop_assert_eq!(got, (vec![], LOG_HEADER_BYTES as u64, Ending::Torn));
    }
}
