//! What is left of an agent that has ended, and what may be expected of every one of them.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than any event; standard output may be data.
const LAST_WORDS_BYTES: usize = 4096;

pub struct Finished {
    home: TempDir,
    pub status: ExitStatus,
    pub took: Duration,
    pub peak_memory_bytes: u64,
}

impl Finished {
    pub(crate) fn new(home: TempDir, status: ExitStatus, took: Duration, peak_memory_bytes: u64) -> Self {
        Self { home, status, took, peak_memory_bytes }
    }

    /// `None` if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub fn killed_by(&self) -> Option<i32> {
        self.status.signal()
    }

    pub fn status_says_core_dumped(&self) -> bool {
        self.status.core_dumped()
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.home().join("state")
    }

    pub fn stdout(&self) -> Vec<u8> {
        fs::read(self.home().join("stdout")).unwrap()
    }

    pub fn stdout_path(&self) -> PathBuf {
        self.home().join("stdout")
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.home().join("stderr")).unwrap()).into_owned()
    }

    /// What it printed for people, and its last event.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.stdout(), &self.stderr())
    }

    /// The events of `--json`, one a line of stdout.
    pub fn events(&self) -> Vec<Value> {
        let stdout = String::from_utf8(self.stdout()).expect("events are UTF-8");
        let event = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in: {line}"));
        stdout.lines().map(event).collect()
    }

    /// Those of this name.
    pub fn events_named(&self, name: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == name).collect()
    }

    /// The last event, which must be `finished` and agree with the exit code.
    pub fn finished_event(&self) -> Value {
        let event = self.events().pop().expect("an event");
        assert_eq!(event["event"], "finished", "{event}");
        assert_eq!(event["exit_code"].as_i64(), self.code().map(i64::from), "{event}");
        event
    }

    pub fn number(&self, field: &str) -> u64 {
        let event = self.finished_event();
        event[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {event}"))
    }

    /// The receipts in the state directory.
    pub fn receipts(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state_dir().join("receipts")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "receipt")).collect()
    }

    #[track_caller]
    pub fn assert_code(&self, expected: i32) -> &Self {
        let stdout = String::from_utf8_lossy(&self.stdout()).chars().take(2000).collect::<String>();
        let (code, stderr) = (self.code(), self.stderr());
        assert_eq!(code, Some(expected), "{:?}\n--- stderr\n{stderr}\n--- stdout\n{stdout}", self.status);
        assert!(!stderr.contains("panicked at"), "{stderr}");
        self
    }

    /// What it reported of its failure: on stderr, or in the last event.
    pub fn message(&self) -> String {
        let last = String::from_utf8_lossy(&self.stdout()).lines().last().map(str::to_owned);
        let event = last.and_then(|line| serde_json::from_str::<Value>(&line).ok());
        match event {
            Some(event) => {
                ["what", "hint"].map(|field| event[field].as_str().unwrap_or_default().to_owned()).join("\n")
            }
            None => self.stderr(),
        }
    }

    /// A failure says what happened in one message: not nothing, not a flood, never a backtrace.
    #[track_caller]
    pub fn assert_one_message(&self) -> &Self {
        let message = self.message();
        let lines = message.lines().filter(|line| !line.trim().is_empty()).count();
        assert!((1..=MESSAGE_LINES_MAX).contains(&lines), "{lines} lines:\n{message}");
        assert!(!self.stderr().contains("stack backtrace"), "{}", self.stderr());
        self
    }

    /// It left nothing outside its state directory.
    #[track_caller]
    pub fn assert_tidy(&self) -> &Self {
        let left = fs::read_dir(self.home().join("work")).unwrap().flatten().map(|entry| entry.path());
        assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "files in the working directory");
        self
    }
}

/// What happened, what to do, and a word of how to get help.
const MESSAGE_LINES_MAX: usize = 8;

pub(crate) fn last_words(stdout: &[u8], stderr: &str) -> String {
    let last = stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap_or_default();
    let shown = &last[..last.len().min(LAST_WORDS_BYTES)];
    format!("{stderr}\n{}", String::from_utf8_lossy(shown))
}
