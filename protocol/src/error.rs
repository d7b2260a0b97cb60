//! Protocol errors, as a code and a place: never a value, a key or a text from outside.

use std::fmt;

use crate::{
    close::Code,
    id::{ChunkIndex, PartIndex},
};

/// A protocol failure: which rule was broken, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The code that the connection ends with.
    pub code: Code,
    /// The check that failed, in words fixed at compile time.
    pub check: &'static str,
    /// The part concerned, if one is.
    pub part: Option<PartIndex>,
    /// The chunk concerned, if one is; `part` is then set, too.
    pub chunk: Option<ChunkIndex>,
}

/// The result of a check or step of the protocol.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a place.
    pub const fn new(code: Code, check: &'static str) -> Self {
        Self { code, check, part: None, chunk: None }
    }

    /// Adds the part concerned.
    pub const fn at_part(mut self, part: PartIndex) -> Self {
        self.part = Some(part);
        self
    }

    /// Adds the chunk concerned, with its part.
    pub const fn at_chunk(mut self, part: PartIndex, chunk: ChunkIndex) -> Self {
        self.part = Some(part);
        self.chunk = Some(chunk);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.check)?;
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
