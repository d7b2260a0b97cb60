//! The standard output of this process.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
};

/// Whether what is written to standard output goes nowhere.
pub fn standard_output_is_null() -> bool {
    let null = fs::metadata("/dev/null").map(|null| null.rdev());
    let own = io::stdout().as_fd().try_clone_to_owned().map(File::from).and_then(|stdout| stdout.metadata());
    own.is_ok_and(|own| own.file_type().is_char_device() && null.is_ok_and(|null| null == own.rdev()))
}
