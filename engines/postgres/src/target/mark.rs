//! What the comment of a database says of the load in it.
//!
//! The comment is seen from every database of the server, moves with the database when that is
//! renamed, and is written in the transaction that renames it. It holds what publishing needs after
//! the load's own schema is gone, and is replaced by the source's comment when the transfer is
//! forgotten.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use minicbor::{Decode, Encode};
use sealift_protocol::{codec, id::TransferId};

use crate::document::{DOCUMENT_BYTES_MAX, Database};

/// How such a comment begins.
const PREFIX: &str = "Sealift transfer ";

/// How far the load in a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Stage {
    /// Parts are written.
    #[n(0)]
    Loading,
    /// Everything was read back; the load's own schema is there.
    #[n(1)]
    Proven,
    /// Its own schema may be gone.
    #[n(2)]
    Publishing,
    /// It has its final name.
    #[n(3)]
    Published,
}

/// The comment of a database that a load is in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Mark {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    pub stage: Stage,
    /// The name that the database has, or will have, when it is published.
    #[n(2)]
    pub target: String,
    /// The properties of the source's.
    #[n(3)]
    pub database: Database,
}

impl Mark {
    pub fn to_comment(&self) -> String {
        let words = match self.stage {
            Stage::Loading => "loading",
            Stage::Proven => "proven",
            Stage::Publishing => "publishing",
            Stage::Published => "published",
        };
        let encoded = STANDARD_NO_PAD.encode(codec::encode(self));
        format!("{PREFIX}{}: {words}. Do not change this comment. {encoded}", self.transfer)
    }

    /// `None` for a comment that is no mark.
    pub fn from_comment(comment: &str) -> Option<Self> {
        let (_, encoded) = comment.strip_prefix(PREFIX)?.rsplit_once(' ')?;
        let bytes = STANDARD_NO_PAD.decode(encoded).ok()?;
        codec::decode(&bytes, DOCUMENT_BYTES_MAX, "comment of a database").ok()
    }

    /// The same load at another stage.
    pub fn at(&self, stage: Stage) -> Self {
        Self { stage, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::LocaleProvider;

    #[test]
    fn a_comment_is_read_again_and_others_are_not() {
        let database = Database {
            encoding: "UTF8".into(),
            provider: LocaleProvider::Libc,
            collate: "C".into(),
            ctype: "C".into(),
            locale: None,
            icu_rules: None,
            collation_version: None,
            owner: "app".into(),
            connection_limit: -1,
            comment: Some("The clinic's. 'quoted'".into()),
            acl: None,
            tablespace: "pg_default".into(),
            settings: Vec::new(),
        };
        let mark = Mark { transfer: TransferId([7; 16]), stage: Stage::Loading, target: "ehr".into(), database };
        let comment = mark.to_comment();
        assert!(comment.starts_with("Sealift transfer 0707") && comment.contains(": loading."), "{comment}");
        assert_eq!(Mark::from_comment(&comment), Some(mark.clone()));
        assert_eq!(mark.at(Stage::Proven).stage, Stage::Proven);
        for other in ["", "The clinic's.", "Sealift transfer", "Sealift transfer 07: loading. AAAA"] {
            assert_eq!(Mark::from_comment(other), None);
        }
        assert_eq!(Mark::from_comment(&comment[..comment.len() - 2]), None);
    }
}
