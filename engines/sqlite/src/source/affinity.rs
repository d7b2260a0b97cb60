//! Whether a value would come back as it is from a column of a declared type.
//!
//! SQLite converts a value on its way into a column by the column's affinity ("Datatypes In
//! SQLite", 3). What it has once stored so, it stores again unchanged; but a column may hold what
//! was never stored so: its type was edited in the schema, or a version of long ago did not
//! convert. Such a value would arrive as another one. It is found here, while it is read, and not
//! only when the target is read again.

use crate::Value;
use crate::document::TextEncoding;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// Converts nothing.
    None,
    Text,
    /// INTEGER and NUMERIC, which differ in casts alone.
    Numeric,
    Real,
}

impl Affinity {
    /// The rules of "Datatypes In SQLite", 3.1, in their order.
    pub fn of(declared: &str, strict: bool) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        if strict && declared == "ANY" {
            Affinity::None
        } else if has(&["INT"]) {
            Affinity::Numeric
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Affinity::Text
        } else if declared.is_empty() || has(&["BLOB"]) {
            Affinity::None
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }

    /// Whether there is text that storing it again would change.
    pub fn may_change_text(self) -> bool {
        matches!(self, Affinity::Numeric | Affinity::Real)
    }

    /// Whether storing `value` again would make another value of it.
    pub fn changes(self, value: Value<'_>, encoding: TextEncoding) -> bool {
        match (self, value) {
            (Affinity::Text, Value::Integer(_) | Value::Real(_)) => true,
            (Affinity::Numeric, Value::Real(real)) => is_whole(real),
            // Whole reals are kept as integers on disk, which know no negative zero.
            (Affinity::Real, Value::Real(real)) => real == 0.0 && real.is_sign_negative(),
            (Affinity::Numeric | Affinity::Real, Value::Text(text)) => match encoding {
                TextEncoding::Utf8 => looks_numeric(text.iter().map(|&byte| u16::from(byte))),
                TextEncoding::Utf16le => looks_numeric(units(text).map(u16::from_le_bytes)),
                TextEncoding::Utf16be => looks_numeric(units(text).map(u16::from_be_bytes)),
            },
            _ => false,
        }
    }
}

fn units(text: &[u8]) -> impl Iterator<Item = [u8; 2]> {
    text.chunks_exact(2).map(|unit| [unit[0], unit[1]])
}

/// As `sqlite3VdbeIntegerAffinity` decides: an integer of 64 bits, but not the least or the
/// greatest.
fn is_whole(real: f64) -> bool {
    real == real.trunc() && real.abs() < 9_223_372_036_854_775_808.0
}

/// As `sqlite3AtoF` decides: blanks, a sign, digits with at most one point, an exponent, blanks,
/// and nothing else; what comes after a NUL it does not see.
fn looks_numeric(text: impl Iterator<Item = u16>) -> bool {
    let text = text.take_while(|&unit| unit != 0);
    let is_blank = |unit: u16| matches!(unit, 0x09..=0x0d | 0x20);
    let mut text = text.skip_while(|&unit| is_blank(unit)).peekable();
    let is_digit = |unit: &u16| (0x30..=0x39).contains(unit);
    let sign = |unit: &u16| *unit == u16::from(b'+') || *unit == u16::from(b'-');
    text.next_if(sign);
    let mut digits = 0;
    while text.next_if(is_digit).is_some() {
        digits += 1;
    }
    if text.next_if_eq(&u16::from(b'.')).is_some() {
        while text.next_if(is_digit).is_some() {
            digits += 1;
        }
    }
    if digits == 0 {
        return false;
    }
    if text.next_if(|unit| *unit == u16::from(b'e') || *unit == u16::from(b'E')).is_some() {
        text.next_if(sign);
        if text.next_if(is_digit).is_none() {
            return false;
        }
        while text.next_if(is_digit).is_some() {}
    }
    text.all(is_blank)
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, types::ValueRef};

    use super::*;

    /// The engine itself is the reference: a value is stored in a column of each type, and the two
    /// must agree on whether it came back.
    #[test]
    fn agrees_with_the_engine() {
        let connection = Connection::open_in_memory().unwrap();
        let types =
            ["", "INT", "VARCHAR(3)", "CLOB", "BLOB", "DOUBLE", "floating point", "STRING", "NUMERIC", "REAL", "ANY"];
        let texts = [
            "",
            " ",
            "1",
            " 1 ",
            "+1",
            "-1",
            "1.0",
            "1.5",
            ".5",
            "5.",
            ".",
            "1e3",
            "1e",
            "1e+",
            "1E-2",
            "0x10",
            "12x",
            "x",
            "--1",
            "1 2",
            "9223372036854775807",
            "9223372036854775808",
            "1e400",
            "inf",
            "nan",
            "\u{a0}1",
            "1\0",
            "1\0x",
            "\u{0}1",
            "1\u{b}",
            "１",
            "1_000",
        ];
        let reals = [0.0, -0.0, 1.0, 1.5, 1e15, 9.2e18, 9.3e18, -9223372036854775808.0, 1e300, f64::INFINITY];
        for declared in types {
            connection.execute_batch(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t(c {declared})")).unwrap();
            let affinity = Affinity::of(declared, false);
            let agrees = |value: Value<'_>, stored: rusqlite::Result<bool>| {
                assert_eq!(affinity.changes(value, TextEncoding::Utf8), !stored.unwrap(), "{declared:?} {value:?}");
            };
            let store = |value: &dyn rusqlite::ToSql, same: &dyn Fn(ValueRef<'_>) -> bool| {
                connection.execute("DELETE FROM t", [])?;
                connection.execute("INSERT INTO t VALUES(?1)", [value])?;
                connection.query_row("SELECT c FROM t", [], |row| Ok(same(row.get_ref(0)?)))
            };
            for text in texts {
                agrees(Value::Text(text.as_bytes()), store(&text, &|got| got == ValueRef::Text(text.as_bytes())));
            }
            for real in reals {
                agrees(
                    Value::Real(real),
                    store(&real, &|got| matches!(got, ValueRef::Real(got) if got.to_bits() == real.to_bits())),
                );
            }
            // An integer read from a column of REAL affinity is always a real already.
            if affinity != Affinity::Real {
                for integer in [0, 1, i64::MIN, i64::MAX] {
                    agrees(Value::Integer(integer), store(&integer, &|got| got == ValueRef::Integer(integer)));
                }
            }
        }
    }

    #[test]
    fn sees_numbers_in_both_byte_orders() {
        let little: Vec<u8> = "12".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(Affinity::Numeric.changes(Value::Text(&little), TextEncoding::Utf16le));
        assert!(!Affinity::Numeric.changes(Value::Text(&little), TextEncoding::Utf16be));
    }
}
