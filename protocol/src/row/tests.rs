use bytes::Bytes;
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

/// The same from pieces of so many bytes.
fn decode_pieces(row: &[u8], columns: usize, cut: usize) -> Result<Vec<OwnedCell>> {
    let mut cells: Vec<OwnedCell> = Vec::new();
    let mut reader = CellReader::new(columns);
    for piece in row.chunks(cut) {
        reader.feed(piece, |part| {
            match (part, cells.last_mut()) {
                (CellPart::Begin { format, .. }, _) => cells.push((format, Vec::new())),
                (CellPart::Bytes(bytes), Some((_, cell))) => cell.extend_from_slice(bytes),
                (CellPart::Bytes(_), None) => panic!("bytes of no cell"),
            }
            Ok(())
        })?;
    }
    reader.finish()?;
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
            for columns in row.len().saturating_sub(1)..=row.len() + 1 {
                let expected = (columns == row.len()).then(|| row.clone());
                prop_assert_eq!(decode_pieces(bytes, columns, cut).ok(), expected);
            }
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
        prop_assert_eq!(decode_pieces(&bytes, 3, 7).ok(), decode(&bytes, 3).ok());
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
