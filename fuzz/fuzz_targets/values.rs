#![no_main]
//! The cells of one row: read, they encode to the very bytes they were read from. So do SQLite's
//! values in them. The first byte says how many columns the table has.

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sealift_protocol::row::{put_cell, read_cells};
use sealift_sqlite::{put_value, read_values};

fuzz_target!(|bytes: &[u8]| {
    let Some((&columns, row)) = bytes.split_first() else { return };
    let mut cells = Vec::new();
    let read = read_cells(row, columns.into(), |cell| {
        cells.push(cell);
        Ok(())
    });
    if read.is_ok() {
        assert_eq!(cells.len(), usize::from(columns));
        let mut encoded = BytesMut::new();
        cells.iter().for_each(|&cell| put_cell(&mut encoded, cell));
        assert_eq!(encoded, row);
    }
    let mut values = Vec::new();
    if read_values(row, columns.into(), &mut values).is_ok() {
        let mut encoded = BytesMut::new();
        values.iter().for_each(|&value| put_value(&mut encoded, value));
        assert_eq!(encoded, row);
    }
});
