#![no_main]
//! The values of one row: read, they encode to the very bytes they were read from.
//! The first byte says how many columns the table has.

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sealift_protocol::row::{put_value, read_values};

fuzz_target!(|bytes: &[u8]| {
    let Some((&columns, row)) = bytes.split_first() else { return };
    let mut values = Vec::new();
    if read_values(row, columns.into(), &mut values).is_ok() {
        assert_eq!(values.len(), usize::from(columns));
        let mut encoded = BytesMut::new();
        values.iter().for_each(|&value| put_value(&mut encoded, value));
        assert_eq!(encoded, row);
    }
});
