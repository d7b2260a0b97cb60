//! What each stage costs on one core: GB of plaintext for each second of processor time, so that
//! what else the machine does counts little. Every stage runs as the agents call it.

use std::{hint::black_box, thread};

use bytes::BytesMut;
use sealift_agent::{failure::Outcome as AgentOutcome, random::SystemRandom, threads::processors};
use sealift_engine_api::RowSink;
use sealift_protocol::{
    chunk::{Chunk, ChunkBuffer, Sealed},
    compress::{Compression, Packer, Unpacker},
    digest::Digests,
    frame::ChunkHeader,
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    key::{DigestSecret, EpochSecret},
    limits::{CHUNK_HEADER_BYTES, CHUNK_PLAIN_BYTES},
    random::Nonces,
    seal::{EpochKeys, Suite, open, seal},
};
use sealift_sender::part::PartWriter;
use sealift_sqlite::{Value, put_value, read_values};

use crate::{
    Outcome,
    dump::Dump,
    measure::{GB, median, thread_seconds},
};

/// Plaintext of one pass: several times what two cores have as caches of their own.
const PASS_BYTES: usize = 32 << 20;

/// The seed of all benches.
pub const SEED: u64 = 20_240_615;

/// One stage's speed.
pub struct Figure {
    pub stage: String,
    pub gb_per_second: f64,
}

/// Everything a stage works on.
pub struct Stages {
    dump: Vec<u8>,
    chunks: Vec<Chunk>,
    digests: Digests,
    passes: usize,
}

impl Stages {
    pub fn new(passes: usize) -> Outcome<Self> {
        let dump = Dump::take_bytes(SEED, PASS_BYTES)?;
        let pieces = dump.chunks(CHUNK_PLAIN_BYTES).enumerate();
        let chunks = pieces.map(|(index, piece)| chunk(index, piece)).collect();
        let digests = Digests::new(&DigestSecret::generate(&mut SystemRandom::default()));
        Ok(Self { dump, chunks, digests, passes })
    }

    pub fn keys(&self, suite: Suite) -> EpochKeys {
        let secret = EpochSecret::generate(&mut SystemRandom::default());
        EpochKeys::new(suite, TransferId([7; 16]), Epoch(1), secret, self.digests.clone())
    }

    /// Times `pass` over what `prepare` makes for each: the median of the passes, after one to
    /// warm up.
    fn figure<T>(&self, stage: &str, mut prepare: impl FnMut() -> T, mut pass: impl FnMut(T)) -> Outcome<Figure> {
        pass(prepare());
        let mut seconds = Vec::with_capacity(self.passes);
        for _ in 0..self.passes {
            let input = prepare();
            seconds.push(thread_seconds(|| pass(input))?);
        }
        let gb_per_second = self.dump.len() as f64 / GB / median(&seconds);
        Ok(Figure { stage: stage.to_owned(), gb_per_second })
    }

    pub fn chunk(&self) -> Outcome<Figure> {
        self.figure(
            "chunk (read from memory)",
            || (),
            |()| {
                let mut hand_on = |chunk: Chunk| -> AgentOutcome {
                    black_box(chunk.plain());
                    Ok(())
                };
                let rows = self.digests.multiset();
                let mut out = PartWriter::new(PartIndex(0), rows, CHUNK_PLAIN_BYTES, &mut hand_on);
                out.bytes(&self.dump).expect("nothing here fails");
                out.finish().expect("nothing here fails");
            },
        )
    }

    pub fn hash(&self) -> Outcome<Figure> {
        self.figure(
            "hash (keyed BLAKE3)",
            || (),
            |()| {
                for chunk in &self.chunks {
                    black_box(self.digests.chunk_hash(chunk.plain()));
                }
            },
        )
    }

    /// Hashing included, as a packer does both.
    pub fn pack(&self, compression: Compression) -> Outcome<Figure> {
        let mut packer = Packer::new(compression)?;
        self.figure(
            &format!("pack {}: hash and compress", name_of(compression)),
            || self.chunks.clone(),
            |chunks| {
                for chunk in chunks {
                    black_box(packer.pack(chunk, &self.digests));
                }
            },
        )
    }

    pub fn seal(&self, suite: Suite, compression: Compression) -> Outcome<Figure> {
        let keys = self.keys(suite);
        let mut packer = Packer::new(compression)?;
        let mut nonces = Nonces::new(SystemRandom::default());
        let stage = format!("seal {}, packed {}", suite.name(), name_of(compression));
        let mut prepare =
            || self.chunks.iter().cloned().map(|chunk| packer.pack(chunk, &self.digests)).collect::<Vec<_>>();
        self.figure(&stage, &mut prepare, |packed| {
            for packed in packed {
                let nonce = nonces.draw().expect("the system's random numbers differ");
                black_box(seal(packed, &keys, nonce).expect("an index within its bound is sealed"));
            }
        })
    }

    /// Authenticate, decompress, hash.
    pub fn open(&self, suite: Suite, compression: Compression) -> Outcome<Figure> {
        let keys = self.keys(suite);
        let sealed = self.sealed(&keys, compression)?;
        let mut unpacker = Unpacker::new()?;
        let stage = format!("open {}, packed {}", suite.name(), name_of(compression));
        self.figure(
            &stage,
            || bodies(&sealed),
            |bodies| {
                for (header, body) in bodies {
                    black_box(open(&header, body, &keys, &mut unpacker).expect("what was sealed opens"));
                }
            },
        )
    }

    pub fn frame_codec(&self) -> Outcome<Figure> {
        let sealed = self.sealed(&self.keys(Suite::Aes256Gcm), Compression::Off)?;
        // A header is so cheap that only many of them can be timed.
        const REPEATS: usize = 1000;
        let figure = self.figure(
            "frame codec (write and read a header)",
            || (),
            |()| {
                for sealed in (0..REPEATS).flat_map(|_| &sealed) {
                    black_box(
                        ChunkHeader::from_bytes(&black_box(sealed.header).to_bytes()).expect("it reads what it writes"),
                    );
                }
            },
        )?;
        Ok(Figure { gb_per_second: figure.gb_per_second * REPEATS as f64, ..figure })
    }

    /// Lines of the dump as rows of five values: encode, add to the table's digest, decode.
    pub fn row_codec(&self) -> Outcome<Figure> {
        self.figure(
            "row codec (encode, digest, decode)",
            || (),
            |()| {
                let mut digest = self.digests.multiset();
                let mut row = BytesMut::new();
                for (number, line) in self.dump.split(|&byte| byte == b'\n').enumerate() {
                    row.clear();
                    put_value(&mut row, Value::Integer(number as i64));
                    put_value(&mut row, Value::Null);
                    let (first, second) = line.split_at(line.len() / 2);
                    put_value(&mut row, Value::Text(first));
                    put_value(&mut row, Value::Blob(second));
                    put_value(&mut row, Value::Real(number as f64));
                    digest.add(&row);
                    let mut values = Vec::with_capacity(5);
                    read_values(&row, 5, &mut values).expect("it reads what it writes");
                    black_box(values);
                }
            },
        )
    }

    pub fn sealed(&self, keys: &EpochKeys, compression: Compression) -> Outcome<Vec<Sealed>> {
        let mut packer = Packer::new(compression)?;
        let mut nonces = Nonces::new(SystemRandom::default());
        let mut sealed = Vec::with_capacity(self.chunks.len());
        for chunk in &self.chunks {
            sealed.push(seal(packer.pack(chunk.clone(), &self.digests), keys, nonces.draw()?)?);
        }
        Ok(sealed)
    }

    /// Bytes on the wire for each byte of plaintext.
    pub fn wire_ratio(&self, compression: Compression) -> Outcome<f64> {
        let sealed = self.sealed(&self.keys(Suite::Aes256Gcm), compression)?;
        Ok(sealed.iter().map(|sealed| sealed.frame.len()).sum::<usize>() as f64 / self.dump.len() as f64)
    }

    /// Processor seconds for each GB of plaintext, of all stages but the link.
    pub fn cpu_per_gb(&self, suite: Suite, compression: Compression) -> Outcome<f64> {
        let figures =
            [self.chunk()?, self.pack(compression)?, self.seal(suite, compression)?, self.open(suite, compression)?];
        Ok(figures.iter().map(|figure| 1.0 / figure.gb_per_second).sum())
    }
}

/// `cpu_per_gb` while every processor does the same: what they share (caches, memory, and in a
/// virtual machine often the core itself) they share in the agents, too.
pub fn busy_cpu_per_gb(passes: usize, suite: Suite, compression: Compression) -> Outcome<f64> {
    thread::scope(|scope| {
        let work = || Stages::new(passes)?.cpu_per_gb(suite, compression);
        let threads: Vec<_> = (0..processors()).map(|_| scope.spawn(work)).collect();
        let mut sum = 0.0;
        for thread in threads {
            sum += thread.join().map_err(|_| "a stage stopped")??;
        }
        Ok(sum / processors() as f64)
    })
}

fn bodies(sealed: &[Sealed]) -> Vec<(ChunkHeader, BytesMut)> {
    sealed.iter().map(|sealed| (sealed.header, BytesMut::from(&sealed.frame[CHUNK_HEADER_BYTES..]))).collect()
}

pub fn chunk(index: usize, plain: impl Into<ChunkBuffer>) -> Chunk {
    Chunk::new(PartIndex(0), ChunkIndex(index as u64), false, plain)
}

pub fn name_of(compression: Compression) -> String {
    match compression {
        Compression::Off => "off".to_owned(),
        Compression::Level(level) => format!("level {level}"),
    }
}
