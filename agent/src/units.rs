//! Sizes and times as people write them, and numbers as people read them.

use std::time::Duration;

/// `64MiB`, `1GiB`, `500kB`, `1048576`: bytes. Binary and decimal prefixes mean what they say.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let units: [(&str, u64); 8] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
        ("", 1),
    ];
    parse_with(text, &units).ok_or_else(|| "give a size such as 64MiB".into())
}

/// `30s`, `15m`, `4h`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let seconds = parse_with(text, &units).filter(|&seconds| seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| "give a time such as 30s, 15m, 4h or 7d".into())
}

/// As [`parse_duration`]; `0s` is not at all.
pub fn parse_wait(text: &str) -> Result<Duration, String> {
    if text == "0s" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

fn parse_with(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text[digits.len()..].trim();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of what `one` is the name of, with an s for all numbers but 1.
pub fn counted(number: u64, one: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {one}{ending}", grouped(number))
}

/// Bytes in the decimal unit that suits them.
pub fn human_bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Bytes in three digits or so, alone or out of `total` in one unit: `1.2 GB`, `1.2/9.9 GB`.
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

/// A time that is only an estimate, in a few characters.
pub fn brief_duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{:.1} h", seconds as f64 / 3600.0),
        seconds => format!("{} days", grouped(seconds / 86_400)),
    }
}

/// A time to the precision that suits it.
pub fn human_duration(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        seconds @ 60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_or_refused() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("5 kB"), Ok(5000));
        assert_eq!(parse_bytes("12"), Ok(12));
        for bad in ["", "MiB", "-1", "1.5MiB", "64mib", "99999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_duration("90m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "0s", "1w", "1", "h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
            assert_eq!(parse_wait(bad).is_ok(), bad == "0s", "{bad}");
        }
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!(counted(0, "row"), "0 rows");
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(counted(1000, "row"), "1,000 rows");
    }
}
