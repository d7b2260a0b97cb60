//! `records → order checked → workers → writer → target`: what the pipeline of a connection does,
//! without one.

use std::sync::Arc;

use super::file::{RecordInMemory, Records, cut_short};
use crate::{load::Load, workers::Workers, writer::ChunkInMemory};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use sealift_agent::{budget::Room, failure::Outcome, report::Report, workers::chunks_at_work};
use sealift_protocol::{
    close::Code,
    error::Error,
    frame::ChunkHeader,
    manifest::SignedManifest,
    receive::{Order, ReceiverSession},
    seal::EpochKeys,
    sealed_log::Record,
};

pub struct Unload<'a> {
    load: &'a Load,
    report: &'a Report,
    workers: Workers,
}

/// A record whose place is good.
enum Placed {
    Chunk(ChunkHeader, Bytes, Room),
    /// Of what the target has.
    Held(ChunkHeader),
    Manifest(Box<SignedManifest>),
    Nothing,
}

enum Opened {
    Chunk(ChunkInMemory, u64),
    Manifest(Box<SignedManifest>),
    Nothing,
}

impl<'a> Unload<'a> {
    pub fn new(load: &'a Load, report: &'a Report) -> Self {
        Self { load, report, workers: Workers::default() }
    }

    /// Returns when all parts are in the target, the manifest fits them, and nothing stands behind
    /// it. Not cancel-safe: chunks between archive and target are lost.
    pub async fn run(&self, mut session: ReceiverSession, records: Records) -> Outcome<ReceiverSession> {
        let mut order = Order::new(self.load.transfer().plan());
        let keys = session.keys().clone();
        let records = stream::unfold(records, |mut records| async move { Some((records.recv().await?, records)) });
        let opened = records.map(|record| self.place(&mut order, record)).map(|placed| self.open(placed, &keys));
        let mut opened = Box::pin(opened.buffered(chunks_at_work()));
        let mut current = None;
        while let Some(next) = opened.next().await {
            match next? {
                Opened::Chunk(chunk, frame_bytes) => {
                    let part = chunk.chunk.part();
                    let writer = match current.take() {
                        Some((of, writer)) if of == part => writer,
                        _ => self.load.writer(part).await?,
                    };
                    let plain_bytes = chunk.chunk.plain().len() as u64;
                    self.load.write(&writer, chunk).await;
                    self.report.count(|totals| {
                        totals.rows = self.load.rows();
                        totals.moved(part, plain_bytes, frame_bytes);
                    });
                    current = Some((part, writer));
                }
                Opened::Manifest(manifest) => {
                    session.handle_carried_finish(&mut self.load.transfer_mut(), *manifest)?
                }
                Opened::Nothing => {}
            }
        }
        drop(opened);
        if !order.is_finished() {
            return Err(cut_short());
        }
        self.load.complete().await?;
        Ok(session)
    }

    /// Checks the place of a record in the order of the archive.
    fn place(&self, order: &mut Order, record: Outcome<Option<RecordInMemory>>) -> Outcome<Placed> {
        let Some(RecordInMemory { record, room }) = record? else {
            return if order.is_finished() { Ok(Placed::Nothing) } else { Err(cut_short()) };
        };
        match record {
            Record::Chunk { header, sealed } => {
                order.handle_chunk(&header)?;
                let transfer = self.load.transfer();
                let held = transfer.is_finished(header.part) || header.index.0 < transfer.verified(header.part).0;
                Ok(if held { Placed::Held(header) } else { Placed::Chunk(header, sealed, room) })
            }
            Record::Statement(bytes) => Ok(Placed::Manifest(Box::new(order.handle_finish(&bytes)?))),
            Record::Epoch(_) => Err(Error::new(Code::ProtocolViolation, "second epoch").into()),
            Record::Mark => Ok(Placed::Nothing),
        }
    }

    async fn open(&self, placed: Outcome<Placed>, keys: &Arc<EpochKeys>) -> Outcome<Opened> {
        Ok(match placed? {
            Placed::Chunk(header, sealed, mut room) => {
                let chunk = self.workers.open(header, BytesMut::from(sealed), Arc::clone(keys)).await?;
                room.shrink(chunk.plain().len());
                Opened::Chunk(ChunkInMemory { chunk, held: room }, header.frame_bytes() as u64)
            }
            Placed::Held(header) => {
                self.report.count(|totals| totals.held(header.part, header.plain_bytes.into()));
                Opened::Nothing
            }
            Placed::Manifest(manifest) => Opened::Manifest(manifest),
            Placed::Nothing => Opened::Nothing,
        })
    }
}
