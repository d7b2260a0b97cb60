//! Values that must never be seen outside the two databases, and the search for them.

use std::{collections::HashMap, fs, path::Path};

/// Makes canaries: each unlike any other, and unlike anything else that a program writes.
pub struct Canaries {
    salt: String,
    made: Vec<String>,
    /// Every guise of every canary, by its first bytes: a search looks once at each place of a
    /// text.
    guises: HashMap<[u8; HEAD_BYTES], Vec<Guise>>,
    /// Bytes that any guise begins with.
    first_bytes: [bool; 256],
}

struct Guise {
    canary: usize,
    bytes: Vec<u8>,
}

/// Enough to distinguish guises from ordinary text, and no more than the shortest guise has.
const HEAD_BYTES: usize = 12;

impl Canaries {
    pub fn new(what: &str) -> Self {
        let salt = blake3::hash(format!("{what} {}", std::process::id()).as_bytes()).to_hex()[..8].to_owned();
        Self { salt, made: Vec::new(), guises: HashMap::new(), first_bytes: [false; 256] }
    }

    /// A new canary. It is made of letters, digits and `Q`s, so that no quoting changes it.
    pub fn text(&mut self) -> String {
        let canary = format!("QcanaryQ{}Q{}Q", self.salt, self.made.len());
        self.keep(canary.clone());
        canary
    }

    /// A new canary that is a number: 15 digits, for columns that hold nothing else.
    pub fn number(&mut self) -> u64 {
        let hash = blake3::hash(format!("{} {}", self.salt, self.made.len()).as_bytes());
        let number = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap());
        let number = 100_000_000_000_000 + number % 900_000_000_000_000;
        self.keep(number.to_string());
        number
    }

    fn keep(&mut self, canary: String) {
        for bytes in guises_of(&canary) {
            let head: [u8; HEAD_BYTES] = bytes[..HEAD_BYTES].try_into().unwrap();
            self.first_bytes[usize::from(head[0])] = true;
            self.guises.entry(head).or_default().push(Guise { canary: self.made.len(), bytes });
        }
        self.made.push(canary);
    }

    pub fn all(&self) -> &[String] {
        &self.made
    }

    /// Which canaries are in `text`, also as hex or base64, or as a debug print would show bytes.
    pub fn found_in(&self, text: &[u8]) -> Vec<String> {
        let mut found = std::collections::BTreeSet::new();
        for (at, head) in text.windows(HEAD_BYTES).enumerate() {
            if self.first_bytes[usize::from(head[0])]
                && let Some(guises) = self.guises.get(head)
            {
                let here = guises.iter().filter(|guise| text[at..].starts_with(&guise.bytes));
                found.extend(here.map(|guise| guise.canary));
            }
        }
        found.into_iter().map(|canary| self.made[canary].clone()).collect()
    }

    #[track_caller]
    pub fn assert_not_in(&self, what: &str, text: &[u8]) {
        let found = self.found_in(text);
        assert!(found.is_empty(), "{} canaries in {what}: {:?}", found.len(), &found[..found.len().min(5)]);
    }

    /// Reads every file below `folder`; returns how many there were.
    #[track_caller]
    pub fn assert_not_below(&self, folder: &Path) -> usize {
        let mut files = 0;
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                self.assert_not_in("a file's name", entry.file_name().as_encoded_bytes());
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    files += 1;
                    self.assert_not_in(&entry.path().display().to_string(), &fs::read(entry.path()).unwrap());
                }
            }
        }
        files
    }

    /// What every user of the host can read of a process: its arguments, and, of the same user, its
    /// environment.
    #[track_caller]
    pub fn assert_not_in_process(&self, pid: u32) {
        for file in ["cmdline", "environ", "comm", "status"] {
            if let Ok(text) = fs::read(format!("/proc/{pid}/{file}")) {
                self.assert_not_in(&format!("/proc/{pid}/{file}"), &text);
            }
        }
    }
}

/// The canary itself, and as programs print bytes: hex, a list of decimal numbers, base64 at each
/// of three offsets.
fn guises_of(canary: &str) -> Vec<Vec<u8>> {
    let bytes = canary.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let mut all = vec![bytes.to_vec(), hex.to_uppercase().into_bytes(), list.into_bytes()];
    // A number's hex has no letters: upper and lower case are one.
    if hex != hex.to_uppercase() {
        all.push(hex.into_bytes());
    }
    for skipped in 0..3 {
        let whole = &bytes[skipped..skipped + (bytes.len() - skipped) / 3 * 3];
        all.push(base64(whole));
    }
    all
}

/// RFC 4648 without padding, of a multiple of three bytes.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift & 63) as usize])
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_found_in_any_guise() {
        let mut canaries = Canaries::new("guise");
        let canary = canaries.text();
        let number = canaries.number();
        let finds = |text: &[u8], expected: &str| assert_eq!(canaries.found_in(text), [expected.to_owned()]);
        finds(format!("a {canary} b").as_bytes(), &canary);
        finds(format!("{:?}", canary.as_bytes()).as_bytes(), &canary);
        finds(format!("x{number}x").as_bytes(), &number.to_string());
        for before in ["", "a", "ab"] {
            let mut text = format!("{before}{canary}").into_bytes();
            text.resize(text.len().next_multiple_of(3), b'.');
            finds(&base64(&text), &canary);
        }
        assert_eq!(base64(b"sealif"), b"c2VhbGlm");
        assert!(canaries.found_in(b"nothing").is_empty());
    }
}
