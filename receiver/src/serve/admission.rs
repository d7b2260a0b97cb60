//! Which transfer an offer belongs to: a transfer that is kept here, a new one, or none.

use sealift_agent::{
    failure::{Failure, Outcome},
    transfer_dir::TransferDir,
};
use sealift_engine_api::Place;
use sealift_protocol::{close::Code, disposition::Stage, error::Error, grant::SignedGrant, id::TransferId};

use super::Server;
use crate::{
    config::Target,
    record::{Kept, Record},
};

impl Server<'_> {
    /// The record of the transfer that `grant` permits, whose sender has come; its signature and
    /// times are good.
    pub fn admit(&self, grant: &SignedGrant) -> Outcome<Record> {
        let transfer = grant.grant.transfer;
        let record = Record::open(self.state, transfer)?.ok_or(Error::new(Code::TicketUnknown, "transfer"))?;
        // One of a `listen` is continued by that; one that has another ticket by now, with that.
        if record.kept.port.is_some() || record.kept.grant != *grant {
            return Err(Error::new(Code::GrantForeign, "transfer").into());
        }
        let target = self.target_of(&record.kept)?;
        if !record.kept.stage().is_begun() && self.config.engines.parse(&target.url)?.place() != Place::Nowhere {
            self.check_vacant(transfer, &target.url)?;
        }
        Ok(record)
    }

    /// What a kept transfer loads into, if the configuration still means by it what it did.
    pub fn target_of(&self, kept: &Kept) -> Outcome<&Target> {
        let name = &kept.grant.grant.target;
        let target = self.config.targets.get(name).filter(|target| target.url == kept.target);
        target.ok_or_else(|| {
            let what = format!(
                "the target {name} was {} when the transfer {} began, and is that no longer",
                self.config.engines.shown(&kept.target),
                kept.grant.grant.transfer
            );
            let next =
                "Put the configuration back until it is done, or end the transfer with: sealift-receiver abandon";
            Failure::new(Code::TargetFailed, what, next)
        })
    }

    /// One target takes one transfer at a time, and keeps its place for one that has begun: a
    /// second one would drop what the first has loaded.
    fn check_vacant(&self, transfer: TransferId, url: &str) -> Outcome {
        for other in TransferDir::list(self.state)?.into_iter().filter(|other| *other != transfer) {
            // One that cannot be read runs nowhere: `status` shows it, and it excludes no other.
            let Ok(look) = TransferDir::look::<Kept>(self.state, other) else { continue };
            // An unused ticket holds nothing yet; what is published, or stated to be loaded,
            // nothing any more.
            let holds = |kept: &Kept| kept.target == url && kept.stage().is_begun() && !kept.stage().is_loaded();
            if let Some(kept) = look.and_then(|look| look.record).filter(holds) {
                let how = match kept.stage() {
                    Stage::InDoubt => {
                        "is in doubt. Look into the target, and state what it holds with: sealift-receiver resolve"
                    }
                    _ => "is not finished. To make room, end it with: sealift-receiver abandon",
                };
                let what = format!("the transfer {transfer}: {other} has begun in the same target and {how} {other}");
                return Err(Failure::new(Code::TargetBusy, what, ""));
            }
        }
        Ok(())
    }
}
