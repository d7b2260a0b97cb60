//! What a journal holds, read from its beginning for a new loader.

use std::{collections::BTreeMap, sync::Arc};

use bytes::BytesMut;

use crate::{
    chunk::VerifiedChunk,
    close::Code,
    compress::Unpacker,
    digest::Digests,
    envelope::SealingKey,
    error::{Error, Result},
    id::{Epoch, PartIndex, TransferId},
    key::DigestSecret,
    seal::{EpochKeys, open},
    sealed_log::Record,
};

/// What a record of a journal holds, in the order in which it goes to a loader.
pub enum Replayed {
    /// The secret under which the transfer's plaintext is hashed.
    Secret(DigestSecret),
    /// A chunk, verified again.
    Chunk(VerifiedChunk),
}

/// Opens the records of a journal, in order. A chunk that is there twice, since a connection was
/// lost between its record and its acknowledgement, comes once.
pub struct JournalReplay {
    transfer: TransferId,
    key: SealingKey,
    /// Of every epoch so far: a sender that spools goes on under the one in which it began.
    keys: BTreeMap<Epoch, Arc<EpochKeys>>,
    unpacker: Unpacker,
    /// Chunks of the one part that have come.
    next: u64,
}

impl JournalReplay {
    /// A journal of `transfer`, sealed to `key`.
    pub fn new(transfer: TransferId, key: SealingKey) -> Result<Self> {
        Ok(Self { transfer, key, keys: BTreeMap::new(), unpacker: Unpacker::new()?, next: 0 })
    }

    /// Takes the next record; `None` if there is nothing in it for the loader. Fails with
    /// `LogDamaged` if a chunk or its keys are missing, and as [`open`] does.
    pub fn handle(&mut self, record: Record) -> Result<Option<Replayed>> {
        match record {
            Record::Epoch(epoch) => {
                let (secret, digest_secret) = epoch.open(&self.key, self.transfer)?;
                let digests = Digests::new(&digest_secret);
                let keys = EpochKeys::new(epoch.suite, self.transfer, epoch.epoch, secret, digests);
                self.keys.insert(epoch.epoch, Arc::new(keys));
                Ok(Some(Replayed::Secret(digest_secret)))
            }
            Record::Chunk { header, sealed } => {
                let damaged = |check| Error::new(Code::LogDamaged, check).at_chunk(header.part, header.index);
                if header.part != PartIndex(0) || header.index.0 > self.next {
                    return Err(damaged("a chunk is missing in the journal"));
                }
                if header.index.0 < self.next {
                    return Ok(None);
                }
                let keys = self.keys.get(&header.epoch).ok_or(damaged("a chunk before its keys"))?;
                let chunk = open(&header, BytesMut::from(sealed), keys, &mut self.unpacker)?;
                self.next += 1;
                Ok(Some(Replayed::Chunk(chunk)))
            }
            Record::Statement(_) | Record::Mark => Ok(None),
        }
    }
}
