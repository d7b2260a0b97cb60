//! What Sealift costs, measured: each stage, the pipeline without a link, the two agents beside
//! other tools, and their memory. `scripts/bench` runs all of it; `docs/performance.md` says how to
//! read it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agents;
pub mod contender;
pub mod dump;
pub mod measure;
pub mod network;
pub mod pipeline;
pub mod quic;
pub mod ssh;
pub mod stages;
pub mod strangers;
pub mod table;

/// Why a bench could not run. What it measured is never a failure.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The end of a bench's `main`: 1 for a broken run, and its reason on standard error.
pub fn exit(bench: &str, outcome: Outcome) -> std::process::ExitCode {
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            table::tell(&format!("{bench}: broken run: {error}"));
            std::process::ExitCode::FAILURE
        }
    }
}
