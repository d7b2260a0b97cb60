//! A standing receiver that has lost what opens its sender's spool, for a while or for good (fault
//! S7). Of standard input the spool may be the only copy there is: no refusal destroys it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use sealift_agent::{state::StateDir, transfer_dir::TransferDir};
use sealift_receiver::{
    ending::KeepsEnding,
    record::{Kept, Record},
};
use sealift_tests::{
    agents::{Agent, Launch, RECEIVER, SENDER},
    exit,
    finished::Finished,
};

use crate::{
    place::{Place, WITHIN, wait_for_events},
    slow_down, speed_up, stop,
};

/// A spool that holds all of its source, whose sender and receiver were killed before all of it was
/// sent.
struct Killed {
    place: Place,
    dump: PathBuf,
    source: String,
    ticket: PathBuf,
}

const NO_JOURNAL: &str = "journal_bytes_max = \"0B\"";
const NOTHING: [String; 0] = [];

impl Killed {
    /// Of a program, or else of standard input.
    fn new(settings: &str, is_program: bool) -> Self {
        let place = Place::new(settings, &[("dump", "exec:sh -c 'cat >{}/part && mv {}/part {}/dump'")]);
        slow_down(&place);
        let mut receiver = place.serve();
        let (dump, ticket) = (place.dump("ehr"), place.ticket("dump"));
        let source = if is_program { format!("exec:cat {}", dump.display()) } else { "-".to_owned() };
        let killed = Self { place, dump, source, ticket };
        let mut sender = killed.push(&killed.ticket).stdin(File::open(&killed.dump).unwrap()).start();
        wait_for_events(&mut sender, "spooled", 1);
        wait_for_events(&mut receiver, "started", 1);
        for agent in [sender, receiver] {
            agent.kill9();
            let _ = agent.wait(WITHIN);
        }
        speed_up(&killed.place);
        killed
    }

    fn push(&self, ticket: &Path) -> Launch {
        let launch = Launch::bare(SENDER, &["push", "--json", "--source", &self.source, "--ticket"]).arg(ticket);
        launch.arg("--state-dir").arg(self.place.sender_state()).arg("--spool").arg(self.place.path("spool"))
    }

    /// The sender ends so, without its input; and what it keeps is there as before.
    #[track_caller]
    fn assert_suspended(&self, ticket: &Path, code: i32, outcome: &str) -> Finished {
        let refused = self.push(ticket).start().wait(WITHIN);
        refused.assert_code(code).assert_one_message();
        assert_eq!(refused.finished_event()["outcome"], outcome);
        assert!(!self.place.path("target/dump").exists());
        assert_eq!((self.place.files("spool").len(), self.place.files("sender/transfers").len()), (1, 1));
        refused
    }

    #[track_caller]
    fn assert_done(&self, sender: &Finished, resume: &str) {
        sender.assert_code(exit::DONE);
        assert_eq!(sender.resume().as_deref(), Some(resume), "{:?}", sender.events());
        assert!(fs::read(self.place.path("target/dump")).unwrap() == fs::read(&self.dump).unwrap());
        assert_eq!((self.place.files("spool"), self.place.files("sender/transfers")), (NOTHING.into(), NOTHING.into()));
    }

    /// The receiver's record with another sealing key; the ticket, and the sender that it is bound
    /// to, are as they were.
    fn lose_sealing_key(&self) {
        let state = StateDir::open(Some(self.place.state_dir()), RECEIVER).unwrap();
        let transfer = TransferDir::list(&state).unwrap()[0];
        let earlier = Record::open(&state, transfer).unwrap().unwrap();
        let Record { dir, kept } = earlier;
        drop(dir);
        let mut record = Record::begin(&state, kept.grant.clone(), &kept.target, kept.port).unwrap();
        let Kept { epoch, digest_check, started_ms, .. } = kept;
        let (plan, ending) = (kept.plan.clone(), kept.ending.clone());
        record.kept.epoch = epoch;
        record.kept.digest_check = digest_check;
        record.kept.started_ms = started_ms;
        record.kept.plan = plan;
        record.kept.ending = ending;
        record.keep().unwrap();
    }

    /// Another ticket for the transfer that is unfinished at the receiver.
    fn another_ticket(&self) -> PathBuf {
        let ticket = self.place.path("another.ticket");
        let transfer = self.place.status(RECEIVER)[0]["transfer"].as_str().unwrap().to_owned();
        let launch = Launch::bare(RECEIVER, &["ticket", "--target", "dump", "--transfer", &transfer, "--config"]);
        let launch = launch.arg(self.place.config()).arg("--ticket-out").arg(&ticket);
        launch.start().wait(WITHIN).assert_code(exit::DONE);
        ticket
    }
}

/// Fault S7: a receiver that has lost its state does not know the ticket. The transfer is
/// suspended, and a receiver that is restored from a backup continues it from the spool, without
/// the source.
fn suspended_until_the_receiver_is_restored(is_program: bool) {
    let killed = Killed::new("", is_program);
    let place = &killed.place;
    let (state, backup) = (place.state_dir().join("transfers"), place.path("backup"));
    fs::rename(&state, &backup).unwrap();
    let receiver = place.serve();
    let refused = killed.assert_suspended(&killed.ticket, exit::REFUSED, "ticket_unknown");
    for words in ["knows no such ticket", "suspended", "spool", "restored from a backup", "sealift-sender abandon"] {
        assert!(refused.message().contains(words), "{words}: {}", refused.message());
    }
    assert_eq!(place.status(SENDER)[0]["stage"], "begun");
    stop(receiver);
    let _ = fs::remove_dir_all(&state);
    fs::rename(&backup, &state).unwrap();
    let receiver = place.serve();
    killed.assert_done(&killed.push(&killed.ticket).start().wait(WITHIN), "resumed");
    stop(receiver);
}

#[test]
fn s7_the_spool_of_standard_input_waits_for_a_receiver_that_is_restored() {
    suspended_until_the_receiver_is_restored(false);
}

#[test]
fn s7_the_spool_of_a_program_waits_for_a_receiver_that_is_restored() {
    suspended_until_the_receiver_is_restored(true);
}

/// Fault S7: what is suspended at its sender stays until a person abandons it.
#[test]
fn s7_abandon_removes_a_spool_that_no_receiver_knows() {
    let killed = Killed::new("", false);
    fs::remove_dir_all(killed.place.state_dir().join("transfers")).unwrap();
    let receiver = killed.place.serve();
    for _ in 0..2 {
        killed.assert_suspended(&killed.ticket, exit::REFUSED, "ticket_unknown");
    }
    killed.place.run(SENDER, &["abandon", "--all"]).assert_code(exit::DONE);
    assert_eq!(killed.place.files("spool"), NOTHING);
    assert_eq!(killed.place.files("sender/transfers"), NOTHING);
    stop(receiver);
}

/// The receiver has the ticket, and only its sealing key is another. By the old ticket that looks
/// like another receiver; by a new one for the same transfer, the spool cannot be opened.
fn with_the_sealing_key_lost(is_program: bool) -> (Killed, Agent, PathBuf) {
    let killed = Killed::new(NO_JOURNAL, is_program);
    killed.lose_sealing_key();
    let receiver = killed.place.serve();
    killed.assert_suspended(&killed.ticket, exit::PEER, "identity_refused");
    stop(receiver);
    let ticket = killed.another_ticket();
    let receiver = killed.place.serve();
    (killed, receiver, ticket)
}

/// Fault S7: its program is run again.
#[test]
fn s7_a_program_is_run_again_for_a_spool_that_nobody_can_open() {
    let (killed, receiver, ticket) = with_the_sealing_key_lost(true);
    killed.assert_done(&killed.push(&ticket).start().wait(WITHIN), "restarted");
    stop(receiver);
}

/// Fault S7: standard input, of which was said that it is not needed any more, is not read for it
/// unasked.
#[test]
fn s7_standard_input_is_not_read_unasked_for_a_spool_that_nobody_can_open() {
    let (killed, receiver, ticket) = with_the_sealing_key_lost(false);
    let refused = killed.assert_suspended(&ticket, exit::INTERRUPTED, "resume_impossible");
    assert_eq!(refused.resume().as_deref(), Some("impossible"));
    assert!(refused.message().contains("--restart"), "{}", refused.message());
    let sender = killed.push(&ticket).arg("--restart").stdin(File::open(&killed.dump).unwrap());
    killed.assert_done(&sender.start().wait(WITHIN), "restarted");
    stop(receiver);
}
