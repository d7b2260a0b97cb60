//! What must be refused, each with exactly one thing wrong (faults I1 to I8, I13, I14).
//!
//! Every case is for both directions: a bad sender before a good receiver, and the other way round.

mod chain;
mod encoding;
mod leaf;
mod names;

use super::{
    authority::{Authority, Presented, Role},
    blueprint::Blueprint,
    key::{Key, Kind},
};

/// One way to be refused.
pub struct Bad {
    /// The row of `docs/faults.md`.
    pub row: &'static str,
    pub name: &'static str,
    how: How,
}

/// What a case changes.
#[derive(Clone, Copy)]
enum How {
    /// The faultless leaf, before it is signed.
    Leaf(fn(Blueprint, &Authority, Role) -> Blueprint),
    /// The subject's name: one URI, made from the right one.
    Uri(fn(&str) -> Vec<u8>),
    /// The leaf's key.
    LeafKey(Kind),
    /// The authority's key, which signs the leaf.
    AuthorityKey(Kind),
    /// The leaf's bytes, after signing.
    Bytes(fn(Vec<u8>) -> Vec<u8>),
    /// All that is presented.
    Whole(fn(&Authority, Role) -> Presented),
}

impl Bad {
    const fn leaf(row: &'static str, name: &'static str, change: fn(Blueprint, &Authority, Role) -> Blueprint) -> Self {
        Self { row, name, how: How::Leaf(change) }
    }

    const fn uri(name: &'static str, change: fn(&str) -> Vec<u8>) -> Self {
        Self { row: "I6", name, how: How::Uri(change) }
    }

    const fn leaf_key(name: &'static str, kind: Kind) -> Self {
        Self { row: "I8", name, how: How::LeafKey(kind) }
    }

    const fn authority_key(name: &'static str, kind: Kind) -> Self {
        Self { row: "I8", name, how: How::AuthorityKey(kind) }
    }

    const fn bytes(name: &'static str, change: fn(Vec<u8>) -> Vec<u8>) -> Self {
        Self { row: "I13", name, how: How::Bytes(change) }
    }

    const fn whole(row: &'static str, name: &'static str, build: fn(&Authority, Role) -> Presented) -> Self {
        Self { row, name, how: How::Whole(build) }
    }

    /// What an agent in this role presents. The peer must refuse it although it trusts
    /// `presented.trusted`.
    pub fn build(&self, authority: &Authority, role: Role) -> Presented {
        let key = |kind| Key::generate(kind);
        match self.how {
            How::Leaf(change) => {
                let key = key(Kind::Ed25519);
                authority.present_leaf(&change(authority.leaf(role, &key), authority, role), &key)
            }
            How::Uri(change) => {
                let key = key(Kind::Ed25519);
                let uri = names::Alternative::Uri(change(&authority.identity(role)));
                authority.present_leaf(&authority.leaf(role, &key).with(names::alternatives(&[uri])), &key)
            }
            How::LeafKey(kind) => {
                let key = key(kind);
                authority.present_leaf(&authority.leaf(role, &key), &key)
            }
            How::AuthorityKey(kind) => Authority::new(&authority.domain, kind).present(role),
            How::Bytes(change) => {
                let mut presented = authority.present(role);
                presented.chain[0] = change(std::mem::take(&mut presented.chain[0]));
                presented
            }
            How::Whole(build) => build(authority, role),
        }
    }
}

pub use chain::through_intermediate;

/// Every case.
pub fn all() -> impl Iterator<Item = &'static Bad> {
    [leaf::CASES, names::CASES, chain::CASES, encoding::CASES].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn there_are_sixty_and_no_name_comes_twice() {
        let names: HashSet<_> = all().map(|bad| bad.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(names.len() >= 60, "{}", names.len());
    }

    /// Each can be made for both roles, and differs from a faultless one; a faultless one convinces
    /// OpenSSL.
    #[test]
    fn every_case_can_be_built() {
        let authority = Authority::new("example.test", Kind::P256);
        for bad in all() {
            for role in Role::BOTH {
                let presented = bad.build(&authority, role);
                assert!(!presented.trusted.is_empty(), "{}", bad.name);
                assert_eq!(presented.chain.is_empty(), bad.row == "I1", "{}", bad.name);
            }
        }
    }

    #[test]
    fn the_faultless_are_faultless_to_openssl() {
        if !crate::shared::installed("openssl") {
            return;
        }
        for kind in [Kind::Ed25519, Kind::P256, Kind::P384] {
            let authority = Authority::new("example.test", kind);
            for role in Role::BOTH {
                let verdict = chain::openssl_verify(&authority.present(role), role);
                assert!(verdict.contains(": OK"), "{kind:?} {role:?}: {verdict}");
                let verdict = chain::openssl_verify(&chain::through_intermediate(&authority, role), role);
                assert!(verdict.contains(": OK"), "{kind:?} {role:?}: {verdict}");
            }
        }
    }
}
