//! Bytes that mean nothing to the agents: files, pipes, programs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use sealift_tests::{
    agents::Launch,
    bytes::{digest, digest_file, dump_like, noise, write_file},
    canary::Canaries,
    exit,
    launch::program,
    memory::{children, written_bytes},
    pair::{Pair, transfer},
};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const SIZES: [u64; 6] = [0, 1, MIB - 1, MIB, MIB + 1, 10 * MIB];
const PLAINTEXT: &[&str] = &["--danger-plaintext-file"];

/// One of the sizes is none.
const ALLOW_EMPTY: &[&str] = &["--allow-empty"];

/// A debug build seals some 100 MB/s; the machine may be busy.
const LARGE_WITHIN: Duration = Duration::from_secs(240);

/// What an agent may need: its --memory, and as much again for itself.
const MEMORY_BYTES_MAX: u64 = 128 * MIB;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn url(&self, name: &str) -> String {
        format!("file:{}", self.path(name).display())
    }

    /// An executable shell script.
    fn script(&self, name: &str, body: &str) -> String {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        format!("exec:{}", path.display())
    }

    /// What is there beside the named files.
    fn others(&self, known: &[&str]) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.into_string().ok()).filter(|name| !known.contains(&name.as_str())).collect()
    }
}

#[test]
fn file_to_file_is_exact_at_every_size() {
    for size in SIZES {
        let folder = Folder::new();
        write_file(&folder.path("from"), noise(size, size));
        let done =
            Pair::new(folder.url("from"), folder.url("to")).receiver_args(PLAINTEXT).sender_args(ALLOW_EMPTY).run();
        done.assert_done();
        assert_eq!(digest_file(&folder.path("from")), digest_file(&folder.path("to")), "{size}");
        assert_eq!(folder.others(&["from", "to"]), [""; 0], "{size}");
        for finished in [&done.sender, &done.receiver] {
            assert_eq!(finished.number("plain_bytes"), size);
            assert_eq!(finished.receipts().len(), 1);
            finished.assert_tidy();
        }
    }
}

#[test]
fn pipe_to_pipe_is_exact_at_every_size() {
    for size in SIZES {
        let running = Pair::new("-", "-")
            .sender_args(ALLOW_EMPTY)
            .start_with(|sender| sender.stdin(dump_like(size, size)), |receiver| receiver.stdout_pipe());
        let done = running.wait(LARGE_WITHIN);
        done.assert_done();
        assert_eq!(digest_file(&done.receiver.stdout_path()), digest(dump_like(size, size)), "{size}");
    }
}

#[test]
fn program_to_program_is_exact_at_every_size() {
    for size in SIZES {
        let folder = Folder::new();
        write_file(&folder.path("from"), dump_like(size, size));
        let load = folder.script("load", &format!("exec cat > {}", folder.path("to").display()));
        let source = format!("exec:cat {}", folder.path("from").display());
        Pair::new(source, load).sender_args(ALLOW_EMPTY).run().assert_done();
        assert_eq!(digest_file(&folder.path("from")), digest_file(&folder.path("to")), "{size}");
    }
}

/// A shell that waits for its children is told when they end: the loader has the signals that its
/// receiver blocks.
#[test]
fn a_loader_may_wait_for_its_children() {
    let folder = Folder::new();
    write_file(&folder.path("from"), noise(1, 1000));
    let to = folder.path("to");
    let load = format!("exec:sh -c 'cat > {}; sleep 0.1 & wait'", to.display());
    transfer(folder.url("from"), load).assert_done();
    assert_eq!(digest_file(&folder.path("from")), digest_file(&to));
}

#[test]
fn discard_verifies_and_loads_nothing() {
    let folder = Folder::new();
    write_file(&folder.path("from"), noise(1, 3 * MIB));
    let done = transfer(folder.url("from"), "discard:");
    done.assert_done();
    assert_eq!(done.receiver.number("plain_bytes"), 3 * MIB);
}

#[test]
fn three_hundred_megabytes_are_exact_in_bounded_memory() {
    let folder = Folder::new();
    write_file(&folder.path("from"), noise(300, 300 * MIB));
    let done = Pair::new(folder.url("from"), folder.url("to")).receiver_args(PLAINTEXT).within(LARGE_WITHIN).run();
    done.assert_done();
    assert_eq!(digest_file(&folder.path("from")), digest_file(&folder.path("to")));
    assert_memory(&done);
}

/// The one-line form: the receiver's stdout is the sender's stdin.
#[test]
fn a_ticket_may_come_through_a_pipe() {
    let folder = Folder::new();
    write_file(&folder.path("from"), noise(5, MIB));
    let arguments = ["listen", "--target", "discard:", "--ticket-out", "-", "--bind", "127.0.0.1:0"];
    let mut receiver = Launch::bare("sealift-receiver", &arguments).stdout_pipe();
    let state = receiver.home().join("state");
    receiver = receiver.arg("--state-dir").arg(state);
    let mut receiver = receiver.start();
    let whole = |text: &[u8]| String::from_utf8_lossy(text).contains(sealift_tests::agents::TICKET_END);
    receiver.wait_for("a ticket", Duration::from_secs(20), |receiver| whole(&receiver.stdout()));
    // The pipe stays open behind the ticket, as it does while the receiver works.
    let (reader, writer) = io::pipe().unwrap();
    let mut ticket = writer.try_clone().unwrap();
    io::Write::write_all(&mut ticket, &receiver.stdout()).unwrap();
    let sender = Launch::sender(&folder.url("from"), "-").stdin(reader).start();
    sender.wait(LARGE_WITHIN).assert_code(exit::DONE);
    receiver.wait(LARGE_WITHIN).assert_code(exit::DONE);
    drop(writer);
}

/// The one-line form, whose sender ends before it has used the ticket: nobody waits for an hour.
#[test]
fn a_receiver_whose_ticket_nobody_reads_any_more_ends() {
    let folder = Folder::new();
    let mut receiver = Command::new(program("sealift-receiver"))
        .args(["listen", "--target", "discard:", "--ticket-out", "-", "--bind", "127.0.0.1:0", "--state-dir"])
        .arg(folder.path("state"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = io::BufRead::lines(io::BufReader::new(receiver.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap() == sealift_tests::agents::TICKET_END));
    thread::sleep(Duration::from_secs(1));
    assert!(receiver.try_wait().unwrap().is_none(), "the ticket's reader is there");
    drop(lines);
    let ended = receiver.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(exit::PEER), "{said}");
    assert!(said.contains("the program that was to read the ticket has ended"), "{said}");
}

#[test]
fn a_failing_source_program_ends_both_sides() {
    let folder = Folder::new();
    let load = folder.script("load", &format!("exec cat > {}", folder.path("to").display()));
    // It fails after everything was printed: only its exit code tells.
    for body in ["head -c 3000000 /dev/urandom; exit 3", "exit 3", "kill -9 $$"] {
        let dump = folder.script("dump", body);
        let done = Pair::new(&dump, folder.url("to")).receiver_args(PLAINTEXT).run();
        done.assert_codes(exit::UNUSABLE, exit::UNUSABLE);
        assert_eq!(folder.others(&["dump", "load"]), [""; 0], "nothing visible: {body}");
        done.sender.assert_one_message();
        done.receiver.assert_one_message();
        transfer(&dump, &load).assert_codes(exit::UNUSABLE, exit::UNUSABLE);
        let _ = fs::remove_file(folder.path("to"));
    }
}

#[test]
fn a_loader_is_never_told_that_its_input_is_whole_when_it_is_not() {
    let folder = Folder::new();
    // As `psql --single-transaction`: commits at the end of its input.
    let commits = format!("cat > /dev/null; touch {}", folder.path("committed").display());
    let load = folder.script("load", &commits);
    let dump = folder.script("dump", "head -c 5000000 /dev/urandom; exit 3");
    transfer(dump, load).assert_codes(exit::UNUSABLE, exit::UNUSABLE);
    assert_eq!(folder.others(&["dump", "load"]), [""; 0]);
}

#[test]
fn a_failing_loader_ends_both_sides() {
    let folder = Folder::new();
    write_file(&folder.path("from"), noise(6, 4 * MIB));
    for (body, code) in [
        ("head -c 100 > /dev/null; exit 3", exit::UNUSABLE),
        ("exit 3", exit::UNUSABLE),
        // Nobody knows whether it had committed.
        ("cat > /dev/null; exit 3", exit::INTERRUPTED),
        ("cat > /dev/null; kill -9 $$", exit::INTERRUPTED),
    ] {
        let load = folder.script("load", body);
        let done = transfer(folder.url("from"), load);
        done.assert_codes(code, code);
        done.sender.assert_one_message();
        done.receiver.assert_one_message();
        assert!(done.sender.receipts().is_empty() && done.receiver.receipts().is_empty(), "no receipt: {body}");
    }
}

/// Exit code 0 says nothing of what a loader has not read.
#[test]
fn a_loader_that_ends_early_has_failed() {
    let folder = Folder::new();
    // The second lies in the pipe, whole, when its loader has ended.
    for bytes in [8 * MIB, 5000] {
        write_file(&folder.path("from"), noise(7, bytes));
        for body in ["exit 0", "head -c 1000 > /dev/null", "sleep 1; head -c 4999 > /dev/null"] {
            let done = transfer(folder.url("from"), folder.script("load", body));
            done.assert_codes(exit::INTERRUPTED, exit::INTERRUPTED);
            assert_eq!(done.receiver.finished_event()["outcome"], "in_doubt");
            assert!(done.receiver.message().contains("before it had read all"), "{}", done.receiver.message());
        }
    }
}

/// Faults L1, L5: what programs print may hold rows.
#[test]
fn what_programs_print_is_not_passed_on() {
    let folder = Folder::new();
    let mut canaries = Canaries::new("stderr");
    let (out, err) = (canaries.text(), canaries.text());
    let cases = [
        (format!("echo {err} >&2; echo data; exit 3"), format!("cat; echo {out}; echo {out} >&2; exit 0")),
        ("echo data".into(), format!("cat > /dev/null; echo {out}; echo {err} >&2; exit 3")),
        (format!("echo {err} >&2; echo data"), format!("cat > /dev/null; echo {out}; echo {err} >&2")),
    ];
    for (dump, load) in cases {
        let (dump, load) = (folder.script("dump", &dump), folder.script("load", &load));
        let trace = &["--log-level", "trace"];
        let done = Pair::new(dump, load).sender_args(trace).receiver_args(trace).run();
        assert_eq!(done.sender.code(), done.receiver.code());
        for finished in [&done.sender, &done.receiver] {
            canaries.assert_not_below(finished.home());
        }
    }
}

#[test]
fn missing_programs_and_unreadable_files_are_told_before_anything_is_sent() {
    let folder = Folder::new();
    for target in ["exec:/no/such/loader", "exec:no-such-loader-anywhere -x"] {
        let receiver = Launch::receiver(target).bind_loopback().start().wait(LARGE_WITHIN);
        receiver.assert_code(exit::UNUSABLE).assert_one_message().assert_tidy();
    }
    fs::create_dir(folder.path("folder")).unwrap();
    let sources = ["exec:/no/such/dump".into(), folder.url("nothing"), folder.url("folder"), folder.url("x/y")];
    for source in sources {
        let mut receiver = Launch::receiver("discard:").bind_loopback().start();
        let sender = Launch::sender(&source, receiver.ticket()).start().wait(LARGE_WITHIN);
        sender.assert_code(exit::UNUSABLE).assert_one_message().assert_tidy();
        assert!(receiver.is_running(), "the ticket was not used: {source}");
    }
}

#[test]
fn a_target_that_exists_is_left_alone() {
    let folder = Folder::new();
    write_file(&folder.path("from"), noise(8, MIB));
    write_file(&folder.path("to"), noise(9, 10));
    let before = digest_file(&folder.path("to"));
    // A link to nowhere is something too.
    std::os::unix::fs::symlink(folder.path("elsewhere"), folder.path("link")).unwrap();
    for target in ["to", "link"] {
        let receiver = Launch::receiver(&folder.url(target)).args(PLAINTEXT).bind_loopback().start();
        receiver.wait(LARGE_WITHIN).assert_code(exit::UNUSABLE);
    }
    assert_eq!(digest_file(&folder.path("to")), before);
    assert_eq!(folder.others(&["from", "to", "link"]), [""; 0]);
}

#[test]
fn a_plain_file_needs_the_flag_that_names_the_danger() {
    let folder = Folder::new();
    let receiver = Launch::receiver(&folder.url("to")).bind_loopback().start().wait(LARGE_WITHIN);
    receiver.assert_code(exit::USAGE).assert_one_message();
    assert!(!folder.path("to").exists());
}

/// A slow loader slows the source: neither agent fills its memory with what is read meanwhile.
#[test]
fn a_slow_loader_slows_the_source() {
    const SOURCE_BYTES: u64 = 600 * MIB;
    const SLEEP: Duration = Duration::from_secs(6);
    // What does not compress cannot hide: both agents' windows, and pipes. Zeros may all be under
    // way in a few KiB.
    const UNDER_WAY_BYTES_MAX: u64 = 160 * MIB;
    for source in ["/dev/urandom", "/dev/zero"] {
        let load = format!("exec:sh -c 'sleep {}; cat > /dev/null'", SLEEP.as_secs());
        let running = Pair::new(format!("exec:head -c {SOURCE_BYTES} {source}"), load).start();
        let started = Instant::now();
        let mut produced = 0;
        while started.elapsed() < SLEEP - Duration::from_secs(1) {
            let programs = children(running.sender.pid());
            produced = programs.into_iter().filter_map(written_bytes).max().unwrap_or(produced);
            thread::sleep(Duration::from_millis(50));
        }
        println!("{source}: {} MiB were read while the loader slept", produced / MIB);
        assert!(produced > 0, "the source program was not seen");
        let bounded = produced < UNDER_WAY_BYTES_MAX || source == "/dev/zero";
        assert!(bounded, "{produced} bytes were read while the loader slept");
        let done = running.wait(LARGE_WITHIN);
        done.assert_done();
        assert_memory(&done);
    }
}

/// However much the receiver would take before it has loaded any of it.
#[test]
fn a_sender_keeps_no_more_than_its_own_memory() {
    const SLEEP: Duration = Duration::from_secs(4);
    // Its window, what is being read and packed, and a pipe.
    const UNDER_WAY_BYTES_MAX: u64 = 48 * MIB;
    let load = format!("exec:sh -c 'sleep {}; cat > /dev/null'", SLEEP.as_secs());
    let pair = Pair::new(format!("exec:head -c {} /dev/urandom", 200 * MIB), load);
    let running = pair.sender_args(&["--memory", "17MiB"]).receiver_args(&["--memory", "256MiB"]).start();
    let started = Instant::now();
    let mut produced = 0;
    while started.elapsed() < SLEEP - Duration::from_secs(1) {
        produced = children(running.sender.pid()).into_iter().filter_map(written_bytes).max().unwrap_or(produced);
        thread::sleep(Duration::from_millis(50));
    }
    assert!(produced > 0 && produced < UNDER_WAY_BYTES_MAX, "{produced} bytes were read while the loader slept");
    running.wait(LARGE_WITHIN).assert_done();
}

fn assert_memory(done: &sealift_tests::pair::Transfer) {
    for (who, finished) in [("sender", &done.sender), ("receiver", &done.receiver)] {
        let peak = finished.peak_memory_bytes;
        println!("{who}: peak of {} MiB", peak / MIB);
        assert!(peak > 0 && peak < MEMORY_BYTES_MAX, "{who}: {peak} bytes");
    }
}

/// Files below /proc have content and length 0.
#[test]
fn a_source_larger_than_it_says_is_moved_whole() {
    let folder = Folder::new();
    let source = Path::new("/proc/version");
    Pair::new("file:/proc/version", folder.url("to")).receiver_args(PLAINTEXT).run().assert_done();
    assert_eq!(digest_file(&folder.path("to")), digest_file(source));
}

/// Issue 9, C3: a FIFO is a source that waits for its writer, on a thread of its own: a signal ends
/// a sender that waits, and what is written later arrives.
#[test]
fn a_fifo_waits_for_its_writer_and_a_signal_ends_that() {
    let folder = Folder::new();
    mkfifo(&folder.path("fifo"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut waiting = Pair::new(folder.url("fifo"), "discard:").start();
    waiting.wait_until_started();
    waiting.sender.sigint();
    waiting.wait(Duration::from_secs(20)).assert_codes(exit::USER_INTERRUPT, exit::INTERRUPTED);

    let mut written = Pair::new(folder.url("fifo"), folder.url("to")).receiver_args(PLAINTEXT).start();
    written.wait_until_started();
    let rows = b"row\n".repeat(100_000);
    let (fifo, content) = (folder.path("fifo"), rows.clone());
    let writer = thread::spawn(move || fs::write(fifo, content).unwrap());
    written.wait(LARGE_WITHIN).assert_done();
    writer.join().unwrap();
    assert!(fs::read(folder.path("to")).unwrap() == rows, "the copy differs");
}
