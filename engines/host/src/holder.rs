//! A process that holds the snapshot of a source, apart from the sender that reads it.
//!
//! An engine starts it from the sender's own program. It outlives a sender that is killed, and a
//! sender that is started again with the same transfer attaches to it and reads the same moment.
//! They meet at a socket in the transfer's folder, which nobody but the owner can enter. Nothing
//! else is kept on disk: a snapshot that is gone leaves nothing behind that looks like one.
//!
//! | asked for | answer |
//! |---|---|
//! | [`Ask::Attach`] | [`Answer::Attached`], and [`Answer::Looked`] now and then |
//! | [`Ask::Keep`] | none: the next sender that attaches gets it |
//! | [`Ask::Look`] | [`Answer::Looked`] |
//! | [`Ask::Release`] | the connection is closed when the snapshot is released |
//!
//! A sender that is attached gets [`Answer::Failed`] if the holder ends for a reason that it knows.
//! A message is its length in four bytes, the most significant first, and canonical CBOR.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use minicbor::{Decode, Encode, bytes::ByteVec};
use sealift_protocol::{close::Code, codec};

/// The socket's name in the folder of a transfer.
pub const SOCKET: &str = "snapshot-holder";

/// What a plan with its documents has at most: two of 32 MiB, and as much again for the rest.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// For a holder to answer, and to end: it has nothing else to do but to close one session. Also for
/// one that it answers to take the answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest path of a socket (`sun_path` of unix(7), without its zero byte).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How long a snapshot is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Limits {
    /// While no sender is attached.
    #[n(0)]
    pub unattended_seconds: u64,
    /// In all.
    #[n(1)]
    pub age_seconds: u64,
}

/// What is asked of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ask {
    /// The snapshot, for as long as this connection is open.
    #[n(0)]
    Attach(#[n(0)] Limits),
    /// To keep what was planned, so that a sender that attaches later need not plan again.
    #[n(1)]
    Keep(#[n(0)] ByteVec),
    /// How it is.
    #[n(2)]
    Look,
    /// To end.
    #[n(3)]
    Release,
}

/// What a holder says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    #[n(0)]
    Attached {
        /// The engine's own description of the snapshot.
        #[n(0)]
        moment: ByteVec,
        /// What was planned at it, if that was done.
        #[n(1)]
        planned: Option<ByteVec>,
        #[n(2)]
        held: Held,
    },
    #[n(1)]
    Looked(#[n(0)] Held),
    /// There is no snapshot, or none any more.
    #[n(2)]
    Failed {
        #[n(0)]
        code: Code,
        #[n(1)]
        what: String,
        #[n(2)]
        hint: String,
    },
}

/// A snapshot that is held.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Held {
    /// What the source calls it.
    #[n(0)]
    pub name: String,
    /// The process that holds it.
    #[n(1)]
    pub pid: u32,
    #[n(2)]
    pub age_seconds: u64,
    /// Transactions that the source has begun since: what they deleted cannot be removed from its
    /// tables while the snapshot is held. `None` if that is not known.
    #[n(3)]
    pub transactions: Option<u32>,
    /// Whether a sender is attached.
    #[n(4)]
    pub attended: bool,
    /// After which it ends if no sender attaches; for one with a sender, as if that ended now.
    #[n(5)]
    pub ends_within_seconds: u64,
}

/// Sends one message.
pub fn send<T: Encode<()>>(mut stream: &UnixStream, message: &T) -> io::Result<()> {
    let bytes = codec::encode(message);
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MESSAGE_BYTES_MAX);
    let length = length.ok_or(ErrorKind::InvalidData)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&bytes)
}

/// Receives one message; `None` if the other side has closed the connection.
pub fn receive<T: for<'b> Decode<'b, ()> + Encode<()>>(mut stream: &UnixStream) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u64::from(u32::from_be_bytes(length));
    let mut bytes = Vec::new();
    if length > MESSAGE_BYTES_MAX as u64 || stream.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(ErrorKind::InvalidData.into());
    }
    codec::decode(&bytes, MESSAGE_BYTES_MAX, "message of a holder").map(Some).map_err(|_| ErrorKind::InvalidData.into())
}

/// The way to a socket in a folder, however long the folder's path is.
struct Way {
    path: PathBuf,
    /// Open for as long as the path leads through it.
    _folder: Option<File>,
}

impl Way {
    fn to(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }
}

/// Makes the socket. The mask of this process has to keep others out.
pub fn bind(folder: &Path) -> io::Result<UnixListener> {
    UnixListener::bind(&Way::to(folder)?.path)
}

/// Connects to the holder of this transfer, if there is one. The socket of one that is gone is
/// removed.
pub fn connect(folder: &Path) -> io::Result<Option<UnixStream>> {
    let stream = match UnixStream::connect(&Way::to(folder)?.path) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            remove_socket(folder)?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(Some(stream))
}

/// How the snapshot of this transfer is, if one is held.
pub fn look(folder: &Path) -> Option<Held> {
    let stream = connect(folder).ok()??;
    send(&stream, &Ask::Look).ok()?;
    match receive(&stream) {
        Ok(Some(Answer::Looked(held))) => Some(held),
        _ => None,
    }
}

/// Ends the holder of this transfer, if there is one. Its session is over when this returns.
pub fn release(folder: &Path) -> io::Result<()> {
    let Some(stream) = connect(folder)? else { return Ok(()) };
    match send(&stream, &Ask::Release) {
        Ok(()) => {}
        // It ends by itself at this moment.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => return Err(error),
    }
    while receive::<Answer>(&stream)?.is_some() {}
    remove_socket(folder)
}

fn remove_socket(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(SOCKET)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn held() -> Held {
        Held {
            name: "00000003-0000001B-1".into(),
            pid: 7,
            age_seconds: 60,
            transactions: Some(3),
            attended: false,
            ends_within_seconds: 9,
        }
    }

    #[test]
    fn a_holder_is_found_however_long_its_path_is() {
        let root = tempfile::tempdir().expect("there is room");
        let folder = root.path().join("x".repeat(120));
        fs::create_dir(&folder).expect("there is room");
        assert_eq!(look(&folder), None);
        let listener = bind(&folder).expect("it is bound");
        let answering = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client connects");
            assert_eq!(receive(&stream).expect("it is whole"), Some(Ask::Look));
            send(&stream, &Answer::Looked(held())).expect("it is sent");
        });
        assert_eq!(look(&folder), Some(held()));
        answering.join().expect("it answered");
        // A holder that was killed leaves its socket.
        release(&folder).expect("there is none");
        assert!(!folder.join(SOCKET).exists());
    }
}
