//! Streams that are there and hold nothing: what a compressor makes of an empty input. Behind a
//! pipe that is what is left of a dump that failed.

/// What no stream of nothing is longer than: `gzip` may put a file's name in front.
const BYTES_MAX: usize = 300;

/// Whether `bytes` are all of a compressed stream in which there is no byte.
pub fn holds_nothing(bytes: &[u8]) -> bool {
    if bytes.len() > BYTES_MAX {
        return false;
    }
    match bytes {
        [] => true,
        // RFC 1952: checksum and length at the end.
        [0x1f, 0x8b, 8, ..] => bytes.len() >= 20 && bytes.ends_with(&[0; 8]),
        // The mark of the end, and a checksum of nothing, where the first block would be.
        [b'B', b'Z', b'h', _, end @ ..] => end == [0x17, 0x72, 0x45, 0x38, 0x50, 0x90, 0, 0, 0, 0],
        // Header, an index of no block, footer.
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => bytes.len() == 32,
        // RFC 8878: one block, the last, of no byte; behind it there may be a checksum.
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let frame = bytes.strip_suffix(&[0x99, 0xe9, 0xd8, 0x51]).unwrap_or(bytes);
            frame.len() <= 9 && frame.ends_with(&[1, 0, 0])
        }
        // The mark of the end, and a checksum of nothing.
        [0x04, 0x22, 0x4d, 0x18, _, _, _, end @ ..] => matches!(end, [0, 0, 0, 0] | [0, 0, 0, 0, 5, 0x5d, 0xcc, 2]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;

    fn compressed(program: &str, plain: &[u8]) -> Option<Vec<u8>> {
        let (program, arguments) = program.split_once(' ').unwrap_or((program, ""));
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = command.spawn().ok()?;
        running.stdin.take().unwrap().write_all(plain).unwrap();
        Some(running.wait_with_output().unwrap().stdout)
    }

    /// Issue 9, B5; fault E10: of the compressors that are installed, gzip at least.
    #[test]
    fn a_compressed_stream_of_nothing_is_nothing() {
        let mut tried = 0;
        for program in
            ["gzip", "gzip -9", "bzip2", "bzip2 -1", "xz", "xz -0 -C crc32", "zstd", "zstd --no-check", "lz4"]
        {
            let Some(nothing) = compressed(program, b"") else { continue };
            assert!(holds_nothing(&nothing), "{program}: {nothing:x?}");
            for plain in [&b"\n"[..], b"a", &[0; 10]] {
                assert!(!holds_nothing(&compressed(program, plain).unwrap()), "{program} {plain:?}");
            }
            tried += 1;
        }
        assert!(tried >= 2);
        for bytes in [&[0x1f][..], b"BZh", b"0", &[0x28, 0xb5, 0x2f, 0xfd], &[0; 20]] {
            assert!(!holds_nothing(bytes), "{bytes:?}");
        }
    }
}
