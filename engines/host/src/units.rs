//! Sizes as people read them.

use indicatif::DecimalBytes;

/// Bytes in the decimal unit that suits them.
pub fn human_bytes(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}
