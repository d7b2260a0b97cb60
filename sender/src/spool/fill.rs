//! From the source into the spool, whether or not there is a link.

use std::sync::Arc;

use futures_util::StreamExt;
use sealift_agent::{
    audit::AuditLog,
    budget::{LaneBudget, Room},
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    identity::Identity,
    random::SystemRandom,
    sealed_file::SealedFile,
    stop::{Cause, Stop},
    workers::chunks_at_work,
};
use sealift_protocol::{
    chunk::Sealed, close::Code, manifest::SignedManifest, random::Nonces, sealed_log::Record, send::SpoolFilling,
};
use tokio::sync::watch;

use super::{Log, Progress, Spool, locked, of_spool, stopped};
use crate::{
    lane::{arriving, nothing_came},
    reader::ReadingPart,
    workers::Workers,
};

/// What fills a spool.
pub struct Filling {
    pub reading: ReadingPart,
    /// Ends the transfer if the spool cannot be filled, whether or not there is a link.
    pub stop: Stop,
    pub workers: Workers,
    /// What is appended, and what of it may be sent.
    pub rules: SpoolFilling,
    pub identity: Arc<Identity>,
    pub audit: AuditLog,
    /// The source was read before and has to come again: an input that is empty did not.
    pub comes_again: bool,
}

impl Spool {
    /// Begins to fill `log`. What fills it and what reads it share a lane's budget.
    pub fn start(log: SealedFile, filling: Filling, budget: LaneBudget) -> Self {
        let (progress_in, progress) = watch::channel(Progress::default());
        let (of_filling, of_frames) = budget.halves();
        let mut spool = Self::new(log, progress, of_frames);
        let log = Arc::clone(&spool.log);
        let task = tokio::spawn(async move {
            let stop = filling.stop.clone();
            let ended = filling.run(&log, &progress_in, of_filling).await.map_err(of_spool);
            if let Err(failure) = &ended {
                stop.raise(Cause::Source, failure.clone());
            }
            progress_in.send_modify(|progress| progress.ended = Some(ended));
        });
        spool.filling = Some(task.abort_handle());
        spool
    }
}

impl Filling {
    async fn run(self, log: &Log, progress: &watch::Sender<Progress>, budget: LaneBudget) -> Outcome<SignedManifest> {
        let Self { reading, workers, mut rules, identity, audit, comes_again, .. } = self;
        let keys = Arc::clone(rules.keys());
        let mut nonces = Nonces::new(SystemRandom::default());
        let sealing = arriving(reading.chunks, budget).map(|(chunk, room)| {
            let (workers, keys, nonce) = (workers.clone(), Arc::clone(&keys), nonces.draw());
            async move {
                let mut room = room?;
                let sealed = workers.seal(chunk, keys, nonce?).await?;
                room.shrink(sealed.frame.len());
                Ok((sealed, room))
            }
        });
        // What is sealed while the disk syncs is synced together.
        let mut batches = Box::pin(sealing.buffered(chunks_at_work()).ready_chunks(chunks_at_work()));
        while let Some(batch) = batches.next().await {
            let batch = batch.into_iter().collect::<Outcome<Vec<(Sealed, Room)>>>()?;
            let (batch, _rooms): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            if comes_again && batch.iter().any(|sealed| sealed.header.index.0 == 0 && sealed.header.plain_bytes == 0) {
                return Err(nothing_came());
            }
            write(log, batch.iter().map(|sealed| rules.append(sealed)).collect()).await?;
            let frames = rules.handle_synced()?;
            progress.send_modify(|progress| progress.frames = frames);
            fail_point::hit(Point::SpoolSynced);
        }
        let ended_early = |_| Failure::new(Code::Internal, "the source's thread ended early", "");
        let summary = reading.summary.await.map_err(ended_early)??;
        let (manifest, record) = rules.end(summary, &*identity, audit.head()?)?;
        write(log, vec![record]).await?;
        fail_point::hit(Point::SpoolWhole);
        Ok(manifest)
    }
}

/// Appends records; they are durable when this returns.
async fn write(log: &Log, records: Vec<Record>) -> Outcome {
    let log = Arc::clone(log);
    let written = tokio::task::spawn_blocking(move || {
        let mut log = locked(&log);
        let log = log.as_mut().ok_or_else(stopped)?;
        log.append(&records)?;
        fail_point::hit(Point::SpoolWritten);
        log.sync()
    });
    written.await.map_err(|_| stopped())?
}
