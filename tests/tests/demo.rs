//! The first of the two commands that a newcomer types.

use std::process::Command;

use sealift_tests::{
    launch::program,
    shared::{installed, workspace_root},
};

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
