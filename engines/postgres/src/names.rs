//! Names in messages.

/// Names in one message; more are counted.
const NAMES_MAX: usize = 8;

/// These names, or the first of them and how many more there are.
pub fn listed(names: &[String]) -> String {
    listed_with(names, ", ")
}

/// The same, with this between them.
pub fn listed_with(names: &[String], between: &str) -> String {
    let shown = names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(between);
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
