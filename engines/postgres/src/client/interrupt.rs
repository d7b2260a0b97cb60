//! Ends what connections are waiting for.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};
use tokio_postgres::{CancelToken, NoTls};

use super::{
    address::{Address, Host, TlsMode},
    bounded::{Bounded, MessageLimit},
    socket::Socket,
    tls::Connect,
};

/// How long a server may take to accept the request to cancel a statement.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// A message to this server is short, and so is its answer.
const MESSAGE_BYTES_MAX: usize = 1 << 16;

/// Ends one connection: what it waits for returns, and the server is asked to cancel what it does.
#[derive(Clone)]
pub struct Interrupt {
    pub(super) raised: Arc<Raised>,
    pub(super) token: CancelToken,
    pub(super) address: Arc<Address>,
}

/// Whether a connection is interrupted.
#[derive(Default)]
pub(super) struct Raised {
    flag: AtomicBool,
    notify: Notify,
}

impl Raised {
    pub fn is_raised(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }

    /// Returns once it is raised.
    pub async fn wait(&self) {
        let notified = self.notify.notified();
        if !self.is_raised() {
            notified.await;
        }
    }
}

impl Interrupt {
    /// Safe at any time, from any thread, more than once; does not block.
    pub fn interrupt(&self) {
        if self.raised.flag.swap(true, Ordering::SeqCst) {
            return;
        }
        self.raised.notify.notify_waiters();
        let token = self.token.clone();
        let address = Arc::clone(&self.address);
        // The socket closes in any case; this only spares the server the rest of a long statement.
        let _ = thread::Builder::new().name("postgres-cancel".into()).spawn(move || cancel(&token, &address));
    }
}

fn cancel(token: &CancelToken, address: &Address) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let limit = MessageLimit::new(MESSAGE_BYTES_MAX);
    let cancelled = async {
        let socket = Socket::connect(address).await.ok()?;
        match (address.tls, &address.host) {
            (TlsMode::VerifyFull, Host::Tcp { name, .. }) => {
                let tls = Connect::new(&address.root_certificates, name, limit).ok()?;
                token.cancel_query_raw(socket, tls).await.ok()
            }
            _ => token.cancel_query_raw(Bounded::new(socket, limit), NoTls).await.ok(),
        }
    };
    let _ = runtime.block_on(async { timeout(CANCEL_TIMEOUT, cancelled).await });
}

/// The connections of a load or of a snapshot, ended together. A connection that is added after
/// that is ended at once.
#[derive(Clone, Default)]
pub struct Interrupts(Arc<Mutex<Set>>);

#[derive(Default)]
struct Set {
    raised: bool,
    members: Vec<Interrupt>,
}

impl Interrupts {
    /// Adds a connection. Those that are over are forgotten.
    pub fn add(&self, interrupt: Interrupt) {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if set.raised {
            interrupt.interrupt();
        }
        // Only this set still knows one whose connection is dropped.
        set.members.retain(|member| Arc::strong_count(&member.raised) > 1);
        set.members.push(interrupt);
    }

    /// Ends all of them, and any later one.
    pub fn interrupt(&self) {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        set.raised = true;
        set.members.iter().for_each(Interrupt::interrupt);
    }
}
