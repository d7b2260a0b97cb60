//! `sqlite:PATH`.

use std::sync::Arc;

use sealift_engine_api::{
    Endpoint, Engines, Form, Place, Recovery, Scheme, Source, SourceOptions, Target, TargetOptions,
};
use sealift_host::path::FilePath;
use sealift_protocol::{disposition::sender::Replay, failure::Outcome, manifest::Engine};

use crate::{
    engine,
    source::{ImageSource, RANGE_BYTES, SqliteSource},
    target::SqliteTarget,
};

#[derive(Debug)]
struct SqliteUrl {
    path: FilePath,
    range_bytes: u64,
}

/// The URLs of the engine.
pub const SCHEMES: &[Scheme] =
    &[Scheme { name: "sqlite", usage: "sqlite:PATH", is_source: true, parse: SqliteUrl::parse }];

impl SqliteUrl {
    fn parse(rest: &str) -> Outcome<Arc<dyn Endpoint>> {
        parse_with_ranges(rest, RANGE_BYTES)
    }
}

/// What the URL names with `rest` behind its colon; as a source, its tables are divided into ranges
/// of so many bytes. For tests, which have no large tables.
pub fn parse_with_ranges(rest: &str, range_bytes: u64) -> Outcome<Arc<dyn Endpoint>> {
    Ok(Arc::new(SqliteUrl { path: FilePath::parse("sqlite", rest)?, range_bytes }))
}

impl Endpoint for SqliteUrl {
    fn engine(&self, form: Form) -> Engine {
        match form {
            Form::Rows => engine::rows(),
            Form::Image => engine::image(),
        }
    }

    fn url(&self) -> String {
        self.path.url()
    }

    fn place(&self) -> Place {
        Place::File(self.path.resolved())
    }

    fn forms(&self) -> &'static [Form] {
        &[Form::Rows, Form::Image]
    }

    fn replay(&self) -> Replay {
        // Tables are scanned in the order of their keys, so that the same content gives the same
        // bytes.
        Replay::Always
    }

    fn open_source(&self, options: SourceOptions) -> Outcome<Box<dyn Source>> {
        let source = SqliteSource::open(&self.path.given)?.with_ranges(self.range_bytes);
        Ok(match options.form {
            Form::Rows => Box::new(source),
            Form::Image => Box::new(ImageSource::new(source)),
        })
    }

    fn check_target(&self, options: &TargetOptions) -> Outcome {
        if options.standing { self.path.check_absolute() } else { Ok(()) }
    }

    fn open_target(&self, options: &TargetOptions, _engines: Engines) -> Outcome<Arc<dyn Target>> {
        self.check_target(options)?;
        Ok(Arc::new(SqliteTarget::new(&self.path.resolved(), options.row_bytes_max as usize)?))
    }

    fn open_leftover(&self, options: &TargetOptions, engines: Engines) -> Outcome<Option<Arc<dyn Recovery>>> {
        if self.path.has_folder() { Ok(Some(self.open_target(options, engines)?)) } else { Ok(None) }
    }
}
