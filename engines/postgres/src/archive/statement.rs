//! The statements of an entry of grants. They have names and no literals; keywords are in capitals,
//! which a name has only in quotes.

/// Divides `GRANT`, `REVOKE`, `ALTER DEFAULT PRIVILEGES` and the like into statements. A semicolon
/// within a quoted name ends none.
pub fn statements(definition: &str) -> impl Iterator<Item = &str> {
    split(definition, |character| character == ';')
}

/// The roles that such a statement names, but for PUBLIC.
pub fn roles_of(statement: &str) -> Vec<String> {
    let words: Vec<&str> = words(statement).collect();
    let is_role = |place: &usize| {
        let before = |back: usize| place.checked_sub(back).map(|place| words[place]);
        match before(1) {
            Some("TO" | "FROM" | "AUTHORIZATION") => true,
            Some("ROLE") => before(2) == Some("FOR"),
            Some("BY") => before(2) == Some("GRANTED"),
            _ => false,
        }
    };
    let named = (0..words.len()).filter(is_role).map(|place| words[place]);
    named.filter(|name| !matches!(*name, "PUBLIC" | "DEFAULT")).map(unquote).collect()
}

/// The words of a statement: names in quotes are one word, with their quotes.
pub fn words(statement: &str) -> impl Iterator<Item = &str> {
    split(statement, char::is_whitespace)
}

/// The pieces between separators that are in no quotes, without those that are empty.
fn split(text: &str, is_separator: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |character| {
        is_quoted ^= character == '"';
        !is_quoted && is_separator(character)
    })
    .map(str::trim)
    .filter(|piece| !piece.is_empty())
}

/// A name as an identifier has it, without its quotes.
pub fn unquote(name: &str) -> String {
    match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}
