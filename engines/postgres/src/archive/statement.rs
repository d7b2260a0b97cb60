//! The statements of an entry of grants.

/// Divides `GRANT`, `REVOKE`, `ALTER DEFAULT PRIVILEGES` and the like, which have names and no
/// literals, into statements. A semicolon within a quoted name ends none.
pub fn statements(definition: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    definition
        .split(move |character| {
            is_quoted ^= character == '"';
            character == ';' && !is_quoted
        })
        .map(str::trim)
        .filter(|statement| !statement.is_empty())
}
