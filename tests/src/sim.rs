//! The simulator: `protocol::send` and `protocol::receive` with real sealing of small chunks, under
//! a virtual clock, over links that delay, interleave and die, on hosts that crash, lose their
//! power and go back in time. Everything is drawn from one seed. Its source and its target keep the
//! contract of an engine, and the sender's own `PartWriter` cuts what is read into chunks.
//!
//! What QUIC itself does about lost or doubled datagrams is not simulated: here each stream is
//! reliable and ordered, and everything between streams is not.

mod checks;
mod fault;
mod host;
mod link;
mod receiver;
mod run;
mod scenario;
mod sender;
mod storage;
mod world;

use sealift_protocol::manifest::SignedReceipt;

pub use self::{
    fault::{Action, Hostile, ReceiverFault, SenderFault},
    host::End,
    run::{Ended, run},
    scenario::{PartContent, Scenario, SourceKind, TargetKind, Theme, Version},
    world::Side,
};

/// What an agent did in one step.
enum Moved {
    No,
    Yes,
    Ended(Box<SignedReceipt>),
}
