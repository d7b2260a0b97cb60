//! The whole way of the data in one process, without agents and without a link: read, pack and seal
//! on some threads, open on as many, discard.

use std::{
    io::Read,
    sync::{
        Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use bytes::BytesMut;
use sealift_agent::random::SystemRandom;
use sealift_protocol::{
    chunk::{Chunk, ChunkBuffer, Sealed},
    compress::{Compression, Packer, Unpacker},
    limits::{CHUNK_HEADER_BYTES, CHUNK_PLAIN_BYTES},
    random::Nonces,
    seal::{EpochKeys, open, seal},
};

use crate::{Outcome, stages::chunk};

/// Chunks that wait between two stages, for each thread of the next.
const CHUNKS_WAITING: usize = 2;

/// Moves all of `source` through the stages and returns how much of it came out verified.
pub fn run(source: impl Read + Send, keys: &EpochKeys, compression: Compression, threads: usize) -> Outcome<u64> {
    let (chunks_in, chunks) = sync_channel(CHUNKS_WAITING * threads);
    let (sealed_in, sealed) = sync_channel(CHUNKS_WAITING * threads);
    let (chunks, sealed) = (Mutex::new(chunks), Mutex::new(sealed));
    thread::scope(|scope| {
        let reading = scope.spawn(move || read(source, &chunks_in));
        let sealing: Vec<_> = (0..threads)
            .map(|_| {
                let (chunks, sealed_in) = (&chunks, sealed_in.clone());
                scope.spawn(move || seal_all(chunks, &sealed_in, keys, compression))
            })
            .collect();
        drop(sealed_in);
        let opening: Vec<_> = (0..threads).map(|_| scope.spawn(|| open_all(&sealed, keys))).collect();
        reading.join().map_err(|_| "the reader stopped")??;
        for thread in sealing {
            thread.join().map_err(|_| "a sealer stopped")??;
        }
        opening.into_iter().try_fold(0, |sum, thread| Ok(sum + thread.join().map_err(|_| "an opener stopped")??))
    })
}

fn read(mut source: impl Read, out: &SyncSender<Chunk>) -> Outcome {
    for index in 0.. {
        let mut plain = ChunkBuffer::with_room();
        if plain.read_from(&mut source, CHUNK_PLAIN_BYTES)? == 0 {
            break;
        }
        out.send(chunk(index, plain)).map_err(|_| "the sealers stopped")?;
    }
    Ok(())
}

/// The next of a queue that several threads share.
fn next<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv().ok()
}

fn seal_all(
    chunks: &Mutex<Receiver<Chunk>>,
    out: &SyncSender<Sealed>,
    keys: &EpochKeys,
    compression: Compression,
) -> Outcome {
    let mut packer = Packer::new(compression)?;
    let mut nonces = Nonces::new(SystemRandom::default());
    while let Some(chunk) = next(chunks) {
        let sealed = seal(packer.pack(chunk, keys.digests()), keys, nonces.draw()?)?;
        out.send(sealed).map_err(|_| "the openers stopped")?;
    }
    Ok(())
}

fn open_all(sealed: &Mutex<Receiver<Sealed>>, keys: &EpochKeys) -> Outcome<u64> {
    let mut unpacker = Unpacker::new()?;
    let mut verified_bytes = 0;
    while let Some(Sealed { header, frame, .. }) = next(sealed) {
        // The frame has one owner, so its buffer passes on without a copy.
        let mut body = frame.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let body = body.split_off(CHUNK_HEADER_BYTES);
        verified_bytes += open(&header, body, keys, &mut unpacker)?.plain().len() as u64;
    }
    Ok(verified_bytes)
}
