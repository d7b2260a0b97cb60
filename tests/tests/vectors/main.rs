//! Golden vectors: the bytes of docs/protocol.md, made by this code under fixed randomness, kept in
//! docs/vectors, and compared here. What a chunk's key is, and what a frame holds, is computed a
//! second time by `reference`, which knows nothing of the protocol crate.
//!
//! `cargo nextest run -p sealift-tests --run-ignored only write_vectors` writes them again after a
//! change that was meant.

mod archive;
mod cbor;
mod chunks;
mod digests;
mod envelope;
mod exchange;
mod image;
mod keys;
mod messages;
mod receipts;
mod reference;
mod sealed_log;
mod sqlite;
mod ticket;

use std::path::PathBuf;

use sealift_protocol::{close::Code, error::Result};
use serde_json::{Value, json};

fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("archive", archive::vectors()),
        ("chunks", chunks::vectors()),
        ("digests", digests::vectors()),
        ("envelope", envelope::vectors()),
        ("exchange", exchange::vectors()),
        ("image", image::vectors()),
        ("keys", keys::vectors()),
        ("messages", messages::vectors()),
        ("sealed_log", sealed_log::vectors()),
        ("sqlite", sqlite::vectors()),
        ("ticket", ticket::vectors()),
    ]
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/vectors/{name}.json"))
}

fn text_of(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

#[test]
fn the_vectors_are_what_the_code_does() {
    for (name, value) in all() {
        let kept = std::fs::read_to_string(path_of(name)).unwrap_or_default();
        assert!(kept == text_of(&value), "docs/vectors/{name}.json is not what the code does");
    }
}

/// Issue 9, D3: a code is its number on the wire; the word is for people.
#[test]
fn every_code_has_its_number() {
    fn check(value: &Value, at: &str) {
        match value {
            Value::Object(fields) => {
                assert!(!fields.contains_key("code") || fields.contains_key("number"), "{at}: {value}");
                fields.iter().for_each(|(name, value)| check(value, &format!("{at}/{name}")));
            }
            Value::Array(values) => values.iter().for_each(|value| check(value, at)),
            _ => {}
        }
    }
    all().iter().for_each(|(name, value)| check(value, name));
}

#[test]
#[ignore = "writes docs/vectors"]
fn write_vectors() {
    for (name, value) in all() {
        std::fs::write(path_of(name), text_of(&value)).unwrap();
    }
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A bad vector, named by its defect; asserts that the code says what is expected.
fn bad<T>(defect: &str, input: impl AsRef<[u8]>, expected: Code, got: Result<T>) -> Value {
    let code = got.err().map(|error| error.code);
    assert_eq!(code, Some(expected), "{defect}");
    json!({ "defect": defect, "bytes": hex(input), "code": expected.as_str(), "number": expected.number() })
}
