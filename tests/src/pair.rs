//! One transfer between two agents, over loopback or over the faulty link.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use crate::{
    agents::{Agent, Launch},
    exit,
    finished::Finished,
    link::{Faults, Link},
    port::free_udp_port,
};

/// How both agents ended.
pub struct Transfer {
    pub sender: Finished,
    pub receiver: Finished,
}

impl Transfer {
    #[track_caller]
    pub fn assert_done(&self) -> &Self {
        self.assert_codes(exit::DONE, exit::DONE)
    }

    #[track_caller]
    pub fn assert_codes(&self, sender: i32, receiver: i32) -> &Self {
        let both = format!("--- sender\n{}\n--- receiver\n{}", self.sender.stderr(), self.receiver.stderr());
        assert_eq!((self.sender.code(), self.receiver.code()), (Some(sender), Some(receiver)), "\n{both}");
        self.sender.assert_code(sender);
        self.receiver.assert_code(receiver);
        self
    }
}

/// Settings of a transfer.
pub struct Pair {
    source: String,
    target: String,
    sender: Vec<String>,
    receiver: Vec<String>,
    link: Option<(Faults, u64)>,
    within: Duration,
    json: bool,
}

/// A transfer of a few megabytes takes well under a second; this is for a machine that is busy with
/// something else.
const WITHIN: Duration = Duration::from_secs(60);

impl Pair {
    pub fn new(source: impl Into<String>, target: impl Into<String>) -> Self {
        let (source, target) = (source.into(), target.into());
        Self { source, target, sender: vec![], receiver: vec![], link: None, within: WITHIN, json: true }
    }

    pub fn sender_args(mut self, arguments: &[&str]) -> Self {
        self.sender.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    pub fn receiver_args(mut self, arguments: &[&str]) -> Self {
        self.receiver.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Puts a faulty link in between, whose faults come from this seed.
    pub fn over(mut self, faults: Faults, seed: u64) -> Self {
        self.link = Some((faults, seed));
        self
    }

    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Without `--json`: what a person would see.
    pub fn for_people(mut self) -> Self {
        self.json = false;
        self
    }

    pub fn run(self) -> Transfer {
        let within = self.within;
        self.start().wait(within)
    }

    /// Starts both; returns once both run.
    pub fn start(self) -> Running {
        self.start_with(|sender| sender, |receiver| receiver)
    }

    /// As `start`, with a last change to each launch.
    pub fn start_with(
        self,
        change_sender: impl FnOnce(Launch) -> Launch,
        change_receiver: impl FnOnce(Launch) -> Launch,
    ) -> Running {
        let mut receiver = Launch::receiver(&self.target).args(&self.receiver);
        let link = self.link.map(|(faults, seed)| {
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, free_udp_port()));
            (to, Link::start(to, faults, seed))
        });
        receiver = match &link {
            Some((to, link)) => receiver.args(&["--bind", &to.to_string(), "--address", &link.address().to_string()]),
            None => receiver.bind_loopback(),
        };
        if self.json && self.target != "-" {
            receiver = receiver.json();
        }
        let mut receiver = change_receiver(receiver).start();
        let mut sender = Launch::sender(&self.source, receiver.ticket()).args(&self.sender);
        if self.json {
            sender = sender.json();
        }
        Running { sender: change_sender(sender).start(), receiver, link: link.map(|(_, link)| link) }
    }
}

/// Both agents at work.
pub struct Running {
    pub sender: Agent,
    pub receiver: Agent,
    pub link: Option<Link>,
}

impl Running {
    pub fn wait(self, within: Duration) -> Transfer {
        let sender = self.sender.wait(within);
        let receiver = self.receiver.wait(within);
        Transfer { sender, receiver }
    }

    /// Returns once the receiver has agreed to take data. Needs `--json`.
    pub fn wait_until_started(&mut self) {
        let started = |agent: &mut Agent| String::from_utf8_lossy(&agent.stdout()).contains("\"event\":\"started\"");
        self.receiver.wait_for("a start", WITHIN, started);
    }

    pub fn link(&self) -> &Link {
        self.link.as_ref().expect("started over a link")
    }
}

/// One transfer over loopback, with nothing special about it.
pub fn transfer(source: impl Into<String>, target: impl Into<String>) -> Transfer {
    Pair::new(source, target).run()
}
