//! Which receiver a person means: names, the question at a terminal, and the file that a ticket
//! lies in.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::Command,
};

use sealift_protocol::manifest::{ReceiverTrust, SignedReceipt};
use sealift_tests::{
    agents::{Launch, RECEIVER, SENDER},
    exit,
    invited::write_ticket,
    launch::program,
    terminal::at_a_terminal,
};

use super::{Hosts, WITHIN, read_ticket};

/// A ticket to an address that is not this host's, so that it needs something that vouches for it.
fn elsewhere(hosts: &Hosts, ticket: &Path) -> std::path::PathBuf {
    let mut ticket = read_ticket(ticket);
    ticket.addresses = vec!["192.0.2.1:7443".into()];
    super::put_ticket(hosts.folder.path(), "elsewhere", &ticket)
}

/// Issue 9, A1: `--to NAME`: right, another's, not in the file, no file, a file that is wrong; and
/// `--from NAME` at the receiver.
#[test]
fn agents_are_known_by_name() {
    let hosts = Hosts::new();
    let sender = hosts.fingerprint_of_sender("sender");
    let names = hosts.path("names");
    fs::write(&names, format!("# both\nsrc {sender}\n")).unwrap();
    let from = ["--from", "src", "--known-agents", names.to_str().unwrap()];
    let mut receiver = hosts.listen().args(&from).start();
    let ticket = receiver.ticket();
    let right = hosts.ask(RECEIVER, &["identity"], "receiver");
    fs::write(&names, format!("dst {right} # the right one\nold {sender}\n")).unwrap();
    let push = |words: &[&str]| hosts.push("sender", &ticket).args(words).start().wait(WITHIN);
    let known = |name| ["--to", name, "--known-agents", names.to_str().unwrap()];
    for (words, code) in [
        (&known("old")[..], exit::PEER),
        (&known("nobody")[..], exit::USAGE),
        // No file in the state directory.
        (&["--to", "dst"][..], exit::USAGE),
        (&["--to", &right[..60]][..], exit::USAGE),
    ] {
        push(words).assert_code(code).assert_one_message();
    }
    fs::write(&names, format!("dst {right}\ndst {sender}\n")).unwrap();
    assert!(push(&known("dst")).assert_code(exit::USAGE).message().contains("line 2"));
    fs::write(hosts.path("sender/known-agents"), format!("dst {right}\n")).unwrap();
    assert!(receiver.is_running());
    push(&["--to", "dst"]).assert_code(exit::DONE);
    receiver.wait(WITHIN).assert_code(exit::DONE);
    assert_eq!(hosts.entries("sender", "transfer.begin")[0]["receiver_trust"], "pinned");
}

/// Issue 9, A1: at a terminal the fingerprint has to be confirmed; without one, and without a pin,
/// nothing is sent; a wrong pin is no question.
#[test]
fn a_terminal_is_asked_and_nobody_else_is() {
    let hosts = Hosts::new();
    let mut receiver = hosts.listen().start();
    let ticket = elsewhere(&hosts, &receiver.ticket());
    let (program, state, source) = (program(SENDER), hosts.path("sender"), hosts.source());
    let push = |more: &[&str], answer: &str| {
        let words = [program.to_str().unwrap(), "push", "--source", &source, "--ticket", ticket.to_str().unwrap()];
        let state = ["--state-dir", state.to_str().unwrap(), "--retry-for", "0s"];
        at_a_terminal(&[&words[..], &state, more].concat(), "[y/N]", answer)
    };
    let fingerprint = hosts.ask(RECEIVER, &["identity"], "receiver");
    // Fault E2: Ctrl-C at the question is no answer to it.
    let (code, shown) = push(&[], "\u{3}");
    assert_eq!(code, exit::USER_INTERRUPT, "{shown}");
    assert!(shown.contains("stopped by Ctrl-C") && shown.contains("Nothing was sent"), "{shown}");
    for answer in ["n", "", "yeah", "Y E S"] {
        let (code, shown) = push(&[], answer);
        assert_eq!(code, exit::PEER, "{shown}");
        assert!(shown.contains(&fingerprint) && shown.contains("Nothing was sent"), "{shown}");
        assert_eq!(hosts.entries("sender", "transfer.begin").len(), 0);
    }
    // It goes on, and there is no such host.
    let (_, shown) = push(&[], "y");
    assert!(!shown.contains("was not confirmed"), "{shown}");
    assert_eq!(hosts.entries("sender", "transfer.begin")[0]["receiver_trust"], "ticket", "{shown}");
    let other = hosts.fingerprint_of_sender("sender");
    let (code, shown) = push(&["--to", &other], "y");
    assert!(code == exit::PEER && !shown.contains("[y/N]"), "{shown}");
    // Nobody to ask.
    let alone = hosts.push("other", &ticket).start().wait(WITHIN);
    alone.assert_code(exit::USAGE).assert_one_message();
    assert!(
        alone.message().contains(&fingerprint) && alone.message().contains("--trust-ticket"),
        "{}",
        alone.message()
    );
    super::stop(receiver);
}

/// The words of a push at a shell, which gives it a file as standard input.
fn from_a_file(hosts: &Hosts, named: &str, ticket: &Path) -> (i32, String) {
    let push = format!("exec \"$0\" push --source '{}' --ticket {named} --state-dir \"$1\" <\"$2\"", hosts.source());
    let mut shell = Command::new("sh");
    shell.args(["-c", &push]).arg(program(SENDER)).arg(hosts.path("other")).arg(ticket);
    let ended = shell.output().unwrap();
    (ended.status.code().unwrap(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

/// Issue 9, A1: a pipe vouches for the ticket that comes through it, whatever the pipe is called:
/// where it leads is printed, and that nothing else vouched for it is on record. A file that the
/// shell has opened is no pipe.
#[test]
fn a_pipe_vouches_for_the_ticket_that_comes_through_it() {
    for named in ["-", "/dev/stdin"] {
        let hosts = Hosts::new();
        let mut receiver = hosts.listen().start();
        let mut ticket = read_ticket(&receiver.ticket());
        // Where nobody answers; but it is not this host.
        ticket.addresses.push("192.0.2.1:7443".into());
        let other = super::put_ticket(hosts.folder.path(), "other.ticket", &ticket);
        let (code, said) = from_a_file(&hosts, named, &other);
        assert!(code == exit::USAGE && said.contains("nothing vouches for the receiver"), "{named}: {said}");

        let sender = Launch::sender(&hosts.source(), named).state(&hosts.path("sender"));
        let sender = sender.stdin(fs::File::open(&other).unwrap()).start().wait(WITHIN);
        let said = sender.assert_code(exit::DONE).stderr();
        let fingerprint = hosts.ask(RECEIVER, &["identity"], "receiver");
        for shown in ["leads to the receiver at", &ticket.addresses.join(", "), &fingerprint] {
            assert!(said.contains(shown), "{named}: no {shown} in: {said}");
        }
        receiver.wait(WITHIN).assert_code(exit::DONE);
        hosts.assert_loaded();
        assert_eq!(hosts.entries("sender", "transfer.begin")[0]["receiver_trust"], "ticket");
        for side in ["sender", "receiver"] {
            let folder = fs::read_dir(hosts.path(side).join("receipts")).unwrap().map(|entry| entry.unwrap().path());
            let receipts: Vec<_> = folder.filter(|path| path.extension().is_some_and(|end| end == "receipt")).collect();
            assert_eq!(receipts.len(), 1, "{side}: {receipts:?}");
            let receipt = SignedReceipt::from_bytes(&fs::read(&receipts[0]).unwrap()).unwrap();
            assert_eq!(receipt.receipt.manifest.manifest.origin.receiver_trust, ReceiverTrust::Ticket, "{side}");
        }
    }
}

/// Issue 9, A1; fault E12: a ticket file is the user's own and closed to others, whatever name
/// leads to it; what systemd hands over is trusted by its folder, and by that alone.
#[test]
fn a_ticket_file_is_its_users_own() {
    let hosts = Hosts::new();
    let mut receiver = hosts.listen().start();
    let text = fs::read_to_string(receiver.ticket()).unwrap();
    let file = hosts.path("credentials/ehr.ticket");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    write_ticket(&file, &text);
    let link = hosts.path("link");
    symlink(&file, &link).unwrap();
    let refused_with = |launch: Launch, says: &str| {
        let sender = launch.start().wait(WITHIN);
        sender.assert_code(exit::PREFLIGHT).assert_one_message();
        assert!(sender.message().contains(says), "{}", sender.message());
    };
    let refused = |launch| refused_with(launch, "open to other users");
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        refused(hosts.push("sender", &file));
        refused(hosts.push("sender", &link));
    }
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        chown(&file, Some(1), None).unwrap();
        refused_with(hosts.push("sender", &file), "belongs to another user");
        refused_with(hosts.push("sender", &link), "belongs to another user");
        chown(&file, Some(0), None).unwrap();
    }
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    // No folder at all, one that is left again, and one that is only named alike.
    let folder = hosts.path("credentials");
    for variable in ["", "credentials", "/", hosts.path("cred").to_str().unwrap()] {
        refused(hosts.push("sender", &file).env("CREDENTIALS_DIRECTORY", variable));
    }
    let out_again = folder.join("../open.ticket");
    write_ticket(&out_again, &text);
    fs::set_permissions(&out_again, Permissions::from_mode(0o644)).unwrap();
    refused(hosts.push("sender", &out_again).env("CREDENTIALS_DIRECTORY", &folder));
    assert!(receiver.is_running());
    let sender = hosts.push("sender", &file).env("CREDENTIALS_DIRECTORY", &folder).start().wait(WITHIN);
    sender.assert_code(exit::DONE);
    receiver.wait(WITHIN).assert_code(exit::DONE);
}
