//! What people and machines get wrong: each ends with its exit code and one clear message, and
//! nothing is loaded.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{Uid, User};
use sealift_tests::{
    agents::{Agent, Launch, OPERATOR, RECEIVER, SENDER, TICKET_END},
    bytes::{noise, write_file},
    exit,
    finished::Finished,
    invited::write_ticket,
    pair::{Pair, transfer},
    port::free_udp_port,
    random::Random,
    shared::skip,
    sqlite,
};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap()
}

fn receiver_ends(target: &str) -> Finished {
    Launch::receiver(target).bind_loopback().start().wait(WITHIN)
}

fn sender_ends(source: &str, ticket: &Path) -> Finished {
    Launch::sender(source, ticket).start().wait(WITHIN)
}

fn listening() -> Agent {
    Launch::receiver("discard:").bind_loopback().start()
}

#[test]
fn unknown_schemes_are_usage() {
    let mut receiver = listening();
    let ticket = receiver.ticket();
    for url in ["", "ftp://host/x", "sqllite:x", "postgres", "FILE:/x", "exec:", "file:", "sqlite:", "exec:'unclosed"] {
        receiver_ends(url).assert_code(exit::USAGE).assert_one_message().assert_tidy();
        sender_ends(url, &ticket).assert_code(exit::USAGE).assert_one_message().assert_tidy();
    }
    sender_ends("discard:", &ticket).assert_code(exit::USAGE).assert_one_message();
    assert!(receiver.is_running(), "none of it reached the receiver");
}

#[test]
fn flags_that_do_not_exist_or_fit_are_usage() {
    let sender: &[&[&str]] = &[
        &[],
        &["push"],
        &["pull"],
        &["push", "--source", "-"],
        &["push", "--ticket", "x"],
        &["push", "--source", "file:x", "--ticket", "x", "--compression", "20"],
        &["push", "--source", "file:x", "--ticket", "x", "--compression", "-1"],
        &["push", "--source", "file:x", "--ticket", "x", "--suite", "rot13"],
        &["push", "--source", "file:x", "--ticket", "x", "--memory", "1"],
        &["push", "--source", "file:x", "--ticket", "x", "--memory", "much"],
        &["push", "--source", "file:x", "--ticket", "x", "--no-encryption"],
        &["push", "--source", "file:x", "--ticket", "x", "--log-level", "loud"],
        &["push", "--source", "-", "--ticket", "-"],
        &["push", "--source", "file:x", "--source", "file:y", "--ticket", "x"],
    ];
    let receiver: &[&[&str]] = &[
        &[],
        &["listen"],
        &["serve-everybody"],
        &["listen", "--target", "discard:"],
        &["listen", "--ticket-out", "x"],
        &["listen", "--target", "discard:", "--ticket-out", "x", "--bind", "nowhere"],
        &["listen", "--target", "discard:", "--ticket-out", "x", "--address", "no port"],
        &["listen", "--target", "discard:", "--ticket-out", "x", "--valid-for", "soon"],
        &["listen", "--target", "discard:", "--ticket-out", "x", "--valid-for", "0s"],
        &["listen", "--target", "discard:", "--ticket-out", "x", "--row-bytes-max", "0"],
        &["listen", "--target", "discard:", "--ticket-out", "-", "--json"],
        &["listen", "--target", "-", "--ticket-out", "-"],
        &["listen", "--target", "-", "--ticket-out", "x", "--json"],
        &["listen", "--target", "exec:PGPASSWORD=x psql", "--ticket-out", "x"],
    ];
    for (program, cases) in [(SENDER, sender), (RECEIVER, receiver)] {
        for arguments in cases {
            let launch = Launch::bare(program, arguments);
            let state = launch.home().join("state");
            let launch = if arguments.len() > 1 { launch.arg("--state-dir").arg(state) } else { launch };
            let finished = launch.start().wait(WITHIN);
            println!("{program} {arguments:?}");
            finished.assert_code(exit::USAGE).assert_tidy();
            assert!(!finished.message().trim().is_empty() || arguments.is_empty());
        }
    }
}

/// A program that reads events learns of a mistake in the arguments as of any other end; a person
/// reads it on standard error.
#[test]
fn mistakes_in_arguments_are_told_as_an_event_too() {
    let cases: &[(&str, &[&str], &str)] = &[
        (SENDER, &["push", "--json"], "--ticket <FILE>"),
        (SENDER, &["push", "--source", "file:x", "--ticket", "x", "--memory", "much", "--json"], "--memory"),
        (SENDER, &["seal", "--json", "--no-encryption"], "--no-encryption"),
        (SENDER, &["pull", "--json"], "pull"),
        (RECEIVER, &["listen", "--json", "--target", "discard:"], "--ticket-out <FILE>"),
        (RECEIVER, &["serve", "--json", "--loud"], "--loud"),
    ];
    for (program, arguments, named) in cases {
        let ended = Launch::bare(program, arguments).start().wait(WITHIN);
        ended.assert_code(exit::USAGE).assert_one_message().assert_tidy();
        let event = ended.finished_event();
        assert_eq!((&event["outcome"], &event["transfer"]), (&"usage".into(), &serde_json::Value::Null));
        for text in [event["what"].as_str().unwrap(), &ended.stderr()] {
            assert!(text.contains(named), "no {named} in: {text}");
        }
    }
    let status = Launch::bare(SENDER, &["status", "--json", "--loud"]).start().wait(WITHIN);
    assert!(status.assert_code(exit::USAGE).stdout().is_empty(), "no event where none is promised");
    let help = Launch::bare(SENDER, &["push", "--json", "--help"]).start().wait(WITHIN);
    assert!(!String::from_utf8(help.assert_code(exit::DONE).stdout()).unwrap().contains("finished\":"));
}

#[test]
fn help_and_version_end_well() {
    for program in [SENDER, RECEIVER, OPERATOR] {
        for argument in ["--help", "--version"] {
            let finished = Launch::bare(program, &[argument]).start().wait(WITHIN);
            finished.assert_code(exit::DONE);
            assert!(!finished.stdout().is_empty(), "{program} {argument}");
        }
        let shells = ["bash", "zsh", "fish"];
        for shell in shells {
            Launch::bare(program, &["completions", shell]).start().wait(WITHIN).assert_code(exit::DONE);
        }
    }
}

/// Each command has a page of its own, which the program's own names.
#[test]
fn manual_pages() {
    let page = |program: &str, words: &[&str]| {
        let printed = Launch::bare(program, &[&["man"], words].concat()).start().wait(WITHIN);
        String::from_utf8(printed.assert_code(exit::DONE).stdout()).unwrap()
    };
    let commands: [(&str, &[&str], &[&str]); 3] = [
        (SENDER, &["push", "seal"], &["status", "abandon", "completions", "man"]),
        (RECEIVER, &["listen", "key", "load", "serve", "ticket"], &["status", "abandon", "completions", "man"]),
        (OPERATOR, &[], &["receipt", "completions", "man"]),
    ];
    for (program, with_examples, others) in commands {
        let whole = page(program, &[]);
        assert!(!whole.contains("guard"), "{whole}");
        for &command in with_examples.iter().chain(others) {
            let name = format!("{program}-{command}").replace('-', "\\-");
            assert!(whole.contains(&name), "{program} does not name {command}");
            let own = page(program, &[command]);
            assert!(own.contains(&name) && own.contains(".SH SYNOPSIS"), "{own}");
            assert_eq!(own.contains("\n.SH \"EXIT STATUS\"\n.nf\n0 done"), program != OPERATOR, "{own}");
            let example = format!("\n.SH EXAMPLES\n.nf\n  {program} {command} ").replace('-', "\\-");
            assert_eq!(own.contains(&example), with_examples.contains(&command), "{own}");
        }
        Launch::bare(program, &["man", "loader-guard"]).start().wait(WITHIN).assert_code(exit::USAGE);
    }
    assert!(page(OPERATOR, &["receipt", "verify"]).contains("receipt\\-verify"));
}

#[test]
fn a_state_directory_that_is_not_its_own_is_preflight() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = folder();
    let place = |name: &str| folder.path().join(name);
    fs::create_dir(place("open")).unwrap();
    fs::set_permissions(place("open"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(place("file"), "").unwrap();
    fs::create_dir(place("real")).unwrap();
    fs::set_permissions(place("real"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink(place("real"), place("link")).unwrap();
    for name in ["open", "file", "link"] {
        let arguments = ["listen", "--target", "discard:", "--ticket-out", "ticket", "--bind", "127.0.0.1:0"];
        let launch = Launch::bare(RECEIVER, &arguments).arg("--state-dir").arg(place(name));
        launch.start().wait(WITHIN).assert_code(exit::PREFLIGHT).assert_one_message();
    }
}

#[test]
fn a_taken_port_is_preflight() {
    let port = free_udp_port();
    let taken = std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let bind = format!("127.0.0.1:{port}");
    let receiver = Launch::receiver("discard:").args(&["--bind", &bind]).start().wait(WITHIN);
    receiver.assert_code(exit::PREFLIGHT).assert_one_message();
    drop(taken);
}

/// Fault O1: also of the wrong database.
#[test]
fn sqlite_sources_that_cannot_be_moved() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    sqlite::create_hospital(&path("good.db"), 2000);
    let mut bytes = fs::read(path("good.db")).unwrap();
    fs::write(path("truncated.db"), &bytes[..bytes.len() / 2]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle - 6000..middle + 6000].fill(0xa5);
    fs::write(path("corrupt.db"), &bytes).unwrap();
    write_file(&path("noise.db"), noise(1, 100_000));
    fs::write(path("text.db"), "this is no database").unwrap();
    for name in ["truncated.db", "corrupt.db", "noise.db", "text.db", "missing.db"] {
        let target = path(&format!("copy of {name}"));
        let mut receiver = Launch::receiver(&format!("sqlite:{}", target.display())).bind_loopback().start();
        let sender = sender_ends(&format!("sqlite:{}", path(name).display()), &receiver.ticket());
        println!("{name}");
        sender.assert_code(exit::UNUSABLE).assert_one_message();
        assert!(!target.exists(), "{name}");
    }
    assert!(!path("missing.db").exists(), "a source is never made");
}

#[test]
fn sqlite_targets_that_hold_something_are_left_alone() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let url = |name: &str| format!("sqlite:{}", path(name).display());
    sqlite::create(&path("to.db"), "create table precious (x); insert into precious values (1)");
    fs::write(path("note.txt"), "precious").unwrap();
    for name in ["to.db", "note.txt"] {
        let before = fs::read(path(name)).unwrap();
        let receiver = Launch::receiver(&url(name)).bind_loopback().start().wait(Duration::from_secs(20));
        receiver.assert_code(exit::UNUSABLE).assert_one_message();
        assert_eq!(fs::read(path(name)).unwrap(), before, "{name}");
    }
}

#[test]
fn source_and_target_of_different_kinds() {
    let folder = folder();
    sqlite::create_hospital(&folder.path().join("from.db"), 50);
    let source = format!("sqlite:{}", folder.path().join("from.db").display());
    let done = transfer(source, "exec:cat");
    done.assert_codes(exit::REFUSED, exit::REFUSED);
    done.sender.assert_one_message();
    done.receiver.assert_one_message();
}

#[test]
fn an_expired_ticket_is_refused_on_both_sides() {
    let folder = folder();
    write_file(&folder.path().join("from"), noise(1, 1000));
    let source = format!("file:{}", folder.path().join("from").display());
    let mut receiver = Launch::receiver("discard:").bind_loopback().args(&["--valid-for", "1s"]).start();
    let ticket = fs::read(receiver.ticket()).unwrap();
    let receiver = receiver.wait(Duration::from_secs(20));
    receiver.assert_code(exit::REFUSED).assert_one_message();
    write_ticket(&folder.path().join("ticket"), ticket);
    sender_ends(&source, &folder.path().join("ticket")).assert_code(exit::REFUSED).assert_one_message();
}

#[test]
fn a_used_ticket_finds_nobody() {
    let folder = folder();
    write_file(&folder.path().join("from"), noise(1, 1000));
    let source = format!("file:{}", folder.path().join("from").display());
    let done = transfer(&source, "discard:");
    done.assert_done();
    let again = sender_ends(&source, &done.receiver.home().join("ticket"));
    again.assert_code(exit::PEER).assert_one_message();
}

/// The message says so, whatever is to be sent now.
#[test]
fn a_used_ticket_is_good_for_nothing_more() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    write_file(&path("from"), noise(1, 1000));
    write_file(&path("other"), noise(2, 1000));
    fs::create_dir(path("state")).unwrap();
    fs::set_permissions(path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let mut receiver = Launch::receiver("discard:").bind_loopback().ticket_at(&path("ticket")).start();
    let ticket = receiver.ticket();
    let push = |source: &str| {
        let source = format!("file:{}", path(source).display());
        Launch::sender(&source, &ticket).state(&path("state"))
    };
    push("from").start().wait(WITHIN).assert_code(exit::DONE);
    receiver.wait(WITHIN).assert_code(exit::DONE);
    for again in [push("from"), push("other"), push("missing"), push("from").arg("--restart")] {
        let again = again.start().wait(WITHIN);
        again.assert_code(exit::REFUSED).assert_one_message();
        assert!(again.message().contains(".receipt"), "{}", again.message());
    }
}

/// Faults I3, G4: the receiver that answers is not the one that issued the ticket.
#[test]
fn a_ticket_of_another_receiver_at_the_same_address() {
    let folder = folder();
    write_file(&folder.path().join("from"), noise(1, 1000));
    let source = format!("file:{}", folder.path().join("from").display());
    let bind = format!("127.0.0.1:{}", free_udp_port());
    let mut first = Launch::receiver("discard:").args(&["--bind", &bind]).start();
    let old = folder.path().join("old ticket");
    fs::copy(first.ticket(), &old).unwrap();
    first.kill9();
    first.wait(WITHIN);
    let mut second = Launch::receiver("discard:").args(&["--bind", &bind]).start();
    let ticket = second.ticket();
    sender_ends(&source, &old).assert_code(exit::PEER).assert_one_message();
    // The attempt cost the rightful sender nothing.
    sender_ends(&source, &ticket).assert_code(exit::DONE);
    second.wait(WITHIN).assert_code(exit::DONE);
}

/// Fault G2: no damage gets past the sender, and none reaches the receiver.
#[test]
fn damaged_tickets_are_refused() {
    let folder = folder();
    write_file(&folder.path().join("from"), noise(1, 1000));
    let source = format!("file:{}", folder.path().join("from").display());
    let mut receiver = listening();
    let ticket = fs::read(receiver.ticket()).unwrap();
    let mut random = Random::of_this_run("damaged tickets");
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), vec![]),
        ("a line break".into(), b"\n".to_vec()),
        ("garbage".into(), (0..2000).map(|_| random.number() as u8).collect()),
        ("sixteen megabytes".into(), vec![b'A'; 16 << 20]),
        ("zeros".into(), vec![0; 5000]),
        ("first half".into(), ticket[..ticket.len() / 2].to_vec()),
        ("second half".into(), ticket[ticket.len() / 2..].to_vec()),
        (
            "nothing between the lines".into(),
            b"-----BEGIN SEALIFT TICKET-----\n-----END SEALIFT TICKET-----\n".to_vec(),
        ),
        ("an endless one".into(), [b"-----BEGIN SEALIFT TICKET-----\n".to_vec(), vec![b'A'; 4 << 20]].concat()),
        ("a line left out".into(), without_line(&ticket, 5)),
    ];
    for _ in 0..20 {
        let begin = ticket.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let end = ticket.len() - TICKET_END.len() - 2;
        let (at, bit) = (begin + random.below(end - begin), random.below(7));
        // A line break that became white space, or the reverse, damages nothing.
        if ticket[at] != b'\n' && !(ticket[at] ^ 1 << bit).is_ascii_whitespace() {
            let mut flipped = ticket.clone();
            flipped[at] ^= 1 << bit;
            cases.push((format!("bit {bit} of byte {at}"), flipped));
        }
    }
    let path = folder.path().join("ticket");
    for (name, bytes) in cases {
        write_ticket(&path, bytes);
        println!("{name}");
        let sender = sender_ends(&source, &path);
        sender.assert_code(exit::REFUSED).assert_one_message();
        assert!(sender.peak_memory_bytes < 128 << 20, "{name}: {} bytes", sender.peak_memory_bytes);
    }
    let missing: PathBuf = folder.path().join("no ticket");
    sender_ends(&source, &missing).assert_code(exit::USAGE).assert_one_message();
    // After all that, the ticket is as good as new.
    write_ticket(&path, ticket);
    sender_ends(&source, &path).assert_code(exit::DONE);
    receiver.wait(WITHIN).assert_code(exit::DONE);
}

fn without_line(ticket: &[u8], line: usize) -> Vec<u8> {
    let lines = ticket.split_inclusive(|byte| *byte == b'\n').enumerate();
    lines.filter(|(at, _)| *at != line).flat_map(|(_, line)| line.to_vec()).collect()
}

/// A ticket is a private key: nobody else may read it.
#[test]
fn a_ticket_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mut receiver = listening();
    let mode = fs::metadata(receiver.ticket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Fault C6: Ctrl-C ends each side with 130, at once, and tells the other.
#[test]
fn an_interrupt_ends_both_sides() {
    let folder = folder();
    for sender_is_stopped in [true, false] {
        let target = folder.path().join("to");
        let source = "exec:sh -c 'head -c 3000000 /dev/urandom; sleep 60'";
        let mut running =
            Pair::new(source, format!("file:{}", target.display())).receiver_args(&["--danger-plaintext-file"]).start();
        running.wait_until_started();
        let stopped = if sender_is_stopped { &running.sender } else { &running.receiver };
        stopped.sigint();
        let done = running.wait(Duration::from_secs(20));
        let (stopped, other) =
            if sender_is_stopped { (&done.sender, &done.receiver) } else { (&done.receiver, &done.sender) };
        stopped.assert_code(exit::USER_INTERRUPT);
        assert_ne!(other.code(), Some(exit::DONE));
        println!("the other side ended with {:?}", other.code());
        assert!(!target.exists());
        // A suspended `file:` target lies under staging names; `resume::prefix` abandons one.
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let shown: Vec<_> = names.filter(|name| !name.ends_with(".sealift-staging")).collect();
        assert_eq!(shown, Vec::<String>::new());
    }
}

/// Issue 9, B4: a database in WAL mode that was closed in good order needs no recovery, but a
/// folder that SQLite may write to; in either form.
#[test]
fn a_wal_source_in_a_folder_that_may_only_be_read() {
    let user = User::from_name("nobody").unwrap().filter(|_| Uid::effective().is_root());
    let Some(user) = user else { return skip("needs root and a user nobody", false) };
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    sqlite::create(&path("from"), "PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1);");
    let mut receiver = listening();
    fs::copy(receiver.ticket(), path("ticket")).unwrap();
    for (name, mode) in [("ticket", 0o600), ("from", 0o644), ("", 0o755)] {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::chown(path("ticket"), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    for form in ["rows", "image"] {
        let sender = Launch::sender(&format!("sqlite:{}", path("from").display()), path("ticket"));
        let sender = sender.args(&["--form", form]).as_user(user.uid.as_raw(), user.gid.as_raw());
        let ended = sender.start().wait(WITHIN);
        ended.assert_code(exit::UNUSABLE).assert_one_message();
        let said = ended.message();
        assert!(said.contains("would leave -wal and -shm of another owner"), "{form}: {said}");
    }
    receiver.sigint();
    receiver.wait(WITHIN);
}

/// A database that needs a function of the program which made it: the message says so, and neither
/// side tells of a number.
#[test]
fn a_definition_that_this_sqlite_does_not_understand() {
    let folder = folder();
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    let sql = "CREATE TABLE t (a); INSERT INTO t VALUES (1); PRAGMA writable_schema = ON; \
               UPDATE sqlite_schema SET sql = 'CREATE TABLE t (a CHECK (frobnicate(a)))' WHERE name = 't';";
    sqlite::create(&folder.path().join("from"), sql);
    let mut receiver = Launch::receiver(&url("to")).bind_loopback().start();
    let refused = sender_ends(&url("from"), &receiver.ticket());
    refused.assert_code(exit::UNUSABLE).assert_one_message();
    let said = refused.message();
    assert!(said.contains("the definition of t needs a function") && !said.contains("result code"), "{said}");
    receiver.sigint();
    receiver.wait(WITHIN);
}

/// The sender may send longer rows than the receiver takes: which setting that is, it says.
#[test]
fn a_row_that_is_too_long_for_the_receiver_alone() {
    let folder = folder();
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    sqlite::create(&folder.path().join("from"), "CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(2000000));");
    let done = Pair::new(url("from"), url("to")).receiver_args(&["--row-bytes-max", "1MiB"]).run();
    done.assert_codes(exit::UNUSABLE, exit::UNUSABLE);
    assert!(done.receiver.message().contains("--row-bytes-max"), "{}", done.receiver.message());
}

/// Fault C6: no message says to resume what had not begun.
#[test]
fn an_interrupt_before_any_sender_says_that_the_ticket_is_void() {
    let mut receiver = listening();
    receiver.ticket();
    receiver.sigint();
    let ended = receiver.wait(WITHIN);
    ended.assert_code(exit::USER_INTERRUPT).assert_one_message();
    assert!(ended.message().contains("the ticket is void"), "{}", ended.message());
    assert!(!ended.message().contains("resumed"), "{}", ended.message());
}

/// Stopped after everything was sent, the sender cannot know how it ended, and says so.
#[test]
fn a_sender_stopped_before_the_receipt_does_not_say_that_nothing_was_loaded() {
    let folder = folder();
    let read = folder.path().join("read");
    let loader = format!("exec:sh -c 'cat >/dev/null; touch {}; sleep 3'", read.display());
    let mut running = Pair::new("exec:echo rows", loader).receiver_args(&["--grace", "1s"]).start();
    running.receiver.wait_for("the loader has all", WITHIN, |_| read.exists());
    running.sender.sigint();
    let sender = running.sender.wait(WITHIN);
    sender.assert_code(exit::USER_INTERRUPT).assert_one_message();
    assert!(sender.message().contains("may have loaded it"), "{}", sender.message());
    running.receiver.wait(WITHIN).assert_code(exit::DONE);
}
