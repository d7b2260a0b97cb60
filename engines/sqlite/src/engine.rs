//! What both ends declare of each form in which a database is moved.

use sealift_protocol::manifest::{Capabilities, CheckKind, Engine, ReadBack, Section};

/// Of a database that is moved as definitions and rows.
pub fn rows() -> Engine {
    let capabilities = Capabilities {
        sections: vec![Section::PreData, Section::Data, Section::PostData],
        ranges: true,
        read_back: ReadBack::Rows,
        checks: vec![CheckKind::Catalogue],
    };
    Engine { name: "sqlite".into(), format: 1, capabilities }
}

/// Of a database that is moved as its pages.
pub fn image() -> Engine {
    let capabilities = Capabilities {
        sections: vec![Section::Opaque],
        ranges: false,
        read_back: ReadBack::Bytes,
        checks: vec![CheckKind::Image],
    };
    Engine { name: "sqlite-image".into(), format: 1, capabilities }
}
