//! Rows that are longer than a chunk: one whose last value is a BLOB is written as it comes, and
//! any other is assembled. Both arrive as they are.

use super::{
    assert_same,
    pump::{Folder, transfer},
};

/// Issue 10, item 3: lengths about those at which a row is taken in pieces, of each storage class,
/// at the end of a row and before it, with indexes that allow it and that do not.
#[test]
fn long_rows_arrive_however_they_are_written() {
    let folder = Folder::new();
    let source = folder.build(
        "CREATE TABLE scan(id INTEGER PRIMARY KEY, name TEXT UNIQUE, body BLOB);
         CREATE INDEX by_name ON scan(name, id);
         CREATE TABLE note(a, body); CREATE INDEX by_body ON note(body);
         CREATE TABLE first(body, b, c);
         CREATE TABLE keyed(id PRIMARY KEY, body) WITHOUT ROWID;
         CREATE TABLE computed(a, body, n AS (length(body)));",
    );
    let lengths = [0, 1, 65_000, 65_535, 65_536, 70_000, 1_048_576, 2_500_000];
    for (number, length) in lengths.into_iter().enumerate() {
        for (class, value) in [
            ("blob", format!("randomblob({length})")),
            ("text", format!("substr(hex(randomblob({length})), 1, {length})")),
            ("zero", format!("zeroblob({length})")),
        ] {
            let name = format!("{class} {number}");
            let insert = format!(
                "INSERT INTO scan(name, body) VALUES('{name}', {value});
                 INSERT INTO note VALUES(1, {value}); INSERT INTO first VALUES({value}, 2, NULL);
                 INSERT INTO keyed VALUES('{name}', {value}); INSERT INTO computed(a, body) VALUES(3, {value});
                 INSERT INTO scan(name, body) VALUES('{name} then', NULL);"
            );
            source.execute_batch(&insert).unwrap();
        }
    }
    source.close().unwrap();
    transfer(&folder);
    assert_same(&folder);
}
