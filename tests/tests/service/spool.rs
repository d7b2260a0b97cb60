//! A standing receiver that has lost what it kept of a transfer, and with it the key to its sender's spool (fault-matrix S7).

use std::{
    fs::{self, File},
    path::PathBuf,
};

use sealift_tests::{
    agents::{Launch, SENDER},
    exit,
};

use crate::{
    place::{Place, WITHIN, wait_for_events},
    slow_down, speed_up, stop,
};

/// A spool whose sender and receiver are gone, and whose receiver comes back without its record.
struct Lost {
    place: Place,
    dump: PathBuf,
    ticket: PathBuf,
    receiver: sealift_tests::agents::Agent,
}

fn push(place: &Place, source: &str, ticket: &PathBuf) -> Launch {
    let launch = Launch::bare(SENDER, &["push", "--json", "--source", source, "--ticket"]).arg(ticket);
    launch.arg("--state-dir").arg(place.sender_state()).arg("--spool").arg(place.path("spool"))
}

fn lose(source: impl Fn(&PathBuf) -> String) -> Lost {
    let place = Place::new("", &[("dump", "exec:sh -c 'cat >{}/part && mv {}/part {}/dump'")]);
    slow_down(&place);
    let mut receiver = place.serve();
    let (dump, ticket) = (place.dump("ehr"), place.ticket("dump"));
    let mut sender = push(&place, &source(&dump), &ticket).stdin(File::open(&dump).unwrap()).start();
    wait_for_events(&mut sender, "spooled", 1);
    wait_for_events(&mut receiver, "started", 1);
    sender.kill9();
    let _ = sender.wait(WITHIN);
    receiver.kill9();
    let _ = receiver.wait(WITHIN);
    fs::remove_dir_all(place.state_dir().join("transfers")).unwrap();
    speed_up(&place);
    let receiver = place.serve();
    Lost { place, dump, ticket, receiver }
}

impl Lost {
    fn assert_done(self, sender: Launch) {
        let sender = sender.start().wait(WITHIN);
        sender.assert_code(exit::DONE);
        assert_eq!(sender.resume().as_deref(), Some("restarted"), "{:?}", sender.events());
        assert!(fs::read(self.place.path("target/dump")).unwrap() == fs::read(&self.dump).unwrap());
        stop(self.receiver);
        assert_eq!(self.place.files("spool"), Vec::<String>::new());
        assert_eq!(self.place.files("sender/transfers"), Vec::<String>::new());
    }
}

/// Its program is run anew.
#[test]
fn s7_a_spool_that_nobody_can_open_is_given_up() {
    let source = |dump: &PathBuf| format!("exec:cat {}", dump.display());
    let lost = lose(source);
    let sender = push(&lost.place, &source(&lost.dump), &lost.ticket);
    lost.assert_done(sender);
}

/// Standard input, of which was said that it is not needed any more, is not read for it unasked.
#[test]
fn s7_standard_input_is_not_read_for_it_unasked() {
    let lost = lose(|_| "-".into());
    let refused = push(&lost.place, "-", &lost.ticket).start().wait(WITHIN);
    refused.assert_code(exit::INTERRUPTED).assert_one_message();
    assert_eq!(refused.resume().as_deref(), Some("impossible"));
    assert!(refused.message().contains("--restart"), "{}", refused.message());
    assert!(!lost.place.path("target/dump").exists());
    assert_eq!(lost.place.files("spool").len(), 1);
    let sender = push(&lost.place, "-", &lost.ticket).arg("--restart").stdin(File::open(&lost.dump).unwrap());
    lost.assert_done(sender);
}
