//! The process that holds the snapshot of a source, so that a sender that was killed resumes on it.
//!
//! It has one session, in which the locks and the snapshot are, and a socket in the transfer's
//! folder ([`sealift_host::holder`]). It ends, and its session with it, when it is asked to; when
//! no sender was attached for as long as the sender allowed; when the snapshot reaches the age that
//! the sender allowed; when its session is lost; and when its socket is gone, as after the
//! transfer's folder was removed. So no holder stays for ever, whatever becomes of its sender.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::AsFd,
        unix::{
            fs::MetadataExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{self, ExitCode},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use minicbor::{Decode, Encode, bytes::ByteVec};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::{close, setsid},
};
use sealift_engine_api::{Filter, Helper};
use sealift_host::holder::{self, Answer, Ask, Held, Limits, SOCKET};
use sealift_protocol::{
    close::Code,
    codec,
    failure::{Failure, Outcome},
};

use crate::{
    client::{Address, Connection, End, Interrupts, Result},
    source::{Moment, check_version, open},
};

/// The sender starts itself so.
pub const COMMAND: &str = "snapshot-holder";

/// What lists of processes show, and `killall sealift-sender` does not mean.
const SHORT_NAME: &std::ffi::CStr = c"snapshot-holder";

pub const HELPERS: &[Helper] = &[Helper { command: COMMAND, is_hardened: true, run }];

/// Between two looks at the session, the socket and the limits.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Between two counts of the transactions that the server has begun: each takes a short session.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// For the session to be closed when the holder is released; after that, the process ends without.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// Connections at once: a sender, and those who look.
const CLIENTS_MAX: usize = 16;

/// What a holder is to hold.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Request {
    #[n(0)]
    pub url: String,
    #[n(1)]
    pub include: Vec<String>,
    #[n(2)]
    pub exclude: Vec<String>,
    /// Of the transfer.
    #[n(3)]
    pub folder: String,
    #[n(4)]
    pub limits: Limits,
}

/// Opens a session, and takes the locks and the snapshot in it.
pub fn open_and_take(address: &Address, filter: &Filter, interrupts: &Interrupts) -> Outcome<(Connection, Moment)> {
    let mut session = open(address, interrupts)?;
    check_version(session.server_version())?;
    let moment = Moment::take(&mut session, filter)?;
    Ok((session, moment))
}

fn run(_arguments: &[String]) -> ExitCode {
    match prepare().and_then(|sender| hold(&sender)) {
        Ok(()) => ExitCode::SUCCESS,
        // The sender has the failure, or has ended: standard error leads nowhere.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Leaves the sender's session, so that neither its terminal nor its shell ends this process, and
/// closes whatever else the sender had been started with. Returns the connection to the sender.
fn prepare() -> io::Result<UnixStream> {
    setsid()?;
    prctl::set_name(SHORT_NAME)?;
    close_others();
    umask(Mode::from_bits_truncate(0o177));
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn close_others() {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        let _ = close(descriptor);
    }
}

fn hold(sender: &UnixStream) -> io::Result<()> {
    let request: Request = holder::receive(sender)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let ends_with_sender = EndsWith::new(sender)?;
    let (session, moment, address) = match take(&request) {
        Ok(taken) => taken,
        Err(Failure { code, what, hints, .. }) => {
            return holder::send(sender, &Answer::Failed { code, what, hint: hints.to_string() });
        }
    };
    let folder = PathBuf::from(&request.folder);
    let listener = holder::bind(&folder)?;
    let socket = fs::symlink_metadata(folder.join(SOCKET))?;
    let shared = Arc::new(Shared {
        name: moment.exported.clone(),
        moment: codec::encode(&moment),
        taken: Instant::now(),
        state: Mutex::new(HolderState::new(request.limits)),
        over: Condvar::new(),
    });
    ends_with_sender.no_more();
    accept(listener, Arc::clone(&shared))?;
    serve_first(sender.try_clone()?, &shared)?;
    let mut held = Holding { session, address, folder, socket: (socket.dev(), socket.ino()), shared };
    held.run();
    Ok(())
}

fn take(request: &Request) -> Outcome<(Connection, Moment, Address)> {
    let rest = request.url.split_once(':').map_or("", |(_, rest)| rest);
    let address = Address::parse(rest)?;
    let filter = Filter { include: request.include.clone(), exclude: request.exclude.clone(), ..Filter::default() };
    let (session, moment) = open_and_take(&address, &filter, &Interrupts::default())?;
    Ok((session, moment, address))
}

/// Ends this process with its sender while there is no snapshot yet.
struct EndsWith(Arc<AtomicBool>);

impl EndsWith {
    fn new(sender: &UnixStream) -> io::Result<Self> {
        let has_snapshot = Arc::new(AtomicBool::new(false));
        let known = Arc::clone(&has_snapshot);
        let watched = sender.try_clone()?;
        thread::Builder::new().name("sender".into()).spawn(move || {
            // That the other side has closed it is always reported.
            let mut waiting = [PollFd::new(watched.as_fd(), PollFlags::empty())];
            let ended = poll(&mut waiting, PollTimeout::NONE);
            if ended.is_ok() && !known.load(Ordering::SeqCst) {
                process::exit(1);
            }
        })?;
        Ok(Self(has_snapshot))
    }

    fn no_more(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What the threads of a holder share.
struct Shared {
    name: String,
    moment: Vec<u8>,
    taken: Instant,
    state: Mutex<HolderState>,
    /// Notified when the holder is to end.
    over: Condvar,
}

struct HolderState {
    limits: Limits,
    planned: Option<Vec<u8>>,
    /// Senders that are attached, by the numbers of their connections: one, or two while one takes
    /// the place of another.
    attached: BTreeMap<u64, UnixStream>,
    /// When the last one ended.
    unattended_since: Instant,
    transactions: Option<u32>,
    is_over: bool,
    /// Connections that are open, and the number of the next.
    clients: usize,
    next_client: u64,
}

impl HolderState {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            planned: None,
            attached: BTreeMap::new(),
            unattended_since: Instant::now(),
            transactions: Some(0),
            is_over: false,
            clients: 0,
            next_client: 0,
        }
    }

    /// A client has connected. Returns its number, if there is room for it.
    fn handle_connected(&mut self) -> Option<u64> {
        if self.clients >= CLIENTS_MAX {
            return None;
        }
        self.clients += 1;
        self.next_client += 1;
        Some(self.next_client)
    }

    fn handle_gone(&mut self, client: u64) {
        self.clients -= 1;
        if self.attached.remove(&client).is_some() {
            self.unattended_since = Instant::now();
        }
    }

    fn tell(&self, answer: &Answer) {
        for sender in self.attached.values() {
            let _ = holder::send(sender, answer);
        }
    }

    /// How long the snapshot is held yet, if no sender attaches from now on.
    fn left(&self, taken: Instant) -> Duration {
        let unattended = Duration::from_secs(self.limits.unattended_seconds);
        let unattended = match self.attached.is_empty() {
            true => unattended.saturating_sub(self.unattended_since.elapsed()),
            false => unattended,
        };
        unattended.min(self.age_left(taken))
    }

    fn age_left(&self, taken: Instant) -> Duration {
        Duration::from_secs(self.limits.age_seconds).saturating_sub(taken.elapsed())
    }

    fn is_at_an_end(&self, taken: Instant) -> bool {
        self.is_over || self.attached.is_empty() && self.left(taken).is_zero()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, HolderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, state: &HolderState) -> Held {
        Held {
            name: self.name.clone(),
            pid: process::id(),
            age_seconds: self.taken.elapsed().as_secs(),
            transactions: state.transactions,
            attended: !state.attached.is_empty(),
            ends_within_seconds: state.left(self.taken).as_secs(),
        }
    }
}

fn accept(listener: UnixListener, shared: Arc<Shared>) -> io::Result<()> {
    let accepting = move || {
        for stream in listener.incoming().flatten() {
            let Some(client) = shared.state().handle_connected() else { continue };
            let serving = Arc::clone(&shared);
            let started = thread::Builder::new().name("client".into()).spawn(move || serve(&stream, client, &serving));
            if started.is_err() {
                shared.state().handle_gone(client);
            }
        }
    };
    thread::Builder::new().name("accept".into()).spawn(accepting).map(drop)
}

/// The sender that has started this process is attached from the beginning.
fn serve_first(sender: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    let client = shared.state().handle_connected().ok_or(io::ErrorKind::Other)?;
    sender.set_write_timeout(Some(holder::ANSWER_TIMEOUT))?;
    attach(&sender, client, shared, None)?;
    let shared = Arc::clone(shared);
    thread::Builder::new().name("client".into()).spawn(move || serve(&sender, client, &shared)).map(drop)
}

/// Answers one client until it closes the connection.
fn serve(stream: &UnixStream, client: u64, shared: &Shared) {
    let _ = stream.set_write_timeout(Some(holder::ANSWER_TIMEOUT));
    while let Ok(Some(ask)) = holder::receive(stream) {
        let answered = match ask {
            Ask::Attach(limits) => attach(stream, client, shared, Some(limits)),
            Ask::Keep(planned) => {
                shared.state().planned = Some(planned.into());
                Ok(())
            }
            Ask::Look => {
                let held = shared.held(&shared.state());
                holder::send(stream, &Answer::Looked(held))
            }
            Ask::Release => end(shared),
        };
        if answered.is_err() {
            break;
        }
    }
    shared.state().handle_gone(client);
}

fn attach(stream: &UnixStream, client: u64, shared: &Shared, limits: Option<Limits>) -> io::Result<()> {
    let mut state = shared.state();
    state.limits = limits.unwrap_or(state.limits);
    state.attached.insert(client, stream.try_clone()?);
    let moment = ByteVec::from(shared.moment.clone());
    let planned = state.planned.clone().map(ByteVec::from);
    let held = shared.held(&state);
    drop(state);
    holder::send(stream, &Answer::Attached { moment, planned, held })
}

/// Has the holder end. The client's connection is closed with the process, after the session.
fn end(shared: &Shared) -> ! {
    shared.state().is_over = true;
    shared.over.notify_all();
    thread::sleep(CLOSE_WITHIN);
    process::exit(0);
}

/// A snapshot that is held.
struct Holding {
    session: Connection,
    address: Address,
    folder: PathBuf,
    /// Device and inode.
    socket: (u64, u64),
    shared: Arc<Shared>,
}

impl Holding {
    fn run(&mut self) {
        let backend = self.backend();
        let mut counted = Instant::now();
        while self.is_held() {
            if counted.elapsed() >= COUNT_EVERY {
                counted = Instant::now();
                let transactions = backend.and_then(|backend| self.transactions(backend).ok().flatten());
                self.tell(transactions);
            }
            let state = self.shared.state();
            if state.age_left(self.shared.taken).is_zero() {
                state.tell(&too_old(state.limits.age_seconds));
                break;
            }
            if state.is_at_an_end(self.shared.taken) {
                break;
            }
            let wait = LOOK_EVERY.min(state.left(self.shared.taken).max(Duration::from_millis(10)));
            drop(self.shared.over.wait_timeout(state, wait));
        }
        if self.has_socket() {
            let _ = fs::remove_file(self.folder.join(SOCKET));
        }
    }

    fn backend(&mut self) -> Option<i32> {
        self.session.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).ok()?.try_get(0).ok()
    }

    /// Whether session and socket are there.
    fn is_held(&mut self) -> bool {
        self.has_socket() && self.session.batch("SELECT 1").is_ok()
    }

    fn has_socket(&self) -> bool {
        is_same(&self.folder.join(SOCKET), self.socket)
    }

    /// Tells the senders how old the snapshot is.
    fn tell(&self, transactions: Option<u32>) {
        let mut state = self.shared.state();
        state.transactions = transactions;
        let held = self.shared.held(&state);
        state.tell(&Answer::Looked(held));
    }

    /// Counted by a session of its own, since one transaction sees one count throughout.
    fn transactions(&self, backend: i32) -> Result<Option<u32>> {
        let mut session = Connection::open(&self.address, End::Source, SHORT_ROW_BYTES)?;
        let sql =
            "SELECT pg_catalog.age(backend_xmin)::pg_catalog.int8 FROM pg_catalog.pg_stat_activity WHERE pid = $1";
        let age: Option<i64> = match session.query_opt(sql, &[&backend])? {
            Some(row) => row.try_get(0)?,
            None => None,
        };
        Ok(age.and_then(|age| age.try_into().ok()))
    }
}

fn too_old(age_seconds: u64) -> Answer {
    Answer::Failed {
        code: Code::SourceFailed,
        what: format!("the snapshot of the source was held for {} min, which is the limit", age_seconds / 60),
        hint: "The server can clean up nothing that is deleted meanwhile. Allow more with --snapshot-age-max, or move the \
               database when it is less in use, or over a faster link."
            .into(),
    }
}

/// A number.
const SHORT_ROW_BYTES: usize = 1 << 10;

fn is_same(path: &Path, (device, inode): (u64, u64)) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (device, inode))
}
