//! What a receiver keeps of an archive that is being loaded: no key, and nothing that the archive
//! could say again.

use minicbor::{Decode, Encode};
use sealift_agent::{
    audit::{AuditLog, entry::Entry},
    failure::{Failure, Outcome},
    state::StateDir,
    status::Line,
    transfer_dir::{Area, Look, TransferDir},
    units::human_bytes,
};
use sealift_engine_api::Engines;
use sealift_protocol::{
    disposition::{Event, Stage},
    id::TransferId,
    manifest::ReadBack,
};
use serde_json::json;

use super::used;
use crate::{
    ending::{Ending, KeepsEnding},
    load::Load,
    resolve::{note_statement, state_stage},
    runner::LoadRecord,
    target::staged_bytes,
    unfinished::{Ended, drop_target, resolve_first, stage_text, staging},
};

/// The record, and its folder.
pub struct ArchiveRecord {
    pub dir: TransferDir,
    pub kept: KeptLoad,
    /// What an earlier process had kept.
    pub earlier: Option<KeptLoad>,
}

#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct KeptLoad {
    /// The target's URL: what is staged for it has to be found again.
    #[n(0)]
    pub target: String,
    #[n(1)]
    pub ending: Ending,
    /// Until when the archive's grant lets it be loaded; 0 before that was read.
    #[n(2)]
    pub until_seconds: u64,
}

impl KeptLoad {
    fn new(target: &str) -> Self {
        // The archive is its offer.
        let ending = Ending { receipt: None, stage: Stage::Offered };
        Self { target: target.to_owned(), ending, until_seconds: 0 }
    }
}

impl ArchiveRecord {
    /// Resumes the load of `transfer` that an earlier process began, or begins one.
    pub fn open(state: &StateDir, transfer: TransferId, target: &str) -> Outcome<Self> {
        let dir = TransferDir::open_in(state, Area::Loads, transfer)?;
        match dir.record::<KeptLoad>()? {
            Some(kept) if kept.target == target => Ok(Self { dir, earlier: Some(kept.clone()), kept }),
            Some(kept) if !kept.ending.stage.shows_nothing() => {
                let next = "Give the same --target as before: the load is as good as done there.";
                Err(Failure::usage("this archive is loaded into another target", next))
            }
            Some(kept) => Ok(Self { dir, kept: KeptLoad::new(target), earlier: Some(kept) }),
            None => {
                if let Err(failure) = used::check(state, transfer) {
                    dir.destroy()?;
                    return Err(failure);
                }
                Ok(Self { dir, kept: KeptLoad::new(target), earlier: None })
            }
        }
    }
}

impl LoadRecord for ArchiveRecord {
    fn finds_again(&self, load: &Load) -> bool {
        let transfer = load.transfer();
        match transfer.plan().engine.capabilities.read_back {
            // A file has a prefix that is resumed; a loader is fed again.
            ReadBack::None => transfer.has_anything() && load.target.staged(transfer.grant().grant.transfer).is_some(),
            ReadBack::Rows => transfer.has_finished(),
            // What is durable of an image need not be all of its one part.
            ReadBack::Bytes => transfer.has_anything(),
        }
    }

    fn target(&self) -> &str {
        &self.kept.target
    }

    fn into_dir(self) -> TransferDir {
        self.dir
    }
}

impl KeepsEnding for ArchiveRecord {
    fn stage(&self) -> Stage {
        self.kept.ending.stage
    }

    fn ending(&mut self) -> &mut Ending {
        &mut self.kept.ending
    }

    fn keep(&self) -> Outcome {
        self.dir.keep(&self.kept)
    }
}

/// What `status` shows of the loads that were begun and have not ended.
pub fn lines(state: &StateDir, engines: Engines) -> Outcome<Vec<Line>> {
    let mut lines = Vec::new();
    for transfer in TransferDir::list_in(state, Area::Loads)? {
        let look = TransferDir::look_in::<KeptLoad>(state, Area::Loads, transfer)?;
        let Some(Look { record: Some(kept), running, .. }) = look else { continue };
        let target = engines.shown(&kept.target);
        let stage = kept.ending.stage.as_str();
        let staged_bytes =
            staging(&kept.target, engines).ok().flatten().map_or(0, |left| staged_bytes(&*left, transfer));
        let holds = human_bytes(staged_bytes);
        let runs = if running { "running" } else { "not running" };
        lines.push(Line {
            transfer,
            text: format!("an archive into {target}: {}, {runs}; holds {holds}", stage_text(stage)),
            fields: vec![
                ("archive", json!(true)),
                ("target", json!(target)),
                ("stage", json!(stage)),
                ("running", json!(running)),
                ("staged_bytes", json!(staged_bytes)),
            ],
        });
    }
    Ok(lines)
}

/// Ends a load for good; `None` if there is none of `transfer`. The archive can be loaded again.
pub fn abandon(state: &StateDir, audit: &AuditLog, engines: Engines, transfer: TransferId) -> Outcome<Option<Ended>> {
    if !TransferDir::list_in(state, Area::Loads)?.contains(&transfer) {
        return Ok(None);
    }
    let dir = TransferDir::open_in(state, Area::Loads, transfer)?;
    let Some(kept) = dir.record::<KeptLoad>()? else {
        dir.destroy()?;
        return Ok(None);
    };
    // Forgotten, it could be loaded a second time. Once it is stated to be loaded, the store of
    // uses knows that.
    if kept.ending.stage == Stage::InDoubt {
        return Err(resolve_first(transfer));
    }
    audit.append(Some(transfer), &Entry::abandoned_by_operator())?;
    let ended = drop_target(state, engines, transfer, &kept.target, &kept.ending)?;
    if ended == Ended::Dropped {
        used::forget(state, transfer)?;
    }
    dir.destroy()?;
    Ok(Some(ended))
}

/// Keeps what the operator states about a load that is in doubt; `None` if there is none of
/// `transfer`.
pub fn resolve(state: &StateDir, audit: &AuditLog, transfer: TransferId, event: Event) -> Outcome<Option<Stage>> {
    if !TransferDir::list_in(state, Area::Loads)?.contains(&transfer) {
        return Ok(None);
    }
    let dir = TransferDir::open_in(state, Area::Loads, transfer)?;
    let Some(kept) = dir.record::<KeptLoad>()? else { return Ok(None) };
    let mut record = ArchiveRecord { dir, kept, earlier: None };
    let stage = state_stage(transfer, record.kept.ending.stage, event)?;
    note_statement(audit, transfer, stage)?;
    match stage {
        Stage::StatedLoaded => used::note(state, audit, transfer, record.kept.until_seconds)?,
        _ => used::forget(state, transfer)?,
    }
    record.advance(stage)?;
    Ok(Some(stage))
}
