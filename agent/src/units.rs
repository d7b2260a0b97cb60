//! Sizes and times as people write them, and numbers as people read them.

use std::time::Duration;

use indicatif::HumanCount;
pub use sealift_host::units::human_bytes;

/// `64MiB`, `1.5 GB`, `500k`, `1048576`: bytes. Binary and decimal prefixes mean what they say.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    parse_size::parse_size(text).map_err(|_| "give a size such as 64MiB".into())
}

/// `30s`, `15m`, `4h`, `7d`, `1h 30m`: a second or more.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).ok().filter(|duration| *duration >= Duration::from_secs(1));
    duration.ok_or_else(|| "give a time such as 30s, 15m, 4h or 7d".into())
}

/// As [`parse_duration`]; `0s` is not at all.
pub fn parse_wait(text: &str) -> Result<Duration, String> {
    if text == "0s" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    HumanCount(number).to_string()
}

/// A number and the noun that it counts, with an s for all numbers but 1.
pub fn counted(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", grouped(number))
}

/// Bytes in three digits or so, alone or out of `total` in one unit: `1.2 GB`, `1.2/9.9 GB`. By
/// hand, since no library writes two amounts in one unit, and a line of progress has 38 columns.
pub fn brief_amount(bytes: u64, total: Option<u64>) -> String {
    const UNITS: [(&str, f64); 6] = [("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)];
    let most = total.unwrap_or(bytes) as f64;
    // What rounds up to a thousand is one of the next unit.
    let unit = UNITS.iter().find(|(_, size)| most >= 0.9995 * size).unwrap_or(&UNITS[5]);
    let digits = |bytes: u64| match bytes as f64 / unit.1 {
        number if unit.1 > 1.0 && number < 99.95 => format!("{number:.1}"),
        number => format!("{number:.0}"),
    };
    match total {
        Some(total) => format!("{}/{} {}", digits(bytes), digits(total), unit.0),
        None => format!("{} {}", digits(bytes), unit.0),
    }
}

/// A time as [`parse_duration`] reads it, to the second, or the millisecond where it is less than
/// one.
pub fn human_duration(duration: Duration) -> String {
    let rounded = match duration.as_secs() {
        0 => Duration::from_millis(duration.subsec_millis().into()),
        seconds => Duration::from_secs(seconds),
    };
    humantime::format_duration(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_or_refused() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("5 kB"), Ok(5000));
        assert_eq!(parse_bytes("12"), Ok(12));
        assert_eq!(parse_bytes("1.5MiB"), Ok(3 << 19));
        for bad in ["", "MiB", "-1", "64MiBs", "1.5.2MB", "99999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_duration("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "0s", "999ms", "1", "h", "-1s", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
            assert_eq!(parse_wait(bad).is_ok(), bad == "0s", "{bad}");
        }
    }

    #[test]
    fn a_time_is_written_as_it_is_read() {
        for text in ["0s", "340ms", "47s", "2m 5s", "1h 30m", "7days"] {
            assert_eq!(human_duration(humantime::parse_duration(text).unwrap()), text);
        }
        assert_eq!(human_duration(Duration::from_millis(59_999)), "59s");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!(counted(0, "row"), "0 rows");
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(counted(1000, "row"), "1,000 rows");
    }
}
