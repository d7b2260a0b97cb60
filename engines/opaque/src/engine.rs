//! What both ends of the engine declare.

use sealift_protocol::manifest::{Capabilities, Engine, ReadBack, Section};

/// What both ends declare of it. A loader's result cannot be read back.
pub fn engine() -> Engine {
    let capabilities =
        Capabilities { sections: vec![Section::Opaque], ranges: false, read_back: ReadBack::None, checks: Vec::new() };
    Engine { name: "opaque".into(), format: 1, capabilities }
}
