//! A control group whose memory the kernel bounds, by killing who lives in it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{agents::Agent, shared::skip};

/// Version 1 has a hierarchy for each resource, version 2 one for all.
enum Version {
    One,
    Two,
}

/// Removed when it is dropped; whoever lived in it must have ended by then.
pub struct MemoryGroup {
    folder: PathBuf,
    version: Version,
}

impl MemoryGroup {
    /// `None`, with a word, where none can be made: without root, or in a container without the hierarchy.
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

    /// Takes away all the memory that the group does not use just now, until the kernel has killed the agent for wanting more.
    #[track_caller]
    pub fn squeeze(&self, agent: &mut Agent, within: Duration) {
        let deadline = Instant::now() + within;
        let limit = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        while agent.is_running() {
            assert!(Instant::now() < deadline, "it lives on with {:?} bytes", self.usage_bytes());
            // Version 1 refuses to go below what is used.
            let _ = fs::write(self.folder.join(limit), self.usage_bytes().unwrap_or(0).to_string());
            thread::sleep(Duration::from_millis(2));
        }
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
