//! The end of a transfer at its sender: the manifest over all that was sent, and the receipt for
//! it.

use super::{SenderSession, SenderTransfer};
use crate::{
    audit_head::AuditHead,
    close::Code,
    digest::RowsDigest,
    error::{Error, Result},
    manifest::{Manifest, SentPart, SignedManifest, SignedReceipt},
    seal::Suite,
    sign::Signer,
};

impl SenderTransfer {
    /// The manifest, once every part has ended and every chunk is verified. It is made and signed
    /// the first time, with this head of the sender's audit log, and stays the same.
    pub fn poll_manifest(&mut self, signer: &dyn Signer, audit_head: Option<AuditHead>) -> Option<SignedManifest> {
        if !self.tally.is_all_verified() {
            return None;
        }
        // The manifest of a spool is made by the task that fills it, and comes with
        // `handle_earlier`.
        if self.manifest.is_none() && self.spool.is_none() {
            self.manifest = Some(self.make_manifest(audit_head).sign(signer));
        }
        self.manifest.clone()
    }

    /// The manifest, once there is one.
    pub fn manifest(&self) -> Option<&SignedManifest> {
        self.manifest.as_ref()
    }

    fn make_manifest(&self, audit_head: Option<AuditHead>) -> Manifest {
        let transfer = self.grant.grant.transfer;
        let mut tables = vec![RowsDigest::default(); self.plan.tables.len()];
        let mut parts = Vec::with_capacity(self.parts.len());
        for (part, planned) in self.parts.iter().zip(&self.plan.parts) {
            let rows = part.ended.unwrap_or_default();
            if let Some(table) = planned.table.and_then(|table| tables.get_mut(table.0 as usize)) {
                // More rows than can be counted would have taken as many bytes.
                *table = table.merge(rows).unwrap_or(*table);
            }
            parts.push(SentPart {
                chunks: part.root.chunks(),
                plain_bytes: part.root.plain_bytes(),
                root: part.root.root(),
                rows: planned.range.map(|_| rows),
            });
        }
        Manifest {
            transfer,
            grant_hash: self.grant.hash(),
            plan_hash: self.plan.hash(),
            root: self.digests.transfer_root(transfer, parts.iter().map(|part| part.root)),
            tables,
            parts,
            origin: self.origin.clone(),
            audit_head,
        }
    }

    /// Records that a connection, of this process or an earlier one, was agreed on with this suite.
    pub fn handle_agreed(&mut self, suite: Suite) {
        if !self.agreed.contains(&suite) {
            self.agreed.push(suite);
        }
    }

    /// Checks that the receipt is signed by this receiver, over the manifest that was sent, and
    /// states that what was sent was loaded. Fails with `AckImpossible`, or with the code of
    /// [`SignedReceipt::verify`].
    pub fn handle_receipt(&self, receipt: &SignedReceipt, session: &SenderSession) -> Result<()> {
        let wrong = |check| Err(Error::new(Code::AckImpossible, check));
        let Some(manifest) = &self.manifest else {
            return wrong("receipt before the manifest");
        };
        if receipt.receipt.receiver_key != session.receiver_key {
            return wrong("receipt of another receiver");
        }
        if receipt.receipt.sender_key != session.sender_key {
            return wrong("receipt for another sender");
        }
        // The suite is that of the connection on which it was signed, which may have been an
        // earlier one.
        let suite = receipt.receipt.suite;
        if suite != session.keys.suite() && !self.agreed.contains(&suite) {
            return wrong("receipt with a suite that no connection was agreed on with");
        }
        if receipt.receipt.link.is_none() {
            return wrong("receipt without its connection");
        }
        if receipt.receipt.manifest != *manifest || receipt.receipt.grant != self.grant {
            return wrong("receipt for another manifest or grant");
        }
        receipt.verify()
    }
}
