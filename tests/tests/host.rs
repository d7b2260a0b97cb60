//! What an agent inherits from the host that it runs on, and what its programs inherit from it
//! (faults E3, E4, E5, E7).

use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, chown},
    process::{Command, Stdio},
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Uid};
use sealift_tests::{
    agents::{Launch, OPERATOR, RECEIVER, SENDER},
    exit,
    finished::Finished,
    launch::program,
    memory::children,
    pair::Pair,
    shared::skip,
    sqlite,
};

const WITHIN: Duration = Duration::from_secs(60);

fn shell(script: &str) -> String {
    format!("exec:sh -c '{script}'")
}

fn words(words: &[&str]) -> Vec<std::ffi::OsString> {
    words.iter().map(Into::into).collect()
}

/// Issue 9, C3; fault E3: what `nohup` or a background job is to ignore is ignored, at both ends.
#[test]
fn signals_that_were_ignored_stay_ignored() {
    let ignoring = |launch: Launch| launch.wrapped_in(words(&["env", "--ignore-signal=HUP,INT"]));
    let mut running = Pair::new(shell("echo row; sleep 2; echo row"), "discard:").start_with(ignoring, ignoring);
    running.wait_until_started();
    for agent in [&running.sender, &running.receiver] {
        agent.signal(Signal::SIGHUP);
        agent.sigint();
    }
    running.wait(WITHIN).assert_done();
}

/// Fault E3: nor does an inherited disposition or mask break what the agents need signals for.
#[test]
fn signals_that_agents_need_are_theirs() {
    let odd = ["env", "--ignore-signal=CHLD,USR1,USR2", "--block-signal=CHLD,USR1,USR2,TERM"];
    let odd = |launch: Launch| launch.wrapped_in(words(&odd));
    let loaded = Pair::new(shell("echo row"), "exec:cat").start_with(odd, odd).wait(WITHIN);
    loaded.assert_done();
    // The guard says by SIGUSR2 that its loader, which ended with 0, has not read all.
    let unread = Pair::new(shell("head -c 9000 /dev/zero"), "exec:true").start_with(odd, odd).wait(WITHIN);
    assert_eq!((unread.sender.code(), unread.receiver.code()), (Some(5), Some(5)), "{}", unread.receiver.stderr());
    let mut receiver = odd(Launch::receiver("discard:").bind_loopback()).start();
    receiver.ticket();
    receiver.signal(Signal::SIGTERM);
    assert_eq!(receiver.wait(WITHIN).code(), Some(130));
}

/// A terminal of its own for a command, which gets a line as if it were typed; what was shown, and
/// how the command ended.
const ON_TERMINAL: &str = r#"
import os, pty, sys
def typed(fd):
    return b"hunter2\n"
os.environ["TERM"] = "dumb"
status = pty.spawn(sys.argv[1:], stdin_read=typed)
sys.exit(os.waitstatus_to_exitcode(status))
"#;

/// As `pg_dump`, `psql`, `ssh` and `mariadb-dump -p` ask.
const ASKS: &str =
    "stty -echo </dev/tty && printf Password: >/dev/tty && read p </dev/tty; stty echo </dev/tty || exit 3";

/// Issue 9, C3; fault E4: a program that asks for a password on the terminal fails at once, and the
/// agent says why that may be.
#[test]
fn a_program_that_asks_on_the_terminal_fails_at_once() {
    let on_terminal = |launch: Launch| launch.wrapped_in(words(&["python3", "-c", ON_TERMINAL]));
    for (source, target) in [(shell(ASKS), "discard:".into()), (shell("echo row"), shell(&format!("{ASKS}; cat")))] {
        let is_source = target == "discard:";
        let pair = Pair::new(source, target).for_people();
        let running = match is_source {
            true => pair.start_with(on_terminal, |receiver| receiver),
            false => pair.start_with(|sender| sender, on_terminal),
        };
        let ended = running.wait(WITHIN);
        ended.assert_codes(8, 8);
        let asked = if is_source { &ended.sender } else { &ended.receiver };
        let shown = String::from_utf8_lossy(&asked.stdout()).into_owned();
        assert!(shown.contains("ended with exit code 3") && shown.contains("no terminal to ask"), "{shown}");
        assert!(!shown.contains("Password:"), "{shown}");
    }
}

/// Issue 9, C2: what a service manager hands to an agent, and what its parent had open, is not for
/// the programs that it runs.
#[test]
fn programs_do_not_inherit_what_is_the_agents() {
    let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let look =
        |name: &str| format!("env >{}; ls /proc/$$/fd >{}", path(&format!("{name}.env")), path(&format!("{name}.fds")));
    let target = shell(&format!("{}; cat", look("loader")));
    let inheriting = |launch: Launch| {
        let launch = launch.env("NOTIFY_SOCKET", "/run/canary").env("CREDENTIALS_DIRECTORY", "/run/canary");
        let launch = launch.env("LISTEN_FDS", "1").env("WATCHDOG_USEC", "1").env("SEEN", "by the program");
        launch.wrapped_in(words(&["sh", "-c", "exec 9</dev/null; exec \"$@\"", "sh"]))
    };
    let pair = Pair::new(shell(&format!("{}; echo row", look("source"))), target);
    pair.start_with(inheriting, inheriting).wait(WITHIN).assert_done();
    for program in ["source", "loader"] {
        let environment = fs::read_to_string(path(&format!("{program}.env"))).unwrap();
        assert!(environment.contains("SEEN=") && environment.contains("PATH="), "{environment}");
        for variable in ["NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "LISTEN_FDS", "WATCHDOG_USEC"] {
            assert!(!environment.contains(variable), "{variable} of the {program}");
        }
        let descriptors = fs::read_to_string(path(&format!("{program}.fds"))).unwrap();
        assert!(descriptors.lines().all(|descriptor| descriptor != "9"), "{program}: {descriptors}");
    }
}

/// Issue 9, C2: the guard's descriptors lead to rows: it is closed to the other processes of its
/// user like the agent, and leaves no core dump.
#[test]
fn the_guard_of_a_loader_is_protected_like_its_agent() {
    let as_other = |agent: Launch| if is_root() { agent.as_user(45_009, 45_009) } else { agent };
    let mut running = Pair::new(shell("echo row; sleep 30"), "exec:cat").start_with(as_other, as_other);
    running.wait_until_started();
    let mut guard = 0;
    running.receiver.wait_for("a guard and its loader", WITHIN, |receiver| {
        guard = children(receiver.pid()).first().copied().unwrap_or_default();
        guard != 0 && !children(guard).is_empty()
    });
    let limits = fs::read_to_string(format!("/proc/{guard}/limits")).unwrap();
    let cores = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
    let owner = fs::metadata(format!("/proc/{guard}/mem")).unwrap().uid();
    assert_eq!(owner, 0, "the memory of a process that can be dumped is its user's");
}

/// Fault E5: as few threads or descriptors as a container may allow: the transfer runs, or the
/// agent says what it lacks.
#[test]
fn too_few_threads_or_descriptors_are_said() {
    if !is_root() {
        return skip("limits of another user need root", false);
    }
    let limits = ["--nproc=1", "--nproc=3", "--nproc=9", "--nofile=6", "--nofile=10", "--nofile=13", "--nofile=16"];
    for (number, limit) in limits.into_iter().enumerate() {
        let user = 45_010 + number as u32;
        let limited = |launch: Launch| launch.as_user(user, user).wrapped_in(words(&["prlimit", limit]));
        let mut receiver = limited(Launch::receiver("exec:cat").bind_loopback().json()).start();
        if receiver.ticket_if_it_lives().is_some() {
            receiver.signal(Signal::SIGTERM);
        }
        assert_said(&receiver.wait(WITHIN), limit);

        let mut receiver = Launch::receiver("discard:").bind_loopback().start();
        let sender = Launch::sender(&shell("echo row"), "own-ticket");
        let ticket = sender.home().join("work/own-ticket");
        fs::copy(receiver.ticket(), &ticket).unwrap();
        chown(&ticket, Some(user), Some(user)).unwrap();
        let sender = limited(sender.arg("--retry-for").arg("2s").json()).start();
        assert_said(&sender.wait(WITHIN), limit);
    }
}

/// Fault E5: an allocation that fails would end a process in the middle, without a word.
#[test]
fn too_small_an_address_space_is_said_before_anything_is_sent() {
    for limit in ["--as=60000000", "--as=400000000"] {
        let mut receiver = Launch::receiver("discard:").bind_loopback().start();
        let sender = Launch::sender(&shell("echo row"), receiver.ticket()).json();
        let sender = sender.wrapped_in(words(&["prlimit", limit])).start().wait(WITHIN);
        sender.assert_code(exit::PREFLIGHT);
        assert!(sender.message().contains("of address space and may have only"), "{}", sender.message());
    }
    // What it may raise itself, it does.
    let limit = |launch: Launch| launch.wrapped_in(words(&["prlimit", "--as=60000000:unlimited"]));
    Pair::new("exec:echo row", "discard:").start_with(limit, limit).wait(WITHIN).assert_done();
}

/// A shell's limit of the stack is one of its main thread, on which nothing runs.
#[test]
fn a_small_stack_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("from.db");
    sqlite::create_hospital(&source, 100);
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    let limit = |launch: Launch| launch.wrapped_in(words(&["prlimit", "--stack=262144"]));
    Pair::new(url("from.db"), url("to.db")).start_with(limit, limit).wait(WITHIN).assert_done();
    for program in [SENDER, RECEIVER, OPERATOR] {
        limit(Launch::bare(program, &["--help"])).start().wait(WITHIN).assert_code(exit::DONE);
    }
}

/// Fault E5: where there is no /proc, a loader has no guard: that is said before there is a ticket.
#[test]
fn a_missing_proc_is_said_before_there_is_a_ticket() {
    let hidden = words(&["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"]);
    if !is_root() {
        return skip("hiding /proc needs root", false);
    }
    let launch = |target: &str| Launch::receiver(target).bind_loopback().wrapped_in(hidden.clone()).start();
    let ended = launch("exec:cat").wait(WITHIN);
    ended.assert_code(3);
    assert!(ended.stderr().contains("/proc is not mounted"), "{}", ended.stderr());
    let mut receiver = launch("discard:");
    let sender = Launch::sender("exec:echo row", receiver.ticket()).wrapped_in(hidden.clone()).start();
    sender.wait(WITHIN).assert_code(0);
    receiver.wait(WITHIN).assert_code(0);
}

/// Fault E5: without HOME there is no place for state, and without PATH programs are looked for
/// where the system has them.
#[test]
fn a_missing_home_or_path_is_no_mystery() {
    let without = |name: &str, launch: Launch| launch.wrapped_in(words(&["/usr/bin/env", "-u", name]));
    let ended = without("HOME", Launch::bare(RECEIVER, &["status"])).env("XDG_STATE_HOME", "").start().wait(WITHIN);
    ended.assert_code(3);
    assert!(ended.stderr().contains("HOME is not set"), "{}", ended.stderr());
    let bare = |launch| without("PATH", launch);
    Pair::new("exec:echo row", "exec:cat").start_with(bare, bare).wait(WITHIN).assert_done();
}

/// It was asked to end, did its work, or says in the words of the table what it lacks.
#[track_caller]
fn assert_said(ended: &Finished, limit: &str) {
    let message = ended.message();
    println!("{limit}: {:?}: {message}", ended.code());
    assert!(matches!(ended.code(), Some(0 | 3 | 5 | 8 | 130)), "{limit}: {:?}\n{}", ended.status, ended.stderr());
    ended.finished_event();
    let told = ["a bug", "panicked", "in Sealift itself"].iter().any(|word| message.contains(word));
    assert!(!told && !ended.stderr().contains("internal error at"), "{limit}: {message}\n{}", ended.stderr());
}

/// Issue 9, C7; fault E7: a session that ends without a word, as that of `ssh HOST COMMAND` does,
/// ends its agents.
#[test]
fn agents_end_with_a_session_that_has_no_terminal() {
    let mut receiver = Launch::receiver("discard:").bind_loopback().json().start();
    let home = tempfile::tempdir().unwrap();
    let mut sender = Command::new(program(SENDER));
    sender.args(["push", "--source", "exec:sleep 600", "--ticket"]).arg(receiver.ticket());
    sender.arg("--state-dir").arg(home.path().join("state"));
    let mut sender = sender.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    receiver.wait_for_event("started", 1, WITHIN);
    drop(sender.stderr.take());
    assert_eq!(sender.wait().unwrap().code(), Some(130));
    assert_eq!(receiver.wait(WITHIN).code(), Some(5));
}

/// Issue 9, C7: a program that passes the ticket on, such as `ssh`, looks at the sender only when
/// there is something to pass on.
#[test]
fn a_receiver_ends_when_the_reader_of_its_ticket_has_gone_behind_a_relay() {
    let home = tempfile::tempdir().unwrap();
    let mut receiver = Command::new(program(RECEIVER));
    receiver.args(["listen", "--target", "discard:", "--bind", "127.0.0.1:0", "--ticket-out", "-"]);
    receiver.arg("--state-dir").arg(home.path().join("state"));
    let mut receiver = receiver.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let reading = receiver.stdout.take().unwrap();
    let mut relay = Command::new("cat").stdin(reading).stdout(Stdio::piped()).spawn().unwrap();
    // The one that reads it is dropped then.
    relay.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    assert_eq!(receiver.wait().unwrap().code(), Some(4));
    relay.wait().unwrap();
}

fn is_root() -> bool {
    Uid::effective().is_root()
}
