//! The programs are replaced while they run, and started again (fault O10).

use std::fs;

use nix::sys::signal::Signal;
use sealift_tests::{
    agents::{RECEIVER, SENDER},
    exit,
    launch::install,
    place::{Kind, Place},
};

use super::{MIB, WITHIN, assert_resumed, rate};

/// The receiver still starts loaders after its own file is gone; what the old programs drained, the
/// new ones resume.
#[test]
fn o10_upgraded_while_it_loads() {
    let place = Place::new(Kind::Loader(12 * MIB), rate(12), 10);
    let programs = place.path("programs");
    fs::create_dir(&programs).unwrap();
    let upgrade = || [SENDER, RECEIVER].map(|name| install(name, &programs));
    upgrade();
    let mut receiver = place.receiver().installed_in(&programs).start();
    receiver.ticket();
    upgrade();
    let mut sender = place.sender().installed_in(&programs).start();
    place.wait_until_passed(&mut sender, 4 * MIB as u64);
    upgrade();
    receiver.signal(Signal::SIGTERM);
    receiver.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
    sender.wait(WITHIN).assert_code(exit::INTERRUPTED);
    let receiver = place.receiver().installed_in(&programs).start();
    let (_, receiver) = assert_resumed(&place, place.sender().installed_in(&programs).start(), receiver);
    assert_eq!(receiver.resume().as_deref(), Some("resumed"));
}
