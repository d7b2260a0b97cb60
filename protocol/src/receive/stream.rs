//! One part's stream as its bytes arrive: how many come next, and what they are.

use bytes::BytesMut;

use super::{ReceiverSession, ReceiverTransfer};
use crate::{
    close::Code,
    error::{Error, Result},
    frame::{ChunkHeader, StreamHeader},
    id::PartIndex,
    limits::CHUNK_HEADER_BYTES,
};

/// What comes next on a part's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Which part the stream carries.
    StreamHeader,
    /// A chunk's header, or the end of the stream.
    ChunkHeader,
    /// The sealed bytes of the chunk whose header has come.
    Sealed(ChunkHeader),
}

/// What has come.
#[derive(Debug)]
pub enum Arrived {
    /// The stream carries this part.
    Part(PartIndex),
    /// A chunk's header, whose place in the part is right. Its sealed bytes come next.
    Header,
    /// A whole sealed chunk, whose bytes nobody has checked yet.
    Frame(ChunkHeader, BytesMut),
}

/// Reads one part's stream. Every step takes exactly [`PartStream::awaited_bytes`], so that nothing
/// is allocated for a length that was not checked.
#[derive(Debug)]
pub struct PartStream {
    part: PartIndex,
    awaited: Awaited,
}

impl Default for PartStream {
    fn default() -> Self {
        Self { part: PartIndex(0), awaited: Awaited::StreamHeader }
    }
}

impl PartStream {
    /// What comes next.
    pub fn awaited(&self) -> Awaited {
        self.awaited
    }

    /// How many bytes that takes.
    pub fn awaited_bytes(&self) -> usize {
        match &self.awaited {
            Awaited::StreamHeader => StreamHeader::BYTES,
            Awaited::ChunkHeader => CHUNK_HEADER_BYTES,
            Awaited::Sealed(header) => header.sealed_bytes(),
        }
    }

    /// The awaited bytes have come. Fails as [`ReceiverSession::handle_stream`] and
    /// [`ReceiverSession::handle_header`] do, and if `bytes` are not as many as were awaited.
    pub fn handle(
        &mut self,
        bytes: BytesMut,
        session: &mut ReceiverSession,
        transfer: &ReceiverTransfer,
    ) -> Result<Arrived> {
        match self.awaited {
            Awaited::StreamHeader => {
                let header = StreamHeader::from_bytes(exactly(&bytes)?)?;
                session.handle_stream(transfer, header)?;
                self.part = header.part;
                self.awaited = Awaited::ChunkHeader;
                Ok(Arrived::Part(header.part))
            }
            Awaited::ChunkHeader => {
                let header = ChunkHeader::from_bytes(exactly(&bytes)?)?;
                session.handle_header(self.part, &header)?;
                self.awaited = Awaited::Sealed(header);
                Ok(Arrived::Header)
            }
            Awaited::Sealed(header) => {
                self.awaited = Awaited::ChunkHeader;
                Ok(Arrived::Frame(header, bytes))
            }
        }
    }

    /// The stream has ended, with so many of the awaited bytes before its end. Only behind the last
    /// chunk may it, and with none (fault X5).
    pub fn handle_end(&self, arrived_bytes: usize, session: &mut ReceiverSession) -> Result<()> {
        let check = match self.awaited {
            Awaited::StreamHeader => return Err(Error::new(Code::PartTruncated, "no stream header")),
            Awaited::ChunkHeader if arrived_bytes == 0 => return session.handle_stream_end(self.part),
            Awaited::ChunkHeader => "stream ends inside a header",
            Awaited::Sealed(_) => "stream ends inside a chunk",
        };
        Err(Error::new(Code::PartTruncated, check).at_part(self.part))
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<&[u8; N]> {
    bytes.try_into().map_err(|_| Error::new(Code::Internal, "bytes that were not awaited"))
}
