//! Which tables of a source are moved, and which of their rows.

use std::{convert::Infallible, fmt};

use sealift_agent::failure::{Failure, Outcome};
use sealift_engine_api::{Endpoint, Filter, RowFilter};

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

    /// Of a postgres: source, have the target compute the stored generated columns of tables that
    /// match: they are not compared, and the receipt names them. Can be given more than once
    #[arg(long, value_name = "PATTERN")]
    pub recompute: Vec<String>,

    /// Of a postgres: source, move only the rows of this table that meet this condition, an
    /// expression of SQL over its columns. The receipt says that the table was filtered, and not by
    /// what; every user of this host can see an argument while the command runs. Can be given more
    /// than once
    #[arg(long = "where", value_name = "TABLE=CONDITION", value_parser = Where::parse)]
    pub wheres: Vec<Where>,

    /// Of a postgres: source, move definitions and no rows
    #[arg(long, conflicts_with = "wheres")]
    pub schema_only: bool,
}

/// What was given with `--where`. It may hold values: it is not printed.
#[derive(Clone)]
pub struct Where(String);

impl fmt::Debug for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Where")
    }
}

impl Where {
    /// Takes any text: an error of the command line would repeat it.
    fn parse(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }

    /// Split at the first `=` that is not in the double quotes of a name.
    fn filter(&self) -> Option<RowFilter> {
        let mut is_quoted = false;
        let end = self.0.char_indices().find_map(|(at, character)| {
            is_quoted ^= character == '"';
            (character == '=' && !is_quoted).then_some(at)
        })?;
        let (table, condition) = (self.0[..end].trim(), self.0[end + 1..].trim());
        let is_whole = !table.is_empty() && !condition.is_empty();
        is_whole.then(|| RowFilter { table: table.to_owned(), condition: condition.to_owned() })
    }
}

impl ChosenArgs {
    /// As the engine has it, once it was [checked](Self::check).
    pub fn filter(&self) -> Filter {
        Filter {
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            recompute: self.recompute.clone(),
            rows: self.wheres.iter().filter_map(Where::filter).collect(),
            definitions_only: self.schema_only,
        }
    }

    /// Whether it can be read, and the source has tables that can be chosen.
    pub fn check(&self, endpoint: &dyn Endpoint) -> Outcome {
        if self.wheres.iter().any(|given| given.filter().is_none()) {
            let next = "Give TABLE=CONDITION, such as --where \"visit=at >= '2020-01-01'\".";
            return Err(Failure::usage("--where has no table, or no condition", next));
        }
        match self.filter().is_empty() || endpoint.has_filter() {
            true => Ok(()),
            false => Err(Failure::usage(
                "--include, --exclude, --recompute, --where and --schema-only are for a source whose tables can be chosen",
                "Leave them away: of this source everything is moved.",
            )),
        }
    }

    /// What a transfer is known by after a crash: other tables or rows are another source.
    pub fn of_source(&self, source: String) -> String {
        let included = self.include.iter().map(|pattern| format!("\0include {pattern}"));
        let excluded = self.exclude.iter().map(|pattern| format!("\0exclude {pattern}"));
        let filtered = self.wheres.iter().map(|Where(text)| format!("\0where {text}"));
        let schema_only = self.schema_only.then(|| "\0schema-only".to_owned());
        let recomputed = self.recompute.iter().map(|pattern| format!("\0recompute {pattern}"));
        let patterns = included.chain(excluded).chain(recomputed);
        patterns.chain(filtered).chain(schema_only).fold(source, |source, word| source + &word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(include: &[&str], exclude: &[&str], wheres: &[&str]) -> ChosenArgs {
        let owned = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let wheres = wheres.iter().map(|&text| Where(text.to_owned())).collect();
        ChosenArgs {
            include: owned(include),
            exclude: owned(exclude),
            recompute: Vec::new(),
            wheres,
            schema_only: false,
        }
    }

    #[test]
    fn other_tables_or_rows_are_another_source() {
        let of = |include: &[&str], exclude: &[&str], wheres: &[&str]| {
            chosen(include, exclude, wheres).of_source("postgres:".into())
        };
        assert_eq!(of(&[], &[], &[]), "postgres:");
        assert_ne!(of(&["a"], &[], &[]), of(&[], &["a"], &[]));
        assert_ne!(of(&["a", "b"], &[], &[]), of(&["a"], &["b"], &[]));
        assert_ne!(of(&[], &[], &["a=b > 1"]), of(&[], &[], &["a=b > 2"]));
    }

    /// Issue 11: the literals of a condition reach no log.
    #[test]
    fn a_condition_is_taken_apart_and_not_shown() {
        let of = |text: &str| Where(text.to_owned()).filter().map(|filter| (filter.table, filter.condition));
        assert_eq!(of("visit = at = 'x=y'"), Some(("visit".into(), "at = 'x=y'".into())));
        assert_eq!(of("s.\"a=b\"=c=1"), Some(("s.\"a=b\"".into(), "c=1".into())));
        for bad in ["visit", "=a", "visit=", "\"a=b"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        let shown = format!("{:?} {:?}", chosen(&[], &[], &["t=secret"]), chosen(&[], &[], &["t=secret"]).filter());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
