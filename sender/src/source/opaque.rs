//! Bytes that mean nothing here: standard input, a file, or what a program prints.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use sealift_agent::{
    failure::{Failure, Outcome},
    program::Program,
};
use sealift_protocol::{
    close::Code,
    id::PartIndex,
    manifest::{Engine, PartKind, Plan, PlannedPart},
};

use super::Source;
use crate::part::PartWriter;

/// One opaque part.
pub struct OpaqueSource {
    input: Input,
}

enum Input {
    Standard,
    File { file: File, bytes: u64, name: String },
    Exec(Arc<Program>),
}

impl OpaqueSource {
    pub fn standard() -> Self {
        Self { input: Input::Standard }
    }

    pub fn file(path: &Path) -> Outcome<Self> {
        let name = path.display().to_string();
        let unreadable = |error: &io::Error| {
            let next = "Check the path, and that this user may read the file.";
            Failure::io(Code::SourceFailed, format!("the source file {name} cannot be read"), error, next)
        };
        let file = File::open(path).map_err(|error| unreadable(&error))?;
        let found = file.metadata().map_err(|error| unreadable(&error))?;
        if found.is_dir() {
            let next = "Give a file; for a folder, use an archiver: 'exec:tar -c FOLDER'.";
            return Err(Failure::new(Code::SourceFailed, format!("the source {name} is a folder"), next));
        }
        Ok(Self { input: Input::File { file, bytes: found.len(), name } })
    }

    /// Runs `program` when the part is read. The caller keeps a handle with which to kill it.
    pub fn exec(program: Arc<Program>) -> Self {
        Self { input: Input::Exec(program) }
    }
}

impl Source for OpaqueSource {
    fn plan(&mut self) -> Outcome<Plan> {
        let bytes_estimate = match &self.input {
            Input::File { bytes, .. } => Some(*bytes).filter(|&bytes| bytes > 0),
            Input::Standard | Input::Exec(_) => None,
        };
        let part = PlannedPart { kind: PartKind::Opaque, name: String::new(), rows_estimate: None, bytes_estimate };
        Ok(Plan { engine: Engine::Opaque, parts: vec![part] })
    }

    fn can_repeat(&self) -> bool {
        matches!(self.input, Input::File { .. })
    }

    fn read(&mut self, _part: PartIndex, out: &mut PartWriter<'_>) -> Outcome {
        match &mut self.input {
            Input::Standard => out.read_from(&mut io::stdin().lock(), |error| {
                Failure::io(Code::SourceFailed, "standard input cannot be read", &error, "")
            }),
            Input::File { file, name, .. } => out.read_from(file, |error| {
                Failure::io(Code::SourceFailed, format!("the source file {name} cannot be read"), &error, "")
            }),
            Input::Exec(program) => {
                let mut output = program.start_reading()?;
                out.read_from(&mut output.by_ref(), |error| {
                    Failure::io(Code::SourceFailed, "the source program cannot be read", &error, "")
                })?;
                // Only its exit code says whether what it printed is whole.
                program.wait_success()
            }
        }
    }
}
