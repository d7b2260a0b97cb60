#![no_main]
//! The first and the last part of a SQLite database: what passes keeps the rules, and is written
//! the same.

use libfuzzer_sys::fuzz_target;
use sealift_protocol::limits::PARTS_MAX;
use sealift_sqlite::document::{FinishDocument, SchemaDocument};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(schema) = SchemaDocument::from_bytes(bytes) {
        assert_eq!(schema.to_bytes(), bytes);
        assert!(schema.page_bytes.is_power_of_two() && schema.tables.len() <= PARTS_MAX);
        assert!(schema.tables.iter().all(|table| !table.columns.is_empty()));
    }
    if let Ok(finish) = FinishDocument::from_bytes(bytes) {
        assert_eq!(finish.to_bytes(), bytes);
    }
});
