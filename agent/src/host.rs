//! What this host is called, for receipts.

use std::fs;

use sealift_protocol::limits::NAME_BYTES_MAX;

/// The name that the kernel has for it; empty if that cannot be read.
pub fn name() -> String {
    bounded(fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned())
}

/// As much of `text` as a name may have.
pub fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(NAME_BYTES_MAX));
    text
}
