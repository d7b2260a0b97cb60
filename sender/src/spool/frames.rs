//! Reading a spool while it is filled.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sealift_agent::{
    budget::{LaneBudget, Room},
    failure::{Failure, Outcome},
    sealed_file::Replay,
};
use sealift_protocol::{
    close::Code,
    error::Error,
    frame::ChunkHeader,
    id::{ChunkIndex, PartIndex},
    limits::FRAME_BYTES_MAX,
    sealed_log::{LogPlace, Record},
    send::{SpoolLane, SpoolStep},
};
use tokio::sync::watch;

use super::{Log, Progress, Spool, locked, stopped};

/// Places that are remembered, so that another connection need not read from the beginning: half a
/// megabyte.
const PLACES_MAX: usize = 4096;

/// Places between two records, every so many frames from the first. When there are too many, every
/// other one is given up.
pub(super) struct Places {
    places: Vec<LogPlace>,
    every: u64,
}

/// The frames of a spool, from one on.
pub struct Frames {
    progress: watch::Receiver<Progress>,
    cursor: Option<Cursor>,
    budget: LaneBudget,
    lane: SpoolLane,
}

/// A sealed chunk as it goes out, and what it takes of the budget.
pub struct Frame {
    pub header: ChunkHeader,
    pub sealed: Bytes,
    _room: Room,
}

struct Cursor {
    log: Log,
    places: Arc<Mutex<Places>>,
    replay: Option<Replay>,
}

impl Spool {
    /// Reads the frames of a lane.
    pub fn read_from(&self, lane: SpoolLane) -> Frames {
        let cursor = Cursor { log: Arc::clone(&self.log), places: Arc::clone(&self.places), replay: None };
        Frames { progress: self.progress.clone(), cursor: Some(cursor), budget: self.budget.clone(), lane }
    }
}

impl Frames {
    /// The next frame, once it is durable; the one before has been dropped by then. `None` after
    /// the last. Not cancel-safe: cancelled while it reads, it fails from then on.
    pub async fn next(&mut self) -> Outcome<Option<Frame>> {
        let Some(ChunkIndex(next)) = self.wait_for_next().await? else { return Ok(None) };
        let mut room = self.budget.take(FRAME_BYTES_MAX).await?;
        let mut cursor = self.cursor.take().ok_or_else(stopped)?;
        let read = tokio::task::spawn_blocking(move || {
            let frame = cursor.frame(next);
            (cursor, frame)
        });
        let (cursor, frame) = read.await.map_err(|_| stopped())?;
        self.cursor = Some(cursor);
        self.lane.handle_read();
        let (header, sealed) = frame?;
        room.shrink(sealed.len());
        Ok(Some(Frame { header, sealed, _room: room }))
    }

    /// The next frame to be read, once it is durable; `None` after the last. Cancel-safe.
    async fn wait_for_next(&mut self) -> Outcome<Option<ChunkIndex>> {
        loop {
            let step = {
                let progress = self.progress.borrow_and_update();
                if let Some(Err(failure)) = &progress.ended {
                    return Err(failure.clone());
                }
                self.lane.poll(progress.frames, progress.ended.is_some())
            };
            match step {
                SpoolStep::Read(index) => return Ok(Some(index)),
                SpoolStep::End => return Ok(None),
                SpoolStep::AwaitSpooled => self.progress.changed().await.map_err(|_| stopped())?,
            }
        }
    }
}

impl Cursor {
    /// Reads up to frame `wanted`, which is there.
    fn frame(&mut self, wanted: u64) -> Outcome<(ChunkHeader, Bytes)> {
        let mut replay = match self.replay.take() {
            Some(replay) => replay,
            None => {
                let nearest = locked(&self.places).nearest(wanted);
                self.open(nearest)?
            }
        };
        let mut opened_again = false;
        loop {
            let before = replay.place();
            match replay.next().transpose()? {
                Some(Record::Chunk { header, sealed }) => {
                    locked(&self.places).remember(header.index, before);
                    if header.index.0 < wanted {
                        continue;
                    }
                    if header.index.0 > wanted {
                        return Err(missing(wanted));
                    }
                    self.replay = Some(replay);
                    return Ok((header, sealed));
                }
                Some(_) => {}
                // It ends where the log ended when it was opened.
                None if !opened_again => (replay, opened_again) = (self.open(Some(before))?, true),
                None => return Err(missing(wanted)),
            }
        }
    }

    fn open(&self, place: Option<LogPlace>) -> Outcome<Replay> {
        let log = locked(&self.log);
        let log = log.as_ref().ok_or_else(stopped)?;
        place.map_or_else(|| log.replay(), |place| log.replay_from(place))
    }
}

impl Default for Places {
    fn default() -> Self {
        Self { places: Vec::new(), every: 1 }
    }
}

impl Places {
    /// The last one that is not behind frame `wanted`.
    fn nearest(&self, wanted: u64) -> Option<LogPlace> {
        let last = self.places.len().checked_sub(1)?;
        self.places.get(last.min((wanted / self.every) as usize)).cloned()
    }

    fn remember(&mut self, index: ChunkIndex, before: LogPlace) {
        if index.0 != self.places.len() as u64 * self.every {
            return;
        }
        self.places.push(before);
        if self.places.len() > PLACES_MAX {
            let mut number = 0u64..;
            self.places.retain(|_| number.next().is_some_and(|number| number.is_multiple_of(2)));
            self.every *= 2;
        }
    }
}

fn missing(wanted: u64) -> Failure {
    Error::new(Code::LogDamaged, "a frame is missing in the spool").at_chunk(PartIndex(0), ChunkIndex(wanted)).into()
}
