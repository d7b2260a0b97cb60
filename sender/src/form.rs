//! In which form a database is moved.

use clap::ValueEnum;
use sealift_agent::failure::{Failure, Outcome};
use sealift_engine_api::{Endpoint, Form as EngineForm};

/// What `--form` says of a source that has more than one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Definitions and rows: every table is counted and digested, and built again in the target
    #[default]
    Rows,
    /// The pages of the file, as a backup would have them: everything arrives as it is, deleted
    /// rows in free pages included
    Image,
}

impl Form {
    /// Whether the source has such a form.
    pub fn check(self, endpoint: &dyn Endpoint) -> Outcome {
        match self == Form::Rows || endpoint.forms().contains(&self.of_engine()) {
            true => Ok(()),
            false => Err(Failure::usage(
                "--form image is for a source that is a database in a file",
                "Leave --form away: this source is sent as the bytes that it gives.",
            )),
        }
    }

    /// As the engine knows it.
    pub fn of_engine(self) -> EngineForm {
        match self {
            Form::Rows => EngineForm::Rows,
            Form::Image => EngineForm::Image,
        }
    }

    /// What a transfer is known by after a crash: a source in another form is another source.
    pub fn of_source(self, url: &str) -> String {
        match self {
            Form::Rows => url.to_owned(),
            Form::Image => format!("{url}\0image"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_form_is_another_source() {
        assert_ne!(Form::Rows.of_source("sqlite:a"), Form::Image.of_source("sqlite:a"));
    }
}
