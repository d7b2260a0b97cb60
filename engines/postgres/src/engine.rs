//! What both ends declare of a database that is moved.

use sealift_protocol::manifest::{Capabilities, CheckKind, Engine, ReadBack, Section};

/// Of a database that is moved as its schema and the rows of its tables.
pub fn engine() -> Engine {
    let capabilities = Capabilities {
        sections: vec![Section::PreData, Section::Data, Section::PostData],
        ranges: true,
        read_back: ReadBack::Rows,
        checks: vec![CheckKind::Catalogue, CheckKind::Rows],
    };
    Engine { name: "postgres".into(), format: 1, capabilities }
}
