//! Binary things as text that survives mail, terminals and copying: base64 between a BEGIN and an
//! END line. By hand, since `pem-rfc7468` refuses lines that were indented or re-wrapped on the
//! way, and `pem` leaves the secret in buffers.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

const LINE_CHARACTERS: usize = 64;
const CHECKSUM_BYTES: usize = 8;

/// One kind of armoured thing.
pub struct Armour {
    /// What stands in its BEGIN and END lines, in capitals.
    pub label: &'static str,
    /// Context of its checksum's key derivation: it distinguishes a damaged one from a foreign one.
    pub checksum_context: &'static str,
}

impl Armour {
    fn begin(&self) -> String {
        format!("-----BEGIN {}-----", self.label)
    }

    fn end(&self) -> String {
        format!("-----END {}-----", self.label)
    }

    /// The text of `bytes`, ending in a newline. Every buffer has its size from the first: one that
    /// grows leaves copies behind.
    pub fn to_text(&self, bytes: &[u8]) -> Zeroizing<String> {
        let mut whole = Zeroizing::new(Vec::with_capacity(bytes.len() + CHECKSUM_BYTES));
        whole.extend_from_slice(bytes);
        whole.extend_from_slice(&self.checksum(bytes));
        let armour = Zeroizing::new(STANDARD.encode(&*whole));
        let begin = self.begin();
        let end = self.end();
        let lines = armour.len().div_ceil(LINE_CHARACTERS);
        let mut text = Zeroizing::new(String::with_capacity(begin.len() + armour.len() + lines + end.len() + 2));
        text.push_str(&begin);
        text.push('\n');
        for line in armour.as_bytes().chunks(LINE_CHARACTERS) {
            text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            text.push('\n');
        }
        text.push_str(&end);
        text.push('\n');
        text
    }

    /// The bytes of the one in `text`; anything around it is ignored, anything wrong inside it is
    /// an error, in fixed words.
    pub fn bytes_of(&self, text: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let (_, rest) = text.split_once(&self.begin()).ok_or("it has no BEGIN line")?;
        let (armour, _) = rest.split_once(&self.end()).ok_or("it has no END line")?;
        let mut joined = Zeroizing::new(String::with_capacity(armour.len()));
        armour.split_ascii_whitespace().for_each(|line| joined.push_str(line));
        let mut bytes = STANDARD.decode(joined.as_bytes()).map(Zeroizing::new).map_err(|_| "it is not base64")?;
        let body_bytes = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or("it is too short")?;
        let (body, found) = bytes.split_at(body_bytes);
        if found != self.checksum(body) {
            return Err("its checksum is wrong");
        }
        bytes.truncate(body_bytes);
        Ok(bytes)
    }

    /// Whether `line` ends one: a reader of a pipe stops here, since the pipe stays open.
    pub fn is_end(&self, line: &str) -> bool {
        line.trim_end() == self.end()
    }

    fn checksum(&self, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let hash = blake3::derive_key(self.checksum_context, body);
        hash[..CHECKSUM_BYTES].try_into().expect("a BLAKE3 hash has 32 bytes")
    }
}
