//! What was planned at a snapshot, as its holder keeps it for a sender that attaches later: the
//! same plan, whatever the sizes of the tables are by then, and the same documents.

use minicbor::{Decode, Encode, bytes::ByteVec};
use sealift_protocol::{codec, failure::Outcome, manifest::Plan};

use crate::document::DOCUMENT_BYTES_MAX;

/// Two documents, and a plan with what is stored where.
const KEPT_BYTES_MAX: usize = 3 * DOCUMENT_BYTES_MAX;

/// Where the rows of a table lie: the OIDs of the relations that store them, with their
/// filenodes.
pub type Stored = Vec<(u32, Option<u32>)>;

#[derive(Encode, Decode)]
#[cbor(map)]
pub struct KeptPlan {
    #[n(0)]
    pub plan: Plan,
    #[n(1)]
    pub schema: ByteVec,
    #[n(2)]
    pub finish: ByteVec,
    /// Of each table of the plan.
    #[n(3)]
    pub stored: Vec<Stored>,
    /// Which rows of each table are read: the conditions of `--where`.
    #[n(4)]
    pub conditions: Vec<Option<String>>,
}

impl KeptPlan {
    pub fn from_bytes(bytes: &[u8]) -> Outcome<Self> {
        Ok(codec::decode(bytes, KEPT_BYTES_MAX, "kept plan")?)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }
}
