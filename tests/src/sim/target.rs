//! A target: one writer or many, in a staging place until it is published.

use bytes::Bytes;
use sealift_protocol::{
    digest::Digests,
    error::Error,
    manifest::{LoadedPart, PartKind, Plan},
    row::RowReader,
};

pub struct Target {
    pub plan: Plan,
    pub one_writer: bool,
    pub staged: Vec<Vec<u8>>,
    pub durable: Vec<bool>,
    pub writing: Vec<usize>,
    pub published: bool,
}

impl Target {
    pub fn new(plan: Plan, one_writer: bool) -> Self {
        let parts = plan.parts.len();
        Self {
            plan,
            one_writer,
            staged: vec![Vec::new(); parts],
            durable: vec![false; parts],
            writing: vec![],
            published: false,
        }
    }

    /// Whether `part` can be written now; then it is.
    pub fn begin(&mut self, part: usize) -> bool {
        if self.one_writer && !self.writing.is_empty() {
            return false;
        }
        let kind = self.plan.parts[part].kind;
        let mut earlier = self.plan.parts.iter().zip(&self.durable).filter(|(planned, _)| planned.kind < kind);
        assert!(earlier.all(|(_, durable)| *durable), "part {part} begins before those it depends on are durable");
        self.writing.push(part);
        true
    }

    pub fn finish(&mut self, part: usize) {
        self.writing.retain(|writing| *writing != part);
        self.durable[part] = true;
    }

    /// Reads every table again.
    pub fn prove(&self, digests: &Digests) -> Vec<LoadedPart> {
        let parts = self.plan.parts.iter().zip(&self.staged);
        parts
            .map(|(planned, bytes)| match planned.kind {
                PartKind::Rows => {
                    let mut digest = digests.multiset();
                    let mut reader = RowReader::new(1 << 20);
                    let fed = reader.feed(Bytes::copy_from_slice(bytes), |row| -> Result<(), Error> {
                        digest.add(row);
                        Ok(())
                    });
                    fed.and_then(|()| reader.finish()).expect("the source wrote rows");
                    LoadedPart { rows: digest.rows(), digest: Some(digest.root()) }
                }
                _ => LoadedPart { rows: 0, digest: None },
            })
            .collect()
    }
}
