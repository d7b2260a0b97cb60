//! Just enough DER (X.690) to write a certificate.

pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        length @ 0..0x80 => out.push(length as u8),
        length => {
            let bytes = length.to_be_bytes();
            let significant = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap()..];
            out.push(0x80 | significant.len() as u8);
            out.extend_from_slice(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

pub fn sequence<P: AsRef<[u8]>>(parts: &[P]) -> Vec<u8> {
    let content: Vec<u8> = parts.iter().flat_map(|part| part.as_ref()).copied().collect();
    tlv(0x30, &content)
}

/// `[number]`, constructed, around `content`.
pub fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xa0 | number, content)
}

pub fn boolean(value: bool) -> Vec<u8> {
    tlv(0x01, &[if value { 0xff } else { 0 }])
}

/// A number that is not negative, from its big-endian bytes.
pub fn integer(bytes: &[u8]) -> Vec<u8> {
    let needs_zero = bytes.first().is_none_or(|first| *first >= 0x80);
    tlv(0x02, &[if needs_zero { &[0][..] } else { &[] }, bytes].concat())
}

pub fn octets(content: &[u8]) -> Vec<u8> {
    tlv(0x04, content)
}

pub fn bits(content: &[u8], unused: u8) -> Vec<u8> {
    tlv(0x03, &[&[unused][..], content].concat())
}

pub fn null() -> Vec<u8> {
    tlv(0x05, &[])
}

pub fn utf8(text: &str) -> Vec<u8> {
    tlv(0x0c, text.as_bytes())
}

pub fn oid(arcs: &[u64]) -> Vec<u8> {
    let mut content = Vec::new();
    for arc in [arcs[0] * 40 + arcs[1]].iter().chain(&arcs[2..]) {
        let groups = (0..10).rev().map(|shift| (arc >> (7 * shift) & 0x7f) as u8).skip_while(|group| *group == 0);
        let groups: Vec<u8> = groups.collect();
        let groups = if groups.is_empty() { vec![0] } else { groups };
        let last = groups.len() - 1;
        content.extend(groups.iter().enumerate().map(|(at, group)| if at < last { group | 0x80 } else { *group }));
    }
    tlv(0x06, &content)
}

/// RFC 5280, 4.1.2.5: UTCTime up to 2049, GeneralizedTime after.
pub fn time(unix_seconds: i64) -> Vec<u8> {
    let at = time::OffsetDateTime::from_unix_timestamp(unix_seconds).unwrap();
    let rest =
        format!("{:02}{:02}{:02}{:02}{:02}Z", u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second());
    match at.year() {
        1950..=2049 => tlv(0x17, format!("{:02}{rest}", at.year() % 100).as_bytes()),
        year => tlv(0x18, format!("{year:04}{rest}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_encodings() {
        assert_eq!(oid(&[1, 2, 840, 10045, 4, 3, 2]), [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]);
        assert_eq!(oid(&[2, 5, 29, 0]), [6, 3, 0x55, 0x1d, 0]);
        assert_eq!(integer(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(tlv(4, &[0; 200])[..3], [4, 0x81, 200]);
        assert_eq!(tlv(4, &[0; 70_000])[..5], [4, 0x83, 1, 0x11, 0x70]);
        assert_eq!(time(0), *b"\x17\x0d700101000000Z");
        assert_eq!(time(2_524_608_000), *b"\x18\x0f20500101000000Z");
    }
}
