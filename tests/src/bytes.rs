//! Large inputs that are the same in every run.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// `length` bytes that no compressor shrinks, always the same for one seed.
pub fn noise(seed: u64, length: u64) -> impl Read + Send {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().take(length)
}

/// Bytes like those of a dump: lines of which most repeat.
pub fn dump_like(seed: u64, length: u64) -> impl Read + Send {
    let mut lines = Vec::new();
    let mut random = crate::random::Random::new(seed);
    while lines.len() < 1 << 16 {
        let (a, b) = (random.number(), random.below(1000));
        lines.extend_from_slice(format!("INSERT INTO visit VALUES ({b}, 'ward {}', x'{a:016x}');\n", b % 7).as_bytes());
    }
    Repeat { lines, at: 0 }.take(length)
}

struct Repeat {
    lines: Vec<u8>,
    at: usize,
}

impl Read for Repeat {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let taken = out.len().min(self.lines.len() - self.at);
        out[..taken].copy_from_slice(&self.lines[self.at..self.at + taken]);
        self.at = (self.at + taken) % self.lines.len();
        Ok(taken)
    }
}

pub fn write_file(path: &Path, mut content: impl Read) {
    let mut file = File::create(path).unwrap();
    copy_large(&mut content, &mut file);
}

/// As `io::copy`, with a buffer that suits hundreds of megabytes.
pub fn copy_large(from: &mut impl Read, to: &mut impl io::Write) {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => return,
            count => to.write_all(&buffer[..count]).unwrap(),
        }
    }
}

/// Length and hash: equal for two inputs only if they are the same.
pub fn digest(mut content: impl Read) -> (u64, blake3::Hash) {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match content.read(&mut buffer).unwrap() {
            0 => return (hasher.count(), hasher.finalize()),
            count => hasher.update(&buffer[..count]),
        };
    }
}

pub fn digest_file(path: &Path) -> (u64, blake3::Hash) {
    digest(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}
