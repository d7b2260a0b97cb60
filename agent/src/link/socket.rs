//! The UDP sockets of agents.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd,
};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn6, sockopt};
use sealift_protocol::close::Code;

use crate::failure::{Failure, Outcome};

/// A receiver's socket, and what there is to say about it.
pub struct Listening {
    pub socket: UdpSocket,
    pub note: Option<String>,
}

/// Opens the socket of a receiver. `[::]` accepts IPv4 as well, whatever net.ipv6.bindv6only says;
/// on a host without IPv6 it is 0.0.0.0.
pub fn listen_at(address: SocketAddr) -> Outcome<Listening> {
    let opened = match address {
        SocketAddr::V6(any) if any.ip().is_unspecified() => bind_both(any),
        _ => UdpSocket::bind(address),
    };
    match opened {
        Ok(socket) => Ok(Listening { socket, note: None }),
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && has_no_ipv6(&error) => {
            let instead = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            let socket = UdpSocket::bind(instead).map_err(|error| cannot_listen(instead, &error))?;
            let note = format!("this host has no IPv6: listening at {instead} instead of {address}.");
            Ok(Listening { socket, note: Some(note) })
        }
        Err(error) => Err(cannot_listen(address, &error)),
    }
}

fn bind_both(any: SocketAddrV6) -> io::Result<UdpSocket> {
    let socket = socket::socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    socket::bind(socket.as_raw_fd(), &SockaddrIn6::from(any))?;
    Ok(UdpSocket::from(socket))
}

/// The kernel was built or started without it, or has it switched off.
fn has_no_ipv6(error: &io::Error) -> bool {
    [nix::libc::EAFNOSUPPORT, nix::libc::EADDRNOTAVAIL].map(Some).contains(&error.raw_os_error())
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> Failure {
    let next = match error.kind() {
        io::ErrorKind::AddrInUse => "Another receiver may be running there: wait for it, or choose another port.",
        io::ErrorKind::AddrNotAvailable => "This host has no such address; `ip address` shows those that it has.",
        io::ErrorKind::PermissionDenied => "Choose a port from 1024 on: those below need a privilege.",
        _ => "Choose another address or port.",
    };
    Failure::io(Code::Preflight, format!("cannot listen at {address} (UDP)"), error, next)
}

/// Opens the socket from which `peer` is reached.
pub fn open_towards(peer: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any)
}
