//! Which tables of a source are moved.

/// Patterns of tables, in the engine's own form. Without an include, every table is moved but those
/// that an exclude matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// What is moved.
    pub include: Vec<String>,
    /// What of that is not.
    pub exclude: Vec<String>,
}

impl Filter {
    /// Whether everything is moved.
    pub fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}
