//! One load of a target in this process, held as a receiver holds it.

use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use sealift_agent::{
    failure::{Failure, Outcome},
    shutdown::Shutdown,
    stop::{Cause, Stop},
};
use sealift_engine_api::{PartSink, StopToken, Target, Writers};
use sealift_host::random::SystemRandom;
use sealift_protocol::{
    chunk::{Chunk, VerifiedChunk},
    close::Code,
    compress::{Compression, Packer, Unpacker},
    digest::Digests,
    disposition::Asks,
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    key::EpochSecret,
    limits::{CHUNK_HEADER_BYTES, CHUNK_PLAIN_BYTES},
    manifest::{Evidence, Plan},
    random::Nonces,
    receive::{Found, WholePart},
    seal::{EpochKeys, Suite, open, seal},
};
use sealift_receiver::held::{Held, LetGo};
use tokio::sync::watch;

/// The stop of work that nothing ends.
pub fn endless() -> Arc<dyn StopToken> {
    Arc::new(Endless)
}

struct Endless;

impl StopToken for Endless {
    fn check(&self) -> Outcome {
        Ok(())
    }

    fn wakes(&self, _wake: Box<dyn FnOnce() + Send>) {}
}

pub struct OneLoad {
    pub target: Arc<dyn Target>,
    stop: Stop,
    /// Without it the stop would be raised.
    _drains: Option<watch::Sender<bool>>,
    prepared: OnceLock<(Held, Arc<dyn Writers>)>,
}

impl OneLoad {
    pub fn new(target: impl Target + 'static) -> Self {
        let (drains, drained) = watch::channel(false);
        let load = Self::ended_by(Arc::new(target), &Stop::on(Shutdown::with_all(drained)));
        Self { _drains: Some(drains), ..load }
    }

    /// One that ends with `stop`.
    pub fn ended_by(target: Arc<dyn Target>, stop: &Stop) -> Self {
        Self { target, stop: stop.within(), _drains: None, prepared: OnceLock::new() }
    }

    pub fn prepare(&self, transfer: TransferId, plan: &Plan, asks: Asks) -> Outcome<Vec<Found>> {
        let prepared = self.target.prepare(transfer, plan, asks, Arc::new(self.stop.clone()))?;
        let writers = prepared.load.writers();
        assert!(self.prepared.set((Held::loading(prepared.load), writers)).is_ok(), "prepared once");
        Ok(prepared.found)
    }

    fn held(&self) -> &Held {
        &self.prepared.get().expect("prepared").0
    }

    pub fn writers(&self) -> Arc<dyn Writers> {
        Arc::clone(&self.prepared.get().expect("prepared").1)
    }

    pub fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        self.prepared.get().expect("prepared").1.begin(part, digests)
    }

    pub fn prove(&self, digests: &Digests) -> Outcome<Evidence> {
        self.held().prove(digests)
    }

    /// What was proven.
    pub fn publish(&self) -> Outcome {
        self.held().publish()
    }

    pub fn suspend(&self) {
        self.let_go(LetGo::Suspend);
    }

    pub fn abandon(&self) {
        self.let_go(LetGo::Abandon);
    }

    fn let_go(&self, how: LetGo) {
        self.stop.raise(Cause::Closed, Failure::new(Code::Interrupted, "the load was given up", ""));
        if let Some((held, _)) = self.prepared.get() {
            held.let_go(how);
        }
    }
}

/// Writes one part as a receiver does, whole.
pub fn write_part(load: &OneLoad, part: PartIndex, plain: &[u8], digests: &Digests) -> Outcome<Vec<PartIndex>> {
    let mut sink = load.begin(part, digests)?;
    let mut root = digests.part_root(part);
    let mut chunks = plain.chunks(CHUNK_PLAIN_BYTES).peekable();
    let mut index = 0;
    loop {
        let piece = chunks.next().unwrap_or_default();
        let is_last = chunks.peek().is_none();
        let chunk = verified(part, ChunkIndex(index), piece, is_last, digests);
        sink.write(&chunk)?;
        root.add(chunk.hash(), piece.len() as u64);
        index += 1;
        if is_last {
            break;
        }
    }
    sink.finish(&WholePart::of(part, &root))
}

/// A chunk that was sealed and opened: nothing else can be given to a sink.
fn verified(part: PartIndex, index: ChunkIndex, plain: &[u8], last: bool, digests: &Digests) -> VerifiedChunk {
    let mut random = SystemRandom::default();
    let secret = EpochSecret::generate(&mut random);
    let keys = EpochKeys::new(Suite::Aes256Gcm, TransferId([1; 16]), Epoch(1), secret, digests.clone());
    let packed =
        Packer::new(Compression::Off).unwrap().pack(Chunk::new(part, index, last, plain.to_vec()), keys.digests());
    let sealed = seal(packed, &keys, Nonces::new(&mut random).draw().unwrap()).unwrap();
    let body = BytesMut::from(&sealed.frame[CHUNK_HEADER_BYTES..]);
    open(&sealed.header, body, &keys, &mut Unpacker::new().unwrap()).unwrap()
}
