//! Both state machines of the protocol, without agents and without a link: keys and randomness from
//! a seed, so that every byte can be played again.

mod exchange;
mod seeded;
mod signer;

pub use exchange::{Exchange, NOW_SECONDS, Pair, Parties, TRANSFER, Terms, begin, opaque_plan, ready, table_plan};
pub use seeded::Seeded;
pub use signer::TestSigner;
