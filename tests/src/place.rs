//! A transfer whose agents are stopped and started again: what outlives them, and what must be left
//! at its end.

use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sealift_agent::{role::Role, ticket::Ticket};
use sealift_protocol::manifest::{Proof, SignedReceipt};
use tempfile::TempDir;

use crate::{
    agents::{Agent, Launch},
    exit,
    finished::Finished,
    grid::{self, Content},
    invited::write_ticket,
    link::{Direction, Faults, Link},
    port::free_udp_port,
    postgres::Databases,
    random::Random,
    sqlite,
};

/// Of what to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A database of this many rows, each some 200 bytes.
    Sqlite(u32),
    /// A database of this many rows, whose large tables are sent in small ranges.
    Ranges(u32),
    /// One of this many tables, most of them of one row.
    Tables(u32),
    /// A database of this many rows, as an image.
    Image(u32),
    /// A database of this many rows, which a drill looks at and does not keep.
    Drill(u32),
    /// So many random bytes, from a file into a file.
    File(usize),
    /// The same, into a loader that shows all or nothing.
    Loader(usize),
    /// The same, from a program.
    Program(usize),
    /// The same, by way of a spool.
    Spool(usize),
    /// What the engine of the tests has, in several tables and ranges.
    Grid(Content),
    /// Databases of two PostgreSQL clusters.
    Postgres,
}

impl Kind {
    /// The program of a side that has the engine.
    fn program(self, side: Role) -> &'static str {
        match (self, side) {
            (Kind::Grid(_) | Kind::Ranges(_), Role::Sender) => grid::SENDER,
            (Kind::Grid(_), Role::Receiver) => grid::RECEIVER,
            _ => side.program(),
        }
    }
}

/// For data to flow, on a machine that is busy with something else.
const WITHIN: Duration = Duration::from_secs(60);

/// For both agents to end: an outage, what follows it, and a machine that is busy with something
/// else.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// Source, target, ticket and both state directories, with a faulty link in between.
pub struct Place {
    folder: TempDir,
    kind: Kind,
    /// Where the receiver listens, behind the link.
    pub to: SocketAddr,
    pub link: Link,
    pub source_url: String,
    pub target_url: String,
    /// Of [`Kind::Postgres`].
    pub databases: Option<Databases>,
}

impl Place {
    pub fn new(kind: Kind, faults: Faults, seed: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
        let (source, target) = (folder.path().join("source"), folder.path().join("target/to"));
        let urls = urls(kind, &source.display().to_string(), &target.display().to_string());
        let place = Self::of(kind, folder, urls, faults, seed);
        place.make_source(seed);
        place
    }

    /// From and to a database of a cluster that others use, too.
    pub fn of_databases(databases: Databases, faults: Faults, seed: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
        let urls = (databases.source_url(), databases.target_url());
        Self { databases: Some(databases), ..Self::of(Kind::Postgres, folder, urls, faults, seed) }
    }

    fn of(kind: Kind, folder: TempDir, urls: (String, String), faults: Faults, seed: u64) -> Self {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, free_udp_port()));
        let link = Link::start(to, faults, seed);
        let (source_url, target_url) = urls;
        let place = Self { folder, kind, to, link, source_url, target_url, databases: None };
        ["target", "sender", "receiver"].into_iter().for_each(|name| place.make(name));
        place
    }

    fn make_source(&self, seed: u64) {
        match self.kind {
            Kind::Sqlite(rows) | Kind::Ranges(rows) | Kind::Image(rows) | Kind::Drill(rows) => {
                sqlite::create_hospital(&self.source(), rows)
            }
            Kind::Tables(tables) => sqlite::create_tables(&self.source(), tables),
            Kind::Grid(content) => fs::write(self.source(), content.text()).unwrap(),
            Kind::File(bytes) | Kind::Loader(bytes) | Kind::Program(bytes) | Kind::Spool(bytes) => {
                fs::write(self.source(), random_bytes(bytes, seed)).unwrap();
            }
            Kind::Postgres => {}
        }
    }

    fn make(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o700)).unwrap();
    }

    /// Both sides forget the transfer, and what it loaded is removed; what it staged stays.
    pub fn forget(&self) {
        for side in ["sender", "receiver"] {
            fs::remove_dir_all(self.path(side)).unwrap();
            self.make(side);
        }
        let _ = fs::remove_file(self.ticket());
        let target = self.target();
        let _ = if target.is_dir() { fs::remove_dir_all(target) } else { fs::remove_file(target) };
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn source(&self) -> PathBuf {
        self.path("source")
    }

    pub fn target(&self) -> PathBuf {
        self.path("target/to")
    }

    /// Where a target of rows is staged.
    pub fn staging(&self) -> PathBuf {
        let engine = if let Kind::Grid(_) = self.kind { "grid" } else { "sealift" };
        self.path("target").join(format!(".to.{engine}-staging"))
    }

    /// Where the sender spools, if it does.
    pub fn spool(&self) -> PathBuf {
        self.path("spool")
    }

    pub fn ticket(&self) -> PathBuf {
        self.path("ticket")
    }

    /// The receiver's command, the same each time.
    pub fn receiver(&self) -> Launch {
        self.receiver_for_people().json()
    }

    /// Without `--json`: what a person would see.
    pub fn receiver_for_people(&self) -> Launch {
        let launch = Launch::receiver(&self.target_url).state(&self.path("receiver")).ticket_at(&self.ticket());
        let launch = launch.args(&["--bind", &self.to.to_string(), "--address", &self.link.address().to_string()]);
        let dangerous = matches!(self.kind, Kind::File(_));
        let launch = if dangerous { launch.arg("--danger-plaintext-file") } else { launch };
        launch.program(self.kind.program(Role::Receiver))
    }

    /// The sender's command, the same each time.
    pub fn sender(&self) -> Launch {
        self.another_sender(self.ticket()).state(&self.path("sender"))
    }

    /// A sender of the same source with this ticket, and a state directory of its own.
    pub fn another_sender(&self, ticket: PathBuf) -> Launch {
        let launch = Launch::sender(&self.source_url, ticket).program(self.kind.program(Role::Sender)).json();
        match self.kind {
            Kind::Spool(_) => launch.arg("--spool").arg(self.spool()),
            Kind::Image(_) => launch.args(&["--form", "image"]),
            _ => launch,
        }
    }

    /// A command of one of the agents on its state directory, to its end.
    pub fn run<S: AsRef<OsStr>>(&self, side: Role, words: &[S]) -> Finished {
        let launch = Launch::bare(self.kind.program(side), words).arg("--state-dir").arg(self.path(side.name()));
        launch.start().wait(WITHIN)
    }

    /// Both, from the beginning.
    pub fn start(&self) -> (Agent, Agent) {
        let mut receiver = self.receiver().start();
        receiver.ticket();
        (self.sender().start(), receiver)
    }

    /// Returns once so much has reached the receiver's side of the link.
    pub fn wait_until_passed(&self, sender: &mut Agent, bytes: u64) {
        let link = &self.link;
        let passed = |_: &mut Agent| link.counters(Direction::ToReceiver).sent_bytes >= bytes;
        sender.wait_for("data on the link", WITHIN, passed);
    }

    /// The ticket once more, for who reaches the receiver at another address.
    pub fn ticket_by(&self, address: SocketAddr) -> PathBuf {
        let mut ticket = Ticket::from_text(&fs::read_to_string(self.ticket()).unwrap()).unwrap();
        ticket.addresses = vec![address.to_string()];
        let path = self.path("other-ticket");
        write_ticket(&path, ticket.to_text().as_bytes());
        path
    }

    /// Something is there under the final name.
    pub fn is_published(&self) -> bool {
        match &self.databases {
            Some(databases) => databases.is_published(),
            None => self.target().exists(),
        }
    }

    /// The target holds what the source does; of a drill, the receipt says that this has arrived.
    pub fn is_same(&self) -> bool {
        match self.kind {
            Kind::Drill(_) => self.receipts("receiver").iter().all(|receipt| {
                let SignedReceipt { receipt, .. } = receipt;
                let arrived = receipt.evidence.tables.iter().map(|table| table.rows);
                receipt.evidence.proof == Proof::Discarded
                    && receipt.evidence.tables == receipt.manifest.manifest.tables
                    && arrived.sum::<u64>() == sqlite::row_count(&self.source())
            }),
            Kind::Sqlite(_) | Kind::Ranges(_) | Kind::Tables(_) => {
                sqlite::content(&self.source()) == sqlite::content(&self.target())
            }
            Kind::Grid(_) => grid::holds(&self.target(), &self.source()),
            _ => fs::read(self.source()).unwrap() == fs::read(self.target()).unwrap(),
        }
    }

    #[track_caller]
    pub fn assert_same(&self) {
        if let Some(databases) = &self.databases {
            return databases.assert_same();
        }
        let is_drill = matches!(self.kind, Kind::Drill(_));
        assert_eq!(self.target().exists(), !is_drill, "whether anything is there");
        assert!(!is_drill || self.has_receipt("receiver"), "no receipt says what arrived");
        assert!(self.is_same(), "the copy differs");
        if let Kind::Sqlite(_) | Kind::Ranges(_) | Kind::Tables(_) | Kind::Image(_) = self.kind {
            assert_eq!(sqlite::integrity(&self.target()), "ok");
        }
    }

    /// Both end well, and the place is as it has to be then.
    #[track_caller]
    pub fn assert_ends_well(&self, sender: Agent, receiver: Agent) -> (Finished, Finished) {
        self.assert_ends_well_at("", sender, receiver)
    }

    /// The same, of a case that has this name.
    #[track_caller]
    pub fn assert_ends_well_at(&self, case: &str, sender: Agent, receiver: Agent) -> (Finished, Finished) {
        let sender = sender.wait(ENDS_WITHIN);
        assert_eq!(sender.code(), Some(exit::DONE), "{case}\n--- sender\n{}", sender.message());
        let receiver = receiver.wait(ENDS_WITHIN);
        let words = || format!("{case}\n--- sender\n{}--- receiver\n{}", sender.message(), receiver.message());
        assert_eq!(receiver.code(), Some(exit::DONE), "{}", words());
        sender.assert_code(exit::DONE);
        receiver.assert_code(exit::DONE);
        self.assert_done();
        (sender, receiver)
    }

    /// It is there, the same, and nothing else is left of the transfer.
    #[track_caller]
    pub fn assert_done(&self) {
        self.assert_same();
        self.assert_clean(if let Kind::Drill(_) | Kind::Postgres = self.kind { &[] } else { &["to"] });
    }

    /// No staging, no record, no key: in the target's folder there is this and no more.
    #[track_caller]
    pub fn assert_clean(&self, in_target: &[&str]) {
        assert_eq!(names(&self.path("target")), in_target, "in the target's folder");
        assert_eq!(names(&self.spool()), Vec::<String>::new(), "in the spool's folder");
        for side in ["sender", "receiver"] {
            self.assert_no_transfer(side);
        }
        if let Some(databases) = &self.databases {
            databases.assert_nothing_staged(&fs::read_to_string(self.path("receiver/audit.jsonl")).unwrap());
        }
    }

    /// The transfer is suspended on both sides with nothing shown; `abandon` then leaves nothing of
    /// it on either.
    #[track_caller]
    pub fn assert_suspended(&self) {
        self.assert_not_loaded();
        for side in [Role::Sender, Role::Receiver] {
            assert_eq!(self.transfers(side.name()).len(), 1, "unfinished at the {side}");
            self.run(side, &["abandon", "--all"]).assert_code(exit::DONE);
        }
        self.assert_clean(&[]);
    }

    /// The transfer is suspended, or over: nothing of it is shown as a result, and there is no
    /// receipt.
    #[track_caller]
    pub fn assert_not_loaded(&self) {
        let shown = names(&self.path("target")).into_iter().filter(|name| !name.ends_with("-staging"));
        assert_eq!(shown.collect::<Vec<_>>(), Vec::<String>::new(), "in the target's folder");
        assert!(!self.has_receipt("sender") && !self.has_receipt("receiver"));
    }

    /// Nothing of an unfinished transfer is in this state directory.
    #[track_caller]
    pub fn assert_no_transfer(&self, side: &str) {
        assert_eq!(self.transfers(side), Vec::<String>::new(), "unfinished at the {side}");
        let files = names(&self.path(side));
        let known =
            |name: &String| ["identity", "receipts", "transfers"].contains(&name.as_str()) || name.ends_with(".jsonl");
        assert!(files.iter().all(known), "in the state directory of the {side}: {files:?}");
        let receipts = names(&self.path(side).join("receipts"));
        assert!(receipts.iter().all(|name| name.ends_with(".receipt")), "{side}: {receipts:?}");
    }

    /// The receipts that are kept there, verified.
    pub fn receipts(&self, side: &str) -> Vec<SignedReceipt> {
        let folder = self.path(side).join("receipts");
        let read = |name: &String| {
            let receipt = SignedReceipt::from_bytes(&fs::read(folder.join(name)).unwrap()).unwrap();
            receipt.verify().unwrap();
            receipt
        };
        names(&folder).iter().filter(|name| name.ends_with(".receipt")).map(read).collect()
    }

    pub fn has_receipt(&self, side: &str) -> bool {
        names(&self.path(side).join("receipts")).iter().any(|name| name.ends_with(".receipt"))
    }

    /// The unfinished transfers that are kept there.
    pub fn transfers(&self, side: &str) -> Vec<String> {
        names(&self.path(side).join("transfers"))
    }
}

fn urls(kind: Kind, source: &str, target: &str) -> (String, String) {
    // A loader's unfinished output is where nothing looks for it, as a database's would; and a
    // second load fails.
    let loader = format!("exec:sh -c 'cat >{source}.loading && ln {source}.loading {target} && rm {source}.loading'");
    match kind {
        Kind::Sqlite(_) | Kind::Ranges(_) | Kind::Tables(_) | Kind::Image(_) => {
            (format!("sqlite:{source}"), format!("sqlite:{target}"))
        }
        Kind::Drill(_) => (format!("sqlite:{source}"), "discard:".to_owned()),
        Kind::Postgres => panic!("its URLs are those of its databases"),
        Kind::Grid(_) => (format!("grid:{source}"), format!("grid:{target}")),
        Kind::File(_) => (format!("file:{source}"), format!("file:{target}")),
        Kind::Loader(_) => (format!("file:{source}"), loader),
        Kind::Program(_) | Kind::Spool(_) => (format!("exec:cat {source}"), loader),
    }
}

/// What an ended agent reported about resuming.
impl Finished {
    pub fn resume(&self) -> Option<String> {
        self.finished_event()["resume"].as_str().map(str::to_owned)
    }

    /// How often this event came.
    pub fn count(&self, event: &str) -> usize {
        self.events().iter().filter(|found| found["event"] == event).count()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Bytes that no compression makes smaller.
pub fn random_bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let words = std::iter::repeat_with(|| random.number().to_le_bytes());
    words.flatten().take(count).collect()
}

/// Everything in a state directory is named in README, where it says what is where.
#[track_caller]
pub fn assert_named_in_readme(state: &Path) {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, section) = readme.split_once("## Where things are").unwrap();
    let section = section.split("\n## ").next().unwrap();
    for entry in fs::read_dir(state).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_named = [format!("`{name}`"), format!("`{name}/")].iter().any(|text| section.contains(text));
        assert!(is_named, "README does not say what {name} is in {}", state.display());
    }
}
