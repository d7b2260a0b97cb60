//! What tests of targets feed them with.

use std::sync::Arc;

use bytes::BytesMut;
use sealift_engine_api::StopToken;
use sealift_host::random::SystemRandom;
use sealift_protocol::{
    chunk::{Chunk, VerifiedChunk},
    close::Code,
    compress::{Compression, Packer, Unpacker},
    digest::Digests,
    failure::{Failure, Outcome},
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    key::{DigestSecret, EpochSecret},
    limits::CHUNK_HEADER_BYTES,
    random::Nonces,
    row::put_length,
    seal::{EpochKeys, Suite, open, seal},
};

use crate::{
    Value,
    document::{SchemaDocument, Table, TextEncoding},
    put_value,
};

pub const TRANSFER: TransferId = TransferId([5; 16]);

/// Nothing ends the load, or everything does from the start.
pub struct Never;
pub struct Ended;

impl StopToken for Never {
    fn check(&self) -> Outcome {
        Ok(())
    }

    fn wakes(&self, _wake: Box<dyn FnOnce() + Send>) {}
}

/// What ends nothing.
pub fn never() -> Arc<dyn StopToken> {
    Arc::new(Never)
}

impl StopToken for Ended {
    fn check(&self) -> Outcome {
        Err(Failure::new(Code::Interrupted, "it has to end", ""))
    }

    fn wakes(&self, wake: Box<dyn FnOnce() + Send>) {
        wake();
    }
}

pub fn digests() -> Digests {
    Digests::new(&DigestSecret::from_bytes([7; 32]))
}

/// A table of one column, `a`.
pub fn table(name: &str) -> Table {
    Table {
        name: name.to_owned(),
        sql: format!("CREATE TABLE {name}(a)"),
        rowid: None,
        columns: vec!["a".into()],
        indexes: Vec::new(),
        automatic_indexes: Vec::new(),
    }
}

/// The schema of a database that has these tables and nothing else.
pub fn schema(tables: Vec<Table>) -> SchemaDocument {
    SchemaDocument {
        encoding: TextEncoding::Utf8,
        page_bytes: 4096,
        auto_vacuum: 0,
        application_id: 0,
        user_version: 0,
        tables,
        virtual_tables: Vec::new(),
        wal: false,
        default_cache_size: 0,
    }
}

pub fn rows(values: &[&[Value<'_>]]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for values in values {
        let mut row = BytesMut::new();
        values.iter().for_each(|&value| put_value(&mut row, value));
        put_length(&mut bytes, row.len());
        bytes.extend_from_slice(&row);
    }
    bytes.to_vec()
}

/// The first chunk of a part. Only what was opened can be given to a sink.
pub fn verified(part: u32, plain: &[u8], last: bool) -> VerifiedChunk {
    let mut random = SystemRandom::default();
    let secret = EpochSecret::generate(&mut random);
    let keys = EpochKeys::new(Suite::Aes256Gcm, TRANSFER, Epoch(1), secret, digests());
    let chunk = Chunk::new(PartIndex(part), ChunkIndex(0), last, plain.to_vec());
    let packed = Packer::new(Compression::Off).expect("a packer").pack(chunk, keys.digests());
    let sealed = seal(packed, &keys, Nonces::new(&mut random).draw().expect("a nonce")).expect("a sealed chunk");
    let body = BytesMut::from(&sealed.frame[CHUNK_HEADER_BYTES..]);
    open(&sealed.header, body, &keys, &mut Unpacker::new().expect("an unpacker")).expect("what was just sealed")
}
