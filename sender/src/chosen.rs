//! Which tables of a source are moved.

use sealift_agent::failure::{Failure, Outcome};
use sealift_engine_api::{Endpoint, Filter};

/// The tables that are moved, as the command line has them.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ChosenArgs {
    /// Of a postgres: source, move only tables that match: TABLE or SCHEMA.TABLE, where * is any
    /// text and ? any character. Can be given more than once
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,

    /// Of a postgres: source, leave out tables that match; they may be needed by none that is
    /// moved. Can be given more than once
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
}

impl ChosenArgs {
    /// As the engine has it.
    pub fn filter(&self) -> Filter {
        Filter { include: self.include.clone(), exclude: self.exclude.clone() }
    }

    /// Whether the source has tables that can be chosen.
    pub fn check(&self, endpoint: &dyn Endpoint) -> Outcome {
        match self.filter().is_empty() || endpoint.has_filter() {
            true => Ok(()),
            false => Err(Failure::usage(
                "--include and --exclude are for a source whose tables can be chosen",
                "Leave them away: of this source everything is moved.",
            )),
        }
    }

    /// What a transfer is known by after a crash: other tables are another source.
    pub fn of_source(&self, source: String) -> String {
        let included = self.include.iter().map(|pattern| format!("\0include {pattern}"));
        let excluded = self.exclude.iter().map(|pattern| format!("\0exclude {pattern}"));
        included.chain(excluded).fold(source, |source, word| source + &word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_tables_are_another_source() {
        let of = |include: &[&str], exclude: &[&str]| {
            let owned = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
            ChosenArgs { include: owned(include), exclude: owned(exclude) }.of_source("postgres:".into())
        };
        assert_eq!(of(&[], &[]), "postgres:");
        assert_ne!(of(&["a"], &[]), of(&[], &["a"]));
        assert_ne!(of(&["a", "b"], &[]), of(&["a"], &["b"]));
    }
}
