//! One connection, used by blocking calls.

use std::{collections::VecDeque, future::Future, io, pin::Pin, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::timeout,
};
use tokio_postgres::{Client, Config, CopyInSink, CopyOutStream, NoTls, Row, config::SslMode, types::ToSql};

use sealift_protocol::failure::{Failure, io_reason};

use super::{
    address::{Address, Host, TlsMode},
    bounded::{Bounded, MessageLimit},
    error::{End, Error, Result},
    interrupt::{Interrupt, Raised},
    password,
    socket::{CONNECT_TIMEOUT, Socket},
    tls::Connect,
};

/// For the server to close the session; after that, the socket is closed without it.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// What a message has besides one row: its head, that of a binary COPY, and the lengths of values.
const MESSAGE_SLACK_BYTES: usize = 64 << 10;

/// What the server's `pg_stat_activity` shows.
const APPLICATION_NAME: &str = "sealift";

/// A session of a server. It belongs to one thread; its calls block. Dropped, it ends the session,
/// and the server rolls back what is open.
pub struct Connection {
    // In this order: the client ends before what drives it.
    client: Option<Client>,
    driver: Option<JoinHandle<()>>,
    /// There until it is dropped.
    runtime: Option<Runtime>,
    raised: Arc<Raised>,
    limit: MessageLimit,
    address: Arc<Address>,
    server_version: u32,
}

impl Connection {
    /// Opens a session. A row of more than `row_bytes_max` bytes is refused while it arrives.
    pub fn open(address: &Address, end: End, row_bytes_max: usize) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let limit = MessageLimit::new(message_bytes_max(row_bytes_max));
        let (client, driver) = runtime.block_on(open(address, end, limit.clone()))?;
        let raised = Arc::default();
        let address = Arc::new(address.clone());
        let mut this = Self {
            client: Some(client),
            driver: Some(driver),
            runtime: Some(runtime),
            raised,
            limit,
            address,
            server_version: 0,
        };
        this.server_version = this.read_server_version()?;
        Ok(this)
    }

    /// Where it leads.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// `server_version_num`, such as 150018.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// The server process that the other end says this connection has. That of a pooler is of its
    /// own making.
    pub fn announced_pid(&self) -> i32 {
        self.limit.backend_pid()
    }

    /// From now on, a row of more than so many bytes is refused while it arrives.
    pub fn limit_rows(&mut self, row_bytes_max: usize) {
        self.limit.set(message_bytes_max(row_bytes_max));
    }

    /// How many rows the last COPY out of the server has had, by its own count. Known for sure once
    /// a later statement has ended.
    pub fn copied(&self) -> u64 {
        self.limit.copied()
    }

    /// What ends it from another thread.
    pub fn interrupt(&self) -> Result<Interrupt> {
        let token = self.client()?.cancel_token();
        Ok(Interrupt { raised: Arc::clone(&self.raised), token, address: Arc::clone(&self.address) })
    }

    /// Runs statements, separated by semicolons, whose results are not asked for.
    pub fn batch(&mut self, sql: &str) -> Result {
        let client = self.client()?;
        self.wait(async { Ok(client.batch_execute(sql).await?) })
    }

    /// Runs a statement, and returns its rows.
    pub fn query(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let client = self.client()?;
        self.wait(async { Ok(client.query(sql, parameters).await?) })
    }

    /// Runs a statement that has exactly one row.
    pub fn query_one(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        let mut rows = self.query(sql, parameters)?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(Error::Protocol),
        }
    }

    /// Runs a statement that has at most one row.
    pub fn query_opt(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>> {
        Ok(self.query(sql, parameters)?.into_iter().next())
    }

    /// Runs a statement, and returns how many rows it changed.
    pub fn execute(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        let client = self.client()?;
        self.wait(async { Ok(client.execute(sql, parameters).await?) })
    }

    /// Begins `COPY ... TO STDOUT`.
    pub fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>> {
        let client = self.client()?;
        let stream = self.wait(async { Ok(client.copy_out(sql).await?) })?;
        Ok(CopyOut { connection: self, stream: Box::pin(stream), ready: VecDeque::new(), ended: false })
    }

    /// Begins `COPY ... FROM STDIN`. Dropped without [`CopyIn::finish`], it ends the session, and
    /// the server rolls back what is open.
    pub fn into_copy_in(self, sql: &str) -> Result<CopyIn> {
        let client = self.client()?;
        let sink = self.wait(async { Ok(client.copy_in(sql).await?) })?;
        Ok(CopyIn { sink: Box::pin(sink), connection: self })
    }

    fn read_server_version(&mut self) -> Result<u32> {
        let row = self.query_one("SELECT pg_catalog.current_setting('server_version_num')", &[])?;
        let text: &str = row.try_get(0)?;
        text.parse().map_err(|_| Error::Protocol)
    }

    fn client(&self) -> Result<&Client> {
        self.client.as_ref().ok_or(Error::Lost)
    }

    /// Runs a call to its end, or to the interruption of the connection.
    fn wait<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.as_ref().ok_or(Error::Lost)?.block_on(async {
            tokio::select! {
                biased;
                () = self.raised.wait() => Err(Error::Interrupted),
                done = call => match done {
                    // The request to cancel may have reached the server first.
                    Err(_) if self.raised.is_raised() => Err(Error::Interrupted),
                    Err(_) if self.limit.was_exceeded() => Err(Error::TooLong),
                    done => done,
                },
            }
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.client = None;
        let driver = self.driver.take().filter(|_| !self.raised.is_raised());
        let Some(runtime) = self.runtime.take() else { return };
        // On a thread that runs asynchronous tasks, another runtime can neither be waited for nor
        // dropped.
        let closing = thread::spawn(move || {
            if let Some(driver) = driver {
                let _ = runtime.block_on(async { timeout(CLOSE_TIMEOUT, driver).await });
            }
        });
        let _ = closing.join();
    }
}

/// The text form of a row may have a backslash before every byte. A message has its own length in
/// a signed number of four bytes.
fn message_bytes_max(row_bytes_max: usize) -> usize {
    row_bytes_max.saturating_mul(2).saturating_add(MESSAGE_SLACK_BYTES).min(i32::MAX as usize)
}

async fn open(address: &Address, end: End, limit: MessageLimit) -> Result<(Client, JoinHandle<()>)> {
    let mut config = Config::new();
    config.user(&address.user).dbname(&address.database).application_name(APPLICATION_NAME);
    if let Some(password) = password::find(address)? {
        config.password(password);
    }
    let socket = Socket::connect(address).await.map_err(|error| unreachable(address, end, &error))?;
    let opened = async {
        match (address.tls, &address.host) {
            (TlsMode::VerifyFull, Host::Tcp { name, .. }) => {
                let tls = Connect::new(&address.root_certificates, name, limit)?;
                config.ssl_mode(SslMode::Require);
                let opened = config.connect_raw(socket, tls).await;
                let (client, connection) = opened.map_err(|error| refused(address, end, &config, error))?;
                Ok((client, tokio::spawn(drive(connection))))
            }
            _ => {
                config.ssl_mode(SslMode::Disable);
                let opened = config.connect_raw(Bounded::new(socket, limit), NoTls).await;
                let (client, connection) = opened.map_err(|error| refused(address, end, &config, error))?;
                Ok((client, tokio::spawn(drive(connection))))
            }
        }
    };
    let timed_out = || unreachable(address, end, &io::ErrorKind::TimedOut.into());
    timeout(CONNECT_TIMEOUT, opened).await.unwrap_or_else(|_| Err(timed_out()))
}

/// Its errors come out of the calls that they concern.
async fn drive(connection: impl Future<Output = std::result::Result<(), tokio_postgres::Error>>) {
    let _ = connection.await;
}

fn unreachable(address: &Address, end: End, error: &io::Error) -> Error {
    let what = format!("the server of {} cannot be reached: {}", address.shown(), io_reason(error));
    let next = match address.host {
        Host::Socket(_) => "Check that it runs, the folder of its socket and its port: ?host=/FOLDER&port=N.",
        Host::Tcp { .. } => "Check host and port, listen_addresses of the server, and what is between.",
    };
    Failure::new(end.code(), what, next).into()
}

/// The server answered, and there is no session.
fn refused(address: &Address, end: End, config: &Config, error: tokio_postgres::Error) -> Error {
    if error.as_db_error().is_some() || error.is_closed() {
        return Error::from(error);
    }
    let shown = address.shown();
    let is_io = std::error::Error::source(&error).is_some_and(|source| source.is::<io::Error>());
    let file = address.password_file.display();
    let password =
        format!("Put a line HOST:PORT:DATABASE:USER:PASSWORD into {file}, mode 0600. PGPASSWORD is not read.");
    // The library names no kinds: what is neither the server's nor the socket's is a password that
    // was asked for and is missing, a way to log in that it does not have, or a server without TLS.
    match (is_io, address.tls, config.get_password()) {
        (true, TlsMode::Off, _) => Error::from(error),
        (true, TlsMode::VerifyFull, _) => {
            let what =
                format!("the TLS connection to {shown} failed: its certificate is not accepted, or it has no TLS 1.3");
            let roots = address.root_certificates.display();
            let next = format!("The certificate must name the host in the URL, and come from an authority in {roots}.");
            Failure::new(end.code(), what, next).into()
        }
        (false, TlsMode::Off, None) => {
            Failure::new(end.code(), format!("the server of {shown} asks for a password"), password).into()
        }
        (false, TlsMode::VerifyFull, None) => {
            let what = format!("the server of {shown} has no TLS, or asks for a password and no file has one");
            Failure::new(end.code(), what, password).into()
        }
        (false, _, Some(_)) => {
            let what = format!("the server of {shown} has no TLS, or asks for another proof than a password");
            let next = "Use scram-sha-256 in its pg_hba.conf, and ssl = on where the connection leaves the host.";
            Failure::new(end.code(), what, next).into()
        }
    }
}

/// The rows of a COPY, as the server sends them: a message for each.
pub struct CopyOut<'a> {
    connection: &'a Connection,
    stream: Pin<Box<CopyOutStream>>,
    ready: VecDeque<Bytes>,
    ended: bool,
}

/// Messages that are taken at once, to enter the runtime once for many small rows. They lie in
/// buffers that have arrived already.
const READY_MAX: usize = 256;

impl CopyOut<'_> {
    /// The next message; `None` after the last, when the server has said that all went well.
    pub fn message(&mut self) -> Result<Option<Bytes>> {
        if self.ready.is_empty() && !self.ended {
            self.receive()?;
        }
        Ok(self.ready.pop_front())
    }

    /// Waits for a message, and takes those that have arrived with it.
    fn receive(&mut self) -> Result {
        let Self { connection, stream, ready, ended } = self;
        connection.wait(async {
            let mut next = stream.next().await;
            while let Some(message) = next {
                ready.push_back(message?);
                next = match stream.next().now_or_never() {
                    Some(next) if ready.len() < READY_MAX => next,
                    Some(Some(message)) => {
                        ready.push_back(message?);
                        return Ok(());
                    }
                    Some(None) => break,
                    None => return Ok(()),
                };
            }
            *ended = true;
            Ok(())
        })
    }
}

/// Takes the rows of a COPY, which has the connection until it is finished.
pub struct CopyIn {
    // In this order: the sink ends before the connection.
    sink: Pin<Box<CopyInSink<Bytes>>>,
    connection: Connection,
}

impl CopyIn {
    /// Sends some bytes. Blocks while the server is busy.
    pub fn send(&mut self, bytes: Bytes) -> Result {
        let sink = &mut self.sink;
        self.connection.wait(async { Ok(sink.feed(bytes).await?) })
    }

    /// Ends the COPY, and returns how many rows it loaded.
    pub fn finish(self) -> Result<(Connection, u64)> {
        let Self { mut sink, connection } = self;
        let rows = connection.wait(async { Ok(sink.as_mut().finish().await?) })?;
        drop(sink);
        Ok((connection, rows))
    }
}
