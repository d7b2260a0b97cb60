//! Diagnostics: where log lines go, and how names from elsewhere are made safe to show.

use std::io;

use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

pub use sealift_protocol::printable::printable;

use crate::process::eprintln_safe;

/// Starts the log. What libraries log is shown only at a level above warnings: their words are
/// not ours.
pub fn start(level: LevelFilter) {
    let of_libraries = if level >= LevelFilter::INFO { level } else { LevelFilter::OFF };
    let targets = Targets::new().with_target("sealift", level).with_default(of_libraries);
    let lines = fmt::layer().with_writer(|| LogLine).with_ansi(false);
    // A second start in one process, as in tests, keeps the first log.
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
}

/// Writes what it is given, a whole line at a time, as a line of ours.
struct LogLine;

impl io::Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        eprintln_safe(&format!("sealift: log: {}", printable(text.trim())));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
