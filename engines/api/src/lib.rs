//! The contract of an engine: what reads a source and what writes a target, for code that knows no
//! engine by name.
//!
//! No I/O: types and traits alone. An engine is a crate of its own that depends on this one and on
//! `protocol`.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod endpoint;
mod filter;
mod finding;
mod part_content;
mod registry;
mod row_sink;
mod source;
mod stop;
mod target;
mod waivers;

pub use sealift_protocol::receive::Durability;

pub use self::{
    endpoint::{Endpoint, Form, KeepSnapshot, Place, SourceOptions, TargetOptions, not_a_source},
    filter::{Filter, RowFilter},
    finding::{Finding, FindingKind, Severity, Waiver, refuse_errors},
    part_content::{GatheredDocument, WrittenChunks, out_of_order, row_over_limit},
    registry::{EngineSpec, Engines, FailPoint, Helper, Instead, Scheme},
    row_sink::{RowSink, row_cut_short, row_too_long, rows_not_as_counted},
    source::{PartReader, Planned, Snapshot, SnapshotAge, Source},
    stop::StopToken,
    target::{
        Abandoned, Commit, FinishedLoad, LeftAt, LoadFailure, PartSink, PreparedLoad, ProvenLoad, Readiness, Recovery,
        StagedLoad, Target, TargetCapabilities, TargetLoad, Writers,
    },
    waivers::Waivers,
};
