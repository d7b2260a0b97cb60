//! Reads rows that follow from a few numbers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sealift_engine_api::{RowSink, Source};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::{PartIndex, TableIndex},
    manifest::{Plan, PlannedPart, PlannedTable, Range, Section},
};

use super::{Content, check_failure, engine};

pub struct GridSource {
    path: PathBuf,
    content: Content,
    parts: Vec<PlannedPart>,
}

impl GridSource {
    pub fn open(path: &Path) -> Outcome<Self> {
        let content = fs::read_to_string(path).ok().and_then(|text| Content::parse(&text));
        let content = content.ok_or_else(|| Failure::new(Code::SourceFailed, "the source is no grid", ""))?;
        Ok(Self { path: path.to_owned(), content, parts: Vec::new() })
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

impl Source for GridSource {
    fn plan(&mut self) -> Outcome<Plan> {
        let tables = (0..self.content.tables).map(|table| PlannedTable::named(&format!("t{table}"))).collect();
        let first = PlannedPart::of_section(Section::PreData);
        let last = PlannedPart::of_section(Section::PostData);
        self.parts = [first].into_iter().chain(data_parts(self.content)).chain([last]).collect();
        Ok(Plan { engine: engine(), tables, parts: self.parts.clone(), empty: None })
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn read(&mut self, part: PartIndex, out: &mut dyn RowSink) -> Outcome {
        check_failure(&self.path, part, || Failure::new(Code::SourceFailed, "the source failed, as asked", ""))?;
        let planned = &self.parts[part.0 as usize];
        let Some(TableIndex(table)) = planned.table else {
            return out.bytes(self.content.text().as_bytes());
        };
        let from = planned.range.map_or(0, |range| range.from);
        (from..from + self.content.rows).try_for_each(|number| out.row(&[&self.content.row(table, number)]))
    }
}
