//! Targets whose chunks are durable in a file, or are found there.

use sealift_protocol::{
    close::Code,
    id::{ChunkCount, PartIndex},
    message::{Ack, Message},
    receive::{Durability, FoundPrefix},
};
use sealift_tests::wire::opaque_plan;

use super::{Flow, code};

/// A chunk of a file counts once it is synced. The disk may lose it all the same, so that it is not
/// called durable.
#[test]
fn a_chunk_of_a_file_counts_once_it_is_synced() {
    let mut flow = Flow::new(opaque_plan());
    flow.pair.loading.handle_prepared(Durability::SyncedChunks);
    flow.pair.transfer.handle_start(PartIndex(0));
    flow.stream(0).unwrap();
    flow.pair.loading.handle_begun(PartIndex(0));
    for index in 0..3 {
        let sealed = flow.sealed(0, index, index == 2);
        flow.send(&sealed);
        flow.arrive(0, &sealed).unwrap();
    }
    assert!(flow.pair.loading.is_syncing() && flow.pair.loading.verified(PartIndex(0)) == ChunkCount(0));
    flow.pair.loading.handle_synced(PartIndex(0), ChunkCount(2));
    let ack = |flow: &mut Flow| flow.pair.receiving.poll_ack(&mut flow.pair.loading);
    let counts = |verified| Ack { part: PartIndex(0), verified: ChunkCount(verified), durable: ChunkCount(0) };
    assert_eq!(ack(&mut flow), Some(Message::Ack(counts(2))));
    assert!(flow.pair.loading.is_syncing());
    flow.pair.loading.handle_finished(PartIndex(0));
    assert_eq!(ack(&mut flow), Some(Message::Ack(counts(3))));
    assert!(!flow.pair.loading.is_syncing());
}

/// What an earlier process says that a file holds is compared with its hashes.
#[test]
fn a_beginning_that_is_not_what_was_recorded_is_refused() {
    let mut flow = Flow::new(opaque_plan());
    let digests = flow.pair.session.keys.digests().clone();
    let root = digests.part_root_of(PartIndex(0), &[7; 32], 5);
    let found = |chunks, root| FoundPrefix {
        part: PartIndex(0),
        chunks: ChunkCount(chunks),
        plain_bytes: 5,
        root,
        hashes: vec![7; 32],
    };
    let other = digests.part_root(PartIndex(0)).root();
    assert_eq!(code(flow.pair.loading.handle_found_prefix(found(1, other))), Code::TargetMismatch);
    assert_eq!(code(flow.pair.loading.handle_found_prefix(found(2, root.root()))), Code::TargetMismatch);
    assert_eq!(code(flow.pair.loading.handle_found_prefix(found(1, root.root()))), Code::Done);
}
