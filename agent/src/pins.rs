//! Which peer a person means: a fingerprint, or a name that a file of known agents gives one.
//!
//! The file has one agent a line, `NAME FINGERPRINT`; what follows a `#` is a comment.

use std::{fs, path::Path};

use sealift_protocol::{close::Code, fingerprint::Fingerprint};

use crate::failure::{Failure, Outcome, io_reason};

/// In the state directory, unless another is named.
pub const KNOWN_AGENTS: &str = "known-agents";

/// Some thousand agents.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The fingerprint that `pin` is, or that `file` has under that name.
pub fn resolve(pin: &str, file: &Path) -> Outcome<Fingerprint> {
    if let Some(fingerprint) = Fingerprint::parse(pin) {
        return Ok(fingerprint);
    }
    let text = read(file).map_err(|error| {
        let what = format!("'{pin}' is no fingerprint, and {} cannot be read: {}", file.display(), io_reason(&error));
        Failure::usage(
            what,
            "Give the fingerprint that `identity` prints on the other host, or name the file that has it.",
        )
    })?;
    find(pin, &text).map_err(|(line, what)| {
        let next = "A line is NAME FINGERPRINT, each name stands there once; `identity` prints the fingerprint.";
        let place = line.map_or_else(String::new, |line| format!(", line {line}"));
        Failure::new(Code::Usage, format!("{}{place}: {what}", file.display()), next)
    })
}

fn read(file: &Path) -> std::io::Result<String> {
    match fs::metadata(file)?.len() {
        0..=FILE_BYTES_MAX => fs::read_to_string(file),
        _ => Err(std::io::ErrorKind::FileTooLarge.into()),
    }
}

/// The error is the line, and what is wrong with it. One line that is wrong makes the whole file
/// so.
fn find(name: &str, text: &str) -> Result<Fingerprint, (Option<usize>, String)> {
    let mut found = None;
    for (line, number) in text.lines().zip(1..) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let wrong = |what: &str| Err((Some(number), what.to_owned()));
        let Some((known, fingerprint)) = line.split_once(char::is_whitespace) else {
            return wrong("no fingerprint");
        };
        let Some(fingerprint) = Fingerprint::parse(fingerprint) else { return wrong("not a fingerprint") };
        if known != name {
            continue;
        }
        if found.replace(fingerprint).is_some() {
            return wrong("a second fingerprint of the same name");
        }
    }
    found.ok_or_else(|| (None, format!("no agent is called '{name}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_fingerprint_or_for_none() {
        let one = Fingerprint([1; 32]);
        let file = format!("# hosts\n\ndst {one} # the new one\nsrc\t{}\n", Fingerprint([2; 32]).digits());
        assert_eq!(find("dst", &file), Ok(one));
        assert_eq!(find("src", &file), Ok(Fingerprint([2; 32])));
        assert_eq!(find("else", &file).unwrap_err().0, None);
        assert_eq!(find("dst", &format!("{file}dst {one}\n")).unwrap_err().0, Some(5));
        assert_eq!(find("dst", &format!("{file}other 12\n")).unwrap_err().0, Some(5));
        assert_eq!(find("dst", &format!("{file}other\n")).unwrap_err().0, Some(5));
    }
}
