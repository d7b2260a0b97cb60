//! What the system lets others see of the agents' processes (faults L2, L3, L4, I18).

use std::{fs, os::unix::fs::MetadataExt, process::Command, time::Duration};

use nix::unistd::{Uid, User};
use sealift_tests::{
    agents::{Agent, Launch},
    bytes::{noise, write_file},
    memory::children,
    pair::Pair,
};

const WITHIN: Duration = Duration::from_secs(60);

fn limit(agent: &Agent, name: &str) -> String {
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    limits.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
}

/// Fault L2: no core file, however the agent dies and whatever the limit was before.
#[test]
fn l2_no_core_dump() {
    let source = "exec:sh -c 'head -c 1000000 /dev/urandom; sleep 30'";
    let mut running = Pair::new(source, "discard:").start();
    running.wait_until_started();
    for agent in [running.sender, running.receiver] {
        let fields: Vec<_> = limit(&agent, "Max core file size").split_whitespace().map(str::to_owned).collect();
        assert_eq!(fields[..2], ["0", "0"], "soft and hard");
        agent.signal(nix::sys::signal::Signal::SIGABRT);
        let finished = agent.wait(WITHIN);
        assert_eq!(finished.killed_by(), Some(nix::libc::SIGABRT));
        assert!(!finished.status_says_core_dumped());
        finished.assert_tidy();
    }
}

/// Fault L3: another process of the same user cannot read an agent's memory or environment.
#[test]
fn l3_memory_is_closed_to_the_same_user() {
    let Some(nobody) = User::from_name("nobody").unwrap() else {
        return sealift_tests::shared::skip("there is no user nobody", false);
    };
    let mut launch = Launch::receiver("discard:").bind_loopback();
    let root = Uid::effective().is_root();
    if root {
        launch = launch.as_user(nobody.uid.as_raw(), nobody.gid.as_raw());
    }
    let mut receiver = launch.start();
    receiver.ticket();
    for file in ["mem", "environ", "maps"] {
        let path = format!("/proc/{}/{file}", receiver.pid());
        assert_eq!(fs::metadata(&path).unwrap().uid(), 0, "{file} of a process that can be dumped is its user's");
        let mut reader = Command::new("head");
        if root {
            std::os::unix::process::CommandExt::uid(&mut reader, nobody.uid.as_raw());
        }
        let read = reader.args(["-c", "1", &path]).output().unwrap();
        assert!(!read.status.success() && read.stdout.is_empty(), "{file} could be read");
    }
}

/// Fault L4: neither ticket nor key is in arguments or environment of the agents, or of what they
/// start.
#[test]
fn l4_no_secret_in_arguments_or_environment() {
    let mut running = Pair::new("exec:sleep 5", "exec:cat").start();
    running.wait_until_started();
    let ticket = fs::read_to_string(running.receiver.home().join("ticket")).unwrap();
    let secrets: Vec<&str> = ticket.lines().filter(|line| !line.starts_with('-')).collect();
    for mut agent in [running.sender, running.receiver] {
        let mut programs = Vec::new();
        agent.wait_for("a program", WITHIN, |agent| {
            programs = children(agent.pid());
            !programs.is_empty()
        });
        for pid in [vec![agent.pid()], programs].concat() {
            for file in ["cmdline", "environ"] {
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                assert!(!secrets.iter().any(|secret| text.contains(secret)), "{file} of {pid}");
            }
        }
    }
}

/// Fault I18: the variable by which TLS libraries are told to write their secrets is not obeyed.
#[test]
fn i18_no_key_log() {
    let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
    write_file(&folder.path().join("from"), noise(1, 100_000));
    let source = format!("file:{}", folder.path().join("from").display());
    let keys = folder.path().join("keys");
    let ask = |agent: Launch| agent.env("SSLKEYLOGFILE", &keys);
    Pair::new(source, "discard:").start_with(ask, ask).wait(WITHIN).assert_done();
    assert!(!keys.exists(), "the key log was written");
}

/// New files are their owner's alone, also where the user's umask is open.
#[test]
fn what_is_written_is_the_owners_alone() {
    let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
    write_file(&folder.path().join("from"), noise(1, 1000));
    let url = |name: &str| format!("file:{}", folder.path().join(name).display());
    let done = Pair::new(url("from"), url("to")).receiver_args(&["--danger-plaintext-file"]).run();
    done.assert_done();
    let mut files = vec![folder.path().join("to")];
    for finished in [&done.sender, &done.receiver] {
        files.extend(finished.receipts());
        files.extend(fs::read_dir(finished.state_dir()).unwrap().flatten().map(|entry| entry.path()));
    }
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let mode = fs::metadata(&file).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", file.display());
    }
}

const PANIC_CANARY: &str = "canary-5f1e-in-a-panic";

/// Not a test of its own: what the next one runs in another process.
#[test]
#[ignore = "panics on purpose"]
fn l5_panics() {
    sealift_agent::process::harden().unwrap();
    panic!("{PANIC_CANARY}");
}

/// Fault L5: a panic says where it happened and nothing of what it was about.
#[test]
fn l5_a_panic_says_only_where() {
    let test = std::env::current_exe().unwrap();
    let output = std::process::Command::new(test)
        .args(["--exact", "l5_panics", "--ignored", "--nocapture", "--test-threads=1"])
        .env("RUST_BACKTRACE", "full")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(!output.status.success());
    assert!(said.contains("processes.rs:"), "{said}");
    assert!(!said.contains(PANIC_CANARY) && !said.contains("stack backtrace"), "{said}");
}
