//! A program at a terminal of its own.

use std::{ffi::OsStr, process::Command};

const SCRIPT: &str = r#"
import os, pty, sys
asked, answer, words = sys.argv[1].encode(), sys.argv[2], sys.argv[3:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(words[0], words)
shown, answered = b"", False
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:
        break
    if not piece:
        break
    shown += piece
    if asked in shown and not answered:
        answered = True
        os.write(terminal, answer.encode() + (b"" if answer == "\x03" else b"\n"))
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

/// Runs the words at a terminal, types this answer once it has `asked`, and returns exit code and
/// what was shown.
pub fn at_a_terminal<S: AsRef<OsStr>>(words: &[S], asked: &str, answer: &str) -> (i32, String) {
    let output = Command::new("python3").args(["-c", SCRIPT, asked, answer]).args(words).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}
