use bytes::{Bytes, BytesMut};
use sealift_protocol::{
    close::Code,
    digest::Digests,
    error::Error,
    id::{PartIndex, TransferId},
    key::DigestSecret,
    row::{Cell, RowReader, put_cell, put_length, read_cells},
};
use serde_json::{Value, json};

use super::{bad, hex, keys, reference};

fn cell(format: u8, bytes: &[u8]) -> Cell<'_> {
    Cell { format, bytes }
}

fn encode(cells: &[Cell<'_>]) -> Vec<u8> {
    let mut row = BytesMut::new();
    cells.iter().for_each(|cell| put_cell(&mut row, *cell));
    row.to_vec()
}

pub fn vectors() -> Value {
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("no columns", encode(&[])),
        ("NULL", encode(&[Cell::NULL])),
        ("two bytes in format 1, none in format 255", encode(&[cell(1, &[2, 3]), cell(255, &[])])),
        ("200 bytes in format 4: their length takes two", encode(&[cell(4, &[0xab; 200])])),
    ];
    json!({
        "digest_secret": hex(keys::DIGEST_SECRET),
        "transfer": hex(keys::TRANSFER),
        "rows": rows.iter().map(|(name, row)| json!({ "name": name, "row": hex(row) })).collect::<Vec<_>>(),
        "part": part_of(&rows),
        "multiset": multiset(&rows),
        "roots": roots(),
        "bad_rows": bad_rows(),
        "bad_parts": bad_parts(),
    })
}

fn part_of(rows: &[(&str, Vec<u8>)]) -> Value {
    let mut part = BytesMut::new();
    for (_, row) in rows {
        put_length(&mut part, row.len());
        part.extend_from_slice(row);
    }
    json!({ "note": "the rows above, as the bytes of a part", "bytes": hex(part) })
}

fn multiset(rows: &[(&str, Vec<u8>)]) -> Value {
    let mut digest = Digests::new(&DigestSecret::from_bytes(keys::DIGEST_SECRET)).multiset();
    let key = reference::digest_key("sealift/1 2026-11 row digest", &keys::DIGEST_SECRET);
    let mut sum = [0; 32];
    // Each twice: multiplicity counts.
    for (_, row) in rows.iter().chain(rows) {
        digest.add(row);
        reference::add_256(&mut sum, blake3::keyed_hash(&key, row).as_bytes());
    }
    assert_eq!(digest.digest().sum, sum);
    let empty = Digests::new(&DigestSecret::from_bytes(keys::DIGEST_SECRET)).multiset().digest();
    json!({ "note": "the rows above, each twice", "rows": digest.rows(), "digest": hex(sum), "of_no_rows": hex(empty.sum) })
}

fn roots() -> Value {
    let digests = Digests::new(&DigestSecret::from_bytes(keys::DIGEST_SECRET));
    let parts = [vec!["first", "second"], vec![""]];
    let mut part_roots = Vec::new();
    let mut described = Vec::new();
    for (index, chunks) in parts.iter().enumerate() {
        let mut root = digests.part_root(PartIndex(index as u32));
        let hashes: Vec<_> = chunks.iter().map(|chunk| digests.chunk_hash(chunk.as_bytes())).collect();
        chunks.iter().zip(&hashes).for_each(|(chunk, hash)| root.add(hash, chunk.len() as u64));
        let key = reference::digest_key("sealift/1 2026-11 part root", &keys::DIGEST_SECRET);
        let plain_bytes: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let counts = [(chunks.len() as u64).to_be_bytes(), plain_bytes.to_be_bytes()].concat();
        let message = [&(index as u32).to_be_bytes()[..], &hashes.concat(), &counts].concat();
        assert_eq!(root.root().0, *blake3::keyed_hash(&key, &message).as_bytes());
        let hashes: Vec<_> = hashes.iter().map(hex).collect();
        let plain: Vec<_> = chunks.iter().map(hex).collect();
        described.push(json!({ "part": index, "chunks": plain, "hashes": hashes, "root": hex(root.root().0) }));
        part_roots.push(root.root());
    }
    let root = digests.transfer_root(TransferId(keys::TRANSFER), part_roots.iter().copied());
    let key = reference::digest_key("sealift/1 2026-11 transfer root", &keys::DIGEST_SECRET);
    let message = [&keys::TRANSFER[..], &part_roots[0].0, &part_roots[1].0].concat();
    assert_eq!(root.0, *blake3::keyed_hash(&key, &message).as_bytes());
    json!({ "parts": described, "transfer_root": hex(root.0) })
}

fn bad_rows() -> Vec<Value> {
    let cases: [(&str, &[u8]); 7] = [
        ("two columns expected, one there", &[0]),
        ("two columns expected, three there", &[0, 0, 0]),
        ("NULL with a length", &[0, 0, 0]),
        ("cell cut short", &[0, 3, 5, b'a']),
        ("length cut short", &[0, 3, 0x80]),
        ("length encoded too long", &[0, 3, 0x80, 0]),
        ("length over five bytes", &[0, 4, 0x80, 0x80, 0x80, 0x80, 0x80, 1]),
    ];
    let refused = |(defect, row): (&str, &[u8])| bad(defect, row, Code::RowMalformed, read_cells(row, 2, |_| Ok(())));
    cases.map(refused).into()
}

fn bad_parts() -> Vec<Value> {
    let refused = |defect, part: &[u8], code| {
        let mut reader = RowReader::new(1 << 20);
        let fed = reader.feed(Bytes::copy_from_slice(part), |_| -> Result<(), Error> { Ok(()) });
        bad(defect, part, code, fed.and_then(|()| reader.finish()))
    };
    vec![
        refused("ends inside a row", &[2, 0], Code::RowMalformed),
        refused("ends inside a row's length", &[1, 0, 0x80], Code::RowMalformed),
        refused("row length encoded too long", &[0x81, 0x00, 0], Code::RowMalformed),
        refused("row over the limit of 1 MiB", &[0x81, 0x80, 0x40], Code::LimitExceeded),
    ]
}
