#![no_main]
//! A sealed log. As raw bytes: read to its end without a panic, and searched for envelopes only
//! within it. As operations: what was written is read, up to where a byte was changed and no
//! further, and the change is called rot where a mark stands behind it. The first five bytes say
//! which byte is changed and how; each other is one record.

use libfuzzer_sys::fuzz_target;
use sealift_protocol::{
    chunk::Codec,
    frame::ChunkHeader,
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    random::Random,
    seal::Suite,
    sealed_log::{
        Ending, EnvelopePlaces, KeyFingerprint, LogHeader, LogId, LogKind, LogReader, LogWriter, ReadStep, Record,
    },
};

/// More records than this show nothing that these do not.
const OPERATIONS_MAX: usize = 64;

const TRANSFER: TransferId = TransferId([7; 16]);

struct NoSalt;

impl Random for NoSalt {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0);
    }
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let mut last = 0;
    for place in EnvelopePlaces::new(bytes) {
        let place = place.expect("a slice can be read");
        assert!(last < place.start && place.start <= place.end && place.end <= bytes.len() as u64);
        last = place.start;
    }
    if let Some((&[a, b, c, d, change], operations)) = bytes.split_first_chunk() {
        operate(u32::from_be_bytes([a, b, c, d]) as usize, change, &operations[..operations.len().min(OPERATIONS_MAX)]);
    }
});

/// Records, where the last of them ends, and what is behind it; `None` if the bytes are refused.
fn read(bytes: &[u8]) -> Option<(Vec<Record>, usize, Ending)> {
    let mut reader = LogReader::open(bytes).ok()?;
    let mut records = Vec::new();
    loop {
        let before = reader.offset();
        match reader.step().ok()? {
            ReadStep::Record(record) => records.push(record),
            ReadStep::End(ending) => return Some((records, reader.offset() as usize, ending)),
        }
        assert!(before < reader.offset() && reader.offset() <= bytes.len() as u64);
    }
}

fn record(operation: u8) -> Record {
    let plain_bytes = u32::from(operation);
    match operation {
        0..100 => {
            let header = ChunkHeader {
                suite: Suite::ChaCha20Poly1305,
                codec: Codec::Stored,
                last: true,
                transfer: TRANSFER,
                epoch: Epoch(1),
                part: PartIndex(0),
                index: ChunkIndex(0),
                plain_bytes,
                packed_bytes: plain_bytes,
                nonce: [operation; 24],
            };
            Record::Chunk { header, sealed: vec![operation; header.sealed_bytes()].into() }
        }
        100..200 => Record::Statement(vec![operation; operation.into()].into()),
        _ => Record::Mark,
    }
}

fn operate(place: usize, change: u8, operations: &[u8]) {
    let header =
        LogHeader::new(LogId { kind: LogKind::Journal, transfer: TRANSFER, key: KeyFingerprint([0; 32]) }, &mut NoSalt);
    let mut writer = LogWriter::new(header);
    let mut bytes = header.to_bytes().to_vec();
    let records: Vec<_> = operations.iter().map(|operation| record(*operation)).collect();
    let mut synced = bytes.len();
    for record in &records {
        if *record == Record::Mark {
            writer.synced();
            synced = bytes.len();
        }
        bytes.extend(writer.encode(record).expect("these are within their limits").pieces().concat());
    }
    let place = place % bytes.len();
    bytes[place] ^= change;
    let Some((found, end, ending)) = read(&bytes) else {
        return assert!(change != 0, "a log was refused as it was written");
    };
    assert_eq!(found[..], records[..found.len()]);
    if change == 0 {
        assert_eq!((found.len(), ending), (records.len(), Ending::Whole));
    } else {
        assert!(end <= place, "a change was read over");
        assert_eq!(ending, if place < synced { Ending::Damaged } else { Ending::Torn });
    }
}
