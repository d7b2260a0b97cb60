//! Which tables of a source are moved, and which of their rows.

use std::fmt;

/// Patterns of tables, in the engine's own form. Without an include, every table is moved but those
/// that an exclude matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// What is moved.
    pub include: Vec<String>,
    /// What of that is not.
    pub exclude: Vec<String>,
    /// Of which stored generated columns are left out: the target computes them.
    pub recompute: Vec<String>,
    /// Of which tables not all rows are moved.
    pub rows: Vec<RowFilter>,
    /// Definitions are moved, and no row.
    pub definitions_only: bool,
}

/// Which rows of one table are moved.
#[derive(Clone, PartialEq, Eq)]
pub struct RowFilter {
    /// A pattern that matches one table.
    pub table: String,
    /// A condition in the language of the source. It may hold values, and is shown to nobody.
    pub condition: String,
}

impl fmt::Debug for RowFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowFilter").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Filter {
    /// Whether everything is moved, as it is.
    pub fn is_empty(&self) -> bool {
        self.has_all_tables() && self.rows.is_empty() && self.recompute.is_empty() && !self.definitions_only
    }

    /// Whether no table is left out.
    pub fn has_all_tables(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}
