use super::*;

const HANDSHAKE: Limits = Stage::Handshake.limits();
const CLOSING: Limits = Stage::Closing.limits();

fn v4(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[track_caller]
fn admitted(admission: &mut Admission, address: IpAddr) -> (SlotId, Option<SlotId>) {
    match admission.arrive(address) {
        Arrival::Admitted { slot, evicted } => (slot, evicted),
        Arrival::Ignored => panic!("{address} is ignored"),
    }
}

/// One that has come to `stage`.
fn at(admission: &mut Admission, stage: Stage, key: u8) -> SlotId {
    let (slot, _) = admitted(admission, v4("192.0.2.1"));
    assert_eq!(admission.advance(slot, stage, [key; 32]), None);
    slot
}

/// Issue 9, C1: a flood evicts its own connections, and no others.
#[test]
fn a_flood_from_one_address_evicts_its_own_oldest() {
    let mut admission = Admission::default();
    let (honest, _) = admitted(&mut admission, v4("198.51.100.7"));
    let mut slots = Vec::new();
    for count in 0..CLOSING.each_address + HANDSHAKE.each_address {
        let (slot, evicted) = admitted(&mut admission, v4("192.0.2.1"));
        slots.push(slot);
        assert_eq!(evicted, count.checked_sub(HANDSHAKE.each_address).map(|first| slots[first]));
        assert_ne!(evicted, Some(honest));
    }
    assert_eq!(admission.count(Stage::Handshake), HANDSHAKE.each_address + 1);
    // Too much of it is closing now, of it alone.
    assert_eq!(admission.arrive(v4("192.0.2.1")), Arrival::Ignored);
    admitted(&mut admission, v4("192.0.2.2"));
    slots[..10].iter().for_each(|slot| admission.forget(*slot));
    admitted(&mut admission, v4("192.0.2.1"));
}

/// Issue 9, C1: addresses of one network are nothing to hide behind, of either family.
#[test]
fn a_flood_from_one_network_evicts_its_own_oldest() {
    for (own, other) in [("192.0.2.", "198.51.100.7"), ("2001:db8:1:", "2001:db8:2::7")] {
        let mut admission = Admission::default();
        let (honest, _) = admitted(&mut admission, v4(other));
        for count in 0..2 * HANDSHAKE.each_network {
            let address = match own.contains(':') {
                true => format!("{own}{:x}::1", count % 0xffff),
                false => format!("{own}{}", count % 250),
            };
            let (_, evicted) = admitted(&mut admission, v4(&address));
            assert_ne!(evicted, Some(honest));
            assert_eq!(evicted.is_some(), count >= HANDSHAKE.each_network);
        }
    }
}

/// Issue 9, C1: a stage that is full of many networks takes from the one that holds most.
#[test]
fn a_full_stage_takes_from_the_network_that_holds_most() {
    let mut admission = Admission::default();
    let (honest, _) = admitted(&mut admission, v4("198.51.100.7"));
    for count in 0..2 * HANDSHAKE.connections {
        let network = if count % 2 == 0 { 2 } else { count % 250 };
        let (_, evicted) = admitted(&mut admission, v4(&format!("192.0.{network}.1")));
        assert_ne!(evicted, Some(honest));
    }
    assert_eq!(admission.count(Stage::Handshake), HANDSHAKE.connections);
}

/// One IPv6 host has 2^64 addresses, and IPv4 may come as IPv6.
#[test]
fn a_host_is_one_address() {
    assert_eq!(host(v4("2001:db8::1")), host(v4("2001:db8::ffff:1")));
    assert_ne!(host(v4("2001:db8::1")), host(v4("2001:db8:0:1::1")));
    assert_eq!(host(v4("::ffff:192.0.2.1")), v4("192.0.2.1"));
}

/// Issue 9, C1: of one key the newest stay; other keys lose nothing by it.
#[test]
fn connections_of_one_key_are_bounded() {
    let mut admission = Admission::default();
    let honest = at(&mut admission, Stage::Proven, 1);
    let own: Vec<_> = (0..Stage::Proven.limits().each_key).map(|_| at(&mut admission, Stage::Proven, 2)).collect();
    let (newest, _) = admitted(&mut admission, v4("192.0.2.1"));
    assert_eq!(admission.advance(newest, Stage::Proven, [2; 32]), Some(own[0]));
    assert_eq!(admission.count(Stage::Proven), 1 + own.len());
    // One that was evicted does not come back.
    assert_eq!(admission.advance(own[0], Stage::Proven, [2; 32]), None);
    assert_eq!(admission.count(Stage::Proven), 1 + own.len());
    assert_eq!(admission.hold(own[0], 1), Growth::Refused);
    assert_eq!(admission.hold(honest, 1), Growth::Granted(vec![]));
}

/// Issue 9, C1: the memory of offers before they are accepted is bounded, and the largest holder is
/// evicted first.
#[test]
fn the_bytes_of_offers_are_bounded() {
    let mut admission = Admission::default();
    let part = OFFERS_BYTES_MAX / 3;
    let greedy: Vec<_> = (0..3).map(|_| at(&mut admission, Stage::Proven, 2)).collect();
    let honest = at(&mut admission, Stage::Proven, 1);
    for slot in &greedy {
        assert_eq!(admission.hold(*slot, part), Growth::Granted(vec![]));
    }
    assert_eq!(admission.hold(honest, part), Growth::Granted(vec![greedy[0]]));
    // The other key holds two parts by now, and asks for more than there is.
    assert_eq!(admission.hold(greedy[1], 2 * part), Growth::Refused);
    admission.close(greedy[1]);
    assert_eq!(admission.hold(honest, part + 1), Growth::Granted(vec![]));
    // What was accepted is counted elsewhere.
    admission.forget(honest);
    assert_eq!(admission.hold(greedy[2], 2 * part), Growth::Granted(vec![]));
    assert_eq!(admission.hold(greedy[2], OFFERS_BYTES_MAX + 1), Growth::Refused);
}
