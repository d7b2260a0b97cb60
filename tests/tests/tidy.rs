//! The rules of the house that a compiler does not know (design.md, The house; style.md).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sealift_tests::shared::{run, workspace_root};
use serde_json::Value;

const LINES_MAX: usize = 500;

/// Our own crates that each may depend on; tests and benches may use all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("sealift-protocol", &[]),
    ("sealift-agent", &["sealift-protocol"]),
    ("sealift-sender", &["sealift-agent", "sealift-protocol"]),
    ("sealift-receiver", &["sealift-agent", "sealift-protocol"]),
    ("sealift-operator", &["sealift-agent", "sealift-protocol"]),
];

/// Crates of the product, where a bug must not be hidden and the unsafe not be written.
const PRODUCT: &[&str] = &["protocol", "agent", "sender", "receiver", "operator"];

/// What `protocol` must not reach for: it has no clock, no file, no socket, no environment.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::time",
    "std::process",
    "std::thread",
    "std::os",
    "SystemTime",
    "Instant::now",
    "tokio",
    "quinn",
    "rustls",
    "nix::",
    "println!",
    "eprintln!",
];

/// Calls that end a program or print where none should. Built from halves, so that this list is not found by itself.
fn banned() -> Vec<String> {
    ["unwrap", "dbg", "todo", "unimplemented"]
        .into_iter()
        .map(|name| if name == "unwrap" { format!(".{name}()") } else { format!("{name}!(") })
        .collect()
}

fn metadata() -> Value {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--no-deps", "--format-version", "1", "--offline"]).current_dir(workspace_root());
    serde_json::from_str(&run(&mut cargo)).unwrap()
}

/// Every file that git keeps, or would keep; without git, every file below the folders of the crates.
fn files() -> Vec<PathBuf> {
    let root = workspace_root();
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]).current_dir(&root);
    let listed = match git.output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8(output.stdout).unwrap();
            text.split_terminator('\0').map(|path| root.join(path)).filter(|path| path.is_file()).collect()
        }
        _ => walk(&root),
    };
    assert!(listed.len() > 50, "only {} files were found", listed.len());
    listed
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let kept =
        entries.filter(|path| !matches!(path.file_name().and_then(|name| name.to_str()), Some("target" | ".git")));
    kept.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// The Rust files of the product's crates, with their text, but for those that are tests and nothing else.
fn sources(crates: &[&str]) -> Vec<(PathBuf, String)> {
    let root = workspace_root();
    let is_test =
        |path: &PathBuf| path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
    let inside = |path: &PathBuf| {
        crates.iter().any(|name| path.starts_with(root.join(name).join("src")))
            && !is_test(&path.strip_prefix(&root).unwrap_or(path).to_path_buf())
    };
    let rust = files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs")).filter(inside);
    rust.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The lines that are neither comment nor test, with their numbers. Tests stand at the end of a file.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    let lines = text[..tests].lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.map(|(at, line)| (at, line.split("//").next().unwrap_or(""))).filter(|(_, line)| !line.trim().is_empty())
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace_root()).unwrap_or(path).display().to_string()
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let own = dependencies.filter(|one| one["kind"].is_null()).filter_map(|one| one["name"].as_str());
        let own: Vec<_> = own.filter(|name| name.starts_with("sealift-")).map(str::to_owned).collect();
        found.insert(package["name"].as_str().unwrap().to_owned(), own);
    }
    for (package, may_use) in MAY_USE {
        let uses = found.get(*package).unwrap_or_else(|| panic!("{package} is not in the workspace"));
        let wrong: Vec<_> = uses.iter().filter(|name| !may_use.contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{package} uses {wrong:?}");
    }
}

#[test]
fn versions_are_said_once() {
    for package in metadata()["packages"].as_array().unwrap() {
        let manifest = fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let dependencies = manifest.split_once("dependencies]").map_or("", |(_, rest)| rest);
        let wrong: Vec<_> = dependencies.lines().filter(|line| line.contains("version = \"")).collect();
        assert!(wrong.is_empty(), "{}: versions belong into the workspace: {wrong:?}", package["name"]);
    }
}

#[test]
fn protocol_does_no_io() {
    let mut wrong = Vec::new();
    for (path, text) in sources(&["protocol"]) {
        for (number, line) in code(&text) {
            wrong.extend(
                IMPURE
                    .iter()
                    .filter(|word| line.contains(*word))
                    .map(|word| format!("{word} in {}:{number}", shown(&path))),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_unwrapped_or_left_to_do() {
    let banned = banned();
    let mut wrong = Vec::new();
    for (path, text) in sources(PRODUCT) {
        for (number, line) in code(&text) {
            wrong.extend(
                banned
                    .iter()
                    .filter(|call| line.contains(*call))
                    .map(|call| format!("{call} in {}:{number}", shown(&path))),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each crate forbids unsafe code, or says at its top which module may hold it and why.
#[test]
fn unsafe_code_is_forbidden() {
    let root = workspace_root();
    for name in PRODUCT {
        let tops = ["src/lib.rs", "src/main.rs"].map(|top| root.join(name).join(top));
        let tops: Vec<_> = tops.into_iter().filter(|top| top.is_file()).collect();
        assert!(!tops.is_empty(), "{name}");
        for top in tops {
            let text = fs::read_to_string(&top).unwrap();
            let forbids = text.contains("#![forbid(unsafe_code)]");
            let explains = text.lines().any(|line| line.contains("unsafe_code") && line.contains("//"));
            assert!(forbids || explains, "{}", shown(&top));
        }
    }
}

/// Every file, whatever it is written in. Lists that machines write are not read by people.
#[test]
fn no_file_is_too_long() {
    let ends = ["rs", "sh", "py", "toml", "md", "yml"];
    let mut wrong = Vec::new();
    for path in files() {
        let end = path.extension().and_then(|end| end.to_str()).unwrap_or("");
        if ends.contains(&end) {
            let lines = fs::read_to_string(&path).map_or(0, |text| text.lines().count());
            if lines > LINES_MAX {
                wrong.push(format!("{} has {lines} lines", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Nothing names a folder of the machine that it was written on.
#[test]
fn no_path_of_a_machine() {
    // In halves, so that this list is not found by itself.
    let folders = ["home", "root", "work", "Users", "tmp/wt"].map(|name| format!("/{name}/"));
    let mut wrong = Vec::new();
    for path in files() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            let absolute = folders.iter().any(|folder| is_absolute_in(line, folder));
            if absolute {
                wrong.push(format!("{}:{}: {}", shown(&path), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether `folder` stands in `line` as the beginning of a path, and not in its middle.
fn is_absolute_in(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|one| one.is_alphanumeric() || "._-/}~*)$>".contains(one))
    })
}
