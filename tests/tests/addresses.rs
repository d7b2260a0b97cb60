//! Addresses that a host has, or has not (fault E5): one that cannot be used does not end the try
//! of all.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::unistd::Uid;
use sealift_tests::{
    agents::{Launch, RECEIVER, SENDER},
    exit,
    launch::program,
    port::free_udp_port,
    shared::{installed, skip},
};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap()
}

/// A library that makes a host without IPv6 of this one for the programs that are told to load it:
/// `ipv6.disable=1` is a matter of the kernel's command line.
fn without_ipv6(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("no-ipv6.c"), folder.join("no-ipv6.so"));
    let text = "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <errno.h>\n#include <sys/socket.h>\n\
                int socket(int d, int t, int p) {\n\
                  int (*real)(int, int, int) = dlsym(RTLD_NEXT, \"socket\");\n\
                  if (d == AF_INET6) { errno = EAFNOSUPPORT; return -1; }\n\
                  return real(d, t, p);\n}\n";
    fs::write(&source, text).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").status();
    match built {
        Ok(status) if status.success() => Some(library),
        _ => {
            skip("no C compiler", false);
            None
        }
    }
}

/// Issue 9, C5; fault E5: `[::]` is 0.0.0.0 where there is no IPv6, and a ticket's IPv4 address is
/// tried behind an IPv6 one.
#[test]
fn a_host_without_ipv6_uses_ipv4_and_says_so() {
    let folder = folder();
    let Some(library) = without_ipv6(folder.path()) else { return };
    let port = free_udp_port();
    let receiver = Launch::receiver("discard:").args(&["--bind", &format!("[::]:{port}")]);
    let addresses = [format!("[::1]:{port}"), format!("127.0.0.1:{port}")];
    let receiver = receiver.args(&["--address", &addresses[0], "--address", &addresses[1]]);
    let mut receiver = receiver.env("LD_PRELOAD", &library).start();
    let ticket = receiver.ticket();
    let sender = Launch::sender("exec:echo row", &ticket).arg("--trust-ticket").env("LD_PRELOAD", &library).start();
    sender.wait(WITHIN).assert_code(exit::DONE);
    let ended = receiver.wait(WITHIN);
    ended.assert_code(exit::DONE);
    let said = ended.stderr();
    assert!(said.contains(&format!("no IPv6: listening at 0.0.0.0:{port} instead of [::]:{port}")), "{said}");
}

/// Issue 9, C5; fault E5: names and zones that are not known to the sender's host, before an
/// address that is.
#[test]
fn an_address_that_cannot_be_used_does_not_end_the_try_of_all() {
    let port = free_udp_port();
    let good = format!("127.0.0.1:{port}");
    let bad = ["nowhere.invalid:7443", "[fe80::1%nowhere]:7443", "[::ffff:0:1]:9"];
    let launch = || Launch::receiver("discard:").args(&["--bind", &good]);
    let listen = |addresses: &[&str]| {
        addresses.iter().fold(launch(), |launch, address| launch.args(&["--address", address])).start()
    };
    let mut receiver = listen(&[&bad[..], &[&good]].concat());
    let ticket = receiver.ticket();
    Launch::sender("exec:echo row", &ticket).arg("--trust-ticket").start().wait(WITHIN).assert_code(exit::DONE);
    let ended = receiver.wait(WITHIN);
    ended.assert_code(exit::DONE);
    assert!(ended.stderr().contains("nowhere.invalid:7443 is not known on this host"), "{}", ended.stderr());

    let mut receiver = listen(&bad[..2]);
    let ticket = receiver.ticket();
    let refused = Launch::sender("exec:echo row", &ticket).arg("--trust-ticket").start().wait(WITHIN);
    refused.assert_code(exit::PEER).assert_one_message();
    let message = refused.message();
    for word in ["the name nowhere.invalid is not known", "no interface nowhere", "/etc/hosts", "--address IP:PORT"] {
        assert!(message.contains(word), "no {word} in: {message}");
    }
    receiver.sigint();
    receiver.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
}

/// A network of one's own, in which the system's defaults can be changed: both agents run in it.
fn in_own_network(prepare: &str, bind: &str, address: &str) {
    if !Uid::effective().is_root() || !["unshare", "ip"].into_iter().all(installed) {
        return skip("own networks need root, unshare and ip", false);
    }
    let folder = folder();
    let script = format!(
        "set -e; cd {folder}; ip link set lo up; {prepare}\n\
         {receiver} listen --target discard: --ticket-out ticket --bind '{bind}' --address '{address}' \
           --state-dir receiver 2>receiver.log &\n\
         for _ in $(seq 600); do [ -s ticket ] && break; sleep 0.05; done\n\
         {sender} push --source 'exec:echo row' --ticket ticket --trust-ticket --state-dir sender && wait $!",
        folder = folder.path().display(),
        receiver = program(RECEIVER).display(),
        sender = program(SENDER).display(),
    );
    let ended = Command::new("timeout").args(["60", "unshare", "--net", "sh", "-c", &script]).output().unwrap();
    let log = fs::read_to_string(folder.path().join("receiver.log")).unwrap_or_default();
    assert!(ended.status.success(), "{}\n{log}", String::from_utf8_lossy(&ended.stderr));
}

/// Issue 9, C5; fault E5.
#[test]
fn any_address_hears_ipv4_whatever_the_systems_default_is() {
    in_own_network("echo 1 >/proc/sys/net/ipv6/bindv6only", "[::]:7443", "127.0.0.1:7443");
}

/// Issue 9, C5: link-local addresses, whose interface is named.
#[test]
fn a_link_local_address_is_used_with_its_zone() {
    in_own_network("ip -6 address add fe80::1/64 dev lo nodad", "[fe80::1%lo]:7443", "[fe80::1%lo]:7443");
}

/// Issue 9, C5: IPv6 is there and switched off.
#[test]
fn ipv6_that_is_switched_off_is_not_needed() {
    in_own_network("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6", "[::]:7443", "127.0.0.1:7443");
}
