//! Addresses as people write them: `NAME:PORT`, `IPv4:PORT`, `[IPv6]:PORT`, and `[IPv6%ZONE]:PORT`
//! where the zone is an interface of the host that uses the address (RFC 4007, 11).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use futures_util::future::join_all;
use nix::net::if_::if_nametoindex;
use sealift_protocol::close::Code;
use tokio::time::timeout;

use crate::failure::{Failure, Outcome};

/// RFC 1035, 2.3.4.
const NAME_BYTES_MAX: usize = 253;

/// For a name server to answer: its clients ask a second one after five seconds.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(8);
/// For a look at one's own names, which need not be known here.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// What an error says of how an address is written.
pub const FORMS: &str = "Give HOST:PORT, IPv4:PORT, [IPv6]:PORT or [IPv6%INTERFACE]:PORT.";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Ip(IpAddr, u16),
    Zoned(Ipv6Addr, String, u16),
    Name(String, u16),
}

impl Address {
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok()?;
        if let Some(inside) = host.strip_prefix('[') {
            let inside = inside.strip_suffix(']')?;
            return match inside.split_once('%') {
                Some((ip, zone)) if !zone.is_empty() => Some(Self::Zoned(ip.parse().ok()?, zone.to_owned(), port)),
                Some(_) => None,
                None => Some(Self::Ip(inside.parse::<Ipv6Addr>().ok()?.into(), port)),
            };
        }
        match host.parse::<Ipv4Addr>() {
            Ok(ip) => Some(Self::Ip(ip.into(), port)),
            Err(_) => is_name(host).then(|| Self::Name(host.to_owned(), port)),
        }
    }

    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(_, port) | Self::Zoned(_, _, port) | Self::Name(_, port) => *port,
        }
    }

    /// Why no sender can use it, whatever host it is on.
    pub fn unusable(&self) -> Option<&'static str> {
        let ip = match self {
            Self::Ip(ip, _) => Some(*ip),
            Self::Zoned(ip, ..) => Some(IpAddr::from(*ip)),
            Self::Name(..) => None,
        };
        match ip {
            _ if self.port() == 0 => Some("its port is 0"),
            Some(ip) if ip.is_unspecified() => Some("it stands for all addresses of a host, and is none of them"),
            Some(ip) if is_of_many(ip) => Some(OF_MANY),
            _ => None,
        }
    }

    /// What it stands for on this host. Cancel-safe: a lookup that was started ends in its own
    /// thread.
    async fn resolve(&self, within: Duration) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Ip(ip, port) => Ok(vec![(*ip, *port).into()]),
            Self::Zoned(ip, zone, port) => Ok(vec![zoned(*ip, zone, *port)?]),
            Self::Name(name, port) => {
                let found = timeout(within, tokio::net::lookup_host((name.as_str(), *port))).await;
                Ok(found.map_err(|_| io::ErrorKind::TimedOut)??.collect())
            }
        }
    }
}

/// The addresses to try for one that a ticket names. Cancel-safe.
pub async fn resolve(text: &str) -> Outcome<Vec<SocketAddr>> {
    let parsed = Address::parse(text);
    let found = match &parsed {
        Some(address) => address.resolve(RESOLVE_TIMEOUT).await.unwrap_or_default(),
        None => Vec::new(),
    };
    if !found.is_empty() {
        return Ok(found);
    }
    let why = match &parsed {
        Some(Address::Name(name, _)) => format!("the name {name} is not known on this host"),
        Some(Address::Zoned(_, zone, _)) => format!("this host has no interface {zone}"),
        _ => "it is no address".to_owned(),
    };
    let next = "Make the name known here, in the name service or in /etc/hosts; or start the receiver with \
                --address IP:PORT, an address that this host can reach.";
    Err(Failure::new(Code::Unreachable, format!("the receiver's address {text} cannot be used: {why}"), next))
}

/// Those of `addresses` whose names are not known on this host. The sender's host may know them all
/// the same.
pub async fn unknown_names(addresses: &[String]) -> Vec<&str> {
    let look = async |text: &str| match Address::parse(text) {
        Some(name @ Address::Name(..)) => name.resolve(LOOK_TIMEOUT).await.is_ok_and(|found| !found.is_empty()),
        _ => true,
    };
    let known = join_all(addresses.iter().map(|text| look(text))).await;
    addresses.iter().zip(known).filter(|(_, known)| !known).map(|(text, _)| text.as_str()).collect()
}

/// An address of this host to listen at.
pub fn parse_own(text: &str) -> Result<SocketAddr, String> {
    match Address::parse(text) {
        Some(Address::Ip(ip, _)) if is_of_many(ip) => Err(OF_MANY.into()),
        Some(Address::Ip(ip, port)) => Ok((ip, port).into()),
        Some(Address::Zoned(ip, zone, port)) => {
            zoned(ip, &zone, port).map_err(|_| format!("this host has no interface {zone}"))
        }
        _ => Err("give IPv4:PORT, [IPv6]:PORT or [IPv6%INTERFACE]:PORT".into()),
    }
}

const OF_MANY: &str = "it is a multicast or broadcast address, and no host's own";

fn is_of_many(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::from(Ipv4Addr::BROADCAST)
}

/// A zone is an interface's name or its number.
fn zoned(ip: Ipv6Addr, zone: &str, port: u16) -> io::Result<SocketAddr> {
    let scope = match zone.parse::<u32>() {
        Ok(number) => number,
        Err(_) => if_nametoindex(zone)?,
    };
    Ok(SocketAddrV6::new(ip, port, 0, scope).into())
}

/// Letters, digits, '-' and '_' between dots, and not what can only be a mistyped IPv4 address.
fn is_name(host: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let labels = host.strip_suffix('.').unwrap_or(host);
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    host.len() <= NAME_BYTES_MAX
        && labels.split('.').all(|label| !label.is_empty() && label.bytes().all(plain))
        && !labels.rsplit('.').next().is_none_or(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, C5.
    #[test]
    fn addresses_are_read_or_refused() {
        let name = |host: &str| Some(Address::Name(host.into(), 7443));
        assert_eq!(Address::parse("dst:7443"), name("dst"));
        assert_eq!(Address::parse("a-b.example_1.org.:7443"), name("a-b.example_1.org."));
        assert_eq!(Address::parse("10.0.0.1:1"), Some(Address::Ip([10, 0, 0, 1].into(), 1)));
        assert_eq!(Address::parse("[::1]:1"), Some(Address::Ip(Ipv6Addr::LOCALHOST.into(), 1)));
        let zoned = Address::Zoned("fe80::1".parse().unwrap(), "eth0.7".into(), 1);
        assert_eq!(Address::parse("[fe80::1%eth0.7]:1"), Some(zoned));
        for bad in [
            "",
            "dst",
            "dst:",
            ":1",
            "dst:70000",
            "::1:1",
            "fe80::1%lo:1",
            "[::1]1",
            "[::1:1",
            "[fe80::1%]:1",
            "[dst]:1",
            "http://dst:1",
            "d st:1",
            "10.0.0.256:1",
            "10.0.0:1",
            "a..b:1",
            "dst/x:1",
        ] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }

    /// Issue 9, C5: a ticket does not name what no sender can use.
    #[test]
    fn addresses_of_no_single_host_are_known() {
        for unusable in
            ["dst:0", "0.0.0.0:1", "[::]:1", "224.0.0.1:1", "[ff02::1]:1", "[ff02::1%lo]:1", "255.255.255.255:1"]
        {
            assert!(Address::parse(unusable).unwrap().unusable().is_some(), "{unusable}");
        }
        for usable in ["dst:1", "10.0.0.1:1", "[fe80::1%lo]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(Address::parse(usable).unwrap().unusable(), None, "{usable}");
        }
        for no_own in ["224.0.0.1:1", "[ff02::1]:1", "255.255.255.255:0"] {
            assert!(parse_own(no_own).is_err(), "{no_own}");
        }
        assert!(parse_own("0.0.0.0:0").is_ok());
    }

    /// Issue 9, C5: a zone is an interface of this host.
    #[test]
    fn zones_are_interfaces() {
        let lo = if_nametoindex("lo").unwrap();
        for zone in ["lo".to_owned(), lo.to_string()] {
            let Ok(SocketAddr::V6(found)) = parse_own(&format!("[fe80::1%{zone}]:7443")) else { panic!("{zone}") };
            assert_eq!((found.scope_id(), found.port()), (lo, 7443));
        }
        assert!(parse_own("[fe80::1%nowhere]:7443").unwrap_err().contains("nowhere"));
        assert!(parse_own("dst:7443").is_err());
    }
}
