use sealift_protocol::close::Code;

use super::*;
use crate::document::{Column, Generated, Persistence};

const ROW_BYTES_MAX: usize = 1 << 20;

fn table(format: Format, columns: usize) -> Table {
    let column = |at: usize| Column { name: format!("c\"{at}"), type_name: "text".into(), generated: Generated::No };
    Table {
        schema: "s".into(),
        name: "t".into(),
        columns: (0..columns).map(column).collect(),
        format,
        persistence: Persistence::Permanent,
        rows: Rows::Own,
        condition: None,
    }
}

fn unreadable(why: Unreadable) -> Failure {
    match why {
        Unreadable::Malformed => Failure::new(Code::SourceFailed, "malformed", ""),
        Unreadable::TooLong => Failure::new(Code::SourceUnsuitable, "too long", ""),
    }
}

/// The rows of these messages.
fn rows(table: &Table, messages: &[&[u8]]) -> Outcome<Vec<Vec<u8>>> {
    let mut encoder = RowEncoder::new(table, ROW_BYTES_MAX);
    let mut rows = Vec::new();
    for message in messages {
        encoder.row(&Bytes::copy_from_slice(message), unreadable, |pieces| {
            rows.push(pieces.concat());
            Ok(())
        })?;
    }
    encoder.finish(unreadable)?;
    Ok(rows)
}

fn expected(format: Format, cells: &[Option<&[u8]>]) -> Vec<u8> {
    let mut row = BytesMut::new();
    for cell in cells {
        let cell = cell.map_or(Cell::NULL, |bytes| Cell { format: format.number(), bytes });
        put_cell(&mut row, cell);
    }
    row.to_vec()
}

fn header() -> Vec<u8> {
    [&SIGNATURE[..], &[0; 8]].concat()
}

fn binary(fields: &[Option<&[u8]>]) -> Vec<u8> {
    let mut message = (fields.len() as i16).to_be_bytes().to_vec();
    for field in fields {
        message.extend(field.map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
        message.extend(field.unwrap_or_default());
    }
    message
}

#[test]
fn a_statement_reads_one_table_and_no_more() {
    let statement = copy_out(&table(Format::Binary, 2), Some(Range { from: 0, to: Some(7) }), Names::Plain);
    let range = "WHERE ctid >= '(0,0)'::pg_catalog.tid AND ctid < '(7,0)'::pg_catalog.tid";
    let expected =
        format!("COPY (SELECT \"c\"\"0\", \"c\"\"1\" FROM ONLY \"s\".\"t\" {range}) TO STDOUT (FORMAT binary)");
    assert_eq!(statement, expected);
    let root = Table { rows: Rows::OfPartitions, ..table(Format::Text, 0) };
    assert_eq!(copy_out(&root, None, Names::Plain), "COPY (SELECT  FROM \"s\".\"t\") TO STDOUT (FORMAT text)");
}

#[test]
fn binary_rows_keep_null_apart_from_empty() {
    let table = table(Format::Binary, 2);
    let large = vec![7; BORROWED_BYTES_MIN];
    let fields: [&[Option<&[u8]>]; 3] =
        [&[Some(b"a\0"), None], &[Some(b""), Some(&large)], &[Some(&large), Some(b"z")]];
    let first = [header(), binary(fields[0])].concat();
    let got = rows(&table, &[&first, &binary(fields[1]), &binary(fields[2]), &(-1i16).to_be_bytes()]);
    assert_eq!(got, Ok(fields.map(|fields| expected(Format::Binary, fields)).to_vec()));
    let empty = rows(&table, &[&header(), &(-1i16).to_be_bytes()]);
    assert_eq!(empty, Ok(Vec::new()));
}

#[test]
fn text_rows_lose_their_backslashes() {
    let table = table(Format::Text, 3);
    let large = "x".repeat(BORROWED_BYTES_MIN);
    let escaped = format!("\\\\{large}\\n\t\\N\t{large}\n");
    let plain = format!("\\{large}\n");
    let got = rows(&table, &[b"a\t\\N\t\n", b"\\t\\r\\b\\f\\v\t\\\\N\t\xc3\xa9\n", escaped.as_bytes()]);
    let rows: [&[Option<&[u8]>]; 3] = [
        &[Some(b"a"), None, Some(b"")],
        &[Some(b"\t\r\x08\x0c\x0b"), Some(b"\\N"), Some("é".as_bytes())],
        &[Some(plain.as_bytes()), None, Some(large.as_bytes())],
    ];
    assert_eq!(got, Ok(rows.map(|cells| expected(Format::Text, cells)).to_vec()));
}

#[test]
fn a_table_without_columns_has_rows() {
    assert_eq!(rows(&table(Format::Text, 0), &[b"\n", b"\n"]).map(|rows| rows.len()), Ok(2));
    let first = [header(), binary(&[])].concat();
    let got = rows(&table(Format::Binary, 0), &[&first, &binary(&[]), &(-1i16).to_be_bytes()]);
    assert_eq!(got, Ok(vec![Vec::new(), Vec::new()]));
}

#[test]
fn what_no_server_sends_is_refused() {
    let refused = |table: &Table, messages: &[&[u8]]| {
        assert_eq!(rows(table, messages), Err(unreadable(Unreadable::Malformed)), "{messages:?}");
    };
    let text = table(Format::Text, 2);
    for bad in [&b"a\tb"[..], b"a\n", b"a\tb\tc\n", b"a\t\\x41\n", b"a\tb\\\n"] {
        refused(&text, &[bad]);
    }
    let table = table(Format::Binary, 1);
    let good = [header(), binary(&[Some(b"a")])].concat();
    refused(&table, &[&good]);
    refused(&table, &[b"PGCOPY\n"]);
    refused(&table, &[&[&header()[..12], &[1; 7]].concat()]);
    let trailer = (-1i16).to_be_bytes();
    refused(&table, &[&good, &trailer, &trailer]);
    refused(&table, &[&good, &trailer, &binary(&[None])]);
    refused(&table, &[&good, &binary(&[None, None])]);
    refused(&table, &[&good, &[0, 1, 0, 0, 0, 9, 1]]);
    refused(&table, &[&good, &[&binary(&[None])[..], &[0]].concat()]);
    refused(&table, &[&good, &[0, 1, 0x80, 0, 0, 0]]);
}

#[test]
fn a_row_over_the_limit_is_refused_while_it_is_made() {
    let long = vec![b'x'; ROW_BYTES_MAX];
    let first = [header(), binary(&[Some(&long)])].concat();
    assert_eq!(rows(&table(Format::Binary, 1), &[&first]), Err(unreadable(Unreadable::TooLong)));
    let half = vec![b'x'; ROW_BYTES_MAX / 2];
    let line = [&half[..], b"\t", &half, b"\n"].concat();
    assert_eq!(rows(&table(Format::Text, 2), &[&line]), Err(unreadable(Unreadable::TooLong)));
}

/// Issue 11, row filters: the range bounds what the condition lets through, whatever that is.
#[test]
fn a_condition_is_joined_to_the_range() {
    let statement = |range, filter| copy_out_where(&table(Format::Text, 1), range, filter, Names::Plain);
    let from = "COPY (SELECT \"c\"\"0\" FROM ONLY \"s\".\"t\"";
    let to = ") TO STDOUT (FORMAT text)";
    assert_eq!(statement(None, Some("a OR b")), format!("{from} WHERE (\na OR b\n){to}"));
    let expected = format!("{from} WHERE ctid >= '(3,0)'::pg_catalog.tid AND (\na OR b\n){to}");
    assert_eq!(statement(Some(Range { from: 3, to: None }), Some("a OR b")), expected);
}
