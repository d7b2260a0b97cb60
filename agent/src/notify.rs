//! Notifies the service manager of the state of a service (sd_notify(3)), if there is one. By hand,
//! since the crate `sd-notify` takes the name of an abstract socket, as containers and test
//! managers give, for a path.

use std::os::{
    linux::net::SocketAddrExt,
    unix::{
        ffi::OsStrExt,
        net::{SocketAddr, UnixDatagram},
    },
};

/// It serves from now on.
pub const READY: &str = "READY=1";
/// It drains and then ends.
pub const STOPPING: &str = "STOPPING=1";

/// Best effort: without a service manager there is nothing to do.
pub fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if sent.is_err() {
        tracing::warn!(state, "the service manager could not be told");
    }
}
