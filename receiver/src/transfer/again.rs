//! An earlier process had signed the receipt: what it began is finished, and the sender is waited
//! for.

use sealift_agent::failure::Outcome;
use sealift_protocol::{id::PartIndex, receive::WholePart};

use super::Receiving;
use crate::load::Load;

impl Receiving<'_> {
    /// Publishes what is proven, and makes the load that a sender which comes for its receipt is
    /// answered from.
    pub(super) async fn publish_again(&mut self) -> Outcome {
        let finished = self.runner.publish_kept().await?;
        let mut transfer = self.runner.record.state_machine()?;
        let parts = finished.receipt.receipt.manifest.manifest.parts.iter().zip(0..);
        for (sent, index) in parts {
            let part = PartIndex(index);
            let chunks = sent.chunks;
            let plain_bytes = sent.plain_bytes;
            let root = sent.root;
            transfer.handle_found(WholePart { part, chunks, plain_bytes, root });
        }
        let target = (self.runner.setting.open_target)()?;
        self.runner.load = Some(Load::published(target, transfer, self.runner.stop.within()));
        self.finished = Some(finished);
        Ok(())
    }
}
