//! The schema, by `pg_dump`.
//!
//! It runs with nothing of this process's environment but where it finds a password by itself: the
//! user's own password file or service file. Its output stays in memory; what it says on stderr
//! quotes statements, and goes nowhere.

use std::{
    io::{self, Read},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sealift_engine_api::StopToken;
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome, io_reason},
};

use super::left_out::LeftOut;
use crate::{
    client::{Address, Host, TlsMode},
    document::DOCUMENT_BYTES_MAX,
    preflight::programs,
};

/// How often the stop token is asked while the program says nothing.
const STOP_POLL_MILLISECONDS: u16 = 200;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Subscriptions are left out: their connection strings may hold passwords.
const ARGUMENTS: [&str; 4] = ["--format=custom", "--schema-only", "--no-subscriptions", "--no-password"];

/// What `pg_dump` makes of the schema at a snapshot.
pub fn schema(
    address: &Address,
    server_version: u32,
    snapshot: &str,
    left_out: &LeftOut,
    stop: &dyn StopToken,
) -> Outcome<Vec<u8>> {
    let program = programs::pg_dump(server_version / 10_000)?.path;
    let shown = program.display().to_string();
    let mut command = Command::new(&program);
    command.args(ARGUMENTS).arg(format!("--snapshot={snapshot}")).arg("--dbname").arg(connection_string(address));
    command.args(left_out.names().map(|name| format!("--exclude-table={name}")));
    command.env_clear().env("LC_ALL", "C").env("PGSSLCERTMODE", "disable");
    command.envs(std::env::var_os("HOME").map(|home| ("HOME", home)));
    if let Some(service) = &address.service {
        command.env("PGSERVICEFILE", &service.file);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let failed = |error: &io::Error| {
        let what = format!("{shown} cannot be run: {}", io_reason(error));
        Failure::new(Code::SourceFailed, what, "Check that this user may run it.")
    };
    let mut child = Killed(command.spawn().map_err(|error| failed(&error))?);
    let archive = read_all(&mut child.0, stop, &failed)?;
    let status = child.0.wait().map_err(|error| failed(&error))?;
    if !status.success() {
        let what = format!("{shown} failed with {status} on the schema of {}", address.shown());
        let next = format!(
            "Run it by hand to see why: {shown} --schema-only --no-password --file=/dev/null --dbname=\"{}\". It needs a \
             password from ~/.pgpass, and to read every table's definition.",
            connection_string(address)
        );
        return Err(Failure::new(Code::SourceFailed, what, next));
    }
    Ok(archive)
}

/// Not left behind by a return.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_all(child: &mut Child, stop: &dyn StopToken, failed: &dyn Fn(&io::Error) -> Failure) -> Outcome<Vec<u8>> {
    let Some(mut stdout) = child.stdout.take() else { return Ok(Vec::new()) };
    let mut archive = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        stop.check()?;
        let mut ready = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(STOP_POLL_MILLISECONDS)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(failed(&errno.into())),
        }
        let read = stdout.read(&mut buffer).map_err(|error| failed(&error))?;
        if read == 0 {
            return Ok(archive);
        }
        archive.extend_from_slice(&buffer[..read]);
        if archive.len() > DOCUMENT_BYTES_MAX {
            let what = format!("the schema of the source is over {DOCUMENT_BYTES_MAX} bytes");
            return Err(Failure::new(Code::SourceUnsuitable, what, "Move it by pg_dump, with exec:."));
        }
    }
}

/// The address for libpq. It holds no secret, since every user of the host sees arguments.
fn connection_string(address: &Address) -> String {
    let mut words: Vec<(&str, String)> = Vec::new();
    if let Some(service) = &address.service {
        words.push(("service", service.name.clone()));
    }
    match &address.host {
        Host::Socket(folder) => words.push(("host", folder.to_string_lossy().into_owned())),
        Host::Tcp { name, at } => {
            words.push(("host", name.clone()));
            words.extend(at.as_ref().map(|at| ("hostaddr", at.clone())));
        }
    }
    words.push(("port", address.port.to_string()));
    words.push(("user", address.user.clone()));
    words.push(("dbname", address.database.clone()));
    words.push(("passfile", address.password_file.to_string_lossy().into_owned()));
    words.push(("gssencmode", "disable".into()));
    match (&address.host, address.tls) {
        (Host::Socket(_), _) => {}
        (Host::Tcp { .. }, TlsMode::Off) => words.push(("sslmode", "disable".into())),
        (Host::Tcp { .. }, TlsMode::VerifyFull) => {
            words.push(("sslmode", "verify-full".into()));
            words.push(("sslrootcert", address.root_certificates.to_string_lossy().into_owned()));
        }
    }
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    words.iter().map(|(name, value)| format!("{name}='{}'", quoted(value))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_is_quoted() {
        let address = Address::parse("//o'b%5Cx@localhost:7/d?passfile=/p").expect("it is good");
        let expected = "host='localhost' port='7' user='o\\'b\\\\x' dbname='d' passfile='/p' gssencmode='disable' \
                        sslmode='disable'";
        assert_eq!(connection_string(&address), expected);
    }
}
