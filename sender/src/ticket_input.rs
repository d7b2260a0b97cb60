//! Where a ticket comes from: a file, or standard input, by whatever name.

use std::{
    fs::{self, File},
    io::Read,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use sealift_agent::{
    failure::{Failure, Outcome},
    ticket::{TICKET_BYTES_MAX, Ticket},
};
use sealift_protocol::close::Code;
use zeroize::Zeroizing;

/// Base64 and line ends make a ticket's text longer than its bytes by a third and a bit.
const TICKET_TEXT_BYTES_MAX: usize = 2 * TICKET_BYTES_MAX;

/// What the user named with `--ticket`.
#[derive(Clone, Copy, Debug)]
pub struct TicketInput<'a> {
    named: &'a str,
    standard: bool,
}

impl<'a> TicketInput<'a> {
    pub fn find(named: &'a str) -> Self {
        Self { named, standard: named == "-" || leads_to_standard_input(Path::new(named)) }
    }

    /// `-`, or a link to the stream that this process has as standard input, such as `/dev/stdin`.
    pub fn is_standard(self) -> bool {
        self.standard
    }

    /// Whether the output of another process is read: the channel that delivers the ticket then
    /// vouches for it. A file that a shell has opened is a file like any other.
    pub fn is_piped(self) -> bool {
        let piped = |input: File| input.metadata().map(|found| found.file_type());
        let kind = standard_input().and_then(piped);
        self.standard && kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket())
    }

    /// Reads up to the end of the one ticket, and no further: a pipe from the receiver stays open
    /// while it works.
    pub fn read(self) -> Outcome<Ticket> {
        let Self { named, standard } = self;
        let next = "Start the receiver with --ticket-out, and give its ticket here: a file, or - for standard input.";
        let unreadable = |error: std::io::Error| {
            Failure::io(Code::Usage, format!("the ticket {named} cannot be read"), &error, next)
        };
        let input = if standard { standard_input() } else { File::open(named) };
        let mut input = input.map_err(unreadable)?;
        if !standard && !is_credential(Path::new(named)) {
            check_own(named, &input).map_err(unreadable)??;
        }
        // Byte by byte, since a buffer would keep a copy of the key; and never moved, for the same
        // reason.
        let mut text = Zeroizing::new(Vec::with_capacity(TICKET_TEXT_BYTES_MAX));
        let (mut byte, mut line) = ([0], 0);
        while text.len() < TICKET_TEXT_BYTES_MAX && input.read(&mut byte).map_err(unreadable)? > 0 {
            text.push(byte[0]);
            if byte[0] == b'\n' {
                if std::str::from_utf8(&text[line..]).is_ok_and(Ticket::is_end) {
                    break;
                }
                line = text.len();
            }
        }
        let Ok(text) = std::str::from_utf8(&text) else {
            return Err(Failure::new(Code::GrantInvalid, "the ticket is damaged: it is not text", next));
        };
        if text.trim().is_empty() {
            return Err(Failure::new(Code::GrantInvalid, "there is no ticket: the input is empty", next));
        }
        Ticket::from_text(text)
    }
}

fn standard_input() -> std::io::Result<File> {
    std::io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

fn leads_to_standard_input(path: &Path) -> bool {
    let is_link = fs::symlink_metadata(path).is_ok_and(|named| named.is_symlink());
    let own = standard_input().and_then(|input| input.metadata());
    let (true, Ok(found), Ok(own)) = (is_link, fs::metadata(path), own) else { return false };
    !found.is_file() && (found.dev(), found.ino()) == (own.dev(), own.ino())
}

/// A ticket can be used by everybody who can read it, and redirected by everybody who can write it.
fn check_own(path: &str, file: &File) -> std::io::Result<Outcome> {
    let found = file.metadata()?;
    let wrong =
        |what: &str, next: String| Ok(Err(Failure::new(Code::Preflight, format!("the ticket {path} {what}"), next)));
    if found.uid() != nix::unistd::geteuid().as_raw() {
        let next = format!(
            "It has to be this user's own: its owner can read and alter it. If user {} may, copy it: \
             install -m 600 {path} FILE.",
            found.uid()
        );
        return wrong("belongs to another user", next);
    }
    if found.is_file() && found.mode() & 0o077 != 0 {
        let next = format!(
            "It has to be closed to others: chmod 600 {path}. If others could read it until now, have a new one made."
        );
        return wrong("is open to other users", next);
    }
    Ok(Ok(()))
}

/// Whether systemd handed it over: it guards its credentials by access control lists, which look
/// like an open mode. An empty variable, or a path that leaves the folder again, names nothing that
/// systemd guards.
fn is_credential(path: &Path) -> bool {
    let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) else { return false };
    folder.is_absolute() && path.parent().is_some_and(|parent| parent == folder)
}
