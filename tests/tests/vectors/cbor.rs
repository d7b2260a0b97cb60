//! Canonical CBOR (RFC 8949, 4.2.1) once more, as little of it as a document needs.

fn head(major: u8, number: u64) -> Vec<u8> {
    let tag = major << 5;
    match number {
        0..24 => vec![tag | number as u8],
        24..0x100 => vec![tag | 24, number as u8],
        0x100..0x1_0000 => [&[tag | 25][..], &(number as u16).to_be_bytes()].concat(),
        _ => [&[tag | 26][..], &(number as u32).to_be_bytes()].concat(),
    }
}

pub fn uint(number: u64) -> Vec<u8> {
    head(0, number)
}

pub fn negative(number: i64) -> Vec<u8> {
    head(1, !number as u64)
}

pub fn text(text: &str) -> Vec<u8> {
    [head(3, text.len() as u64), text.as_bytes().to_vec()].concat()
}

pub fn bytes(bytes: &[u8]) -> Vec<u8> {
    [head(2, bytes.len() as u64), bytes.to_vec()].concat()
}

pub fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [head(4, items.len() as u64), items.concat()].concat()
}

pub fn map(entries: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let entries_bytes = entries.iter().flat_map(|(key, value)| [uint(*key), value.clone()].concat());
    head(5, entries.len() as u64).into_iter().chain(entries_bytes).collect()
}
