//! How far a transfer has come, as one process keeps it for another one that prints `status`.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use serde_json::{Value, json};

use super::Totals;
use crate::{
    clock::now_seconds,
    units::{brief_amount, counted},
};

/// How far a transfer had come, and when that was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HowFar {
    pub plain_bytes: u64,
    /// 0 for none.
    pub plain_bytes_estimate: u64,
    pub rows: u64,
    pub at_seconds: u64,
}

impl HowFar {
    const BYTES: usize = 32;

    pub(super) fn of(totals: &Totals) -> Self {
        Self {
            plain_bytes: totals.plain_bytes,
            plain_bytes_estimate: totals.plain_bytes_estimate.unwrap_or(0),
            rows: totals.rows,
            at_seconds: now_seconds(),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let numbers = [self.plain_bytes, self.plain_bytes_estimate, self.rows, self.at_seconds];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// What was kept in the file, if anything was.
    pub fn read(path: &Path) -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        File::open(path).ok()?.read_exact_at(&mut bytes, 0).ok()?;
        let mut numbers =
            bytes.chunks_exact(8).map(|number| number.iter().fold(0, |all, &byte| all << 8 | u64::from(byte)));
        Some(Self {
            plain_bytes: numbers.next()?,
            plain_bytes_estimate: numbers.next()?,
            rows: numbers.next()?,
            at_seconds: numbers.next()?,
        })
    }

    /// As `status` prints it.
    pub fn text(&self) -> String {
        let totals = Totals {
            plain_bytes: self.plain_bytes,
            plain_bytes_estimate: Some(self.plain_bytes_estimate).filter(|&all| all > 0),
            ..Totals::default()
        };
        let percent = totals.percent().map_or(String::new(), |percent| format!("{percent}%, "));
        let rows = if self.rows > 0 { format!(", {}", counted(self.rows, "row")) } else { String::new() };
        format!("{percent}{}{rows}", brief_amount(self.plain_bytes, totals.total_bytes()))
    }

    /// As `status --json` has it.
    pub fn fields(&self) -> Vec<(&'static str, Value)> {
        let estimate = Some(self.plain_bytes_estimate).filter(|&all| all > 0);
        vec![
            ("plain_bytes", json!(self.plain_bytes)),
            ("plain_bytes_estimate", json!(estimate)),
            ("rows", json!(self.rows)),
        ]
    }
}
