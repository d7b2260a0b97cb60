//! Where a transfer's data comes from.

pub mod opaque;
pub mod sqlite;

use std::sync::Arc;

use sealift_agent::{
    failure::{Failure, Outcome},
    location::Location,
    program::Program,
};
use sealift_protocol::{id::PartIndex, manifest::Plan};

use self::{
    opaque::OpaqueSource,
    sqlite::{ImageSource, SqliteSource},
};
use crate::{form::Form, part::PartWriter};

/// Something that can be read from beginning to end as parts of a plan, as of one moment.
///
/// Every method may block; all are called from one thread of their own.
pub trait Source: Send {
    /// Says what there is, and takes the snapshot that every later read sees. Fails with `SourceUnsuitable` if anything in
    /// it could not be moved exactly, before a byte is sent.
    fn plan(&mut self) -> Outcome<Plan>;

    /// Whether `read` may be called again for a part, by this process or by another, and gives the same bytes as long as
    /// what it reads has not changed. That it has not is not taken on trust: what is read again is proven by its digest.
    fn can_repeat(&self) -> bool;

    /// Writes one part into `out`, whole. Returns only when the source vouches for it: a program that feeds it has
    /// ended with exit code 0.
    fn read(&mut self, part: PartIndex, out: &mut PartWriter<'_>) -> Outcome;
}

/// A source, and the program behind it that has to be killed if the transfer ends before it does.
pub struct OpenedSource {
    pub source: Box<dyn Source>,
    pub program: Option<Arc<Program>>,
    /// What reading it means for those who use it meanwhile.
    pub notice: Option<&'static str>,
}

/// Opens what a URL names.
pub fn open(location: &Location, form: Form, show_program_output: bool) -> Outcome<OpenedSource> {
    let plain = |source: Box<dyn Source>| OpenedSource { source, program: None, notice: None };
    Ok(match location {
        Location::Standard => plain(Box::new(OpaqueSource::standard())),
        Location::File(path) => plain(Box::new(OpaqueSource::file(path)?)),
        Location::Sqlite(path) => {
            let source = SqliteSource::open(path)?;
            let notice = Some(source.notice());
            let source: Box<dyn Source> = match form {
                Form::Rows => Box::new(source),
                Form::Image => Box::new(ImageSource::new(source)),
            };
            OpenedSource { source, program: None, notice }
        }
        Location::Exec(words) => {
            let program = Arc::new(Program::new(words.clone(), show_program_output)?);
            let source = Box::new(OpaqueSource::exec(Arc::clone(&program)));
            OpenedSource { source, program: Some(program), notice: None }
        }
        Location::Discard => {
            return Err(Failure::usage("discard: is a target, not a source", "Give the source of the data."));
        }
    })
}
