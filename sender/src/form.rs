//! In which form a database is moved.

use clap::ValueEnum;
use sealift_agent::{
    failure::{Failure, Outcome},
    location::Location,
    report::Report,
};
use sealift_protocol::{image, manifest::Engine, sqlite};

/// What `--form` says of an `sqlite:` source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Definitions and rows: every table is counted and digested, and built again in the target
    #[default]
    Rows,
    /// The pages of the file, as a backup would have them: everything arrives as it is, deleted rows in free pages included
    Image,
}

impl Form {
    /// Whether `location` has such a form.
    pub fn check(self, location: &Location) -> Outcome {
        match (self, location) {
            (Form::Image, Location::Sqlite(_)) | (Form::Rows, _) => Ok(()),
            (Form::Image, _) => Err(Failure::usage(
                "--form image is for a source that is an SQLite database",
                "Give --source sqlite:PATH, or leave --form away: any other source is sent as the bytes that it gives.",
            )),
        }
    }

    /// The engine that reads `location` in this form, for the audit log.
    pub fn engine(self, location: &Location) -> Engine {
        match (self, location) {
            (Form::Rows, Location::Sqlite(_)) => sqlite::engine(),
            (Form::Image, Location::Sqlite(_)) => image::engine(),
            _ => sealift_opaque::engine(),
        }
    }

    /// What a transfer is known by after a crash: a source in another form is another source.
    pub fn of_source(self, url: &str) -> String {
        match self {
            Form::Rows => url.to_owned(),
            Form::Image => format!("{url}\0image"),
        }
    }

    /// Says what else travels.
    pub fn tell(self, report: &Report) {
        if self == Form::Image {
            let what = "the database is sent as an image of its pages: deleted rows that still lie in free pages travel \
                        with it. To leave them out, run VACUUM on the source first, or use --form rows.";
            report.notice("sender", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_has_an_image() {
        let check = |form: Form, url: &str| {
            form.check(&Location::parse(url).unwrap()).map_err(|failure| failure.code.exit_code())
        };
        for url in ["sqlite:a.db", "file:a", "-", "exec:cat"] {
            assert_eq!(check(Form::Rows, url), Ok(()));
        }
        assert_eq!(check(Form::Image, "sqlite:a.db"), Ok(()));
        for url in ["file:a.db", "-", "exec:cat a.db"] {
            assert_eq!(check(Form::Image, url), Err(2), "{url}");
        }
    }

    #[test]
    fn another_form_is_another_source() {
        assert_ne!(Form::Rows.of_source("sqlite:a"), Form::Image.of_source("sqlite:a"));
    }
}
