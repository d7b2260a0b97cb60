//! Tables with generated columns while their rows are loaded.
//!
//! A STORED generated column holds what the source's engine computed when the row was written;
//! another release, or another function of the application, would compute something else. And an
//! INSERT computes VIRTUAL columns too, which nothing stores, and fails where the expression fails
//! for a row that was there before the column was added. So while rows are loaded the catalogue has
//! another text of such a table: STORED columns are plain ones, written with the values that the
//! source has, and VIRTUAL ones are NULL unless something depends on them. Neither changes how a
//! row is stored. The source's own text comes back before views and triggers do.

use std::{collections::HashMap, ops::Range};

use rusqlite::Connection;

use crate::define::{Cause, Refused, with_writable_schema};
use crate::document::Table;

const CATALOGUE: &str = "sqlite_schema";

/// Gives tables with generated columns the text under which their rows are loaded, in the
/// transaction that is open.
pub fn begin_loading(connection: &Connection, tables: &[&Table]) -> Result<(), Refused> {
    let mut texts = HashMap::new();
    let mut columns_before = Vec::new();
    for table in tables {
        let clauses = generated_clauses(&table.sql);
        if clauses.is_empty() {
            continue;
        }
        let engine = |error| Refused::engine(&table.name, error);
        let keep_virtual = needs_virtual(connection, &table.name).map_err(engine)?;
        texts.insert(table.name.as_str(), loading_text(&table.sql, &clauses, keep_virtual));
        columns_before.push((*table, columns(connection, &table.name).map_err(engine)?));
    }
    set_texts(connection, &texts).map_err(|error| Refused::engine(CATALOGUE, error))?;
    for (table, before) in columns_before {
        let now = columns(connection, &table.name).map_err(|error| Refused::engine(&table.name, error))?;
        // Whatever the text was taken for: the columns are the same, but for those that are now
        // plain.
        if now != before.into_iter().map(DeclaredColumn::when_loading).collect::<Vec<_>>() {
            return Err(Refused::new(&table.name, Cause::NotUnderstood));
        }
    }
    Ok(())
}

/// Gives all tables their own text again, in the transaction that is open.
pub fn end_loading(connection: &Connection, tables: &[&Table]) -> Result<(), Refused> {
    let generated = tables.iter().filter(|table| !generated_clauses(&table.sql).is_empty());
    let texts = generated.map(|table| (table.name.as_str(), table.sql.clone())).collect();
    set_texts(connection, &texts).map_err(|error| Refused::engine(CATALOGUE, error))
}

/// Writes the texts of the tables of these names, and makes the connection read the catalogue as it
/// now is.
fn set_texts(connection: &Connection, texts: &HashMap<&str, String>) -> rusqlite::Result<()> {
    if !texts.is_empty() {
        let mut tables = connection.prepare("SELECT rowid, name FROM main.sqlite_schema WHERE type = 'table'")?;
        let tables = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let tables = tables.collect::<rusqlite::Result<Vec<(i64, String)>>>()?;
        with_writable_schema(connection, |connection| {
            let mut update = connection.prepare("UPDATE main.sqlite_schema SET sql = ?1 WHERE rowid = ?2")?;
            for (rowid, name) in &tables {
                if let Some(text) = texts.get(name.as_str()) {
                    update.execute((text, rowid))?;
                }
            }
            Ok(())
        })?;
    }
    connection.execute_batch("PRAGMA writable_schema=RESET")
}

/// A line of `PRAGMA table_xinfo`.
#[derive(PartialEq)]
struct DeclaredColumn {
    name: String,
    declared: String,
    not_null: bool,
    key_place: u32,
    hidden: u32,
}

/// `hidden` of a STORED generated column.
const STORED: u32 = 3;

impl DeclaredColumn {
    fn when_loading(self) -> Self {
        Self { hidden: if self.hidden == STORED { 0 } else { self.hidden }, ..self }
    }
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<DeclaredColumn>> {
    let sql = "SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid";
    let mut statement = connection.prepare(sql)?;
    let columns = statement.query_map([table], |row| {
        Ok(DeclaredColumn {
            name: row.get(0)?,
            declared: row.get(1)?,
            not_null: row.get(2)?,
            key_place: row.get(3)?,
            hidden: row.get(4)?,
        })
    })?;
    columns.collect()
}

/// Whether something that is checked or built while rows are loaded depends on a VIRTUAL column.
fn needs_virtual(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS(SELECT 1 FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 2 AND \"notnull\")";
    let checked: bool = connection.query_row(sql, [table], |row| row.get(0))?;
    Ok(checked || has_computed_index(connection, table)?)
}

/// Whether an index of the table holds what the engine computes, or of rows for which it computes a
/// condition.
pub fn has_computed_index(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS(SELECT 1 FROM pragma_index_list(?1, 'main') AS i, pragma_index_xinfo(i.name, 'main') AS x
        WHERE x.key AND (i.partial OR x.cid = -2
                         OR x.cid IN (SELECT cid FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 2)))";
    connection.query_row(sql, [table], |row| row.get(0))
}

/// `AS (expression) STORED` and its like, in the text of a table.
struct Clause {
    whole: Range<usize>,
    /// With its parentheses.
    expression: Range<usize>,
    stored: bool,
}

fn loading_text(sql: &str, clauses: &[Clause], keep_virtual: bool) -> String {
    let (mut text, mut end) = (String::with_capacity(sql.len()), 0);
    for clause in clauses {
        if clause.stored {
            text.push_str(&sql[end..clause.whole.start]);
            end = clause.whole.end;
        } else if !keep_virtual {
            text.push_str(&sql[end..clause.expression.start]);
            text.push_str("(NULL)");
            end = clause.expression.end;
        }
    }
    text.push_str(&sql[end..]);
    text
}

/// The generated columns' clauses. `AS` is a reserved word: in the list of columns, not quoted, it
/// stands nowhere else.
fn generated_clauses(sql: &str) -> Vec<Clause> {
    let tokens = tokens(sql);
    let is_word = |at: usize, word: &str| {
        tokens
            .get(at)
            .is_some_and(|token| token.kind == TokenKind::Word && sql[token.range.clone()].eq_ignore_ascii_case(word))
    };
    let (mut clauses, mut depth, mut at) = (Vec::new(), 0usize, 0);
    while let Some(token) = tokens.get(at) {
        match token.kind {
            TokenKind::Open => depth += 1,
            TokenKind::Close => depth = depth.saturating_sub(1),
            TokenKind::Word if depth == 1 && is_word(at, "AS") => {
                let Some(close) = closing(&tokens, at + 1) else { break };
                let stored = is_word(close + 1, "STORED");
                let last = if stored || is_word(close + 1, "VIRTUAL") { close + 1 } else { close };
                clauses.push(Clause {
                    whole: token.range.start..tokens[last].range.end,
                    expression: tokens[at + 1].range.start..tokens[close].range.end,
                    stored,
                });
                at = last;
            }
            _ => {}
        }
        at += 1;
    }
    clauses
}

/// What stands behind the list of columns in the definition of an index: the WHERE of a partial
/// one.
pub(crate) fn text_behind_columns(sql: &str) -> Option<&str> {
    let tokens = tokens(sql);
    let open = tokens.iter().position(|token| token.kind == TokenKind::Open)?;
    let first = tokens.get(closing(&tokens, open)? + 1)?;
    Some(&sql[first.range.start..])
}

/// The place of the token that closes the parenthesis at `open`, if there is one.
fn closing(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            TokenKind::Open => depth += 1,
            TokenKind::Close if depth == 1 => return Some(at),
            TokenKind::Close => depth -= 1,
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

struct Token {
    kind: TokenKind,
    range: Range<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Word,
    Open,
    Close,
    /// A string, a quoted name, an operator.
    Other,
}

/// The tokens of a statement, as `sqlite3GetToken` tells them apart; blanks and comments are left
/// out.
fn tokens(sql: &str) -> Vec<Token> {
    let bytes = sql.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let until = |end: Option<usize>, length: usize| end.map_or(rest.len(), |end| end + length);
        let find = |pattern: &[u8]| rest.windows(pattern.len()).skip(2).position(|window| window == pattern);
        let (kind, length) = match rest[0] {
            byte if byte.is_ascii_whitespace() || byte == 0x0b => (None, 1),
            b'-' if rest.starts_with(b"--") => (None, until(rest.iter().position(|byte| *byte == b'\n'), 1)),
            b'/' if rest.starts_with(b"/*") => (None, until(find(b"*/"), 4)),
            quote @ (b'\'' | b'"' | b'`') => (Some(TokenKind::Other), quoted_length(rest, quote)),
            b'[' => (Some(TokenKind::Other), until(rest.iter().position(|byte| *byte == b']'), 1)),
            b'(' => (Some(TokenKind::Open), 1),
            b')' => (Some(TokenKind::Close), 1),
            byte if is_of_word(byte) => {
                (Some(TokenKind::Word), rest.iter().position(|byte| !is_of_word(*byte)).unwrap_or(rest.len()))
            }
            _ => (Some(TokenKind::Other), 1),
        };
        if let Some(kind) = kind {
            tokens.push(Token { kind, range: at..at + length });
        }
        at += length;
    }
    tokens
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

/// The length of what is quoted at the beginning; a doubled quote does not end it.
fn quoted_length(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at] != quote {
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return at + 1;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loading(sql: &str, keep_virtual: bool) -> String {
        loading_text(sql, &generated_clauses(sql), keep_virtual)
    }

    #[test]
    fn clauses_are_found_wherever_they_stand() {
        for (sql, expected) in [
            ("CREATE TABLE t(a, s TEXT AS (a||'x') STORED)", "CREATE TABLE t(a, s TEXT )"),
            ("CREATE TABLE t(a, v as(a+1), b)", "CREATE TABLE t(a, v as(NULL), b)"),
            (
                "CREATE TABLE t(a, v INT GENERATED ALWAYS AS ((a)) VIRTUAL UNIQUE)",
                "CREATE TABLE t(a, v INT GENERATED ALWAYS AS (NULL) VIRTUAL UNIQUE)",
            ),
            (
                "CREATE TABLE t(a, s AS /*(*/ (f(')', \")\", [)], `)`)) -- )\n stored NOT NULL)",
                "CREATE TABLE t(a, s  NOT NULL)",
            ),
            (
                "CREATE TABLE \"as (\"(\"as\" DEFAULT (1), [as (x)] CHECK(cast(a AS TEXT) <> 'as (b) stored'))",
                "CREATE TABLE \"as (\"(\"as\" DEFAULT (1), [as (x)] CHECK(cast(a AS TEXT) <> 'as (b) stored'))",
            ),
            ("CREATE TABLE t(a, s1 AS (1) STORED, s2 AS (2) STORED)", "CREATE TABLE t(a, s1 , s2 )"),
            (
                "CREATE TABLE t(stored, virtual, \"it''s\" AS ('''' || a))",
                "CREATE TABLE t(stored, virtual, \"it''s\" AS (NULL))",
            ),
        ] {
            assert_eq!(loading(sql, false), expected);
        }
        let sql = "CREATE TABLE t(a, v AS (a + 1) VIRTUAL, s AS (v) STORED)";
        assert_eq!(loading(sql, true), "CREATE TABLE t(a, v AS (a + 1) VIRTUAL, s )");
    }

    /// What is no whole statement must not make it fail.
    #[test]
    fn damaged_texts_are_survived() {
        for sql in
            ["", "(", "((as", "(as", "(as (", "(as (')", "(as ()", "(as (\"", "/*", "(as [", "(é as (é)", "--", "/*/"]
        {
            loading(sql, false);
        }
    }
}
