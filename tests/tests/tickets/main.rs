//! Tickets that were forged, altered, spliced, copied or used by the wrong one (issue 9, A1, A3,
//! A5), against the real agents: each is refused with its own code at both ends, nothing is loaded,
//! and the honest sender can still use the ticket.

mod forged;
mod holders;
mod middle;
mod offers;
mod pins;
mod proofs;
mod standing;

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use quinn::{Connection, ConnectionError};
use sealift_agent::{
    audit::AuditLog,
    identity::Identity,
    link::{Dialer, Link},
    role::Role,
    state::StateDir,
    ticket::Ticket,
    trust::Trust,
};
use sealift_protocol::{close::Code, id::TransferId};
use sealift_tests::{
    agents::{Agent, Launch, SENDER},
    exit,
    finished::Finished,
    invited::write_ticket,
};
use serde_json::Value;
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Two hosts: a receiver that waits with one ticket, and what a sender needs.
struct Hosts {
    folder: TempDir,
}

impl Hosts {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
        for name in ["sender", "receiver", "target", "other"] {
            fs::DirBuilder::new().mode(0o700).create(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("source"), "rows\n".repeat(1000)).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A loader that shows all or nothing.
    fn target(&self) -> String {
        let (part, whole) = (self.path("target/part"), self.path("target/to"));
        format!("exec:sh -c 'cat > {0} && mv {0} {1}'", part.display(), whole.display())
    }

    fn source(&self) -> String {
        format!("file:{}", self.path("source").display())
    }

    /// `listen`, with its state and its ticket where they outlive it.
    fn listen(&self) -> Launch {
        let launch = Launch::receiver(&self.target()).state(&self.path("receiver")).ticket_at(&self.path("ticket"));
        launch.bind_loopback().json()
    }

    /// `push` by the sender whose state is in this folder.
    fn push(&self, state: &str, ticket: &Path) -> Launch {
        Launch::sender(&self.source(), ticket).state(&self.path(state)).json()
    }

    /// What an agent's command prints, without the line end.
    fn ask(&self, program: &str, words: &[&str], state: &str) -> String {
        let told = Launch::bare(program, words).arg("--state-dir").arg(self.path(state)).start().wait(WITHIN);
        String::from_utf8(told.assert_code(exit::DONE).stdout()).unwrap().trim().to_owned()
    }

    fn fingerprint_of_sender(&self, state: &str) -> String {
        self.ask(SENDER, &["identity"], state)
    }

    /// The identity of the sender whose state is in this folder.
    fn identity(&self, state: &str) -> Identity {
        let state = StateDir::open(Some(self.path(state)), SENDER).unwrap();
        Identity::open(&state, Role::Sender, &AuditLog::open(&state, SENDER).unwrap()).unwrap()
    }

    fn audit(&self, state: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(state).join("audit.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn entries(&self, state: &str, event: &str) -> Vec<Value> {
        self.audit(state).into_iter().filter(|entry| entry["event"] == event).collect()
    }

    /// The loader may have been started; it was given nothing, and has ended nothing.
    #[track_caller]
    fn assert_nothing_loaded(&self) {
        let part = fs::metadata(self.path("target/part")).map_or(0, |part| part.len());
        assert_eq!((part, self.path("target/to").exists()), (0, false), "something was loaded");
    }

    /// A file of the receiver's about its one transfer.
    fn has(&self, transfer: TransferId, name: &str) -> bool {
        self.path("receiver/transfers").join(transfer.to_string()).join(name).exists()
    }

    #[track_caller]
    fn assert_unbound(&self, transfer: TransferId) {
        assert!(self.has(transfer, "ticket-secret") && !self.has(transfer, "ticket-sender"), "the ticket is bound");
        self.assert_nothing_loaded();
    }

    /// The ticket is good for the honest sender, which is admitted the first time that it tries.
    #[track_caller]
    fn assert_serves(&self, receiver: Agent, state: &str) -> (Finished, Finished) {
        let sender = self.push(state, &self.path("ticket")).start().wait(WITHIN);
        sender.assert_code(exit::DONE);
        assert_eq!(sender.number("retries"), 0, "{}", sender.stderr());
        let receiver = receiver.wait(WITHIN);
        receiver.assert_code(exit::DONE);
        self.assert_loaded();
        (sender, receiver)
    }

    #[track_caller]
    fn assert_loaded(&self) {
        assert!(
            fs::read(self.path("target/to")).unwrap() == fs::read(self.path("source")).unwrap(),
            "the copy differs"
        );
    }
}

fn read_ticket(path: &Path) -> Ticket {
    Ticket::from_text(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A ticket in a file of its own.
fn put_ticket(folder: &Path, name: &str, ticket: &Ticket) -> PathBuf {
    let path = folder.join(name);
    write_ticket(&path, ticket.to_text().as_bytes());
    path
}

/// A connection of ours to the receiver of a ticket, behind which no proof was sent yet.
struct Peer {
    link: Link,
}

impl Peer {
    async fn connect(ticket: &Ticket, identity: &Identity) -> Self {
        let dialer = Dialer::new(identity, Trust::Pinned(ticket.receiver)).unwrap();
        Self { link: dialer.connect(&ticket.addresses).await.unwrap() }
    }
}

/// The code with which the other side closed. Issue 9, D3: an application close carries no text.
async fn closed_with(connection: &Connection) -> Option<Code> {
    match tokio::time::timeout(WITHIN, connection.closed()).await.expect("the agent ends the connection") {
        ConnectionError::ApplicationClosed(close) => {
            assert!(close.reason.is_empty(), "{close:?}");
            Code::from_number(close.error_code.into_inner())
        }
        _ => None,
    }
}

/// Another receiver, with another ticket, that waits as the first does.
fn other_receiver(hosts: &Hosts) -> (Agent, PathBuf) {
    let ticket = hosts.path("other.ticket");
    let launch = Launch::receiver("discard:").state(&hosts.path("other")).ticket_at(&ticket).bind_loopback();
    let mut receiver = launch.start();
    receiver.ticket();
    (receiver, ticket)
}

/// Another ticket of the same receiver, for another transfer.
fn other_ticket(hosts: &Hosts) -> (Agent, PathBuf) {
    let ticket = hosts.path("second.ticket");
    let launch = Launch::receiver("discard:").state(&hosts.path("receiver")).ticket_at(&ticket).bind_loopback();
    let mut receiver = launch.start();
    receiver.ticket();
    (receiver, ticket)
}

/// Ended as a person would: nobody needs it any more.
fn stop(receiver: Agent) {
    receiver.sigint();
    receiver.wait(WITHIN);
}
