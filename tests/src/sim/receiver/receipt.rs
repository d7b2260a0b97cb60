//! The end of a load: proven, signed, published.

use bytes::BytesMut;
use sealift_protocol::{
    manifest::{CatalogueCheck, Check, Evidence, Proof, Section, SignedReceipt},
    receive::ReceiptFacts,
    row::put_length,
};

use super::{
    super::{
        fault::{Moment, ReceiverFault},
        scenario::TargetKind,
        world::{Outcome, World},
    },
    Connection, Disk, Load, RECEIVER,
};
use crate::wire::{Parties, TestSigner};

/// Shows the load under its final name; once, however often it is called.
pub fn publish(load: &Load, disk: &mut Disk, world: &mut World<'_>) -> Outcome {
    if disk.published.read().is_none() {
        disk.published.write(Some(load.target.staged.clone()));
    }
    world.reach(RECEIVER, Moment::PublishWritten)?;
    disk.published.sync();
    world.reach(RECEIVER, Moment::Published)
}

pub fn sign(
    connection: &mut Connection,
    load: &mut Load,
    parties: &Parties,
    world: &mut World<'_>,
) -> Outcome<SignedReceipt> {
    let table = world.scenario.plan.parts.iter().position(|part| part.section == Section::Data);
    if let Some(table) = table
        && connection.due(world, ReceiverFault::ChangedRows)
    {
        let mut row = BytesMut::new();
        put_length(&mut row, 3);
        row.extend_from_slice(b"new");
        load.target.staged[table].extend_from_slice(&row);
    }
    let facts = ReceiptFacts {
        evidence: match world.scenario.target {
            TargetKind::Tables => Evidence {
                tables: load.target.prove(connection.session.keys().digests()),
                checks: vec![Check::Catalogue(CatalogueCheck { definitions: 1 })],
                ..Evidence::bare(Proof::RowsReadBack)
            },
            TargetKind::Discarded => Evidence {
                tables: load.target.prove(connection.session.keys().digests()),
                ..Evidence::bare(Proof::Discarded)
            },
            TargetKind::Journalled | TargetKind::Plain => Evidence::bare(Proof::LoaderExit),
        },
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
