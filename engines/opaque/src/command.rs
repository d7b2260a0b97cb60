//! The command of `exec:`, one string: split into words as a shell splits them, and run without a
//! shell. What only a shell would act on is refused, since it would be handed to the program as if
//! it were meant for that.

use std::path::Path;

use sealift_engine_api::Finding;
use sealift_protocol::failure::{Failure, Outcome};

/// What a shell would act on and nobody else does, outside quotes: a pipe, a redirection, an
/// expansion, a second command.
const FOR_A_SHELL: &str = "|<>$`*?[;&()";

/// Within double quotes a shell still expands these.
const FOR_A_SHELL_QUOTED: &str = "$`";

/// Shells of which `-c` takes a script.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"];

/// Of a pipeline in a shell's script, where a failure is not seen.
pub fn hidden_exit_codes() -> Finding {
    let what = "of a pipeline in sh -c '...' only the exit code of the last program counts: where one before it fails, half \
                of the data looks like all of it";
    Finding::warning("hidden-exit-codes", what, "bash -o pipefail -c '...' counts them all.")
}

/// The words of a command. Never empty.
pub fn split(text: &str) -> Outcome<Vec<String>> {
    if let Some(found) = meant_for_a_shell(text) {
        let what = format!("exec: runs its command without a shell, so that the {found} in it would have no effect");
        let next = "If a shell is meant, say exec:sh -c '...'. If the program is to see the character itself, put it into \
                    single quotes.";
        return Err(Failure::usage(what, next));
    }
    let words = shlex::split(text).filter(|words| words.first().is_some_and(|program| !program.is_empty()));
    let words = words.ok_or_else(|| {
        let next = "Give one string as you would type it in a shell, for example 'exec:pg_dump -Fc ehr'. Quotes must be \
                    closed. No shell is run: for pipes or variables say exec:sh -c '...'.";
        Failure::usage("exec: has no command that can be split into words", next)
    })?;
    match assigned_name(&words[0]) {
        // The value may be a password: only the name is repeated.
        Some(name) => {
            let what = format!("exec: runs its command without a shell, so that {name} would not be set");
            let next = "Set it in the agent's own environment, which the program inherits. A password is better kept in \
                        ~/.pgpass or an option file: what stands in a command is visible to every user of the host.";
            Err(Failure::usage(what, next))
        }
        None => Ok(words),
    }
}

/// Whether it is a shell's script with a pipeline of which only the last exit code counts.
pub fn hides_exit_codes(words: &[String]) -> bool {
    let program = words.first().and_then(|program| Path::new(program).file_name()?.to_str());
    let is_script = program.is_some_and(|program| SHELLS.contains(&program))
        && words.iter().any(|word| word.starts_with('-') && !word.starts_with("--") && word.contains('c'));
    is_script && !words.iter().any(|word| word.contains("pipefail")) && words.iter().any(|word| has_pipe(word))
}

/// What a shell would act on, for an error message.
fn meant_for_a_shell(text: &str) -> Option<&'static str> {
    let mut begins_word = true;
    for seen in seen_by_a_shell(text.trim()) {
        let found = match seen {
            Seen::Plain('\n') => Some("line break"),
            // A home folder, where a word begins with it.
            Seen::Plain('~') if begins_word => Some("~"),
            Seen::Plain(character) => one_of(FOR_A_SHELL, character),
            Seen::Quoted(character) => one_of(FOR_A_SHELL_QUOTED, character),
            Seen::Literal => None,
        };
        if found.is_some() {
            return found;
        }
        begins_word = matches!(seen, Seen::Plain(character) if character.is_ascii_whitespace());
    }
    None
}

fn one_of(characters: &'static str, character: char) -> Option<&'static str> {
    let at = characters.find(character)?;
    Some(&characters[at..at + character.len_utf8()])
}

fn has_pipe(script: &str) -> bool {
    let plain = |seen| if let Seen::Plain(character) = seen { character } else { '_' };
    let plain: String = seen_by_a_shell(script).into_iter().map(plain).collect();
    plain.replace("||", "").replace(">|", "").contains('|')
}

/// A character of a command, as a shell takes it.
#[derive(Clone, Copy)]
enum Seen {
    Plain(char),
    /// In double quotes, where some still mean something.
    Quoted(char),
    /// In single quotes or behind a backslash, or a quote itself.
    Literal,
}

fn seen_by_a_shell(text: &str) -> Vec<Seen> {
    let mut quote = None;
    let mut escaped = false;
    let mut seen = |character| match quote {
        _ if escaped => {
            escaped = false;
            Seen::Literal
        }
        Some('\'') if character != '\'' => Seen::Literal,
        Some(open) if character == open => {
            quote = None;
            Seen::Literal
        }
        _ if character == '\\' => {
            escaped = true;
            Seen::Literal
        }
        Some(_) => Seen::Quoted(character),
        None if character == '\'' || character == '"' => {
            quote = Some(character);
            Seen::Literal
        }
        None => Seen::Plain(character),
    };
    text.chars().map(&mut seen).collect()
}

/// `NAME=` at the beginning of a word, which is an assignment to a shell.
fn assigned_name(word: &str) -> Option<&str> {
    let (name, _) = word.split_once('=')?;
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_name && !name.is_empty() && !name.as_bytes()[0].is_ascii_digit()).then_some(name)
}

/// The ways in which passwords are usually put into commands.
pub fn holds_secret(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let assigned = lower.split_once('=').is_some_and(|(name, value)| {
        !value.is_empty() && ["password", "passwd", "pgpassword", "mysql_pwd"].iter().any(|end| name.ends_with(end))
    });
    let keyword = lower.split_whitespace().any(|setting| setting.starts_with("password="));
    let in_url = lower
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .is_some_and(|(user, _)| user.contains(':') && !user.contains('/'));
    assigned || keyword || in_url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_password_is_found() {
        for word in ["postgres://u:secret@h/d", "host=h password=secret", "PGPASSWORD=secret", "--password=secret"] {
            assert!(holds_secret(word), "{word}");
        }
        for word in ["--no-password", "dbname=ehr", "postgres://u@h:5432/d"] {
            assert!(!holds_secret(word), "{word}");
        }
    }

    fn words(text: &str) -> Vec<String> {
        split(text).unwrap_or_else(|failure| panic!("{text}: {failure}"))
    }

    /// Issue 9, B5; fault E10: what no shell will see is not handed to a program as if it were
    /// meant for that.
    #[test]
    fn what_only_a_shell_would_act_on_is_pointed_out() {
        for (bad, found) in [
            ("pg_dump ehr | gzip", "|"),
            ("pg_dump ehr > /tmp/x", ">"),
            ("psql -d $DB", "$"),
            ("psql -d \"$DB\"", "$"),
            ("cat *.sql", "*"),
            ("cat part[12].sql", "["),
            ("cat ~/dump.sql", "~"),
            ("cat 'a b' `date`", "`"),
            ("cat a && cat b", "&"),
            ("true; cat b", ";"),
            ("(cat a)", "("),
            ("cat a\ncat b", "line break"),
        ] {
            let failure = split(bad).expect_err(bad);
            assert_eq!(failure.code.exit_code(), 2);
            assert!(failure.what.ends_with(&format!("the {found} in it would have no effect")), "{}", failure.what);
            assert!(failure.hints.to_string().contains("exec:sh -c"));
        }
        for good in [
            "sh -c 'pg_dump ehr | gzip >$OUT'",
            "find . -name '*.sql'",
            r"grep \$ file",
            r#"psql -c "select 'a' || \$1""#,
            "psql -c \"SELECT 1; SELECT 2 > 1\"",
            "cat a~ \"~/x\" b\\\n c\n",
            "sh -c 'cat a\ncat b'",
            "env A=b cat x=y",
        ] {
            words(good);
        }
    }

    /// Issue 9, B5: a shell would set a variable; and what its value is may be a password.
    #[test]
    fn an_assignment_is_pointed_out_and_its_value_not_repeated() {
        let failure = split("PGPASSWORD=hunter2 pg_dump ehr").unwrap_err();
        assert!(failure.what.ends_with("PGPASSWORD would not be set"), "{failure}");
        assert!(!failure.to_string().contains("hunter2"));
    }

    /// Issue 9, B5: the exit code of a dump that a pipe hides.
    #[test]
    fn a_pipeline_that_hides_an_exit_code_is_known() {
        for hides in ["sh -c 'pg_dump ehr | zstd'", "/bin/bash -ec 'a | b || c'", "busybox sh -c 'a|b'"] {
            assert!(hides_exit_codes(&words(hides)), "{hides}");
        }
        for shows in [
            "bash -o pipefail -c 'pg_dump ehr | zstd'",
            "bash -c 'set -o pipefail; pg_dump ehr | zstd'",
            "sh -c 'pg_dump ehr || exit 1'",
            "sh -c 'psql -c \"select 1|2\" >| x'",
            "psql -c 'select 1|2'",
            "sh script 'a|b'",
        ] {
            assert!(!hides_exit_codes(&words(shows)), "{shows}");
        }
    }
}
