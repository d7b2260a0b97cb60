//! One run, drawn from a seed: what is moved, over which link, and what goes wrong.

use bytes::BytesMut;
use sealift_protocol::{
    compress::Compression,
    manifest::{PartKind, Plan},
    row::{Value, put_length, put_value},
    seal::Suite,
};

use crate::{
    random::Random,
    wire::{opaque_plan, table_plan},
};

pub struct Scenario {
    pub seed: u64,
    pub plan: Plan,
    /// The plaintext of each part, in chunks; the last may be empty.
    pub parts: Vec<Vec<Vec<u8>>>,
    pub offered: Vec<Suite>,
    pub allowed: Vec<Suite>,
    pub compression: Compression,
    pub lanes: u16,
    pub window_bytes: u64,
    pub stream_bytes: usize,
    pub one_writer: bool,
    pub delay_ms: (usize, usize),
    pub bytes_per_second: Option<u64>,
    pub fault: Fault,
}

/// What goes wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The connection is gone at this time.
    CutAt(u64),
    /// It is gone right after the target committed this many parts, before anybody is told (fault-matrix N11).
    CutAfterCommit(usize),
    /// It is gone when everything was taken and no receipt was sent (fault-matrix N12).
    CutBeforeReceipt,
    /// A relay inside TLS, which cannot exist, changes a bit of this byte.
    Corrupt(u64),
    /// The sender holds good keys and does this at the chunk with this number.
    Sender(SenderFault, u64),
    /// The receiver holds good keys and does this at the acknowledgement with this number.
    Receiver(ReceiverFault, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderFault {
    Skip,
    Repeat,
    Swap,
    EndPart,
    AfterLast,
    OtherPart,
    ForeignKeys,
    AllPartsAtOnce,
    Manifest,
    RowsMiscounted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverFault {
    AckAhead,
    AckBackwards,
    Forget,
    OtherReceipt,
    ChangedRows,
    Twice,
}

const SENDER_FAULTS: [SenderFault; 10] = [
    SenderFault::Skip,
    SenderFault::Repeat,
    SenderFault::Swap,
    SenderFault::EndPart,
    SenderFault::AfterLast,
    SenderFault::OtherPart,
    SenderFault::ForeignKeys,
    SenderFault::AllPartsAtOnce,
    SenderFault::Manifest,
    SenderFault::RowsMiscounted,
];

const RECEIVER_FAULTS: [ReceiverFault; 6] = [
    ReceiverFault::AckAhead,
    ReceiverFault::AckBackwards,
    ReceiverFault::Forget,
    ReceiverFault::OtherReceipt,
    ReceiverFault::ChangedRows,
    ReceiverFault::Twice,
];

impl Scenario {
    pub fn draw(seed: u64) -> Self {
        let mut chance = Random::new(seed);
        let plan = if chance.chance(20.0) { opaque_plan() } else { table_plan(chance.below(7)) };
        let parts: Vec<_> = plan.parts.iter().map(|part| draw_part(part.kind, &mut chance)).collect();
        let suites = |chance: &mut Random| match chance.below(3) {
            0 => vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
            1 => vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm],
            _ => vec![Suite::ChaCha20Poly1305],
        };
        let slow = chance.chance(10.0);
        Self {
            seed,
            offered: suites(&mut chance),
            allowed: suites(&mut chance),
            compression: if chance.chance(70.0) { Compression::Level(1) } else { Compression::Off },
            lanes: 1 + chance.below(4) as u16,
            window_bytes: 300 + chance.below(3000) as u64,
            stream_bytes: 100 + chance.below(3000),
            one_writer: chance.chance(60.0),
            delay_ms: [(0, 0), (1, 40), (0, 400), (400, 1200)][chance.below(4)],
            // fault-matrix N15: 64 kbit/s.
            bytes_per_second: slow.then_some(8000),
            fault: draw_fault(&mut chance, &parts),
            plan,
            parts,
        }
    }

    pub fn plain(&self) -> Vec<Vec<u8>> {
        self.parts.iter().map(|chunks| chunks.concat()).collect()
    }
}

fn draw_fault(chance: &mut Random, parts: &[Vec<Vec<u8>>]) -> Fault {
    let chunks: usize = parts.iter().map(Vec::len).sum();
    let at_chunk = chance.below(chunks + 1) as u64;
    match chance.below(10) {
        0..4 => Fault::None,
        4 => Fault::CutAt(chance.below(8000) as u64),
        5 => Fault::CutAfterCommit(1 + chance.below(parts.len())),
        6 => Fault::CutBeforeReceipt,
        7 => Fault::Corrupt(chance.below(12_000) as u64),
        8 => Fault::Sender(SENDER_FAULTS[chance.below(SENDER_FAULTS.len())], at_chunk),
        _ => Fault::Receiver(RECEIVER_FAULTS[chance.below(RECEIVER_FAULTS.len())], at_chunk),
    }
}

fn draw_part(kind: PartKind, chance: &mut Random) -> Vec<Vec<u8>> {
    let mut bytes = BytesMut::new();
    for _ in 0..chance.below(40) {
        let text = vec![b'a' + chance.below(3) as u8; chance.below(120)];
        let mut row = BytesMut::new();
        put_value(&mut row, Value::Integer(chance.number() as i64));
        put_value(&mut row, Value::Text(&text));
        if kind == PartKind::Rows {
            put_length(&mut bytes, row.len());
        }
        bytes.extend_from_slice(&row);
    }
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        let taken = (1 + chance.below(600)).min(bytes.len());
        chunks.push(bytes.split_to(taken).to_vec());
    }
    if chunks.is_empty() || chance.chance(30.0) {
        chunks.push(Vec::new());
    }
    chunks
}
