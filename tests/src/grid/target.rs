//! Writes one file for each part, several at once, in a folder that gets its name at the end.
//!
//! A part is committed by the rename of its file; the name says which chunks it has. What
//! [`GridSink::prove`] reads again are those files.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use sealift_engine_api::{PartSink, Readiness, Sink};
use sealift_host::rename::rename_new;
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::{Digests, Root, RowsDigest},
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

pub struct GridSink {
    target: PathBuf,
    row_bytes_max: usize,
    plan: Mutex<Option<Plan>>,
    /// Nobody else has the staging folder while this is locked.
    lock: Mutex<Option<File>>,
    stopped: AtomicBool,
    writing: AtomicUsize,
    /// The most parts that were written at once.
    pub writing_max: AtomicUsize,
}

impl GridSink {
    pub fn new(target: PathBuf, row_bytes_max: usize) -> Self {
        Self {
            target,
            row_bytes_max,
            plan: Mutex::default(),
            lock: Mutex::default(),
            stopped: AtomicBool::new(false),
            writing: AtomicUsize::new(0),
            writing_max: AtomicUsize::new(0),
        }
    }

    pub fn staging(&self) -> PathBuf {
        let name = self.target.file_name().unwrap_or_default().to_string_lossy();
        self.target.with_file_name(format!(".{name}.grid-staging"))
    }

    fn part(&self, part: PartIndex) -> PathBuf {
        self.staging().join(format!("part-{}", part.0))
    }

    fn plan(&self) -> MutexGuard<'_, Option<Plan>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_stop(&self) -> Outcome {
        match self.stopped.load(Ordering::SeqCst) {
            true => Err(Failure::new(Code::Interrupted, "the load was stopped", "")),
            false => Ok(()),
        }
    }

    /// The load whose folder it is.
    fn owner(&self, folder: &Path) -> Option<Vec<u8>> {
        fs::read(folder.join("bond")).ok().filter(|bond| bond.len() == 48)
    }

    fn stage(&self, bond: &[u8], fresh: bool) -> io::Result<()> {
        let staging = self.staging();
        if fresh || self.owner(&staging).is_none_or(|owner| owner != bond) {
            remove(&staging)?;
            fs::create_dir(&staging)?;
            write_synced(&staging.join("bond"), bond)?;
        }
        let lock = File::open(staging.join("bond"))?;
        lock.try_lock()?;
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
        Ok(())
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

impl Sink for GridSink {
    fn check(&self, _readiness: Readiness) -> Outcome<Option<String>> {
        match self.target.exists() {
            true => Err(Failure::new(Code::TargetNotEmpty, "the grid exists", "Remove it.")),
            false => Ok(None),
        }
    }

    fn prepare(&self, transfer: TransferId, plan: &Plan, fresh: bool) -> Outcome<Vec<Found>> {
        plan.check()?;
        engine().check_same(&plan.engine)?;
        self.check(Readiness::Name)?;
        let bond = [transfer.0.as_slice(), &plan.hash()].concat();
        self.stage(&bond, fresh).map_err(failed)?;
        *self.plan() = Some(plan.clone());
        let parts = (0..plan.parts.len() as u32).map(PartIndex);
        Ok(parts.filter_map(|part| self.whole(part)).map(Found::Whole).collect())
    }

    fn keeps_parts(&self) -> bool {
        true
    }

    fn begin(&self, part: PartIndex, _digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        self.check_stop()?;
        let file = File::create(self.part(part).with_extension("new")).map_err(failed)?;
        let writing = self.writing.fetch_add(1, Ordering::SeqCst) + 1;
        self.writing_max.fetch_max(writing, Ordering::SeqCst);
        Ok(Box::new(GridPart { sink: self, part, file }))
    }

    fn prove(&self, digests: &Digests) -> Outcome<Evidence> {
        let plan = self.plan().clone().ok_or_else(out_of_order)?;
        let mut tables = vec![RowsDigest::default(); plan.tables.len()];
        for (planned, part) in plan.parts.iter().zip(0..) {
            self.check_stop()?;
            self.whole(PartIndex(part)).ok_or_else(out_of_order)?;
            let Some(table) = planned.table else { continue };
            let table = &mut tables[table.0 as usize];
            *table = table.merge(self.rows(PartIndex(part), digests)?).ok_or_else(out_of_order)?;
        }
        hit(PROVEN);
        Ok(Evidence { tables, ..Evidence::bare(Proof::RowsReadBack) })
    }

    fn publish(&self, transfer: TransferId) -> Outcome {
        let is_own = |folder: &Path| self.owner(folder).is_some_and(|bond| bond.starts_with(&transfer.0));
        let staging = self.staging();
        if is_own(&staging) {
            rename_new(&staging, &self.target).map_err(failed)?;
        } else if !is_own(&self.target) {
            return Err(out_of_order());
        }
        hit(RENAMED);
        File::open(self.target.parent().unwrap_or(Path::new("/"))).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    fn forget(&self, transfer: TransferId) {
        if self.owner(&self.target).is_some_and(|bond| bond.starts_with(&transfer.0)) {
            let _ = fs::remove_file(self.target.join("bond"));
        }
    }

    fn abandon_earlier(&self, transfer: TransferId, _proven: bool) -> Outcome<bool> {
        if self.owner(&self.target).is_some_and(|bond| bond.starts_with(&transfer.0)) {
            self.forget(transfer);
            return Ok(true);
        }
        if self.owner(&self.staging()).is_some_and(|bond| bond.starts_with(&transfer.0)) {
            remove(&self.staging()).map_err(failed)?;
        }
        Ok(false)
    }

    fn staged(&self, _transfer: TransferId) -> Option<PathBuf> {
        Some(self.staging()).filter(|staging| staging.exists())
    }

    fn suspend(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn abandon(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        if self.lock.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            let _ = remove(&self.staging());
        }
    }
}

struct GridPart<'a> {
    sink: &'a GridSink,
    part: PartIndex,
    file: File,
}

impl PartSink for GridPart<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.sink.check_stop()?;
        let full = || Failure::new(Code::TargetFull, "the target is full, as asked", "Remove what asks for it.");
        check_failure(&self.sink.target, self.part, full)?;
        self.file.write_all(chunk.plain()).map_err(failed)
    }

    fn finish(self: Box<Self>, whole: &WholePart) -> Outcome {
        self.sink.check_stop()?;
        hit(PART_WRITTEN);
        let path = self.sink.part(self.part);
        let line = [&whole.chunks.0.to_be_bytes()[..], &whole.plain_bytes.to_be_bytes(), &whole.root.0].concat();
        let commit = || {
            self.file.sync_all()?;
            fs::rename(path.with_extension("new"), &path)?;
            // The last step: without it the part is not there.
            write_synced(&path.with_extension("line"), &line)?;
            fs::rename(path.with_extension("line"), path.with_extension("whole"))?;
            File::open(self.sink.staging())?.sync_all()
        };
        commit().map_err(failed)?;
        hit(PART_COMMITTED);
        Ok(())
    }
}

impl Drop for GridPart<'_> {
    fn drop(&mut self) {
        self.sink.writing.fetch_sub(1, Ordering::SeqCst);
    }
}
