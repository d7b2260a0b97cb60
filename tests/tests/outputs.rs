//! Names given for an output that are no plain files (fault E6): what is made goes into them, or is
//! refused.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use sealift_tests::{
    agents::{Agent, Launch, RECEIVER, SENDER, TICKET_END},
    exit,
    launch::program,
};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

/// A folder that lets others in, with a FIFO of this mode.
fn folder_with_fifo(mode: u32) -> (TempDir, PathBuf) {
    let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let fifo = folder.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    fs::set_permissions(&fifo, Permissions::from_mode(mode)).unwrap();
    (folder, fifo)
}

fn is_fifo(path: &Path) -> bool {
    fs::symlink_metadata(path).unwrap().file_type().is_fifo()
}

fn listen(ticket_out: &Path) -> Launch {
    let launch = Launch::bare(RECEIVER, &["listen", "--target", "discard:", "--ticket-out"]).arg(ticket_out);
    let state = launch.home().join("state");
    launch.arg("--state-dir").arg(state).bind_loopback()
}

fn unfinished(agent_state: &Path) -> usize {
    fs::read_dir(agent_state.join("transfers")).map_or(0, Iterator::count)
}

/// Issue 9, C4; fault E6: the reader of the FIFO gets the ticket, and it is good.
#[test]
fn a_ticket_goes_into_the_fifo_that_is_named() {
    let (folder, fifo) = folder_with_fifo(0o600);
    let receiver = listen(&fifo).start();
    let ticket = fs::read_to_string(&fifo).unwrap();
    assert!(ticket.contains(TICKET_END) && is_fifo(&fifo));
    let path = folder.path().join("ticket");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    std::io::Write::write_all(&mut file, ticket.as_bytes()).unwrap();
    Launch::sender("exec:echo row", &path).start().wait(WITHIN).assert_code(exit::DONE);
    receiver.wait(WITHIN).assert_code(exit::DONE);
}

/// Issue 9, C4: nobody reads the FIFO. A signal ends the wait, and nothing is left of the transfer
/// that nobody can begin.
#[test]
fn a_receiver_that_waits_for_the_reader_of_its_fifo_can_be_stopped() {
    let (_folder, fifo) = folder_with_fifo(0o600);
    let mut receiver = listen(&fifo).start();
    let begun = |agent: &mut Agent| unfinished(&agent.state_dir()) == 1;
    receiver.wait_for("a transfer", WITHIN, begun);
    thread::sleep(Duration::from_millis(300));
    assert!(receiver.is_running(), "it waits for a reader");
    receiver.sigint();
    let ended = receiver.wait(WITHIN);
    ended.assert_code(exit::USER_INTERRUPT);
    assert_eq!(unfinished(&ended.state_dir()), 0);
    assert!(is_fifo(&fifo));
}

/// Issue 9, C4: what others could read gets no ticket, and it is said before anything begins.
#[test]
fn a_ticket_goes_nowhere_that_others_can_read() {
    let (folder, fifo) = folder_with_fifo(0o644);
    let reader = thread::spawn({
        let fifo = fifo.clone();
        move || fs::read_to_string(fifo).unwrap()
    });
    let ended = listen(&fifo).start().wait(WITHIN);
    ended.assert_code(exit::USAGE).assert_one_message();
    assert!(ended.stderr().contains("read by others"), "{}", ended.stderr());
    assert_eq!(reader.join().unwrap(), "");

    let open = folder.path().join("stdout");
    for name in ["-", "/dev/stdout"] {
        let stdout = File::create(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
        let mut receiver = Command::new(program(RECEIVER));
        receiver.args(["listen", "--target", "discard:", "--bind", "127.0.0.1:0", "--ticket-out", name]);
        let ended = receiver.arg("--state-dir").arg(folder.path().join("state")).stdout(stdout).output().unwrap();
        assert_eq!(ended.status.code(), Some(exit::USAGE), "{}", String::from_utf8_lossy(&ended.stderr));
        assert_eq!(fs::metadata(&open).unwrap().len(), 0);
    }
}

/// Issue 9, C4: names of this process's own standard output are standard output, and a device is
/// written into.
#[test]
fn a_ticket_goes_to_standard_output_by_any_name() {
    for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let mut receiver = listen(Path::new(name)).stdout_pipe().start();
        let printed = |agent: &mut Agent| String::from_utf8_lossy(&agent.stdout()).contains(TICKET_END);
        receiver.wait_for("a ticket", WITHIN, printed);
        receiver.sigint();
        receiver.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
    }
    let ended = listen(Path::new("/dev/stdout")).json().start().wait(WITHIN);
    ended.assert_code(exit::USAGE);
    // By a link: if it was replaced, this host would keep its device.
    let folder = tempfile::tempdir().unwrap();
    let null = folder.path().join("null");
    symlink("/dev/null", &null).unwrap();
    let mut receiver = listen(&null).start();
    let waits = |agent: &mut Agent| agent.stderr().contains("waiting at");
    receiver.wait_for("a receiver that waits", WITHIN, waits);
    receiver.sigint();
    receiver.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
    assert!(fs::symlink_metadata(&null).unwrap().is_symlink());
}

/// Issue 9, C4: the public key and the archive, through FIFOs; what the other end reads can be
/// loaded.
#[test]
fn an_archive_and_a_key_go_into_the_fifo_that_is_named() {
    let (folder, fifo) = folder_with_fifo(0o644);
    let state = |side: &str| folder.path().join(side);
    let read = |to: &str, agent: Launch| {
        let running = agent.start();
        let to = folder.path().join(to);
        fs::write(&to, fs::read(&fifo).unwrap()).unwrap();
        running.wait(WITHIN).assert_code(exit::DONE);
        assert!(is_fifo(&fifo));
        to
    };
    let key = Launch::bare(RECEIVER, &["key", "--out"]).arg(&fifo).arg("--state-dir").arg(state("receiver"));
    let key = read("RECEIVER.pub", key);
    let sealing = Launch::bare(SENDER, &["seal", "--source", "exec:echo row", "--to"]).arg(&key);
    let sealing = sealing.arg("--out").arg(&fifo).arg("--state-dir").arg(state("sender")).start();
    let archive = folder.path().join("archive");
    fs::write(&archive, fs::read(&fifo).unwrap()).unwrap();
    let sealed = sealing.wait(WITHIN);
    sealed.assert_code(exit::DONE);
    let said = sealed.stderr();
    let fingerprint = said.lines().rev().find(|line| line.matches('-').count() == 15).expect("a fingerprint").trim();
    let load = Launch::bare(RECEIVER, &["load"]).arg(&archive).args(&["--target", "discard:", "--from", fingerprint]);
    load.arg("--state-dir").arg(state("receiver")).start().wait(WITHIN).assert_code(exit::DONE);
}

/// Issue 9, C4: process substitution, as a shell makes it.
#[test]
fn a_ticket_goes_into_a_process_substitution() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "exec {} listen --target discard: --bind 127.0.0.1:0 --state-dir {1}/state --ticket-out >(cat >{1}/ticket)",
        program(RECEIVER).display(),
        folder.path().display()
    );
    let mut shell = Command::new("bash").args(["-c", &script]).stderr(Stdio::null()).spawn().unwrap();
    let ticket = folder.path().join("ticket");
    let arrived = || fs::read_to_string(&ticket).is_ok_and(|text| text.contains(TICKET_END));
    let found = (0..2000).any(|_| {
        thread::sleep(Duration::from_millis(10));
        arrived()
    });
    let _ = shell.kill();
    let _ = shell.wait();
    assert!(found, "no ticket came through");
}
