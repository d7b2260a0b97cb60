//! Where a load begins: in a new staging file, or where an earlier one stopped.

use rusqlite::Connection;
use sealift_agent::failure::Outcome;
use sealift_protocol::{
    id::{PartIndex, TransferId},
    manifest::{PartKind, Plan},
    receive::{FoundPrefix, WholePart},
};

use super::{
    ledger::{self, Bond, senseless},
    leftover::Leftover,
    load::{Load, check_plan},
    staging::{Identity, Staging},
};

/// A staging file to load into, and what is committed in it.
pub struct Staged {
    pub identity: Identity,
    pub load: Option<Load>,
    pub have: Vec<WholePart>,
    pub prefix: Option<FoundPrefix>,
    /// Of both.
    pub rows: u64,
}

impl Staged {
    /// Makes the staging file, or opens the one that this transfer left.
    pub fn stage(staging: &Staging, row_bytes_max: usize, plan: &Plan, bond: Bond, fresh: bool) -> Outcome<Self> {
        staging.check_target()?;
        let leftover = Leftover::find(staging, row_bytes_max)?;
        if let Leftover::Load(connection, identity) = leftover {
            if !fresh && ledger::bond(&connection)? == Some(bond) {
                return Self::resume(connection, identity, plan, bond);
            }
            Leftover::Load(connection, identity).remove(staging)?;
        } else {
            leftover.remove(staging)?;
        }
        Ok(Self { identity: staging.create()?, load: None, have: Vec::new(), prefix: None, rows: 0 })
    }

    /// Goes on with what is committed.
    fn resume(connection: Connection, identity: Identity, plan: &Plan, bond: Bond) -> Outcome<Self> {
        let ledger = ledger::read(&connection)?;
        check_plan(plan, &ledger.schema).map_err(|_| senseless())?;
        let (have, prefix, rows) = (ledger.parts.clone(), ledger.prefix.clone(), ledger.rows);
        let is_rows = |part: PartIndex| plan.parts.get(part.0 as usize).is_some_and(|part| part.kind == PartKind::Rows);
        if have.last().is_some_and(|last| last.part.0 as usize >= plan.parts.len())
            || prefix.as_ref().is_some_and(|prefix| !is_rows(prefix.part))
        {
            return Err(senseless());
        }
        Ok(Self { identity, load: Some(Load::resume(connection, bond, ledger)), have, prefix, rows })
    }
}

/// Removes a load that was let go of, unless somebody else has it by now.
pub fn remove_suspended(staging: &Staging, row_bytes_max: usize, bond: Bond) {
    if let Ok(Leftover::Load(connection, identity)) = Leftover::find(staging, row_bytes_max)
        && ledger::bond(&connection) == Ok(Some(bond))
    {
        let _ = Leftover::Load(connection, identity).remove(staging);
    }
    staging.mark.release();
}

/// Removes what an earlier process left of this transfer. Of another's nothing is touched.
pub fn remove_earlier(staging: &Staging, row_bytes_max: usize, transfer: TransferId) -> Outcome {
    let leftover = Leftover::find(staging, row_bytes_max)?;
    let removed = match &leftover {
        Leftover::Load(connection, _) if ledger::bond(connection)?.is_none_or(|bond| bond.transfer != transfer) => {
            Ok(())
        }
        Leftover::Finished(owner, _) if *owner != transfer => Ok(()),
        // Whose an empty file was, nothing says; nobody misses it.
        Leftover::Load(..) | Leftover::Finished(..) | Leftover::Empty(_) => leftover.remove(staging),
        Leftover::Nothing => {
            staging.forget(transfer);
            staging.remove_siblings()
        }
    };
    staging.mark.release();
    removed
}
