//! Which files a program has opened for writing, as `strace` saw it; and killing it at a call.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// The words to put before a command to trace it and all that it starts into `log`.
pub fn strace_into(log: &Path) -> Vec<OsString> {
    let calls = "trace=open,openat,openat2,creat,memfd_create,mkdir,mkdirat,rename,renameat,renameat2,link,linkat";
    let words = ["strace", "-f", "-qq", "-s", "300", "-y", "-e", calls, "-o"];
    words.into_iter().map(OsString::from).chain([log.into(), "--".into()]).collect()
}

/// The words to put before a command so that it is killed when it is about to make such a call in
/// this folder, which it has opened, for the `count`th time.
pub fn killed_at(call: &str, count: u32, folder: &Path) -> Vec<OsString> {
    let (traced, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={count}"));
    let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &traced, "-e", &inject, "-P"];
    words.into_iter().map(OsString::from).chain([folder.into(), "--".into()]).collect()
}

/// The files that were opened for writing, made, linked or renamed to, and worked. Devices and
/// pipes are no files.
pub fn written_files(log: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(log).unwrap();
    let mut paths: Vec<_> = text.lines().filter_map(written_by).filter(|path| is_file_path(path)).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// The path of one line of the trace, if the call was one that leaves something behind.
fn written_by(line: &str) -> Option<PathBuf> {
    let (call, result) = line.rsplit_once(" = ")?;
    if result.starts_with('-') || result.starts_with('?') {
        return None;
    }
    let (_, call) = call.split_once(' ')?; // the process id
    let (name, arguments) = call.trim_start().split_once('(')?;
    let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TMPFILE"].iter().any(|flag| arguments.contains(flag));
    if name.starts_with("open") && !writes {
        return None;
    }
    let quoted = arguments.split('"').skip(1).step_by(2);
    // Renaming and linking name the new path last; the folder stands before it, written
    // `3</folder>` or `AT_FDCWD</folder>`.
    let path = quoted.last()?;
    let before = &arguments[..arguments.rfind(&format!("\"{path}\""))?];
    let folder = before.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(folder, _)| folder);
    Some(Path::new(folder.unwrap_or("/")).join(path))
}

fn is_file_path(path: &Path) -> bool {
    !path.starts_with("/dev") && !path.starts_with("/proc") && !path.starts_with("/sys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_trace_are_understood() {
        let path = |line| written_by(line).map(|path| path.display().to_string());
        assert_eq!(path("12 openat(AT_FDCWD</w>, \"a\", O_RDONLY|O_CLOEXEC) = 3</w/a>"), None);
        assert_eq!(path("12 openat(AT_FDCWD</w>, \"a\", O_WRONLY|O_CREAT, 0600) = -1 EACCES (No)"), None);
        assert_eq!(path("12 openat(AT_FDCWD</w>, \"a\", O_WRONLY, 0600) = 3</w/a>").unwrap(), "/w/a");
        assert_eq!(path("12 openat(3</s>, \"/t/b\", O_RDWR|O_CREAT, 0600) = 4</t/b>").unwrap(), "/t/b");
        assert_eq!(path("7 renameat2(3</s>, \"x\", 4</t>, \"y\", 0) = 0").unwrap(), "/t/y");
        assert_eq!(path("7 rename(\"/s/x\", \"/s/y\") = 0").unwrap(), "/s/y");
        assert_eq!(path("7 memfd_create(\"n\", 0) = 5").unwrap(), "/n");
    }
}
