//! Where a load begins: in a new staging file, or where an earlier one stopped.

use rusqlite::Connection;
use sealift_protocol::{
    disposition::Asks,
    failure::Outcome,
    id::TransferId,
    manifest::{Plan, ReadBack},
    receive::{Found, WholePart},
};

use super::{
    image::Image,
    ledger::{self, Bond, corrupt},
    leftover::Leftover,
    load::{Load, check_plan},
    staging::{Identity, Staging},
};

/// A staging file to load into, and what is committed in it.
pub struct Staged {
    pub identity: Identity,
    pub load: Option<Load>,
    /// Instead of a load, for the pages of an image.
    pub image: Option<Image>,
    pub have: Vec<WholePart>,
    pub rows: u64,
}

impl Staged {
    /// Makes the staging file, or opens the one that this transfer left.
    pub fn stage(staging: &Staging, row_bytes_max: usize, plan: &Plan, bond: Bond, asks: Asks) -> Outcome<Self> {
        staging.check_target()?;
        let resumes = asks == Asks::Continue;
        match Leftover::find(staging, row_bytes_max)? {
            Leftover::Load(connection, identity) if resumes && ledger::bond(&connection)? == Some(bond) => {
                return Self::resume(connection, identity, plan, bond);
            }
            Leftover::Image(ledger, identity) if resumes && ledger.bond() == bond => {
                return Ok(Self::of_image(Image::resume(staging, identity, *ledger)?, identity));
            }
            leftover => leftover.remove(staging)?,
        }
        let identity = staging.create()?;
        if plan.engine.capabilities.read_back == ReadBack::Bytes {
            return Ok(Self::of_image(Image::create(staging, identity, bond)?, identity));
        }
        Ok(Self { identity, load: None, image: None, have: Vec::new(), rows: 0 })
    }

    /// What is committed, for the receiver.
    pub fn found(&self) -> Vec<Found> {
        let whole = self.have.iter().copied().map(Found::Whole);
        let prefix = self.image.as_ref().and_then(Image::prefix);
        whole.chain(prefix.map(Found::Prefix)).collect()
    }

    fn of_image(image: Image, identity: Identity) -> Self {
        let have = image.whole.into_iter().collect();
        Self { identity, load: None, image: Some(image), have, rows: 0 }
    }

    /// Resumes what is committed.
    fn resume(connection: Connection, identity: Identity, plan: &Plan, bond: Bond) -> Outcome<Self> {
        let ledger = ledger::read(&connection)?;
        check_plan(plan, &ledger.schema).map_err(|_| corrupt())?;
        let (have, rows) = (ledger.parts.clone(), ledger.rows);
        if have.last().is_some_and(|last| last.part.0 as usize >= plan.parts.len()) {
            return Err(corrupt());
        }
        Ok(Self { identity, load: Some(Load::resume(connection, bond, ledger)), image: None, have, rows })
    }
}

/// Removes what an earlier process left of this transfer. Of another's nothing is touched.
pub fn remove_earlier(staging: &Staging, row_bytes_max: usize, transfer: TransferId) -> Outcome {
    let leftover = Leftover::find(staging, row_bytes_max)?;
    let removed = match &leftover {
        Leftover::Load(connection, _) if ledger::bond(connection)?.is_none_or(|bond| bond.transfer != transfer) => {
            Ok(())
        }
        Leftover::Image(ledger, _) if ledger.bond().transfer != transfer => Ok(()),
        Leftover::Finished(owner, _) if *owner != transfer => Ok(()),
        // Whose an empty file was, nothing says; nobody misses it.
        Leftover::Load(..) | Leftover::Image(..) | Leftover::Finished(..) | Leftover::Empty(_) => {
            leftover.remove(staging)
        }
        Leftover::Nothing => {
            staging.forget(transfer);
            staging.remove_siblings()
        }
    };
    staging.mark.release();
    removed
}
