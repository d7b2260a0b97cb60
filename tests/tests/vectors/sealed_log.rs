use sealift_protocol::{
    chunk::Codec,
    close::Code,
    envelope::{ENVELOPE_SUITE, KeyEnvelope, SealingPublicKey},
    frame::ChunkHeader,
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    limits::{LOG_CHECK_BYTES, LOG_HEAD_BYTES, LOG_HEADER_BYTES},
    seal::Suite,
    sealed_log::{
        Ending, EpochRecord, KeyFingerprint, LogHeader, LogId, LogKind, LogReader, LogWriter, ReadError, ReadStep,
        Record,
    },
};
use sealift_tests::wire::Seeded;
use serde_json::{Value, json};

use super::hex;

const TRANSFER: TransferId = TransferId([0x21; 16]);
const PUBLIC_KEY: [u8; 1216] = [0x23; 1216];

fn header(transfer: TransferId) -> LogHeader {
    header_of(LogKind::Journal, transfer)
}

fn header_of(kind: LogKind, transfer: TransferId) -> LogHeader {
    let key = KeyFingerprint::of(&SealingPublicKey(PUBLIC_KEY.to_vec()));
    LogHeader::new(LogId { kind, transfer, key }, &mut Seeded::new("salt", 0))
}

fn epoch(epoch: u32) -> Record {
    let envelope = KeyEnvelope { suite: ENVELOPE_SUITE, encapsulated: vec![0x24; 1120], sealed: vec![0x25; 80] };
    let (suite, info, commitment) = (Suite::ChaCha20Poly1305, [0x26; 32], [0x27; 32]);
    Record::Epoch(Box::new(EpochRecord { epoch: Epoch(epoch), suite, envelope, info, commitment }))
}

fn chunk(index: u64) -> Record {
    let header = ChunkHeader {
        suite: Suite::ChaCha20Poly1305,
        codec: Codec::Stored,
        last: index == 1,
        transfer: TRANSFER,
        epoch: Epoch(1),
        part: PartIndex(0),
        index: ChunkIndex(index),
        plain_bytes: 3,
        packed_bytes: 3,
        nonce: [0x28; 24],
    };
    Record::Chunk { header, sealed: vec![0x29; header.sealed_bytes()].into() }
}

/// The bytes of a log whose marks are synced, and where its records begin.
fn log_of(header: LogHeader, records: &[Record]) -> (Vec<u8>, Vec<usize>) {
    let mut writer = LogWriter::new(header);
    let (mut bytes, mut places) = (header.to_bytes().to_vec(), Vec::new());
    for record in records {
        if *record == Record::Mark {
            writer.synced();
        }
        places.push(bytes.len());
        bytes.extend(writer.encode(record).unwrap().pieces().concat());
    }
    (bytes, places)
}

/// What a reader makes of bytes: how many records, the bytes they end at, and how the log ends.
fn outcome(bytes: &[u8]) -> Value {
    let refused = |error| match error {
        ReadError::Log(error) => json!({ "code": error.code.as_str(), "number": error.code.number() }),
        ReadError::Source(never) => match never {},
    };
    let mut reader = match LogReader::open(bytes) {
        Ok(reader) => reader,
        Err(error) => return refused(error),
    };
    let mut records = 0;
    loop {
        match reader.step() {
            Ok(ReadStep::Record(_)) => records += 1,
            Ok(ReadStep::End(ending)) => {
                let ending = match ending {
                    Ending::Whole => "whole",
                    Ending::Torn => "torn",
                    Ending::Damaged => "damaged",
                };
                return json!({ "records": records, "whole_bytes": reader.offset(), "ending": ending });
            }
            Err(error) => return refused(error),
        }
    }
}

fn parts(bytes: &[u8], places: &[usize]) -> Vec<Value> {
    let ends = places.iter().skip(1).copied().chain([bytes.len()]);
    let record = |(at, end): (usize, usize)| {
        let head = &bytes[at..at + LOG_HEAD_BYTES];
        json!({
            "offset": at,
            "head": hex(head),
            "type": head[4],
            "synced": u64::from_be_bytes(head[12..20].try_into().unwrap()),
            "body": hex(&bytes[at + LOG_HEAD_BYTES..end - LOG_CHECK_BYTES]),
            "check": hex(&bytes[end - LOG_CHECK_BYTES..end]),
        })
    };
    places.iter().copied().zip(ends).map(record).collect()
}

fn case(defect: &str, bytes: Vec<u8>, ending: Option<&str>) -> Value {
    let got = outcome(&bytes);
    assert_eq!(got["ending"].as_str(), ending, "{defect}");
    json!({ "defect": defect, "bytes": hex(bytes), "outcome": got })
}

fn bad() -> Vec<Value> {
    let records = [chunk(0), Record::Mark, chunk(1), Record::Mark];
    let (good, places) = log_of(header(TRANSFER), &records);
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cut = |bytes: usize| good[..bytes].to_vec();
    let doubled = [&good[..places[1]], &good[places[0]..]].concat();
    let dropped = [&good[..places[0]], &good[places[1]..]].concat();
    let zeros = [&good[..places[2]], &vec![0; good.len() - places[2]]].concat();
    let (other, _) = log_of(header(TransferId([0x22; 16])), &[Record::Statement(vec![0xa0].into()), Record::Mark]);
    let foreign = [&good[..LOG_HEADER_BYTES], &other[LOG_HEADER_BYTES..]].concat();
    vec![
        case("magic changed", changed(0), None),
        case("fingerprint changed", changed(24), None),
        case("check of the header changed", changed(72), None),
        case("shorter than a header", cut(LOG_HEADER_BYTES - 1), None),
        case("length changed, a mark behind it", changed(places[0] + 11), Some("damaged")),
        case("body changed, a mark behind it", changed(places[2] + 60), Some("damaged")),
        case("check changed, a mark behind it", changed(places[1] - 1), Some("damaged")),
        case("a record doubled", doubled, Some("damaged")),
        case("a record dropped", dropped, Some("damaged")),
        case("last mark changed", changed(places[3] + 5), Some("torn")),
        case("cut in a head", cut(places[2] + 31), Some("torn")),
        case("cut in a body", cut(places[2] + 100), Some("torn")),
        case("cut at a record", cut(places[2]), Some("whole")),
        case("zeros from a record on", zeros, Some("torn")),
        case("records of another log", foreign, Some("torn")),
    ]
}

pub fn vectors() -> Value {
    let header = header(TRANSFER);
    let statement = Record::Statement(vec![0xa0].into());
    let (bytes, places) = log_of(header, &[epoch(1), chunk(0), Record::Mark, chunk(1), statement, Record::Mark]);
    assert_eq!(outcome(&bytes)["ending"], "whole");
    let foreign = header.expect(&LogId { transfer: TransferId([0x22; 16]), ..header.id });
    assert_eq!(foreign.err().map(|error| error.code), Some(Code::LogForeign));
    json!({
        "kind": header.id.kind as u8,
        "transfer": hex(TRANSFER.0),
        "sealing_public_key": hex(PUBLIC_KEY),
        "fingerprint": hex(header.id.key.0),
        "header": hex(header.to_bytes()),
        "records": parts(&bytes, &places),
        "bytes": hex(&bytes),
        "bad": bad(),
        "spool": spool(),
    })
}

/// A spool with a mark after each step: the epoch, a chunk, the last chunk, the manifest.
fn spool() -> Value {
    let header = header_of(LogKind::Spool, TRANSFER);
    let manifest = Record::Statement(vec![0xa0].into());
    let steps = [epoch(1), Record::Mark, chunk(0), Record::Mark, chunk(1), Record::Mark, manifest, Record::Mark];
    let (bytes, places) = log_of(header, &steps);
    assert_eq!(outcome(&bytes)["ending"], "whole");
    let journal = header.expect(&LogId { kind: LogKind::Journal, ..header.id });
    let foreign = super::bad("read as a journal", &bytes, Code::LogForeign, journal);
    json!({
        "note": "the statement stands for a manifest: what it means is not for the log to know",
        "kind": header.id.kind as u8,
        "header": hex(header.to_bytes()),
        "records": parts(&bytes, &places),
        "bytes": hex(&bytes),
        "bad": [foreign],
    })
}
