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
/// Wider than that, a comment is not read beside another window.
const COMMENT_COLUMNS_MAX: usize = 100;

/// Our own crates that each may depend on; tests and benches may use all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("sealift-protocol", &[]),
    ("sealift-host", &["sealift-engine-api", "sealift-protocol"]),
    ("sealift-engine-api", &["sealift-protocol"]),
    ("sealift-opaque", &["sealift-engine-api", "sealift-host", "sealift-protocol"]),
    ("sealift-sqlite", &["sealift-engine-api", "sealift-host", "sealift-protocol"]),
    ("sealift-postgres", &["sealift-engine-api", "sealift-host", "sealift-protocol"]),
    ("sealift-engines", &["sealift-engine-api", "sealift-opaque", "sealift-postgres", "sealift-sqlite"]),
    ("sealift-agent", &["sealift-engine-api", "sealift-host", "sealift-protocol"]),
    ("sealift-sender", &["sealift-agent", "sealift-engine-api", "sealift-engines", "sealift-protocol"]),
    ("sealift-receiver", &["sealift-agent", "sealift-engine-api", "sealift-engines", "sealift-protocol"]),
    ("sealift-operator", &["sealift-agent", "sealift-protocol"]),
];

/// What else `protocol` may depend on: arithmetic, encodings and buffers. A crate that reaches for
/// a clock, a file or a socket would let it do so behind its back.
const PROTOCOL_MAY_USE: &[&str] = &[
    "aws-lc-rs",
    "blake3",
    "bytes",
    "chacha20poly1305",
    "hpke",
    "minicbor",
    "rand_core",
    "rustls-pki-types",
    "rustls-webpki",
    "thiserror",
    "zeroize",
    "zstd",
];

/// Crates of the product, where a bug must not be hidden and the unsafe not be written.
const PRODUCT: &[&str] = &[
    "protocol",
    "engines/host",
    "engines/api",
    "engines/opaque",
    "engines/sqlite",
    "engines/postgres",
    "engines/registry",
    "agent",
    "sender",
    "receiver",
    "operator",
];

/// What `protocol` must not reach for: it has no clock, no file, no socket, no environment.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::time",
    "std::process",
    "std::thread",
    "std::os",
    "std::io::std",
    "std::self",
    "std::*",
    "std as ",
    "SystemTime",
    "Instant::now",
    "tokio",
    "quinn",
    "rustls::",
    "nix::",
    "print!",
    "println!",
];

/// Calls that end a program or print where none should. Built from halves, so that this list is not
/// found by itself.
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

/// Every file that git keeps, or would keep; without git, every file below the folders of the
/// crates.
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

/// The Rust files of the product's crates, with their text, but for those that are tests and
/// nothing else.
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

/// The lines that are neither comment nor test, with their numbers. Tests stand at the end of a
/// file.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    let lines = text[..tests].lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.map(|(at, line)| (at, line.split("//").next().unwrap_or(""))).filter(|(_, line)| !line.trim().is_empty())
}

/// The paths that each `use` of the code names, its groups taken apart, with the number of the line
/// where it begins.
fn uses(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in code(text) {
        let line = line.trim();
        let begins = line.split_once("use ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
        match begins {
            Some((_, rest)) if !open => found.push((number, rest.to_owned())),
            _ if open => found.last_mut().unwrap().1.push_str(line),
            _ => continue,
        }
        open = !line.ends_with(';');
    }
    let apart = |(number, tree): &(usize, String)| {
        expanded(tree.trim_end_matches(';')).into_iter().map(|path| (*number, path)).collect::<Vec<_>>()
    };
    found.iter().flat_map(apart).collect()
}

/// `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expanded(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let group = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let mut depth = 0;
    let branches = group.split(|one| {
        depth += i32::from(one == '{') - i32::from(one == '}');
        one == ',' && depth == 0
    });
    let branches = branches.map(str::trim).filter(|branch| !branch.is_empty());
    branches.flat_map(|branch| expanded(&format!("{}{branch}", prefix.trim()))).collect()
}

/// What of [`IMPURE`] the code reaches for, and in which line.
fn impure(text: &str) -> Vec<(usize, &'static str)> {
    let lines = code(text).map(|(number, line)| (number, line.to_owned()));
    let all: Vec<_> = lines.chain(uses(text)).collect();
    let mut found: Vec<_> = all
        .iter()
        .flat_map(|(number, line)| IMPURE.iter().filter(|word| line.contains(*word)).map(|word| (*number, *word)))
        .collect();
    found.sort();
    found.dedup();
    found
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

/// What this package's library calls itself is not what its name suggests.
const LIBRARIES: &[(&str, &str)] = &[("rustls-webpki", "webpki")];

#[test]
fn every_dependency_is_used() {
    for package in metadata()["packages"].as_array().unwrap() {
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned();
        let rust =
            files().into_iter().filter(|path| path.starts_with(&folder) && path.extension() == Some("rs".as_ref()));
        let code: String = rust.map(|path| fs::read_to_string(path).unwrap()).collect();
        let names = package["dependencies"].as_array().unwrap().iter().map(|uses| uses["name"].as_str().unwrap());
        let is_used = |name: &str| {
            let library = LIBRARIES.iter().find(|(package, _)| *package == name).map_or(name, |(_, library)| library);
            code.contains(&format!("{}::", library.replace('-', "_")))
        };
        let unused: Vec<_> = names.filter(|name| !is_used(name)).collect();
        assert!(unused.is_empty(), "{}: unused: {unused:?}", package["name"]);
    }
}

#[test]
fn protocol_does_no_io() {
    let sources = sources(&["protocol"]);
    assert!(
        sources.iter().flat_map(|(_, text)| uses(text)).any(|(_, path)| path.starts_with("std::")),
        "nothing is seen"
    );
    let found = sources.iter().flat_map(|(path, text)| impure(text).into_iter().map(move |found| (path, found)));
    let wrong: Vec<_> = found.map(|(path, (number, word))| format!("{word} in {}:{number}", shown(path))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What belongs into the crate of an engine.
const OF_ENGINES: &[&str] =
    &["sqlite", "SQLite", "Sqlite", "postgres", "mysql", "mariadb", "SELECT ", "INSERT INTO", "CREATE TABLE", "PRAGMA"];

/// The crates that know engines by the registry alone.
const OF_ANY_ENGINE: &[&str] = &["protocol", "engines/api", "engines/host", "agent", "sender", "receiver", "operator"];

/// Issue 10, item 2: what is the same for every engine names none, and holds no SQL. The help of
/// the programs gives examples.
#[test]
fn only_an_engine_and_the_registry_name_it() {
    let named = |line: &str| OF_ENGINES.iter().any(|word| line.contains(word));
    let sources = sources(OF_ANY_ENGINE);
    let generic = sources.iter().filter(|(path, _)| !path.ends_with("src/cli.rs"));
    let found = generic.flat_map(|(path, text)| {
        code(text).filter(|(_, line)| named(line)).map(move |(number, _)| format!("{}:{number}", shown(path)))
    });
    let wrong: Vec<_> = found.collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let own = self::sources(&["engines/sqlite"]);
    assert!(own.iter().any(|(_, text)| code(text).any(|(_, line)| named(line))), "nothing is seen");
}

/// The one folder of the product that knows how a transport is implemented (issue 10, item 7).
const LINK: &str = "agent/src/link";

/// A second transport is added by touching that folder alone.
#[test]
fn transports_stay_inside_the_link() {
    let names_transport = |text: &str| {
        let lines = code(text).map(|(number, line)| (number, line.to_owned()));
        let found = lines.chain(uses(text)).filter(|(_, line)| line.contains("quinn")).map(|(number, _)| number);
        found.collect::<Vec<_>>()
    };
    let (inside, outside): (Vec<_>, Vec<_>) =
        sources(PRODUCT).into_iter().partition(|(path, _)| shown(path).starts_with(LINK));
    assert!(inside.iter().any(|(_, text)| !names_transport(text).is_empty()), "nothing is seen");
    let found = outside.iter().flat_map(|(path, text)| names_transport(text).into_iter().map(move |at| (path, at)));
    let wrong: Vec<_> = found.map(|(path, number)| format!("{}:{number}", shown(path))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");

    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let uses = |package: &&Value| {
        let is_product = MAY_USE.iter().any(|(name, _)| package["name"] == *name);
        let mut dependencies = package["dependencies"].as_array().unwrap().iter();
        is_product && dependencies.any(|one| one["name"].as_str().is_some_and(|name| name.starts_with("quinn")))
    };
    let users: Vec<_> = packages.filter(uses).map(|package| package["name"].as_str().unwrap()).collect();
    assert_eq!(users, ["sealift-agent"]);
}

/// Issue 10, item 6: a bare hash on a disk can be compared with guesses of what was hashed. These
/// are not of a row, a URL or a credential.
const UNKEYED: &[(&str, &str)] = &[
    ("agent/src/audit_chain.rs", "the chain of a log that is read in the clear"),
    ("protocol/src/manifest/receipt.rs", "the receipt's file, as b3sum prints it"),
    ("protocol/src/sealed_log/record.rs", "the check of a header, which lies beside it"),
];

#[test]
fn nothing_else_is_hashed_without_a_key() {
    let is_bare = |line: &str| line.contains("blake3::hash(") || line.contains("Hasher::new()");
    let bare = |(path, text): &(PathBuf, String)| code(text).any(|(_, line)| is_bare(line)).then(|| shown(path));
    let mut found: Vec<_> = sources(PRODUCT).iter().filter_map(bare).collect();
    found.sort();
    assert_eq!(found, UNKEYED.iter().map(|(path, _)| *path).collect::<Vec<_>>());
}

/// However it is written.
#[test]
fn what_does_io_is_found() {
    let planted =
        |text: &str| impure(text).into_iter().map(|(number, word)| format!("{number} {word}")).collect::<Vec<_>>();
    assert_eq!(planted("use std::fs;\n"), ["1 std::fs"]);
    assert_eq!(planted("//! Pure.\n\nuse std::{fmt, fs::{self, File}};\n"), ["3 std::fs"]);
    assert_eq!(
        planted("use std::{\n    collections::BTreeMap,\n    net::UdpSocket,\n    sync::Arc,\n};\n"),
        ["1 std::net"]
    );
    assert_eq!(planted("pub(crate) use std::{io::{self, stdin}, time::Instant};\n"), ["1 std::io::std", "1 std::time"]);
    assert_eq!(planted("fn now() {\n    use ::std::{thread as t};\n}\n"), ["2 std::thread"]);
    assert_eq!(planted("use std::{self as s, fmt};\n"), ["1 std::self"]);
    assert_eq!(planted("use std::*;\n"), ["1 std::*"]);
    assert_eq!(planted("use std as s;\n"), ["1 std as "]);
    assert_eq!(planted("fn now() -> u64 {\n    std::time::now()\n}\n"), ["2 std::time"]);
    let pure = "use std::{\n    collections::BTreeMap,\n    io::{self, Read}, // not std::fs\n};\n";
    assert_eq!(planted(pure), Vec::<String>::new());
    assert_eq!(planted("#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n"), Vec::<String>::new());
}

/// The lines of comments that are too wide, those of tables and drawings included.
fn wide_comments(text: &str) -> Vec<usize> {
    let is_wide = |line: &str| line.trim_start().starts_with("//") && line.chars().count() > COMMENT_COLUMNS_MAX;
    (1..).zip(text.lines()).filter(|(_, line)| is_wide(line)).map(|(number, _)| number).collect()
}

#[test]
fn comments_are_narrow() {
    let long = "word ".repeat(30);
    let planted = format!("// {long}\n    /// | {long} |\n\n//! short\nlet text = \"// {long}\";\n");
    assert_eq!(wide_comments(&planted), [1, 2]);
    let mut wrong = Vec::new();
    for path in files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs")) {
        let text = fs::read_to_string(&path).unwrap();
        wrong.extend(wide_comments(&text).iter().map(|number| format!("{}:{number}", shown(&path))));
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn protocol_depends_on_nothing_that_could_do_io() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let protocol = packages.iter().find(|package| package["name"] == "sealift-protocol").unwrap();
    let dependencies = protocol["dependencies"].as_array().unwrap().iter().filter(|one| one["kind"] != "dev");
    let mut uses: Vec<_> = dependencies.map(|one| one["name"].as_str().unwrap()).collect();
    uses.sort_unstable();
    assert_eq!(uses, PROTOCOL_MAY_USE);
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
/// Issue 10, item 9: a module is `name.rs`, with its submodules in the folder `name`.
#[test]
fn modules_are_laid_out_one_way() {
    let found: Vec<_> = files().into_iter().filter(|path| path.ends_with("mod.rs")).map(|path| shown(&path)).collect();
    assert_eq!(found, Vec::<String>::new());
}

/// The type that a line of code defines at the top of its module.
fn type_of(line: &str) -> Option<&str> {
    if line.starts_with(' ') {
        return None;
    }
    let visibility = ["pub", "crate", "super", "in", "self", "link"];
    let words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let mut words = words.filter(|word| !word.is_empty()).skip_while(|word| visibility.contains(word));
    let is_type = ["struct", "enum", "trait", "type", "union"].contains(&words.next()?);
    words.next().filter(|_| is_type)
}

/// Issue 10, item 9: whatever module it is read in, a name is of one type in its crate.
#[test]
fn no_two_types_of_a_crate_have_one_name() {
    let lines = ["pub struct One;", "pub(in crate::link) enum Two<T> {}", "    type Item = One;", "type Three = One;"];
    assert_eq!(lines.map(type_of), [Some("One"), Some("Two"), None, Some("Three")]);
    let mut twice = Vec::new();
    for member in PRODUCT {
        let mut places = BTreeMap::<String, Vec<String>>::new();
        for (path, text) in sources(&[member]) {
            for name in code(&text).filter_map(|(_, line)| type_of(line)) {
                places.entry(name.to_owned()).or_default().push(shown(&path));
            }
        }
        twice.extend(places.into_iter().filter(|(_, places)| places.len() > 1));
    }
    assert!(twice.is_empty(), "{twice:#?}");
}

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
