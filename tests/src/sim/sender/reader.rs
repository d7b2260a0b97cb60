//! The thread of one reader, one chunk at a time: it does only what it was asked for just now, so
//! that a run is the same however threads are scheduled.

use std::{
    sync::mpsc,
    thread::{self, JoinHandle},
};

use sealift_engine_api::PartReader;
use sealift_protocol::{
    chunk::Chunk,
    close::Code,
    digest::{MultisetDigest, RowsDigest},
    failure::{Failure, Outcome},
    id::PartIndex,
};
use sealift_sender::part::PartWriter;

const ROW_BYTES_MAX: usize = 1 << 20;

enum Order {
    /// Read this part, up to its first chunk.
    Read(PartIndex, MultisetDigest),
    /// The lane has room: go on to the next chunk.
    GoOn,
    /// The part is no longer wanted.
    GiveUp,
}

/// How far a reader has come.
pub enum Come {
    Chunk(Chunk),
    Ended(Outcome<RowsDigest>),
}

pub struct ReaderThread {
    /// None once the thread is to end.
    orders: Option<mpsc::Sender<Order>>,
    come: mpsc::Receiver<Come>,
    thread: Option<JoinHandle<()>>,
}

impl ReaderThread {
    pub fn start(mut reader: Box<dyn PartReader>, chunk_bytes: usize) -> Self {
        let (orders, asked) = mpsc::channel();
        let (out, come) = mpsc::channel();
        let thread = thread::spawn(move || {
            while let Ok(Order::Read(part, rows)) = asked.recv() {
                let mut emit = |chunk| match (out.send(Come::Chunk(chunk)), asked.recv()) {
                    (Ok(()), Ok(Order::GoOn)) => Ok(()),
                    _ => Err(Failure::new(Code::Interrupted, "the transfer ended", "")),
                };
                let writer = PartWriter::new(part, rows, ROW_BYTES_MAX, &mut emit).cutting(chunk_bytes);
                let ended = writer.read(&mut *reader, None);
                // Nobody waits for it once the process is killed.
                let _ = out.send(Come::Ended(ended));
            }
        });
        Self { orders: Some(orders), come, thread: Some(thread) }
    }

    pub fn read(&self, part: PartIndex, rows: MultisetDigest) -> Come {
        self.order(Order::Read(part, rows))
    }

    pub fn go_on(&self) -> Come {
        self.order(Order::GoOn)
    }

    pub fn give_up(&self) {
        let Come::Ended(Err(failure)) = self.order(Order::GiveUp) else { panic!("it reads what nobody wants") };
        assert_eq!(failure.code, Code::Interrupted);
    }

    fn order(&self, order: Order) -> Come {
        self.orders.as_ref().expect("it runs").send(order).expect("it waits for an order");
        self.come.recv().expect("a reader does not panic")
    }
}

impl Drop for ReaderThread {
    fn drop(&mut self) {
        self.orders = None;
        let thread = self.thread.take().expect("it is joined once");
        assert!(thread.join().is_ok() || thread::panicking(), "a reader panicked");
    }
}
