//! A drill, `discard:`: everything that can be looked at without a target is (issue 9, D4).

use std::{fs, time::Duration};

use sealift_protocol::{
    close::Code,
    link_facts::Transport,
    manifest::{Authority, Proof, SignedReceipt},
};
use sealift_tests::{pair::Pair, sqlite};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn the_receipt_of_a_drill_has_the_rows_and_digests_that_arrived() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.db");
    sqlite::create_hospital(&source, 500);
    let done = Pair::new(format!("sqlite:{}", source.display()), "discard:").within(WITHIN).run();
    done.assert_done();
    let receipt = SignedReceipt::from_bytes(&fs::read(&done.receiver.receipts()[0]).unwrap()).unwrap();
    receipt.verify().unwrap();
    let mut receipt = receipt.receipt;
    assert_eq!(receipt.evidence.proof, Proof::Discarded);
    let sent = &receipt.manifest.manifest.tables;
    assert!(sent.iter().map(|table| table.rows).sum::<u64>() > 500);
    assert_eq!(*sent, receipt.evidence.tables);
    // What TLS agreed on is read from the connection.
    let link = receipt.link.as_ref().unwrap();
    assert_eq!((link.facts.transport, link.facts.tls_version.0), (Transport::Quic, 0x0304));
    assert!(link.facts.to_string().contains("MLKEM768"), "{}", link.facts);
    assert_eq!(link.sender.0[0].key(), Some(receipt.sender_key));
    assert_eq!(link.receiver.0[0].key(), Some(receipt.receiver_key));
    assert_eq!(receipt.authority, Authority::Ticket);
    // A count that is not the manifest's does not hold.
    let rows = receipt.evidence.tables.iter_mut().find(|table| table.rows > 0).unwrap();
    rows.rows -= 1;
    assert_eq!(receipt.check().unwrap_err().code, Code::TargetMismatch);
}
