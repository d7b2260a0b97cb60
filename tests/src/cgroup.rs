//! A control group whose memory the kernel bounds, by killing who lives in it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{agents::Agent, shared::skip};

/// Version 1 has a hierarchy for each resource, version 2 one for all.
enum Version {
    One,
    Two,
}

/// What the group may take beyond what it uses already: a shell has to start in it.
const ROOM_BYTES: u64 = 8 << 20;

/// Removed when it is dropped; its processes must have ended by then.
pub struct MemoryGroup {
    folder: PathBuf,
    version: Version,
}

impl MemoryGroup {
    /// `None`, with a word, where none can be made: without root, or in a container without the
    /// hierarchy.
    pub fn new(name: &str) -> Option<Self> {
        let name = format!("sealift-test-{name}-{}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let (version, parent) = match root.join("cgroup.controllers").exists() {
            true => (Version::Two, root.to_path_buf()),
            false => (Version::One, root.join("memory")),
        };
        if let Version::Two = version {
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
        }
        let group = Self { folder: parent.join(name), version };
        if fs::create_dir(&group.folder).is_ok() && group.usage_bytes().is_some() {
            return Some(group);
        }
        skip("no memory control group can be made", false);
        None
    }

    /// For the front of a command: joins the group and becomes the command.
    pub fn words(&self) -> Vec<OsString> {
        let script = r#"echo $$ >"$0/cgroup.procs" && exec "$@""#;
        ["sh".into(), "-c".into(), script.into(), self.folder.clone().into()].into()
    }

    /// Lets a program beside the agent take memory until the kernel kills for it; the agent is the
    /// first that it looks at.
    #[track_caller]
    pub fn squeeze(&self, agent: &mut Agent, within: Duration) {
        let limit = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        fs::write(format!("/proc/{}/oom_score_adj", agent.pid()), "1000").unwrap();
        let limit_bytes = self.usage_bytes().unwrap() + ROOM_BYTES;
        fs::write(self.folder.join(limit), limit_bytes.to_string()).unwrap();
        let words = self.words();
        let mut hog = Command::new(&words[0]);
        // Without a line's end it has to keep everything.
        let mut hog = hog.args(&words[1..]).args(["tail", "/dev/zero"]).stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + within;
        while agent.is_running() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        let _ = hog.kill();
        hog.wait().unwrap();
        assert!(!agent.is_running(), "it lives on with {:?} bytes", self.usage_bytes());
    }

    /// How many processes the kernel has killed for want of memory.
    pub fn kills(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.folder.join(file)).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.expect("the kernel counts them").trim().parse().unwrap()
    }

    fn usage_bytes(&self) -> Option<u64> {
        let file = match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        };
        fs::read_to_string(self.folder.join(file)).ok()?.trim().parse().ok()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
