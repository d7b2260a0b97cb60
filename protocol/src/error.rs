//! What goes wrong, as a code and a place: never a value, a key or a text from elsewhere.

use std::fmt;

use crate::{
    close::Code,
    id::{ChunkIndex, PartIndex},
};

/// A protocol failure: which rule was broken, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    pub code: Code,
    /// The check that failed, in words fixed at compile time.
    pub check: &'static str,
    pub part: Option<PartIndex>,
    pub chunk: Option<ChunkIndex>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub const fn new(code: Code, check: &'static str) -> Self {
        Self { code, check, part: None, chunk: None }
    }

    pub const fn at_part(mut self, part: PartIndex) -> Self {
        self.part = Some(part);
        self
    }

    pub const fn at_chunk(mut self, part: PartIndex, chunk: ChunkIndex) -> Self {
        self.part = Some(part);
        self.chunk = Some(chunk);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.word(), self.check)?;
        if let Some(part) = self.part {
            write!(f, " (part {part}")?;
            if let Some(chunk) = self.chunk {
                write!(f, ", chunk {chunk}")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}
