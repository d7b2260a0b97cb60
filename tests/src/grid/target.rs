//! Writes one file for each part, several at once, in a folder that gets its name at the end.
//!
//! A part is committed by the rename of its file; the name says which chunks it has. What is read
//! again are those files.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use sealift_engine_api::{
    Abandoned, Commit, Durability, Finding, LeftAt, LoadFailure, PartSink, PreparedLoad, ProvenLoad, Readiness,
    Recovery, StagedLoad, StopToken, Target, TargetCapabilities, TargetLoad, Writers,
};
use sealift_host::rename::rename_new;
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::{Digests, Root, RowsDigest},
    disposition::Asks,
    error::Error,
    failure::{Failure, Outcome},
    id::{ChunkCount, PartIndex, TransferId},
    manifest::{Evidence, Plan, Proof},
    receive::{Found, WholePart},
    row::{RowReader, read_cells},
};

use super::{COLUMNS, PART_COMMITTED, PART_WRITTEN, PROVEN, RENAMED, check_failure, engine, hit};

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// Chunks, bytes and root of a part.
const WHOLE_BYTES: usize = 8 + 8 + 32;

#[derive(Clone)]
pub struct GridTarget {
    target: PathBuf,
    row_bytes_max: usize,
    writing: Arc<Writing>,
}

/// How many parts are written.
#[derive(Default)]
pub struct Writing {
    now: AtomicUsize,
    /// The most at once.
    pub max: AtomicUsize,
}

impl GridTarget {
    pub fn new(target: PathBuf, row_bytes_max: usize) -> Self {
        Self { target, row_bytes_max, writing: Arc::default() }
    }

    pub fn writing(&self) -> Arc<Writing> {
        Arc::clone(&self.writing)
    }

    fn staging(&self) -> PathBuf {
        let name = self.target.file_name().unwrap_or_default().to_string_lossy();
        self.target.with_file_name(format!(".{name}.grid-staging"))
    }

    fn part(&self, part: PartIndex) -> PathBuf {
        self.staging().join(format!("part-{}", part.0))
    }

    fn is_own(&self, folder: &Path, transfer: TransferId) -> bool {
        self.owner(folder).is_some_and(|bond| bond.starts_with(&transfer.0))
    }

    /// The load whose folder it is.
    fn owner(&self, folder: &Path) -> Option<Vec<u8>> {
        fs::read(folder.join("bond")).ok().filter(|bond| bond.len() == 48)
    }

    /// Nobody else has the staging folder while what this returns is open.
    fn stage(&self, bond: &[u8], asks: Asks) -> io::Result<File> {
        let staging = self.staging();
        if asks == Asks::StartOver || self.owner(&staging).is_none_or(|owner| owner != bond) {
            remove(&staging)?;
            fs::create_dir(&staging)?;
            write_synced(&staging.join("bond"), bond)?;
        }
        let lock = File::open(staging.join("bond"))?;
        lock.try_lock()?;
        Ok(lock)
    }

    /// What is committed of a part.
    fn whole(&self, part: PartIndex) -> Option<WholePart> {
        let bytes =
            fs::read(self.part(part).with_extension("whole")).ok().filter(|bytes| bytes.len() == WHOLE_BYTES)?;
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let root = Root(bytes[16..].try_into().expect("32 bytes"));
        Some(WholePart { part, chunks: ChunkCount(number(0)), plain_bytes: number(8), root })
    }

    /// The rows of one part, as its file has them.
    fn rows(&self, part: PartIndex, digests: &Digests) -> Outcome<RowsDigest> {
        let mut file = File::open(self.part(part)).map_err(failed)?;
        let (mut reader, mut digest) = (RowReader::new(self.row_bytes_max), digests.multiset());
        loop {
            let mut piece = Vec::with_capacity(READ_BYTES);
            Read::by_ref(&mut file).take(READ_BYTES as u64).read_to_end(&mut piece).map_err(failed)?;
            if piece.is_empty() {
                break;
            }
            reader.feed(piece.into(), |row| {
                read_cells(row, COLUMNS, |_| Ok(()))?;
                digest.add(row);
                Ok::<(), Error>(())
            })?;
        }
        reader.finish()?;
        Ok(digest.digest())
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn failed(error: io::Error) -> Failure {
    Failure::io(Code::TargetFailed, "the grid cannot be written", &error, "")
}

fn out_of_order() -> Failure {
    Failure::new(Code::Internal, "the target was used out of order", "")
}

impl Recovery for GridTarget {
    fn publish(&self, transfer: TransferId) -> Outcome {
        let staging = self.staging();
        if self.is_own(&staging, transfer) {
            rename_new(&staging, &self.target).map_err(failed)?;
        } else if !self.is_own(&self.target, transfer) {
            return Err(out_of_order());
        }
        hit(RENAMED);
        File::open(self.target.parent().unwrap_or(Path::new("/"))).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    fn forget(&self, transfer: TransferId) {
        if self.is_own(&self.target, transfer) {
            let _ = fs::remove_file(self.target.join("bond"));
        }
    }

    fn abandon(&self, transfer: TransferId, _left_at: LeftAt) -> Outcome<Abandoned> {
        if self.is_own(&self.target, transfer) {
            self.forget(transfer);
            return Ok(Abandoned::Published);
        }
        if self.is_own(&self.staging(), transfer) {
            remove(&self.staging()).map_err(failed)?;
        }
        Ok(Abandoned::Dropped)
    }

    fn staged(&self, _transfer: TransferId) -> Option<PathBuf> {
        Some(self.staging()).filter(|staging| staging.exists())
    }
}

impl Target for GridTarget {
    fn capabilities(&self, _plan: &Plan) -> TargetCapabilities {
        TargetCapabilities { durability: Durability::Parts, commit: Commit::Observable }
    }

    fn check(&self, _readiness: Readiness) -> Outcome<Vec<Finding>> {
        match self.target.exists() {
            true => Err(Failure::new(Code::TargetNotEmpty, "the grid exists", "Remove it.")),
            false => Ok(Vec::new()),
        }
    }

    fn prepare(
        &self,
        transfer: TransferId,
        plan: &Plan,
        asks: Asks,
        stop: Arc<dyn StopToken>,
    ) -> Outcome<PreparedLoad> {
        plan.check()?;
        engine().check_same(&plan.engine)?;
        self.check(Readiness::Name)?;
        let bond = [transfer.0.as_slice(), &plan.hash()].concat();
        let lock = self.stage(&bond, asks).map_err(failed)?;
        let parts = (0..plan.parts.len() as u32).map(PartIndex);
        let found = parts.filter_map(|part| self.whole(part)).map(Found::Whole).collect();
        let shared = Arc::new(Shared { target: self.clone(), plan: plan.clone(), stop });
        Ok(PreparedLoad { found, rows: 0, load: Box::new(GridLoad { shared, transfer, _lock: lock }) })
    }
}

struct GridLoad {
    shared: Arc<Shared>,
    transfer: TransferId,
    _lock: File,
}

impl GridLoad {
    fn read_back(&self, digests: &Digests) -> Outcome<Evidence> {
        let Shared { target, plan, stop } = &*self.shared;
        let mut tables = vec![RowsDigest::default(); plan.tables.len()];
        for (planned, part) in plan.parts.iter().zip(0..) {
            stop.check()?;
            target.whole(PartIndex(part)).ok_or_else(out_of_order)?;
            let Some(table) = planned.table else { continue };
            let table = &mut tables[table.0 as usize];
            *table = table.merge(target.rows(PartIndex(part), digests)?).ok_or_else(out_of_order)?;
        }
        hit(PROVEN);
        Ok(Evidence { tables, ..Evidence::bare(Proof::RowsReadBack) })
    }
}

impl StagedLoad for GridLoad {
    fn abandon(self: Box<Self>) {
        let _ = remove(&self.shared.target.staging());
    }
}

impl TargetLoad for GridLoad {
    fn writers(&self) -> Arc<dyn Writers> {
        Arc::clone(&self.shared) as Arc<dyn Writers>
    }

    fn prove(self: Box<Self>, digests: &Digests) -> Result<Box<dyn ProvenLoad>, LoadFailure> {
        match self.read_back(digests) {
            Ok(evidence) => Ok(Box::new(GridProven { load: self, evidence })),
            Err(failure) => Err(LoadFailure::new(failure, self)),
        }
    }
}

struct GridProven {
    load: Box<GridLoad>,
    evidence: Evidence,
}

impl StagedLoad for GridProven {
    fn abandon(self: Box<Self>) {
        self.load.abandon();
    }
}

impl ProvenLoad for GridProven {
    fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    fn publish(self: Box<Self>) -> Result<(), LoadFailure> {
        match self.load.shared.target.publish(self.load.transfer) {
            Ok(()) => Ok(()),
            Err(failure) => Err(LoadFailure::new(failure, self)),
        }
    }
}

struct Shared {
    target: GridTarget,
    plan: Plan,
    stop: Arc<dyn StopToken>,
}

impl Writers for Shared {
    fn begin(&self, part: PartIndex, _digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        self.stop.check()?;
        let file = File::create(self.target.part(part).with_extension("new")).map_err(failed)?;
        let Writing { now, max } = &*self.target.writing;
        max.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Ok(Box::new(GridPart { shared: self, part, file }))
    }
}

struct GridPart<'a> {
    shared: &'a Shared,
    part: PartIndex,
    file: File,
}

impl PartSink for GridPart<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.shared.stop.check()?;
        let full = || Failure::new(Code::TargetFull, "the target is full, as asked", "Remove what asks for it.");
        check_failure(&self.shared.target.target, self.part, full)?;
        self.file.write_all(chunk.plain()).map_err(failed)
    }

    fn finish(self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        self.shared.stop.check()?;
        hit(PART_WRITTEN);
        let path = self.shared.target.part(self.part);
        let line = [&whole.chunks.0.to_be_bytes()[..], &whole.plain_bytes.to_be_bytes(), &whole.root.0].concat();
        let commit = || {
            self.file.sync_all()?;
            fs::rename(path.with_extension("new"), &path)?;
            // The last step: without it the part is not there.
            write_synced(&path.with_extension("line"), &line)?;
            fs::rename(path.with_extension("line"), path.with_extension("whole"))?;
            File::open(self.shared.target.staging())?.sync_all()
        };
        commit().map_err(failed)?;
        hit(PART_COMMITTED);
        Ok(vec![self.part])
    }
}

impl Drop for GridPart<'_> {
    fn drop(&mut self) {
        self.shared.target.writing.now.fetch_sub(1, Ordering::SeqCst);
    }
}
