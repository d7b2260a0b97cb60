//! What is outside the repository, and what to do without it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Says that a test did not run, and why. In CI (`CI=true`) a missing program is a failure, never a
/// skip.
pub fn skip(why: &str, needed_in_ci: bool) {
    assert!(!(needed_in_ci && std::env::var("CI").is_ok_and(|ci| ci == "true")), "needed in CI: {why}");
    println!("skipped: {why}");
}

/// The folder of public databases: `SEALIFT_SHARED`, or `shared` beside the repository. `None`, and
/// a word, without it.
pub fn data_folder() -> Option<PathBuf> {
    let folder = match std::env::var_os("SEALIFT_SHARED") {
        Some(folder) => PathBuf::from(folder),
        None => workspace_root().parent()?.join("shared"),
    };
    let data = folder.join("data");
    if data.join("lib.sh").is_file() {
        return Some(data);
    }
    skip("../shared is not here", false);
    None
}

pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Whether a program is on the search path; if not, says so and the test returns.
pub fn installed(program: &str) -> bool {
    let found = find(program).is_some();
    if !found {
        skip(&format!("{program} is not installed"), true);
    }
    found
}

pub fn find(program: &str) -> Option<PathBuf> {
    // Servers live in sbin, which a user's search path may lack.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Runs a command to its end and returns its stdout; panics with its stderr if it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
