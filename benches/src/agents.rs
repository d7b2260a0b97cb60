//! The two agents as the processes that users run.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
    thread,
};

use serde::Deserialize;

use crate::{
    Outcome,
    measure::{PEAK_EVERY, cpu_seconds_of, peak_rss_bytes},
    network::{End, Places},
};

/// One transfer to be run.
pub struct Transfer<'a> {
    pub source: &'a str,
    pub target: &'a str,
    pub compression: &'a str,
    pub suite: &'a str,
    /// Where both keep their state.
    pub folder: &'a Path,
    pub places: &'a Places,
    /// A port for the receiver, and the address that the ticket names instead: that of a relay in
    /// between.
    pub relay: Option<(u16, SocketAddr)>,
    /// What both may have in flight, as `--memory` takes it.
    pub memory: Option<&'a str>,
}

/// What the sender's last line of JSON says.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Said {
    pub resent_bytes: u64,
    pub retries: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Progress {
    plain_bytes: u64,
}

/// Both agents at work. Dropped early, they are killed.
pub struct Running {
    receiver: Child,
    sender: Child,
    /// Open to the end: a receiver whose ticket's reader is gone waits for no sender.
    _ticket_pipe: BufReader<ChildStdout>,
}

/// The largest memory of each agent, and the processor time of one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peaks {
    pub receiver_bytes: u64,
    pub sender_bytes: u64,
    pub receiver_cpu_seconds: f64,
}

/// A program that was built beside this one.
pub fn built(name: &str) -> Outcome<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    match path.is_file() {
        true => Ok(path),
        false => Err(format!("{name} is not built; run: cargo build --release --workspace").into()),
    }
}

/// The sender's events of the last run.
const EVENTS: &str = "sender.json";

impl<'a> Transfer<'a> {
    /// What the sender said at the end of the last run.
    pub fn said(&self) -> Outcome<Said> {
        let events = std::fs::read_to_string(self.folder.join(EVENTS))?;
        Ok(serde_json::from_str(events.lines().last().ok_or("the sender said nothing")?)?)
    }

    /// How much of the source a sender that keeps its state in this folder has taken so far, as it
    /// last said.
    pub fn plain_bytes_so_far(folder: &Path) -> u64 {
        let events = std::fs::read_to_string(folder.join(EVENTS)).unwrap_or_default();
        let progress = events.lines().rev().filter(|line| line.contains("\"progress\""));
        let mut so_far = progress.filter_map(|line| serde_json::from_str(line).ok());
        so_far.next().map_or(0, |progress: Progress| progress.plain_bytes)
    }

    /// Starts the receiver and waits for its ticket.
    pub fn listen(&'a self) -> Outcome<Listening<'a>> {
        let (port, address) = self.relay.map_or((0, None), |(port, address)| (port, Some(address)));
        let mut receiver = self
            .places
            .command(End::Serving, built("sealift-receiver")?)
            .args(["listen", "--target", self.target, "--ticket-out", "-", "--danger-plaintext-file"])
            .args(["--bind", &format!("{}:{port}", self.places.address), "--suite", self.suite])
            .args(address.map(|address| format!("--address={address}")))
            .args(self.memory.map(|memory| format!("--memory={memory}")))
            .arg("--state-dir")
            .arg(self.folder.join("receiver"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        match read_ticket(&mut receiver) {
            Ok((ticket, ticket_pipe)) => Ok(Listening { transfer: self, receiver, ticket, ticket_pipe }),
            Err(error) => {
                let _ = receiver.kill();
                let _ = receiver.wait();
                Err(error)
            }
        }
    }
}

/// The receiver, waiting for its sender.
pub struct Listening<'a> {
    transfer: &'a Transfer<'a>,
    receiver: Child,
    ticket: String,
    ticket_pipe: BufReader<ChildStdout>,
}

impl Listening<'_> {
    /// Starts the sender with the ticket.
    pub fn push(self) -> Outcome<Running> {
        let transfer = self.transfer;
        let sender = transfer
            .places
            .command(End::Connecting, built("sealift-sender")?)
            .args(["push", "--json", "--source", transfer.source, "--ticket", "-"])
            .args(["--compression", transfer.compression])
            .args(transfer.memory.map(|memory| format!("--memory={memory}")))
            .args(["--suite", transfer.suite, "--state-dir"])
            .arg(transfer.folder.join("sender"))
            .stdin(Stdio::piped())
            .stdout(File::create(transfer.folder.join(EVENTS))?)
            .stderr(Stdio::piped())
            .spawn()?;
        let mut running = Running { receiver: self.receiver, sender, _ticket_pipe: self.ticket_pipe };
        running.sender.stdin.take().ok_or("no pipe to the sender")?.write_all(self.ticket.as_bytes())?;
        Ok(running)
    }
}

fn read_ticket(receiver: &mut Child) -> Outcome<(String, BufReader<ChildStdout>)> {
    let mut lines = BufReader::new(receiver.stdout.take().ok_or("no pipe from the receiver")?);
    let mut ticket = String::new();
    while !ticket.contains("-----END SEALIFT TICKET-----") {
        if lines.read_line(&mut ticket)? == 0 {
            return Err("the receiver gave no ticket".into());
        }
    }
    Ok((ticket, lines))
}

impl Running {
    /// Waits for both to say that all was moved and verified.
    pub fn wait(mut self) -> Outcome {
        let words = self.sender.stderr.take().ok_or("no pipe from the sender")?;
        let said = std::io::read_to_string(words)?;
        for (role, status) in [("sender", self.sender.wait()?), ("receiver", self.receiver.wait()?)] {
            if !status.success() {
                return Err(format!("the {role} ended with {status}: {}", said.trim()).into());
            }
        }
        Ok(())
    }

    /// The same, watching how much memory each takes, and the receiver's processor time until one
    /// of them ends.
    pub fn wait_for_peaks(self) -> Outcome<Peaks> {
        let (receiver, sender) = (self.receiver.id(), self.sender.id());
        let watching = thread::spawn(move || {
            let mut peaks = Peaks::default();
            // A process that has ended, and is not yet waited for, has no memory left to tell of.
            while let (Some(receiver_bytes), Some(sender_bytes)) = (peak_rss_bytes(receiver), peak_rss_bytes(sender)) {
                let receiver_cpu_seconds = cpu_seconds_of(receiver).unwrap_or(peaks.receiver_cpu_seconds);
                peaks = Peaks { receiver_bytes, sender_bytes, receiver_cpu_seconds };
                thread::sleep(PEAK_EVERY);
            }
            peaks
        });
        self.wait()?;
        Ok(watching.join().map_err(|_| "the watcher stopped")?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in [&mut self.sender, &mut self.receiver] {
            if !matches!(child.try_wait(), Ok(Some(_))) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
