//! The end of a load: proven, signed, published.

use bytes::BytesMut;
use sealift_protocol::{
    manifest::{Section, SignedReceipt},
    receive::ReceiptFacts,
    row::put_length,
};

use super::{
    super::{
        fault::ReceiverFault,
        world::{Outcome, World},
    },
    Connection, Disk, Load,
};
use crate::wire::{Parties, TestSigner};

pub fn sign(
    connection: &mut Connection,
    load: &mut Load,
    parties: &Parties,
    disk: &Disk,
    world: &mut World<'_>,
) -> Outcome<SignedReceipt> {
    let table = world.scenario.plan.parts.iter().position(|part| part.section == Section::Data);
    if let Some(table) = table
        && connection.due(world, ReceiverFault::ChangedRows)
    {
        let mut row = BytesMut::new();
        put_length(&mut row, 3);
        row.extend_from_slice(b"new");
        disk.store.lock().change_part(table, &row);
    }
    let facts = ReceiptFacts {
        evidence: load.prove(connection.session.keys().digests())?,
        link: Some(parties.link()),
        started_ms: 0,
        finished_ms: 1,
        software: "simulator".into(),
        target_host: "target".into(),
        target: "file:dump".into(),
        audit_head: None,
    };
    Ok(load.transfer.receipt(&connection.session, facts, &parties.receiver)?)
}

/// A receiver that signs something else than it kept.
pub fn lie(
    connection: &mut Connection,
    receipt: SignedReceipt,
    signer: &TestSigner,
    world: &mut World<'_>,
) -> SignedReceipt {
    if !connection.due(world, ReceiverFault::OtherReceipt) {
        return receipt;
    }
    let mut other = receipt.receipt;
    other.plan.engine.name.push('x');
    other.sign(signer)
}
