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

/// With its record a receiver has lost the ticket and the key to the spool, which nobody can open any more. It says so;
/// nothing is loaded, and nothing of the transfer is left at the sender.
fn assert_refused_and_given_up(lost: Lost, source: &str) {
    let refused = push(&lost.place, source, &lost.ticket).start().wait(WITHIN);
    refused.assert_code(exit::REFUSED).assert_one_message();
    assert_eq!(refused.finished_event()["outcome"], "ticket_unknown");
    assert!(!lost.place.path("target/dump").exists());
    stop(lost.receiver);
    assert_eq!(lost.place.files("spool"), Vec::<String>::new());
    assert_eq!(lost.place.files("sender/transfers"), Vec::<String>::new());
}

#[test]
fn s7_a_spool_of_a_ticket_that_is_lost_is_given_up() {
    let source = |dump: &PathBuf| format!("exec:cat {}", dump.display());
    let lost = lose(source);
    let source = source(&lost.dump);
    assert_refused_and_given_up(lost, &source);
}

/// Standard input, of which was said that it is not needed any more, is not read for it.
#[test]
fn s7_standard_input_is_not_read_for_it() {
    let lost = lose(|_| "-".into());
    assert_refused_and_given_up(lost, "-");
}
