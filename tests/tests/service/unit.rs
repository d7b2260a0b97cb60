//! What is packaged for systemd, and what a service tells it.

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use sealift_engines::ENGINES;
use sealift_receiver::{config::Config, serve::DRAIN_TIMEOUT};
use sealift_tests::{exit, shared};

use crate::place::{Place, WITHIN};

fn packaged(name: &str) -> String {
    fs::read_to_string(shared::workspace_root().join("packaging").join(name)).unwrap()
}

#[test]
fn the_manager_is_told() {
    let place = Place::new("", &[("drill", "discard:")]);
    let path = place.path("notify");
    let name = format!("sealift-test-{}", place.port());
    let by_name = SocketAddr::from_abstract_name(&name).unwrap();
    let sockets = [
        (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
        (UnixDatagram::bind_addr(&by_name).unwrap(), format!("@{name}")),
    ];
    for (socket, variable) in sockets {
        socket.set_read_timeout(Some(WITHIN)).unwrap();
        let said = || {
            let mut buffer = [0; 256];
            let bytes = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..bytes]).into_owned()
        };
        let receiver = place.launch().env("NOTIFY_SOCKET", variable).start();
        assert_eq!(said(), "READY=1");
        receiver.signal(Signal::SIGHUP);
        assert_eq!(said(), "STOPPING=1");
        receiver.wait(WITHIN).assert_code(exit::DONE);
    }
}

#[test]
fn the_example_configuration_is_one() {
    let example = packaged("receiver.toml");
    let config = Config::parse(&example, ENGINES).unwrap();
    // What is commented out is as the program has it, and every setting is there.
    let uncommented: String = example
        .lines()
        .map(|line| line.strip_prefix("#").filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect();
    let full = Config::parse(&uncommented, ENGINES).unwrap();
    for key in
        ["listen", "addresses", "state_dir", "transfers_max", "memory", "row_bytes_max", "grace", "idle_max", "suite"]
    {
        assert!(uncommented.contains(&format!("\n{key} = ")), "{key}");
    }
    assert!(full.targets.len() > config.targets.len());
    let defaults = Config::parse("[targets.a]\nurl = \"discard:\"\n", ENGINES).unwrap();
    assert_eq!(
        (full.memory, full.grace, full.idle_max, full.transfers_max),
        (defaults.memory, defaults.grace, defaults.idle_max, defaults.transfers_max)
    );
    assert_eq!((full.row_bytes_max, full.journal_bytes_max), (defaults.row_bytes_max, defaults.journal_bytes_max));
}

/// The manager waits longer than a drain takes.
#[test]
fn the_unit_leaves_time_to_drain() {
    let unit = packaged("sealift-receiver.service");
    let seconds = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap().parse().unwrap();
    assert!(Duration::from_secs(seconds) > DRAIN_TIMEOUT + Duration::from_secs(5));
    for setting in
        ["Type=notify", "NoNewPrivileges=yes", "ProtectSystem=strict", "LimitCORE=0", "StateDirectoryMode=0700"]
    {
        assert!(unit.lines().any(|line| line == setting), "{setting}");
    }
}

#[test]
fn systemd_understands_the_units() {
    if !shared::installed("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["sealift-receiver.service", "sealift-sender@.service"] {
        // Where the programs will be, nothing is yet: what is there instead only has to be
        // executable.
        let unit = packaged(name)
            .replace("/usr/bin/sealift-receiver", "/bin/true")
            .replace("/usr/bin/sealift-sender", "/bin/true");
        let path = folder.path().join(name.replace("@.", "@ehr."));
        fs::write(&path, unit).unwrap();
        let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(verified.status.success() && !said.contains(&name.replace("@.", "@ehr.")), "{name}: {said}");
        // Of 10, in tens. systemd 252 gave 1.6 to the receiver's and 1.5 to the sender's.
        let analysis = ["security", "--no-pager", "--offline=true", "--threshold=20"];
        let analyzed = Command::new("systemd-analyze").args(analysis).arg(&path).output().unwrap();
        assert!(analyzed.status.success(), "{name}: {}", String::from_utf8_lossy(&analyzed.stdout));
    }
}
