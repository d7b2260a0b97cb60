#![no_main]
//! Rows gathered out of chunks: wherever the bytes are cut, the same rows come out, or the same
//! bytes are refused. The first byte says how long the pieces are.

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sealift_protocol::{error::Error, row::RowReader};

const ROW_BYTES_MAX: usize = 1 << 12;

fn read(bytes: &[u8], piece_bytes: usize) -> Result<Vec<Vec<u8>>, Error> {
    let mut rows = Vec::new();
    let mut reader = RowReader::new(ROW_BYTES_MAX);
    for piece in bytes.chunks(piece_bytes) {
        reader.feed(Bytes::copy_from_slice(piece), |row| -> Result<(), Error> {
            assert!(row.len() <= ROW_BYTES_MAX);
            rows.push(row.to_vec());
            Ok(())
        })?;
    }
    reader.finish()?;
    Ok(rows)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&piece_bytes, bytes)) = bytes.split_first() else { return };
    let whole = read(bytes, bytes.len().max(1));
    let pieces = read(bytes, usize::from(piece_bytes).max(1));
    assert_eq!(whole.ok(), pieces.ok());
});
