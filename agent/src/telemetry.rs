//! Diagnostics: where log lines go, and how names from elsewhere are made safe to show.

use std::io;

use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::process::eprintln_safe;

/// Starts the log. What libraries say is for whoever asks for more than warnings: their words are not ours.
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

/// `text` with everything a terminal could obey (control characters, ends of lines among them, and bidirectional overrides)
/// escaped, so that a name from a database or a peer can be shown, and cannot pass for a line of ours (fault-matrix L11).
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let overrides = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || overrides {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::printable;

    /// fault-matrix L11.
    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\r"), "a\\u{1b}[2Jb\\u{202e}c\\u{d}");
        assert_eq!(printable("a\nreceipt good\u{2028}"), "a\\u{a}receipt good\\u{2028}");
        assert_eq!(printable("Müller 山田"), "Müller 山田");
    }
}
