//! Where a transfer's data comes from.

use std::sync::Arc;

use sealift_protocol::{failure::Outcome, id::PartIndex, manifest::Plan};

use crate::RowSink;

/// Something that can be read from beginning to end as parts of a plan, as of one moment.
///
/// Every method may block; all are called from one thread of their own.
pub trait Source: Send {
    /// Says what there is, and takes the snapshot that every later read sees. Fails with
    /// `SourceUnsuitable` if anything in it could not be moved exactly, before a byte is sent.
    fn plan(&mut self) -> Outcome<Plan>;

    /// Whether `read` may be called again for a part, by this process or by another, and gives the
    /// same bytes as long as what it reads has not changed. That it has not is not taken on trust:
    /// what is read again is proven by its digest.
    fn can_repeat(&self) -> bool;

    /// Writes one part into `out`, whole. Returns only when the source vouches for it: a program
    /// that feeds it has ended with exit code 0.
    fn read(&mut self, part: PartIndex, out: &mut dyn RowSink) -> Outcome;
}

/// Ends what an engine has running, such as a program or a query.
pub trait Interrupt: Send + Sync {
    /// Makes calls that block return, and later ones fail. Safe at any time, from any thread, more
    /// than once.
    fn interrupt(&self);
}

/// A source, ready to be planned.
pub struct OpenedSource {
    /// The source itself.
    pub source: Box<dyn Source>,
    /// What must be interrupted if the transfer ends before the source does.
    pub interrupt: Option<Arc<dyn Interrupt>>,
    /// What reading it means for those who use it meanwhile.
    pub notices: Vec<&'static str>,
}

impl OpenedSource {
    /// A source of which there is nothing to say, and nothing to interrupt.
    pub fn new(source: impl Source + 'static) -> Self {
        Self { source: Box::new(source), interrupt: None, notices: Vec::new() }
    }
}
