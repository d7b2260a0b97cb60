//! Canonical CBOR (RFC 8949, section 4.2.1) with one rule that makes it strict: what was decoded
//! must encode to the same bytes again. Duplicate or unknown keys, longer integers, indefinite
//! lengths and trailing bytes all fail it, and so does any other deviation.

use std::convert::Infallible;

use minicbor::{Decode, Decoder, Encode, encode::Write};
use zeroize::Zeroizing;

use crate::{
    close::Code,
    error::{Error, Result},
};

/// Encodes `value` as canonical CBOR. The size is computed first: a buffer that grows leaves copies
/// behind, and the value may hold a key.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut size = Size(0);
    minicbor::encode(value, &mut size).expect("counting cannot fail");
    let mut bytes = Vec::with_capacity(size.0);
    minicbor::encode(value, &mut bytes).expect("writing to a Vec cannot fail");
    bytes
}

/// A writer that only counts bytes.
struct Size(usize);

impl Write for Size {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> std::result::Result<(), Infallible> {
        self.0 += bytes.len();
        Ok(())
    }
}

/// Decodes one canonical message; `what` names it in the error. More than `bytes_max` bytes, or a
/// list over its bound, are `LimitExceeded`; everything else is `ProtocolViolation`.
pub fn decode<'b, T>(bytes: &'b [u8], bytes_max: usize, what: &'static str) -> Result<T>
where
    T: Decode<'b, ()> + Encode<()>,
{
    if bytes.len() > bytes_max {
        return Err(Error::new(Code::LimitExceeded, what));
    }
    let violation = Error::new(Code::ProtocolViolation, what);
    let value: T = minicbor::decode(bytes).map_err(|error| match error.is_custom() {
        // The only custom error is a list of too many items.
        true => Error::new(Code::LimitExceeded, what),
        false => violation,
    })?;
    let again = Zeroizing::new(encode(&value));
    if *again != bytes {
        return Err(violation);
    }
    Ok(value)
}

/// A list has more items than it may.
#[derive(Debug, thiserror::Error)]
#[error("too many items")]
struct TooMany;

/// Decodes a list of at most `N` items. A longer one is refused by its length prefix, since decoded
/// items may take many times the memory of their encoding.
pub fn bounded<'b, C, T: Decode<'b, C>, const N: usize>(
    decoder: &mut Decoder<'b>,
    context: &mut C,
) -> std::result::Result<Vec<T>, minicbor::decode::Error> {
    let count = decoder.array()?.ok_or_else(|| minicbor::decode::Error::message("a list without its length"))?;
    if count > N as u64 {
        return Err(minicbor::decode::Error::custom(TooMany));
    }
    // An item has at least a byte, and room is made for no more than can be there.
    let left = decoder.input().len() - decoder.position();
    let mut items = Vec::with_capacity((count as usize).min(left));
    for _ in 0..count {
        items.push(T::decode(decoder, context)?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Pair {
        #[n(0)]
        a: u64,
        #[n(1)]
        b: Option<u8>,
    }

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Few {
        #[n(0)]
        #[cbor(decode_with = "bounded::<_, _, 2>")]
        few: Vec<u8>,
    }

    /// Issue 9, C1: a list is refused by its length prefix.
    #[test]
    fn a_list_is_no_longer_than_it_may_be() {
        let decoded = |bytes: &[u8]| decode::<Few>(bytes, 64, "few");
        assert_eq!(decoded(&[0xa1, 0x00, 0x82, 1, 2]), Ok(Few { few: vec![1, 2] }));
        let too_long = Err(Error::new(Code::LimitExceeded, "few"));
        assert_eq!(decoded(&[0xa1, 0x00, 0x83, 1, 2, 3]), too_long);
        // 2^62 items that are not there.
        assert_eq!(decoded(&[0xa1, 0x00, 0x9b, 0x40, 0, 0, 0, 0, 0, 0, 0]), too_long);
        let violation = Err(Error::new(Code::ProtocolViolation, "few"));
        assert_eq!(decoded(&[0xa1, 0x00, 0x82, 1]), violation);
        assert_eq!(decoded(&[0xa1, 0x00, 0x9f, 1, 0xff]), violation);
    }

    fn refused(bytes: &[u8]) {
        let got = decode::<Pair>(bytes, 64, "pair");
        assert_eq!(got, Err(Error::new(Code::ProtocolViolation, "pair")), "{bytes:02x?}");
    }

    #[test]
    fn canonical_bytes_are_read() {
        let pair = Pair { a: 300, b: Some(7) };
        assert_eq!(decode(&encode(&pair), 64, "pair"), Ok(pair));
    }

    /// Faults G10, X17, X18: every way to write the same value differently is refused.
    #[test]
    fn other_spellings_are_refused() {
        assert_eq!(encode(&Pair { a: 1, b: Some(2) }), [0xa2, 0x00, 0x01, 0x01, 0x02]);
        refused(&[0xa2, 0x00, 0x01, 0x01, 0x02, 0x00]); // trailing byte
        refused(&[0xa2, 0x01, 0x02, 0x00, 0x01]); // keys out of order
        refused(&[0xa2, 0x00, 0x01, 0x00, 0x01]); // duplicate key
        refused(&[0xa2, 0x00, 0x18, 0x01, 0x01, 0x02]); // overlong integer
        refused(&[0xbf, 0x00, 0x01, 0x01, 0x02, 0xff]); // indefinite length
        refused(&[0xa3, 0x00, 0x01, 0x01, 0x02, 0x05, 0x00]); // unknown key
        refused(&[0xa2, 0x00, 0x01, 0x01, 0xf6]); // explicit null
        refused(&[0xa1, 0x01, 0x02]); // missing key
        refused(&[0xa2, 0x00, 0x20, 0x01, 0x02]); // negative
        refused(&[0xbb, 0x40, 0, 0, 0, 0, 0, 0, 0]); // 2^62 entries
        refused(&[]);
    }

    #[test]
    fn length_is_checked_first() {
        let got = decode::<Pair>(&[0; 65], 64, "pair");
        assert_eq!(got, Err(Error::new(Code::LimitExceeded, "pair")));
    }
}
