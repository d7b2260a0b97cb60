//! The sealed log on storage that loses what was not synced, and with chunks that are really
//! sealed.

use bytes::{Bytes, BytesMut};
use sealift_protocol::{
    chunk::{Chunk, Codec},
    close::Code,
    compress::{Compression, Packer, Unpacker},
    digest::Digests,
    envelope::{KeyEnvelope, SealingKey},
    frame::ChunkHeader,
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    key::{DigestSecret, EpochSecret},
    limits::CHUNK_HEADER_BYTES,
    random::Nonces,
    seal::{EpochKeys, Suite, open, seal},
    sealed_log::{
        Ending, EpochRecord, KeyFingerprint, LogHeader, LogId, LogKind, LogReader, LogWriter, ReadStep, Record,
    },
};
use sealift_tests::{random::Random, wire::Seeded};

const TRANSFER: TransferId = TransferId([7; 16]);
const SECTOR_BYTES: usize = 512;

/// Crash images that are looked at: each seed crashes, recovers and goes on some times.
const SEEDS: usize = 2500;
const CRASHES: usize = 4;

/// A file whose content is what was synced, and the writes that were not. Each sector of those is
/// written back whenever the system likes, with the writes to it until then, and after a crash
/// holds that, zeros, or what lay there before.
#[derive(Default)]
struct Storage {
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl Storage {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.unsynced.push((offset as usize, bytes.to_vec()));
    }

    fn sync(&mut self) {
        self.durable = self.after(self.unsynced.len());
        self.unsynced.clear();
    }

    /// The file after the first `count` unsynced writes.
    fn after(&self, count: usize) -> Vec<u8> {
        let mut file = self.durable.clone();
        for (offset, bytes) in &self.unsynced[..count] {
            file.resize(file.len().max(offset + bytes.len()), 0);
            file[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        file
    }

    /// One of the images that a loss of power may leave.
    fn image(&self, random: &mut Random) -> Vec<u8> {
        let whole = self.after(self.unsynced.len());
        let mut image = self.durable.clone();
        image.resize(random.below(whole.len() - self.durable.len() + 1) + self.durable.len(), 0);
        if random.chance(30.0) {
            image.resize(whole.len(), 0);
        }
        let loss = [0.0, 5.0, 50.0, 95.0][random.below(4)];
        let first = self.durable.len() / SECTOR_BYTES;
        for sector in first..image.len().div_ceil(SECTOR_BYTES) {
            let range = (sector * SECTOR_BYTES).max(self.durable.len())..image.len().min((sector + 1) * SECTOR_BYTES);
            let content = match random.below(4) {
                _ if !random.chance(loss) => whole.clone(),
                0 => vec![0; whole.len()],
                // Old content of the disk: of this very log, which is the worst that it could be,
                // or of anything.
                1 => whole.iter().cycle().skip(random.below(whole.len())).take(whole.len()).copied().collect(),
                2 => (0..whole.len()).map(|_| random.number() as u8).collect(),
                _ => self.after(random.below(self.unsynced.len() + 1)),
            };
            for at in range {
                image[at] = content.get(at).copied().unwrap_or(0);
            }
        }
        image
    }
}

fn header() -> LogHeader {
    let id = LogId { kind: LogKind::Journal, transfer: TRANSFER, key: KeyFingerprint([9; 32]) };
    LogHeader::new(id, &mut Seeded::new("salt", 0))
}

fn record(random: &mut Random) -> Record {
    let bytes = [0, 1, 30, 400, 600, 3000][random.below(6)] + random.below(40);
    if random.chance(20.0) {
        return Record::Statement(vec![random.number() as u8; bytes + 1].into());
    }
    let header = ChunkHeader {
        suite: Suite::ChaCha20Poly1305,
        codec: Codec::Stored,
        last: true,
        transfer: TRANSFER,
        epoch: Epoch(1),
        part: PartIndex(0),
        index: ChunkIndex(random.below(1000) as u64),
        plain_bytes: bytes as u32,
        packed_bytes: bytes as u32,
        nonce: [random.number() as u8; 24],
    };
    // Zeros are what a torn write is most easily taken for.
    let byte = if random.chance(50.0) { 0 } else { random.number() as u8 };
    Record::Chunk { header, sealed: vec![byte; header.sealed_bytes()].into() }
}

fn read(bytes: &[u8]) -> (Vec<Record>, Ending, LogWriter) {
    let mut reader = LogReader::open(bytes).unwrap_or_else(|_| panic!("the header is durable"));
    let mut records = Vec::new();
    loop {
        match reader.step().unwrap_or_else(|error| panic!("{error:?}")) {
            ReadStep::Record(record) => records.push(record),
            ReadStep::End(ending) => return (records, ending, reader.into_writer()),
        }
    }
}

struct Run {
    storage: Storage,
    writer: LogWriter,
    written: Vec<Record>,
    synced: usize,
}

impl Run {
    fn new() -> Self {
        let mut storage = Storage::default();
        storage.write(0, &header().to_bytes());
        storage.sync();
        Self { storage, writer: LogWriter::new(header()), written: Vec::new(), synced: 0 }
    }

    fn append(&mut self, record: Record) {
        let mut offset = self.writer.offset();
        for piece in self.writer.encode(&record).unwrap().pieces() {
            self.storage.write(offset, piece);
            offset += piece.len() as u64;
        }
        self.written.push(record);
    }

    /// Batches, and a crash somewhere in one.
    fn write(&mut self, random: &mut Random) {
        for _ in 0..random.below(12) {
            self.append(record(random));
            if random.chance(40.0) {
                self.storage.sync();
                self.writer.synced();
                self.synced = self.written.len();
                self.append(Record::Mark);
            }
        }
    }

    /// Whatever is left, it is all that was synced, then some of what was not, in order; and the
    /// log goes on from there.
    fn crash(&mut self, random: &mut Random) -> Ending {
        let image = self.storage.image(random);
        let (records, ending, writer) = read(&image);
        assert_ne!(ending, Ending::Damaged, "a crash was taken for rot");
        assert!(records.len() >= self.synced, "{} of {} synced records", records.len(), self.synced);
        assert!(records.len() <= self.written.len() && records[..] == self.written[..records.len()]);
        self.synced = records.len();
        self.written = records;
        self.storage = Storage { durable: image[..writer.offset() as usize].to_vec(), unsynced: Vec::new() };
        self.writer = writer;
        ending
    }

    /// Fault S5 in what a crash left: a bit of something that was synced is flipped.
    fn rot(&self, random: &mut Random) {
        let mut image = self.storage.image(random);
        let at = random.below(self.storage.durable.len());
        image[at] ^= 1 << random.below(8);
        let Ok(mut reader) = LogReader::open(&image[..]) else { return };
        let mut count = 0;
        while let Ok(ReadStep::Record(record)) = reader.step() {
            assert_eq!(record, self.written[count], "rot was read");
            count += 1;
        }
        assert!(reader.offset() as usize <= at, "rot was passed");
    }
}

/// Faults C10, C11: power is lost at any moment, unsynced writes survive in any order, in part, or
/// as something else. Recovery finds all that was synced and a prefix of the rest; nothing is
/// skipped, doubled or taken for rot.
#[test]
fn c10_what_was_synced_survives_every_loss_of_what_was_not() {
    let mut random = Random::of_this_run("sealed log");
    let mut torn = 0;
    for _ in 0..SEEDS {
        let mut run = Run::new();
        for _ in 0..CRASHES {
            run.write(&mut random);
            run.rot(&mut random);
            torn += usize::from(run.crash(&mut random) == Ending::Torn);
        }
    }
    assert!(torn > SEEDS, "only {torn} of {} crashes tore anything", SEEDS * CRASHES);
}

/// Fault S7: what was sealed opens from the log alone, with the receiver's key and no other.
#[test]
fn s7_a_log_opens_with_its_key_and_no_other() {
    let suite = Suite::Aes256Gcm;
    let (key, other) = ([0, 1]).map(|seed| SealingKey::generate(&mut Seeded::new("sealing key", seed))).into();
    let (secret, digest_secret) =
        (EpochSecret::generate(&mut Seeded::new("secret", 0)), DigestSecret::from_bytes([3; 32]));
    let (epoch, info) = (Epoch(2), [5; 32]);
    let commitment = secret.commitment(TRANSFER, epoch);
    let mut random = Seeded::new("encapsulation", 0);
    let envelope = KeyEnvelope::seal(&secret, &digest_secret, &key.public_key(), &info, epoch, &mut random).unwrap();
    let keys = EpochKeys::new(suite, TRANSFER, epoch, secret, Digests::new(&digest_secret));
    let plain = Bytes::from_static(b"INSERT INTO patient");
    let chunk = Chunk::new(PartIndex(0), ChunkIndex(0), true, plain.clone());
    let packed = Packer::new(Compression::Off).unwrap().pack(chunk, keys.digests());
    let sealed = seal(packed, &keys, Nonces::new(Seeded::new("nonce", 0)).draw().unwrap()).unwrap();

    let mut run = Run::new();
    run.append(Record::Epoch(Box::new(EpochRecord { epoch, suite, envelope, info, commitment })));
    run.append(Record::Chunk { header: sealed.header, sealed: sealed.frame.slice(CHUNK_HEADER_BYTES..) });
    run.storage.sync();
    let (records, ending, _) = read(&run.storage.durable);
    assert_eq!(ending, Ending::Whole);
    let [Record::Epoch(kept), Record::Chunk { header, sealed }] = &records[..] else { panic!() };
    let refused = |key| kept.open(key, TRANSFER).err().map(|error| error.code);
    assert_eq!(refused(&other), Some(Code::KeyCommitment));
    let mut uncommitted = kept.clone();
    uncommitted.commitment[0] ^= 1;
    assert_eq!(uncommitted.open(&key, TRANSFER).err().map(|error| error.code), Some(Code::KeyCommitment));
    let (secret, digest_secret) = kept.open(&key, TRANSFER).unwrap();
    let keys = EpochKeys::new(kept.suite, TRANSFER, kept.epoch, secret, Digests::new(&digest_secret));
    let mut unpacker = Unpacker::new().unwrap();
    let verified = open(header, BytesMut::from(&sealed[..]), &keys, &mut unpacker).unwrap();
    assert_eq!(verified.plain(), &plain);
}
