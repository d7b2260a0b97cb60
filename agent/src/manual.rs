//! Manual pages, one a command, made from the same definitions as `--help`.

use clap::{
    Command,
    builder::{Resettable, StyledStr},
};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};
use sealift_protocol::close::Code;

use crate::failure::{Failure, Outcome};

/// Writes the page of the command that `words` name below `program`.
pub fn render(mut program: Command, words: &[String], page: &mut Vec<u8>) -> Outcome {
    program.build();
    let mut command = &program;
    for word in words {
        let found = command.find_subcommand(word).filter(|found| !found.is_hide_set());
        command = found.ok_or_else(|| Failure::usage(format!("there is no command '{word}'"), "See --help."))?;
    }
    let after = |command: &Command| command.get_after_help().map(StyledStr::to_string).unwrap_or_default();
    let mut sections = if words.is_empty() { Vec::new() } else { examples(&after(command)) };
    sections.extend(exit_status(&after(&program)));
    // clap_mangen would fill the lines of examples, which takes them apart.
    let rendered = Man::new(command.clone().after_help(Resettable::Reset)).render(page);
    rendered
        .and_then(|()| append(&sections, page))
        .map_err(|error| Failure::io(Code::Internal, "the manual page cannot be made", &error, ""))
}

/// A heading and its lines.
type Section = (&'static str, Vec<String>);

/// What stands below a command's help: examples to begin with, and what there is to know besides.
fn examples(after: &str) -> Vec<Section> {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (examples, notes) = after.split_once("\n\n").unwrap_or((after, ""));
    let examples = examples.split_once('\n').map_or("", |(_, examples)| examples);
    let sections = [("EXAMPLES", lines(examples)), ("NOTES", lines(notes))];
    sections.into_iter().filter(|(_, lines)| !lines.is_empty()).collect()
}

fn exit_status(after: &str) -> Option<Section> {
    let codes = after.strip_prefix("Exit codes: ")?;
    Some(("EXIT STATUS", codes.trim_end_matches('.').split("; ").map(str::to_owned).collect()))
}

/// As they stand, line by line.
fn append(sections: &[Section], page: &mut Vec<u8>) -> std::io::Result<()> {
    let mut roff = Roff::new();
    for (heading, lines) in sections {
        roff.control("SH", [*heading]).control("nf", []);
        for line in lines {
            roff.text([roman(line.as_str())]);
        }
        roff.control("fi", []);
    }
    roff.to_writer(page)
}
