//! The declaration of an engine. Plans, manifests and receipts are checked against its
//! capabilities, never against its name, so a later reader need not know the engine.

use minicbor::{Decode, Encode};

use super::{CheckKind, Section};
use crate::{
    close::Code,
    codec,
    error::{Error, Result},
    limits::ENGINE_NAME_BYTES_MAX,
};

/// The engine that gives the bytes of the parts their meaning. Both ends must have the same engine,
/// in the same version of its format, with the same capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Engine {
    /// 1 to [`ENGINE_NAME_BYTES_MAX`] lower-case letters, digits and `-`.
    #[n(0)]
    pub name: String,
    /// The version of the format of its parts, from 1.
    #[n(1)]
    pub format: u16,
    /// What it can do.
    #[n(2)]
    pub capabilities: Capabilities,
}

/// What an engine can do. Whether a target is staged, and how it records what is committed, is not
/// included: that can differ between two targets of one engine, and does not concern the sender.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Capabilities {
    /// The sections that its parts can have, in ascending order.
    #[n(0)]
    #[cbor(decode_with = "codec::bounded::<_, _, { Section::COUNT }>")]
    pub sections: Vec<Section>,
    /// Whether a table can be divided into ranges.
    #[n(1)]
    pub ranges: bool,
    /// What it reads back from a target.
    #[n(2)]
    pub read_back: ReadBack,
    /// The checks that it makes on every target that it reads back, in ascending order.
    #[n(3)]
    #[cbor(decode_with = "codec::bounded::<_, _, { CheckKind::COUNT }>")]
    pub checks: Vec<CheckKind>,
}

/// What is read back from a target after the load, as proof of what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ReadBack {
    /// Nothing: the proof is a loader's exit code, or a completed write.
    #[n(0)]
    None,
    /// The rows of every table.
    #[n(1)]
    Rows,
    /// The bytes of the part.
    #[n(2)]
    Bytes,
}

impl Engine {
    /// Checks name, format and capabilities (`docs/protocol.md`, section 5.2); fails with
    /// `PlanRefused`.
    pub fn check(&self) -> Result<()> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_named = (1..=ENGINE_NAME_BYTES_MAX).contains(&self.name.len()) && self.name.bytes().all(plain);
        if !is_named || self.format == 0 {
            return Err(Error::new(Code::PlanRefused, "name or format of the engine"));
        }
        self.capabilities.check()
    }

    /// Checks that a peer's engine has the same name, format and capabilities; fails with
    /// `PlanRefused`.
    pub fn check_same(&self, peer: &Engine) -> Result<()> {
        let refused = |check| Err(Error::new(Code::PlanRefused, check));
        if peer.name != self.name {
            return refused("another engine");
        }
        if peer.format != self.format {
            return refused("another version of the engine's format");
        }
        if peer.capabilities != self.capabilities { refused("other capabilities of the engine") } else { Ok(()) }
    }
}

impl Capabilities {
    /// Whether its parts can have this section.
    pub fn has(&self, section: Section) -> bool {
        self.sections.contains(&section)
    }

    /// An opaque part is the only part; tables are always read back by row, so that none is loaded
    /// without a proof.
    fn check(&self) -> Result<()> {
        let in_order = self.sections.is_sorted_by(|one, next| one < next) && !self.sections.is_empty();
        let opaque_alone = !self.has(Section::Opaque) || self.sections.len() == 1;
        let has_tables = self.has(Section::Data);
        let read_back = match self.read_back {
            ReadBack::None => !has_tables,
            ReadBack::Rows => has_tables,
            ReadBack::Bytes => self.has(Section::Opaque),
        };
        let ranges = has_tables || !self.ranges;
        let checks_in_order = self.checks.is_sorted_by(|one, next| one < next);
        let checks = self.read_back != ReadBack::None || self.checks.is_empty();
        let fits = |kind: &CheckKind| kind.needs().is_none_or(|needed| needed == self.read_back);
        let checks_fit = self.checks.iter().all(fits);
        match in_order && opaque_alone && read_back && ranges && checks_in_order && checks && checks_fit {
            true => Ok(()),
            false => Err(Error::new(Code::PlanRefused, "capabilities of the engine")),
        }
    }
}
