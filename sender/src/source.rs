//! Where a transfer's data comes from.

use std::sync::Arc;

use sealift_agent::{
    command::{HIDDEN_EXIT_CODES, hides_exit_codes},
    failure::{Failure, Outcome},
    location::Location,
};
use sealift_engine_api::{OpenedSource, Source};
use sealift_opaque::{OpaqueSource, program::Program};
use sealift_sqlite::{ImageSource, SqliteSource};

use crate::form::Form;

/// Opens what a URL names.
pub fn open(location: &Location, form: Form, show_program_output: bool) -> Outcome<OpenedSource> {
    let plain = |source: Box<dyn Source>| OpenedSource { source, interrupt: None, notice: None };
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
            OpenedSource { source, interrupt: None, notice }
        }
        Location::Exec(words) => {
            let program = Arc::new(Program::new(words.clone(), show_program_output)?);
            let source = Box::new(OpaqueSource::exec(Arc::clone(&program)));
            let notice = hides_exit_codes(words).then_some(HIDDEN_EXIT_CODES);
            OpenedSource { source, interrupt: Some(program), notice }
        }
        Location::Discard => {
            return Err(Failure::usage("discard: is a target, not a source", "Give the source of the data."));
        }
    })
}
