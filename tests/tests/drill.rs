//! A drill, `discard:`: everything that can be looked at without a target is (issue 9, D4).

use std::{fs, thread, time::Duration};

use sealift_protocol::{
    close::Code,
    link_facts::Transport,
    manifest::{Authority, Proof, SignedReceipt},
};
use sealift_tests::{
    exit,
    link::Faults,
    pair::Pair,
    place::{Kind, Place},
    sqlite,
};
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

/// Issue 9, D4; fault C2: a drill keeps nothing, and says so. Of a receiver that is killed after
/// some tables, or after all of them, the next one is sent everything again, over the same ticket.
#[test]
fn a_drill_whose_receiver_is_killed_starts_over() {
    let cases = [
        (Kind::Drill(3000), "part-finished:2"),
        (Kind::Drill(3000), "part-finished:4"),
        (Kind::Drill(3000), "load-ending"),
        (Kind::Program(3 << 20), "load-ending"),
    ];
    // Most of it is waiting for the silence of a dead peer.
    thread::scope(|scope| {
        for (kind, point) in cases {
            scope.spawn(move || starts_over(kind, point));
        }
    });
}

fn starts_over(kind: Kind, point: &str) {
    let mut place = Place::new(kind, Faults::default(), 51);
    place.target_url = "discard:".into();
    let mut receiver = place.receiver().env("SEALIFT_FAIL_POINT", point).start();
    receiver.ticket();
    let sender = place.sender().start();
    assert_eq!(receiver.wait(WITHIN).killed_by(), Some(9), "{kind:?}, {point}");
    let receiver = place.receiver().start();
    for ended in [sender.wait(WITHIN), receiver.wait(WITHIN)] {
        assert_eq!(ended.assert_code(exit::DONE).resume().as_deref(), Some("restarted"), "{kind:?}, {point}");
    }
    if let Kind::Drill(_) = kind {
        place.assert_done();
    }
}

/// Fault N1: a drill whose link drops goes on where it was.
#[test]
fn a_drill_whose_link_drops_is_resumed() {
    let faults = Faults { bits_per_second: Some(20_000_000), ..Faults::default() };
    let place = Place::new(Kind::Drill(20_000), faults, 52);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 1 << 20);
    place.link.cut();
    sender.wait_for_event("link_down", 1, WITHIN);
    place.link.heal();
    for ended in [sender.wait(WITHIN), receiver.wait(WITHIN)] {
        assert_eq!(ended.assert_code(exit::DONE).resume().as_deref(), Some("resumed"));
    }
    place.assert_done();
}
