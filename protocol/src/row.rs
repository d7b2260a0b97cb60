//! Rows of a table as bytes of a part (`docs/protocol.md`, section 6.1).
//!
//! A row is a length and that many bytes of cells, in the order of the table's columns. A row may
//! begin in one chunk and end in a later one. Lengths are unsigned LEB128, at most 5 bytes.
//!
//! | cell | bytes |
//! |---|---|
//! | NULL | the byte 0 |
//! | any other | its format, a byte from 1 to 255; a length; as many bytes |
//!
//! The engine defines the formats. It gives each value one encoding, since rows are digested as
//! they are encoded.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    close::Code,
    error::{Error, Result},
    limits::COLUMNS_MAX,
};

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// The engine's number for the format of the bytes; 0 for NULL.
    pub format: u8,
    /// Empty for NULL.
    pub bytes: &'a [u8],
}

const FORMAT_NULL: u8 = 0;

impl Cell<'_> {
    /// The cell that stands for SQL's NULL.
    pub const NULL: Cell<'static> = Cell { format: FORMAT_NULL, bytes: &[] };

    /// Whether the format is 0.
    pub fn is_null(&self) -> bool {
        self.format == FORMAT_NULL
    }

    /// The length of its encoding.
    pub fn encoded_bytes(&self) -> usize {
        let length = self.bytes.len();
        let length_bytes = (usize::BITS - length.leading_zeros()).div_ceil(7).max(1) as usize;
        if self.is_null() { 1 } else { 1 + length_bytes + length }
    }
}

/// A LEB128 length below 2^35 has at most this many bytes.
const LENGTH_BYTES_MAX: usize = 5;

/// Appends a cell's encoding.
pub fn put_cell(out: &mut BytesMut, cell: Cell<'_>) {
    put_cell_head(out, cell);
    out.put_slice(cell.bytes);
}

/// Appends what is in a cell's encoding before its bytes.
pub fn put_cell_head(out: &mut BytesMut, cell: Cell<'_>) {
    out.put_u8(cell.format);
    if !cell.is_null() {
        put_length(out, cell.bytes.len());
    }
}

/// Appends a length as unsigned LEB128.
pub fn put_length(out: &mut BytesMut, mut length: usize) {
    while length >= 0x80 {
        out.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}

/// Decodes the length at the front, and how many bytes it takes: `None` if more bytes are needed,
/// `RowMalformed` if it is not in its shortest form.
fn peek_length(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut length = 0usize;
    for (place, &byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            if byte == 0 && place > 0 {
                return Err(malformed("length is not in its shortest form"));
            }
            return Ok(Some((length, place + 1)));
        }
    }
    if bytes.len() >= LENGTH_BYTES_MAX { Err(malformed("length over 5 bytes")) } else { Ok(None) }
}

fn malformed(check: &'static str) -> Error {
    Error::new(Code::RowMalformed, check)
}

/// Decodes one row and passes each cell to `on_cell`. Fails with `RowMalformed` unless the row has
/// exactly `columns` cells, or with the error of `on_cell`.
pub fn read_cells<'a>(
    mut row: &'a [u8],
    columns: usize,
    mut on_cell: impl FnMut(Cell<'a>) -> Result<()>,
) -> Result<()> {
    debug_assert!(columns <= COLUMNS_MAX);
    for _ in 0..columns {
        on_cell(take_cell(&mut row)?)?;
    }
    if row.is_empty() { Ok(()) } else { Err(malformed("more cells than columns")) }
}

/// A cell of which only the beginning is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongCell {
    /// Its format; not that of NULL.
    pub format: u8,
    /// Where its bytes begin in the row.
    pub at: usize,
    /// How many they are.
    pub bytes: usize,
}

/// Decodes the beginning of a row of `columns` cells, and passes all cells but the last to
/// `on_cell`. Returns what is known of the last, or `None` if more of the row is needed for that,
/// or the last is NULL. Fails with `RowMalformed`, or with the error of `on_cell`.
pub fn read_head<'a>(
    head: &'a [u8],
    columns: usize,
    mut on_cell: impl FnMut(Cell<'a>) -> Result<()>,
) -> Result<Option<LongCell>> {
    let mut rest = head;
    for _ in 1..columns {
        // What is malformed is found again once the row is whole.
        let Ok(cell) = take_cell(&mut rest) else { return Ok(None) };
        on_cell(cell)?;
    }
    let Some((&format, after)) = rest.split_first().filter(|(format, _)| **format != FORMAT_NULL) else {
        return Ok(None);
    };
    let Some((bytes, prefix)) = peek_length(after)? else { return Ok(None) };
    Ok(Some(LongCell { format, at: head.len() - after.len() + prefix, bytes }))
}

fn take_cell<'a>(row: &mut &'a [u8]) -> Result<Cell<'a>> {
    let format = row.try_get_u8().map_err(|_| malformed("fewer cells than columns"))?;
    if format == FORMAT_NULL {
        return Ok(Cell::NULL);
    }
    let (length, prefix) = peek_length(row)?.ok_or(malformed("cell cut short"))?;
    let rest = &row[prefix..];
    let (bytes, rest) = rest.split_at_checked(length).ok_or(malformed("cell cut short"))?;
    *row = rest;
    Ok(Cell { format, bytes })
}

/// Takes the rows of a part as they are assembled.
pub trait RowConsumer {
    /// Why a row is not taken.
    type Failure: From<Error>;

    /// A whole row.
    fn row(&mut self, row: &[u8]) -> std::result::Result<(), Self::Failure>;

    /// So much of a row that is longer than [`LONG_ROW_HEAD_BYTES`] has come, `row_bytes` in all.
    /// Whether the rest is taken in pieces, as it comes; otherwise the row is assembled.
    fn begin_long_row(&mut self, _head: &[u8], _row_bytes: usize) -> std::result::Result<bool, Self::Failure> {
        Ok(false)
    }

    /// The next piece of the row that is taken in pieces, and whether it ends with that.
    fn long_row_piece(&mut self, _piece: &[u8], _is_last: bool) -> std::result::Result<(), Self::Failure> {
        Ok(())
    }
}

/// How much of a long row is assembled before it is asked whether the rest is taken in pieces: most
/// columns come before a large one.
pub const LONG_ROW_HEAD_BYTES: usize = 64 << 10;

/// Assembles rows from the chunks of a part. It holds at most one row, and of that one copy.
pub struct RowReader {
    /// The beginning of a row that is not complete, with the prefix.
    held: BytesMut,
    row_bytes_max: usize,
    long: Long,
}

/// What is known about the row that is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Long {
    /// Nothing was asked yet.
    NotAsked,
    /// It is assembled.
    Assembled,
    /// So many of its bytes are to be passed on in pieces, and none is held.
    InPieces { left: usize },
}

/// The encoding of a row with its prefix.
#[derive(Clone, Copy)]
struct Extent {
    prefix: usize,
    whole: usize,
}

impl Extent {
    /// Up to where it is held before it is asked whether the rest is taken in pieces.
    fn head(self) -> usize {
        self.whole.min(self.prefix + LONG_ROW_HEAD_BYTES)
    }
}

/// Calls a function with each row, assembled.
struct Assembled<F>(F);

impl<E: From<Error>, F: FnMut(&[u8]) -> std::result::Result<(), E>> RowConsumer for Assembled<F> {
    type Failure = E;

    fn row(&mut self, row: &[u8]) -> std::result::Result<(), E> {
        (self.0)(row)
    }
}

impl RowReader {
    /// A reader for one part that refuses rows of more than `row_bytes_max` encoded bytes.
    pub fn new(row_bytes_max: usize) -> Self {
        Self { held: BytesMut::new(), row_bytes_max, long: Long::NotAsked }
    }

    /// Calls `on_row` with the bytes of each row that `plain` completes, without the length prefix.
    /// Fails with `LimitExceeded`, `RowMalformed` or the error of `on_row`.
    pub fn feed<E: From<Error>>(
        &mut self,
        plain: Bytes,
        on_row: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.feed_into(plain, &mut Assembled(on_row))
    }

    /// Gives `consumer` each row that `plain` completes, without the length prefix, and the pieces
    /// of one that it takes in pieces. Fails with `LimitExceeded`, `RowMalformed` or as `consumer`
    /// does.
    pub fn feed_into<C: RowConsumer>(&mut self, plain: Bytes, consumer: &mut C) -> std::result::Result<(), C::Failure> {
        let mut rest = plain;
        while !rest.is_empty() {
            if let Long::InPieces { left } = self.long {
                let piece = rest.split_to(left.min(rest.len()));
                let left = left - piece.len();
                self.long = if left == 0 { Long::NotAsked } else { Long::InPieces { left } };
                consumer.long_row_piece(&piece, left == 0)?;
            } else if !self.held.is_empty() {
                self.hold(&mut rest, consumer)?;
            } else if let Some(extent) = self.extent(&rest)? {
                if rest.len() < extent.whole {
                    // Grow once to what the row needs, not by doubling.
                    self.held.reserve(extent.head());
                    self.held.extend_from_slice(&rest.split_to(extent.prefix));
                } else {
                    consumer.row(&rest[extent.prefix..extent.whole])?;
                    rest.advance(extent.whole);
                }
            } else {
                self.held.extend_from_slice(&rest.split_to(1));
            }
        }
        Ok(())
    }

    /// Moves bytes of `rest` to the row that is held, and no more than are its own.
    fn hold<C: RowConsumer>(&mut self, rest: &mut Bytes, consumer: &mut C) -> std::result::Result<(), C::Failure> {
        let Some(extent) = self.extent(&self.held)? else {
            self.held.extend_from_slice(&rest.split_to(1));
            return Ok(());
        };
        let Extent { prefix, whole } = extent;
        let wanted = if self.long == Long::NotAsked { extent.head() } else { whole };
        let missing = wanted.saturating_sub(self.held.len());
        self.held.reserve(missing);
        self.held.extend_from_slice(&rest.split_to(missing.min(rest.len())));
        if self.held.len() < wanted {
            return Ok(());
        }
        if wanted == whole {
            let row = std::mem::take(&mut self.held);
            self.long = Long::NotAsked;
            return consumer.row(&row[prefix..]);
        }
        self.long = if consumer.begin_long_row(&self.held[prefix..], whole - prefix)? {
            self.held = BytesMut::new();
            Long::InPieces { left: whole - wanted }
        } else {
            Long::Assembled
        };
        Ok(())
    }

    /// How long the row at the front is; `None` if more bytes are needed to know.
    fn extent(&self, bytes: &[u8]) -> Result<Option<Extent>> {
        let Some((length, prefix)) = peek_length(bytes)? else { return Ok(None) };
        if length > self.row_bytes_max {
            return Err(Error::new(Code::LimitExceeded, "row over the limit"));
        }
        Ok(Some(Extent { prefix, whole: prefix + length }))
    }

    /// How long the row is that is being assembled, as far as is known.
    pub fn incomplete_row_bytes(&self) -> usize {
        self.extent(&self.held).ok().flatten().map_or(self.held.len(), |extent| extent.whole)
    }

    /// Whether every row so far is complete.
    pub fn is_between_rows(&self) -> bool {
        self.held.is_empty() && self.long == Long::NotAsked
    }

    /// Ends the part. Fails with `RowMalformed` inside a row.
    pub fn finish(self) -> Result<()> {
        if self.is_between_rows() { Ok(()) } else { Err(malformed("part ends inside a row")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type OwnedCell = (u8, Vec<u8>);

    fn encode(cells: &[OwnedCell]) -> BytesMut {
        let mut row = BytesMut::new();
        cells.iter().for_each(|(format, bytes)| put_cell(&mut row, Cell { format: *format, bytes }));
        row
    }

    fn decode(row: &[u8], columns: usize) -> Result<Vec<OwnedCell>> {
        let mut cells = Vec::new();
        read_cells(row, columns, |cell| {
            cells.push((cell.format, cell.bytes.to_vec()));
            Ok(())
        })?;
        Ok(cells)
    }

    fn any_cell() -> impl Strategy<Value = OwnedCell> {
        let other = (1u8.., proptest::collection::vec(any::<u8>(), 0..300));
        prop_oneof![Just((FORMAT_NULL, Vec::new())), other]
    }

    proptest! {
        /// Rows come out as they went in, however the chunks are cut.
        #[test]
        fn rows_survive_any_cut(
            rows in proptest::collection::vec(proptest::collection::vec(any_cell(), 0..6), 0..12),
            cut in 1usize..200,
        ) {
            let encoded: Vec<BytesMut> = rows.iter().map(|row| encode(row)).collect();
            let mut stream = BytesMut::new();
            for row in &encoded {
                put_length(&mut stream, row.len());
                stream.extend_from_slice(row);
            }
            let mut reader = RowReader::new(ROW_BYTES_MAX_IN_TEST);
            let mut got = Vec::new();
            for piece in stream.chunks(cut) {
                reader.feed(Bytes::copy_from_slice(piece), |row| -> Result<()> { got.push(row.to_vec()); Ok(()) })?;
            }
            reader.finish()?;
            prop_assert_eq!(&got, &encoded);
            for (bytes, row) in got.iter().zip(&rows) {
                prop_assert_eq!(&decode(bytes, row.len())?, row);
                prop_assert!(decode(bytes, row.len() + 1).is_err());
                prop_assert!(row.is_empty() || decode(bytes, row.len() - 1).is_err());
            }
        }

        /// The same for a consumer that takes some of the long rows in pieces.
        #[test]
        fn long_rows_survive_in_pieces(
            rows in proptest::collection::vec((any::<bool>(), 0usize..3 * LONG_ROW_HEAD_BYTES), 0..6),
            cut in 1usize..200_000,
        ) {
            let mut stream = BytesMut::new();
            let mut expected = Vec::new();
            for (place, (_, length)) in rows.iter().enumerate() {
                let row: Vec<u8> = (0..*length).map(|at| (at * 31 + place) as u8).collect();
                put_length(&mut stream, row.len());
                stream.extend_from_slice(&row);
                expected.push(row);
            }
            let pieces = rows.iter().map(|(pieces, _)| *pieces).collect();
            let mut kept = Kept { rows: Vec::new(), in_pieces: pieces, left: 0 };
            let mut reader = RowReader::new(ROW_BYTES_MAX_IN_TEST * 4);
            for piece in stream.chunks(cut) {
                reader.feed_into(Bytes::copy_from_slice(piece), &mut kept)?;
            }
            reader.finish()?;
            prop_assert!(kept.rows == expected);
        }

        #[test]
        fn garbage_is_an_error_or_rows_but_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes, 3);
            let mut reader = RowReader::new(ROW_BYTES_MAX_IN_TEST);
            let _ = reader.feed(Bytes::from(bytes), |_| -> Result<()> { Ok(()) });
        }
    }

    #[test]
    fn lengths_are_known_before_the_encoding() {
        let bytes = vec![7; 1 << 21];
        for length in [0, 1, 127, 128, (1 << 14) - 1, 1 << 14, (1 << 21) - 1, 1 << 21] {
            let cell = Cell { format: 3, bytes: &bytes[..length] };
            assert_eq!(cell.encoded_bytes(), encode(&[(3, bytes[..length].to_vec())]).len());
        }
        assert_eq!(Cell::NULL.encoded_bytes(), 1);
    }

    const ROW_BYTES_MAX_IN_TEST: usize = 1 << 16;

    /// Keeps rows, and takes the long ones among those chosen in pieces.
    struct Kept {
        rows: Vec<Vec<u8>>,
        in_pieces: Vec<bool>,
        left: usize,
    }

    impl RowConsumer for Kept {
        type Failure = Error;

        fn row(&mut self, row: &[u8]) -> Result<()> {
            assert_eq!(self.left, 0);
            self.rows.push(row.to_vec());
            Ok(())
        }

        fn begin_long_row(&mut self, head: &[u8], row_bytes: usize) -> Result<bool> {
            assert!(head.len() == LONG_ROW_HEAD_BYTES && row_bytes > head.len());
            let in_pieces = self.in_pieces[self.rows.len()];
            if in_pieces {
                self.rows.push(head.to_vec());
                self.left = row_bytes - head.len();
            }
            Ok(in_pieces)
        }

        fn long_row_piece(&mut self, piece: &[u8], is_last: bool) -> Result<()> {
            self.left -= piece.len();
            assert_eq!(is_last, self.left == 0);
            self.rows.last_mut().unwrap().extend_from_slice(piece);
            Ok(())
        }
    }

    #[test]
    fn a_row_over_the_limit_is_refused_before_it_is_gathered() {
        let mut stream = BytesMut::new();
        put_length(&mut stream, ROW_BYTES_MAX_IN_TEST + 1);
        let got = RowReader::new(ROW_BYTES_MAX_IN_TEST).feed(stream.freeze(), |_| -> Result<()> { Ok(()) });
        assert_eq!(got.map_err(|error| error.code), Err(Code::LimitExceeded));
    }
}
