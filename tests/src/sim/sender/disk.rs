//! What a sender keeps of a transfer over a restart of its process.

use sealift_protocol::{
    close::Code,
    grant::SignedGrant,
    key::DigestSecret,
    manifest::{Origin, Plan, SignedReceipt},
    sealed_log::{self, KeyFingerprint},
    send::{SenderRecord, SenderTransfer, SpoolContents},
};

use super::{
    super::{
        fault::Moment,
        storage::{Kept, Log},
        world::{Outcome, World},
    },
    SENDER,
};
use crate::random::Random;

/// What outlives the process.
#[derive(Clone)]
pub struct Disk {
    pub record: Kept<Option<Record>>,
    pub spool: Log<sealed_log::Record>,
    /// Of a transfer that is over.
    pub receipt: Kept<Option<SignedReceipt>>,
}

impl Disk {
    pub fn new() -> Self {
        Self { record: Kept::new(None), spool: Log::new(), receipt: Kept::new(None) }
    }

    /// A sender that has given up keeps a spool only if it holds all of its source.
    pub fn assert_nothing_of_no_use(&self) {
        let kept = self.record.read().as_ref().and_then(|record| record.spool.as_ref());
        let mut contents = SpoolContents::default();
        let read = self.spool.values().try_for_each(|record| contents.handle(record));
        assert!(kept.is_none() || read.is_ok() && contents.whole().is_some(), "half a spool is kept");
    }

    pub fn lose_power(&mut self, chance: &mut Random) {
        self.record.lose_power(chance);
        self.spool.lose_power(chance);
        self.receipt.lose_power(chance);
    }
}

#[derive(Clone)]
pub struct Record {
    pub digest_secret: [u8; 32],
    pub of_transfer: SenderRecord,
    pub spool: Option<Place>,
}

/// What the record says of a spool.
#[derive(Clone)]
pub struct Place {
    pub key: KeyFingerprint,
    /// It is there.
    pub made: bool,
}

pub fn record(disk: &Disk) -> Outcome<Record> {
    disk.record.read().clone().ok_or(Code::Internal.into())
}

pub fn transfer(record: &Record, grant: &SignedGrant, plan: Plan, world: &World<'_>) -> Outcome<SenderTransfer> {
    let suites = world.scenario.offered.clone();
    let secret = DigestSecret::from_bytes(record.digest_secret);
    let mut transfer = SenderTransfer::new(suites, grant.clone(), plan, secret, Origin::unknown())?;
    for &suite in record.of_transfer.suites() {
        transfer.handle_agreed(suite);
    }
    Ok(transfer)
}

pub fn keep(disk: &mut Disk, record: Option<Record>, world: &mut World<'_>) -> Outcome {
    disk.record.write(record);
    world.reach(SENDER, Moment::SenderRecordWritten)?;
    disk.record.sync();
    Ok(())
}

/// Changes what the record says of the transfer, and makes that durable.
pub fn keep_changed(
    disk: &mut Disk,
    world: &mut World<'_>,
    change: impl FnOnce(&mut SenderRecord),
) -> Outcome<SenderRecord> {
    let mut changed = record(disk)?;
    change(&mut changed.of_transfer);
    if changed.of_transfer.is_unwritten() {
        changed.of_transfer.handle_written();
        keep(disk, Some(changed.clone()), world)?;
    }
    Ok(changed.of_transfer)
}
