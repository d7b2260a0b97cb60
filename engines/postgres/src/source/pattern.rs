//! Patterns of names, as `psql` and `pg_dump` take them.

/// A pattern as two regular expressions of the server's (`~`), each of a whole name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Of the schema; a pattern without one is for all schemas.
    pub schema: String,
    pub table: String,
}

/// What a regular expression would read as an operator, if it is to stand for itself.
const OPERATORS: &str = "|*+?()[]{}.^$\\";

impl Pattern {
    /// `SCHEMA.TABLE` or `TABLE`, in lower case but for what is in double quotes; `*` is any text,
    /// and `?` one character. `None` if a quote is not closed, there is more than one dot outside
    /// of quotes, or nothing is named.
    pub fn parse(text: &str) -> Option<Self> {
        let mut names = vec![String::new()];
        let mut is_quoted = false;
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let name = names.last_mut()?;
            match character {
                '"' if is_quoted && characters.peek() == Some(&'"') => {
                    characters.next();
                    name.push('"');
                }
                '"' => is_quoted = !is_quoted,
                _ if is_quoted => push_literal(name, character),
                '.' => names.push(String::new()),
                '*' => name.push_str(".*"),
                '?' => name.push('.'),
                '$' => push_literal(name, '$'),
                _ => name.extend(character.to_lowercase()),
            }
        }
        let whole = |name: &String| format!("^({name})$");
        match &names[..] {
            _ if is_quoted || names.iter().any(String::is_empty) => None,
            [table] => Some(Self { schema: "^.*$".into(), table: whole(table) }),
            [schema, table] => Some(Self { schema: whole(schema), table: whole(table) }),
            _ => None,
        }
    }
}

fn push_literal(name: &mut String, character: char) {
    if OPERATORS.contains(character) {
        name.push('\\');
    }
    name.push(character);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_pg_dump() {
        let parsed = |text: &str| Pattern::parse(text).map(|pattern| (pattern.schema, pattern.table));
        let expected = |schema: &str, table: &str| Some((schema.to_owned(), table.to_owned()));
        assert_eq!(parsed("Patient"), expected("^.*$", "^(patient)$"));
        assert_eq!(parsed("clinic.audit_*"), expected("^(clinic)$", "^(audit_.*)$"));
        assert_eq!(parsed("*.t?"), expected("^(.*)$", "^(t.)$"));
        assert_eq!(parsed("s.(a|b)[0-9]"), expected("^(s)$", "^((a|b)[0-9])$"));
        assert_eq!(parsed("\"A.b*\".\"x\"\"y\""), expected("^(A\\.b\\*)$", "^(x\"y)$"));
        assert_eq!(parsed("a$1"), expected("^.*$", "^(a\\$1)$"));
        for bad in ["", "a.", ".a", "a.b.c", "\"a"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
