//! Names and texts as SQL has them.

use std::fmt::Write;

/// A name as an identifier, in quotes. A name never holds a zero byte.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `schema.name`, both in quotes.
pub fn quote_qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}

/// How names are written in statements whose text is in the encoding of the database, since values
/// travel in it. Our names are in UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// The encoding is UTF-8, or the server does not convert: names are written as they are.
    Plain,
    /// Another one: all but ASCII is written as escapes, which a server converts from version 13
    /// on.
    Escaped,
}

impl Names {
    /// For statements in the encoding that `pg_encoding_to_char` gives this name.
    pub fn in_encoding(encoding: &str) -> Self {
        if matches!(encoding, "UTF8" | "SQL_ASCII") { Self::Plain } else { Self::Escaped }
    }

    /// A name as an identifier, in quotes.
    pub fn quote(self, name: &str) -> String {
        if self == Self::Plain || name.is_ascii() {
            return quote(name);
        }
        let mut out = String::from("U&\"");
        for character in name.chars() {
            match character {
                '"' => out.push_str("\"\""),
                '\\' => out.push_str("\\\\"),
                _ if character.is_ascii() => out.push(character),
                _ => {
                    let _ = write!(out, "\\+{:06x}", u32::from(character));
                }
            }
        }
        out.push('"');
        out
    }

    /// `schema.name`, both in quotes.
    pub fn qualified(self, schema: &str, name: &str) -> String {
        format!("{}.{}", self.quote(schema), self.quote(name))
    }
}

/// A text as a literal that means the same whatever `standard_conforming_strings` is.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_be_left() {
        assert_eq!(quote_qualified("a\"b", "c d"), "\"a\"\"b\".\"c d\"");
        assert_eq!(Names::Escaped.qualified("a\"b", "\"\\é"), "\"a\"\"b\".U&\"\"\"\\\\\\+0000e9\"");
        assert_eq!(Names::in_encoding("UTF8").quote("é"), "\"é\"");
        assert_eq!(literal("it's \\"), "E'it''s \\\\'");
    }
}
