//! Which parts may be sent, and begun, at once.

use sealift_protocol::{
    close::Code,
    id::PartIndex,
    limits::{LANES_MAX, STREAMS_MAX},
    receive::Durability,
};
use sealift_tests::wire::table_plan;

use super::{Flow, code};

/// Fault X16: a lane is free when its part was sent, a stream when its part is verified, and both
/// sides count streams alike.
#[test]
fn a_part_that_was_sent_leaves_its_lane_and_keeps_its_stream() {
    let (lanes, streams) = (u32::from(LANES_MAX), u32::from(STREAMS_MAX));
    let mut flow = Flow::new(table_plan(STREAMS_MAX as usize + 1));
    flow.whole_part(0, 1);
    for part in 1..=lanes {
        assert!(flow.may_start(part));
        flow.pair.transfer.handle_start(PartIndex(part));
        flow.stream(part).unwrap();
    }
    assert!(!flow.may_start(lanes + 1), "no lane");
    let only = flow.send_whole(1);
    for part in lanes + 1..=streams {
        assert!(flow.may_start(part), "part {part}");
        flow.pair.transfer.handle_start(PartIndex(part));
        flow.stream(part).unwrap();
        flow.send_whole(part);
    }
    assert!(!flow.may_start(streams + 1), "no stream");
    assert_eq!(code(flow.stream(streams + 1)), Code::LimitExceeded);
    flow.arrive(1, &only).unwrap();
    flow.acknowledge().unwrap();
    assert!(flow.may_start(streams + 1));
    assert_eq!(code(flow.stream(streams + 1)), Code::Done, "though the end of the first stream was not seen yet");
}

/// What is sent and not verified of all parts fits what both sides have memory for, and leaves each
/// earlier part that is not sent whole the window of its lane.
#[test]
fn parts_that_were_sent_take_what_earlier_ones_leave() {
    let mut flow = Flow::new(table_plan(8));
    flow.whole_part(0, 1);
    flow.pair.session.lanes = 3;
    flow.pair.session.lane_window_bytes = 2 * flow.sealed(1, 0, true).frame.len() as u64;
    flow.pair.transfer.handle_start(PartIndex(1));
    for part in 2..=5 {
        assert!(flow.may_start(part));
        flow.pair.transfer.handle_start(PartIndex(part));
        assert!(flow.may_send(part, 0), "the windows of two lanes, of two chunks each");
        flow.send_whole(part);
    }
    flow.pair.transfer.handle_start(PartIndex(6));
    assert!(!flow.may_send(6, 0), "no more than that");
    for index in 0..2 {
        assert!(flow.may_send(1, index), "the first part has the window of its lane");
        let sealed = flow.sealed(1, index, false);
        flow.send(&sealed);
    }
    assert!(!flow.may_send(1, 2), "and no more");
    assert!(flow.may_start(7), "a lane is free");
}

/// Parts are begun one at a time in the order of the plan, whichever stream comes first.
#[test]
fn a_later_part_waits_for_the_earlier() {
    let mut flow = Flow::new(table_plan(3));
    flow.whole_part(0, 1);
    for part in [3, 1, 2] {
        flow.stream(part).unwrap();
    }
    let may = |flow: &Flow| [1, 2, 3].map(|part| flow.pair.loading.may_begin(PartIndex(part)));
    assert_eq!(may(&flow), [true, false, false]);
    flow.pair.loading.handle_begun(PartIndex(1));
    assert_eq!(may(&flow), [true, true, false]);
}

/// Issue 9, D4: the sender goes on to the next section when the one before is verified, since a
/// target that keeps nothing never says more; the target begins with it when it has that one whole.
#[test]
fn a_section_follows_what_is_verified_and_waits_for_its_target() {
    let mut flow = Flow::new(table_plan(1));
    flow.pair.loading.handle_prepared(Durability::Nothing);
    for part in 0..2 {
        flow.verified_part(part, 2);
        let next = PartIndex(part + 1);
        assert!(!flow.pair.transfer.may_start(next, &flow.pair.session), "nothing is acknowledged yet");
        flow.acknowledge().unwrap();
        assert!(flow.pair.transfer.may_start(next, &flow.pair.session));
        assert!(!flow.pair.loading.may_begin(next), "the target has not taken all of the part before");
        flow.pair.loading.handle_finished(PartIndex(part));
        assert!(flow.pair.loading.may_begin(next));
        assert_eq!(flow.acknowledge().unwrap(), 0, "nothing became durable");
    }
    flow.verified_part(2, 1);
    flow.acknowledge().unwrap();
    let manifest = flow.manifest();
    flow.pair.receiving.handle_finish(&mut flow.pair.loading, manifest).unwrap();
    assert!(flow.pair.loading.poll_complete().is_none(), "a part is missing in the target");
    flow.pair.loading.handle_finished(PartIndex(2));
    assert_eq!(flow.pair.loading.poll_complete(), Some(Ok(())));
}
