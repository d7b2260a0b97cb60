//! What a URL names, to code that does not know its engine.

use std::{fmt, num::NonZero, path::PathBuf, sync::Arc, time::Duration};

use sealift_protocol::{
    disposition::sender::Replay,
    failure::{Failure, Outcome},
    manifest::Engine,
    printable::printable,
};

use crate::{Engines, Filter, Recovery, Source, Target, Waivers};

/// What one URL names, as its engine understands it: a source, a target, or what can be both.
///
/// Only the methods that open something touch it. The others follow from the URL, but for
/// [`Endpoint::replay`], which may look at what kind of file there is.
pub trait Endpoint: fmt::Debug + Send + Sync {
    /// The URL again, such that it names the same place whatever the working folder is.
    fn url(&self) -> String;

    /// The URL for logs and messages, without what may be secret.
    fn shown(&self) -> String {
        printable(&self.url())
    }

    /// Where it is.
    fn place(&self) -> Place;

    /// What the plan of a source in this form calls its engine.
    fn engine(&self, form: Form) -> Engine;

    /// In which forms the source can be moved. Empty if there is one alone, which needs no name.
    fn forms(&self) -> &'static [Form] {
        &[]
    }

    /// Whether the tables of the source can be chosen with a [`Filter`].
    fn has_filter(&self) -> bool {
        false
    }

    /// What another process can read of the source.
    fn replay(&self) -> Replay;

    /// Opens it as a source. Starts nothing.
    fn open_source(&self, options: SourceOptions) -> Outcome<Box<dyn Source>>;

    /// Refuses what cannot be a target by its URL alone.
    fn check_target(&self, options: &TargetOptions) -> Outcome;

    /// Opens it as a target, if [`Endpoint::check_target`] lets it be one. `engines` are those of
    /// this program, for a target that takes what any of them sends.
    fn open_target(&self, options: &TargetOptions, engines: Engines) -> Outcome<Arc<dyn Target>>;

    /// Opens the target of a transfer that is over, or is not running, for what it may have left
    /// there. `None` where nothing can be left. Starts nothing.
    fn open_leftover(&self, options: &TargetOptions, engines: Engines) -> Outcome<Option<Arc<dyn Recovery>>> {
        Ok(Some(self.open_target(options, engines)?))
    }
}

/// Where an endpoint is, to find that two of them are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file; the links of its folder are resolved.
    File(PathBuf),
    /// A standard stream of this process.
    StandardStream,
    /// Whatever these words name.
    Named(Vec<String>),
    /// Nothing is kept: any number of transfers can go there at once.
    Nowhere,
}

impl Place {
    /// Whether two loads into these would meet.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        *self != Place::Nowhere && self == other
    }
}

/// In which form a database is moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Definitions and rows, from which the target is rebuilt.
    #[default]
    Rows,
    /// The bytes in which the database is stored.
    Image,
}

impl Form {
    /// The name in logs and `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Form::Rows => "rows",
            Form::Image => "image",
        }
    }
}

/// How a source is to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// One of [`Endpoint::forms`], or the default.
    pub form: Form,
    /// Empty where there is [no filter](Endpoint::has_filter).
    pub filter: Filter,
    /// How many readers may be open at once, instead of the engine's own number.
    pub workers: Option<NonZero<u16>>,
    /// The danger was typed: what the source's program prints is shown.
    pub danger_show_program_output: bool,
    /// For a transfer that another process may resume.
    pub keep: Option<KeepSnapshot>,
    /// The errors of a preflight that are accepted.
    pub waivers: Waivers,
}

/// How the snapshot of a source outlives the process that reads it, where the engine can do that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepSnapshot {
    /// The folder of the transfer, in which another process finds what holds the snapshot.
    pub folder: PathBuf,
    /// A snapshot that is held is released, and a new one taken.
    pub fresh: bool,
    /// How long it is held while no process reads.
    pub unattended: Duration,
    /// How long it is held in all.
    pub age_max: Duration,
}

/// What a target may do, and how much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetOptions {
    /// The longest row that is taken.
    pub row_bytes_max: u64,
    /// How much is made or proven at once, instead of the engine's own number.
    pub workers: Option<NonZero<u16>>,
    /// The danger was typed: the target may hold every row in the clear.
    pub danger_plaintext_file: bool,
    /// The danger was typed: what the target's program prints is shown.
    pub danger_show_program_output: bool,
    /// For a service, which has no standard streams and no working folder, and takes its settings
    /// from a file.
    pub standing: bool,
    /// The errors of a preflight that are accepted.
    pub waivers: Waivers,
}

/// What is no source: a target alone.
pub fn not_a_source(url: &str) -> Failure {
    Failure::usage(format!("{url} is a target, not a source"), "Give the source of the data.")
}
