//! The text of a URL.

use std::fmt::Write;

use sealift_protocol::failure::{Failure, Outcome};

use super::{Address, Host, Settings, TlsMode};

/// A URL, taken apart.
pub(super) struct Url {
    pub settings: Settings,
}

impl Url {
    /// From what is after the scheme and its colon. No error repeats any of it: it may hold a
    /// password.
    pub fn parse(rest: &str) -> Outcome<Self> {
        let rest = rest.strip_prefix("//").ok_or_else(|| malformed("has no // after its scheme"))?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, database) = rest.split_once('/').map_or((rest, ""), |split| split);
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(password());
        }
        let (host, port) = host_and_port(hosts)?;
        let mut settings = Settings {
            host: given(host)?,
            port: given(port)?,
            user: given(user.unwrap_or(""))?,
            dbname: given(database)?,
            ..Settings::default()
        };
        for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| malformed("has a parameter without a value"))?;
            put(&mut settings, &decoded(name)?, decoded(value)?)?;
        }
        Ok(Self { settings })
    }
}

/// Parameters of libpq that a URL may have been written with, and that mean nothing here.
const LIBPQ: [&str; 12] = [
    "client_encoding",
    "gssencmode",
    "krbsrvname",
    "load_balance_hosts",
    "options",
    "replication",
    "require_auth",
    "requirepeer",
    "sslcert",
    "sslkey",
    "sslnegotiation",
    "target_session_attrs",
];

/// Sets one parameter. Those that say how often or how long something is tried are taken and not
/// used; any other is refused, since it may have been meant to protect something.
fn put(settings: &mut Settings, name: &str, value: String) -> Outcome {
    if matches!(name, "password" | "sslpassword") {
        return Err(password());
    }
    if matches!(name, "application_name" | "fallback_application_name" | "connect_timeout" | "channel_binding")
        || name.starts_with("keepalives")
        || name == "tcp_user_timeout"
    {
        return Ok(());
    }
    let field = settings.field(name).ok_or_else(|| {
        let known = "Parameters are host, hostaddr, port, user, dbname, sslmode, sslrootcert, passfile and service.";
        // What is not a name that libpq knows may be a piece of a password.
        let name = if LIBPQ.contains(&name) { format!("the parameter {name}") } else { "a parameter".into() };
        Failure::usage(format!("the URL has {name} that this program does not know"), known)
    })?;
    *field = Some(value);
    Ok(())
}

/// A name in brackets is an IPv6 address.
fn host_and_port(text: &str) -> Outcome<(&str, &str)> {
    if let Some(inside) = text.strip_prefix('[') {
        let (host, after) = inside.split_once(']').ok_or_else(|| malformed("has a '[' without ']'"))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if after.is_empty() => Ok((host, "")),
            None => Err(malformed("has text after ']'")),
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') && !text.contains(',') => {
            Err(malformed("has a host with several colons: write an IPv6 address in brackets"))
        }
        Some((host, port)) => Ok((host, port)),
        None => Ok((text, "")),
    }
}

fn given(text: &str) -> Outcome<Option<String>> {
    if text.is_empty() { Ok(None) } else { decoded(text).map(Some) }
}

fn decoded(text: &str) -> Outcome<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let number = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let number = number.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match number {
            Some(0) | None => return Err(malformed("has a '%' that two hexadecimal digits do not follow")),
            Some(number) => bytes.push(number),
        }
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| malformed("is not UTF-8"))
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The URL of an address, complete.
pub(super) fn write(address: &Address) -> String {
    let user = encoded(&address.user);
    let database = encoded(&address.database);
    let port = address.port;
    let mut url = match &address.host {
        Host::Socket(folder) => {
            format!("postgres://{user}@/{database}?port={port}&host={}", encoded(&folder.to_string_lossy()))
        }
        Host::Tcp { name, at } => {
            let name = if name.contains(':') { format!("[{name}]") } else { encoded(name) };
            let at = at.as_ref().map(|at| format!("&hostaddr={}", encoded(at))).unwrap_or_default();
            let tls = match address.tls {
                TlsMode::Off => "disable",
                TlsMode::VerifyFull => "verify-full",
            };
            format!("postgres://{user}@{name}:{port}/{database}?sslmode={tls}{at}")
        }
    };
    if address.tls == TlsMode::VerifyFull {
        let _ = write!(url, "&sslrootcert={}", encoded(&address.root_certificates.to_string_lossy()));
    }
    let _ = write!(url, "&passfile={}", encoded(&address.password_file.to_string_lossy()));
    if let Some(service) = &address.service {
        let _ = write!(url, "&service={}", encoded(&service.name));
    }
    url
}

fn malformed(what: &str) -> Failure {
    Failure::usage(
        format!("the URL of the database {what}"),
        "Write postgres://USER@HOST:PORT/DATABASE, or postgres://USER@/DATABASE?host=/FOLDER for a socket, with other \
         characters than letters, digits and -._~ as % and two hexadecimal digits.",
    )
}

fn password() -> Failure {
    Failure::usage(
        "a password does not belong in a URL: arguments are seen by every user of the host, and URLs are logged",
        "Put it into ~/.pgpass (HOST:PORT:DATABASE:USER:PASSWORD, mode 0600) or into a service file.",
    )
}
