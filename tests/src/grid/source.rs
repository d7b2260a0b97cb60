//! Reads rows that follow from a few numbers, with several readers.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use sealift_engine_api::{Finding, PartReader, Planned, RowSink, Severity, Snapshot, Source, StopToken};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::{PartIndex, TableIndex},
    manifest::{Plan, PlannedPart, PlannedTable, Range, Section},
};

use super::{Content, check_failure, engine, is_asked};

/// Readers of one source.
const READERS_MAX: usize = 3;

pub struct GridSource {
    path: PathBuf,
    content: Content,
}

impl GridSource {
    pub fn open(path: &Path) -> Outcome<Self> {
        let content = fs::read_to_string(path).ok().and_then(|text| Content::parse(&text));
        let content = content.ok_or_else(|| Failure::new(Code::SourceFailed, "the source is no grid", ""))?;
        Ok(Self { path: path.to_owned(), content })
    }
}

/// The parts of all tables, each in as many ranges.
fn data_parts(content: Content) -> Vec<PlannedPart> {
    let Content { tables, ranges, rows, .. } = content;
    let range = |at: u64| Range { from: at * rows, to: (at + 1 < ranges).then(|| (at + 1) * rows) };
    let of_table = |table| {
        (0..ranges).map(move |at| PlannedPart {
            range: (ranges > 1).then(|| range(at)),
            rows_estimate: Some(rows),
            ..PlannedPart::of_table(TableIndex(table))
        })
    };
    (0..tables).flat_map(of_table).collect()
}

fn findings(content: Content) -> Vec<Finding> {
    let finding = |severity| match severity {
        Severity::Fact => Finding::fact("grid-fact", "the grid is one"),
        Severity::Note => Finding::note("grid-note", "the grid is noted"),
        Severity::Warning => Finding::warning("grid-warning", "the grid is doubtful", "Look at it."),
        Severity::Error => Finding::error("grid-error", "the grid is not to be moved", "Ask for another."),
    };
    content.finding.map(finding).into_iter().collect()
}

impl Source for GridSource {
    fn plan(self: Box<Self>, _stop: Arc<dyn StopToken>) -> Outcome<Planned> {
        let tables = (0..self.content.tables).map(|table| PlannedTable::named(&format!("t{table}"))).collect();
        let first = PlannedPart::of_section(Section::PreData);
        let last = PlannedPart::of_section(Section::PostData);
        let parts: Vec<_> = [first].into_iter().chain(data_parts(self.content)).chain([last]).collect();
        let plan = Plan { engine: engine(), tables, parts: parts.clone(), empty: None, left_out: None, rows: None };
        let findings = findings(self.content);
        let snapshot = GridSnapshot(Arc::new(Shared { source: *self, parts, readers: AtomicUsize::new(0) }));
        Ok(Planned { plan, findings, snapshot: Arc::new(snapshot) })
    }
}

struct GridSnapshot(Arc<Shared>);

struct Shared {
    source: GridSource,
    parts: Vec<PlannedPart>,
    readers: AtomicUsize,
}

impl Snapshot for GridSnapshot {
    fn readers_max(&self) -> usize {
        READERS_MAX
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn reader(&self) -> Outcome<Box<dyn PartReader>> {
        let before = self.0.readers.fetch_add(1, Ordering::SeqCst);
        assert!(before < READERS_MAX, "more readers than there may be");
        Ok(Box::new(GridReader(Arc::clone(&self.0))))
    }
}

struct GridReader(Arc<Shared>);

impl PartReader for GridReader {
    fn read(&mut self, part: PartIndex, out: &mut dyn RowSink) -> Outcome {
        let GridSource { path, content } = &self.0.source;
        check_failure(path, part, || Failure::new(Code::SourceFailed, "the source failed, as asked", ""))?;
        let planned = &self.0.parts[part.0 as usize];
        let Some(TableIndex(table)) = planned.table else {
            return out.bytes(content.text().as_bytes());
        };
        let from = planned.range.map_or(0, |range| range.from);
        let skipped = u64::from(is_asked(path, "skip", part));
        (from + skipped..from + content.rows).try_for_each(|number| out.row(&[&content.row(table, number)]))
    }

    fn count_rows(&mut self, _table: TableIndex) -> Outcome<Option<u64>> {
        let Content { ranges, rows, .. } = self.0.source.content;
        Ok(Some(ranges * rows))
    }
}

impl Drop for GridReader {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::SeqCst);
    }
}
