//! The session of a process that has no terminal, such as one that `ssh HOST COMMAND` started: sshd
//! closes the other ends of its standard streams when the client has gone, and sends it no signal.

use std::{
    io::Stderr,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::{SFlag, fstat},
};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where this process prints its messages, while they are read.
pub struct Session {
    messages: Stderr,
}

impl Session {
    /// The session, if standard error is a pipe or a socket whose other end is open. The journal of
    /// systemd is no session: a service outlives its restart.
    pub fn of_this_process() -> Option<Self> {
        let session = Self { messages: std::io::stderr() };
        let is_journal = std::env::var("JOURNAL_STREAM").is_ok_and(|stream| {
            fstat(&session.messages).is_ok_and(|found| stream == format!("{}:{}", found.st_dev, found.st_ino))
        });
        (is_stream(&session.messages) && !is_journal && !reader_is_gone(session.messages.as_fd())).then_some(session)
    }

    /// Resolves when the messages are not read any more. Cancel-safe.
    pub async fn ended(&self) {
        while !reader_is_gone(self.messages.as_fd()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Whether it is a pipe or a socket: what a process at its other end reads.
pub fn is_stream(descriptor: impl AsFd) -> bool {
    let kind =
        fstat(descriptor).map_or(SFlag::empty(), |found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT);
    kind == SFlag::S_IFIFO || kind == SFlag::S_IFSOCK
}

/// Whether a pipe or socket takes something without waiting for its reader.
pub fn is_writable(descriptor: BorrowedFd<'_>) -> bool {
    found(descriptor, PollFlags::POLLOUT).contains(PollFlags::POLLOUT)
}

/// Whether the other end of a pipe or socket is closed, so that what is written to this one is
/// lost.
pub fn reader_is_gone(descriptor: BorrowedFd<'_>) -> bool {
    // A pipe without a reader reports an error, a socket whose peer is closed a hang-up.
    found(descriptor, PollFlags::empty()).intersects(PollFlags::POLLERR | PollFlags::POLLHUP)
}

fn found(descriptor: BorrowedFd<'_>, asked: PollFlags) -> PollFlags {
    let mut watched = [PollFd::new(descriptor, asked)];
    match poll(&mut watched, PollTimeout::ZERO) {
        Ok(_) => watched[0].revents().unwrap_or(PollFlags::empty()),
        Err(_) => PollFlags::empty(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::unistd::pipe;

    use super::*;

    #[test]
    fn the_end_of_a_reader_is_seen() {
        let (reading, writing) = pipe().unwrap();
        assert!(is_stream(&writing) && !reader_is_gone(writing.as_fd()));
        drop(reading);
        assert!(reader_is_gone(writing.as_fd()));
        let (reading, writing) = UnixStream::pair().unwrap();
        assert!(is_stream(&writing) && !reader_is_gone(writing.as_fd()));
        drop(reading);
        assert!(reader_is_gone(writing.as_fd()));
        let file = tempfile::tempfile().unwrap();
        assert!(!is_stream(&file) && !reader_is_gone(file.as_fd()));
    }
}
