//! What the sessions of both ends set, so that a value has one text at both.

/// Settings under which values are printed and read. Each is sent as `SET name = value`; the source
/// reads, the target loads and the proof reads again under all of them.
pub const CANONICAL: &[(&str, &str)] = &[
    ("search_path", "''"),
    ("DateStyle", "'ISO, YMD'"),
    ("IntervalStyle", "'postgres'"),
    ("TimeZone", "'UTC'"),
    ("extra_float_digits", "3"),
    ("bytea_output", "'hex'"),
    ("xmlbinary", "'base64'"),
    ("xmloption", "'content'"),
    ("lc_monetary", "'C'"),
    ("lc_numeric", "'C'"),
    ("lc_time", "'C'"),
    ("standard_conforming_strings", "on"),
    ("escape_string_warning", "off"),
    ("array_nulls", "on"),
    ("row_security", "off"),
    ("quote_all_identifiers", "off"),
    ("default_text_search_config", "'pg_catalog.simple'"),
];

/// Nothing of the session's own ends it, and nothing is read in an order that differs from one scan
/// to the next.
pub const UNDISTURBED: &[(&str, &str)] = &[
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("synchronize_seqscans", "off"),
    ("max_parallel_workers_per_gather", "0"),
];

/// Settings that only later versions have, from which on (`server_version_num`).
pub const UNDISTURBED_SINCE: &[(u32, &str, &str)] =
    &[(140_000, "idle_session_timeout", "0"), (170_000, "transaction_timeout", "0")];

/// The statements that set them, for a server of this version.
pub fn set_up(server_version: u32) -> String {
    let later = UNDISTURBED_SINCE.iter().filter(|(since, ..)| server_version >= *since);
    let later = later.map(|(_, name, value)| (*name, *value));
    let all = CANONICAL.iter().chain(UNDISTURBED).copied().chain(later);
    all.map(|(name, value)| format!("SET {name} = {value};")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_settings_are_left_to_later_servers() {
        assert!(!set_up(130_000).contains("idle_session_timeout"));
        assert!(set_up(150_000).contains("SET idle_session_timeout = 0;"));
        assert!(!set_up(169_999).contains("transaction_timeout = 0;SET transaction_timeout"));
        assert!(set_up(170_000).ends_with("SET transaction_timeout = 0;"));
    }
}
