//! The first of the two commands that a newcomer types.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
};

use sealift_tests::{
    launch::program,
    shared::{installed, workspace_root},
    terminal::at_a_terminal,
};
use tempfile::TempDir;

#[test]
fn the_demo_ends_well() {
    if !["sqlite3", "zstd"].into_iter().all(installed) {
        return;
    }
    let bin = program("sealift");
    let mut demo = Command::new(workspace_root().join("scripts/demo"));
    let ended = demo.env("SEALIFT_BIN", bin.parent().unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}\n{}", String::from_utf8_lossy(&ended.stderr));
    // Issue 9, D6: a kill of both agents, and the resume.
    for shown in ["kill -9", "Both are gone", "resumed: the receiver has"] {
        assert!(said.contains(shown), "no {shown:?} in:\n{said}");
    }
    for shown in ["done and verified", "receipt good", "proof        every table was read back", "nothing was sent"] {
        assert!(said.contains(shown), "no {shown:?} in:\n{said}");
    }
}

/// A build that notes that it was asked for, says that two of three crates are compiled, and fails.
const CARGO: &str = "#!/bin/sh
case $1 in
  --version) echo cargo ;;
  tree) printf 'a\\nb\\nc\\n' ;;
  build) touch built && printf '   Compiling a\\n   Compiling b\\nerror: the compiler says why\\n'; exit 1 ;;
esac
";

/// A machine on which nothing was built yet, and these packages are missing.
struct Fresh(TempDir);

impl Fresh {
    fn without(missing: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("sealift-fresh-").tempdir().unwrap();
        let query = format!(
            "#!/bin/sh\nfor last; do :; done\ncase \" {missing} \" in *\" $last \"*) exit 1 ;; esac\nprintf installed\n"
        );
        let never = "#!/bin/sh\necho apt-get was asked >&2\nexit 1\n";
        for (name, script) in [("cargo", CARGO), ("dpkg-query", &query), ("apt-get", never)] {
            let script = script.replace("touch built", &format!("touch {}/built", folder.path().display()));
            fs::write(folder.path().join(name), script).unwrap();
            fs::set_permissions(folder.path().join(name), Permissions::from_mode(0o755)).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The command of the demo on it.
    fn demo(&self) -> Vec<OsString> {
        let here = self.0.path().display();
        let path = format!("PATH={here}:{}", std::env::var("PATH").unwrap());
        let home = format!("HOME={here}");
        let target = format!("CARGO_TARGET_DIR={here}/target");
        let words = ["/usr/bin/env", "-u", "SEALIFT_BIN", "-u", "CARGO_HOME", &path, &home, &target];
        words.into_iter().map(OsString::from).chain([workspace_root().join("scripts/demo").into()]).collect()
    }
}

/// Issue 9, D6: without a terminal it says what it leaves behind and goes straight on; what the
/// compiler says is shown if it fails.
#[test]
fn the_demo_says_what_it_installs_and_builds() {
    let fresh = Fresh::without("");
    let demo = fresh.demo();
    let ended = Command::new(&demo[0]).args(&demo[1..]).output().unwrap();
    let [said, failed] = [&ended.stdout, &ended.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(ended.status.code(), Some(1), "{said}{failed}");
    let target = fresh.path("target/demo").display().to_string();
    for shown in ["for some minutes the first time", "packages to install: none", "Rust 1.", &target] {
        assert!(said.contains(shown), "no {shown:?} in:\n{said}");
    }
    assert!(!said.contains("Press a key") && fresh.path("built").exists(), "{said}");
    assert!(failed.contains("error: the compiler says why"), "{failed}");
}

/// Issue 9, D6: on a terminal it waits for a key before it installs or builds anything, and then
/// shows how far it is.
#[test]
fn the_demo_waits_for_a_key_on_a_terminal() {
    if !installed("python3") {
        return;
    }
    let fresh = Fresh::without("sqlite3 zstd");
    let (code, shown) = at_a_terminal(&fresh.demo(), "Press a key", "\u{3}");
    assert!(code != 0 && shown.contains("packages to install: sqlite3 zstd"), "{code}: {shown}");
    assert!(!fresh.path("built").exists() && !shown.contains("apt-get was asked"), "{shown}");

    let fresh = Fresh::without("");
    let (code, shown) = at_a_terminal(&fresh.demo(), "Press a key", "x");
    assert!(code == 1 && fresh.path("built").exists(), "{code}: {shown}");
    let asked = shown.find("Press a key").unwrap();
    assert!(shown.find("building crate 2 of about 3").is_some_and(|built| built > asked), "{shown}");
}
