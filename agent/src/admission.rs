//! What a peer may hold of a receiver before it has an accepted offer. Pure: addresses, keys and
//! numbers of bytes in, decisions out; the caller closes what is evicted.
//!
//! ```text
//! arrive ─▶ Handshake ─advance─▶ Unproven ─advance─▶ Proven ─accept─▶ a transfer's
//!               └──────────────────┴── close ──────────┴──▶ Closing ─forget─▶
//! ```
//!
//! Every stage has slots of its own, bounded for each address, each network around an address, each
//! key, and in all. A newcomer takes the place of the oldest where its own address, network or key
//! is at its bound; where a stage is full, of the oldest in the network that holds most. So a flood
//! displaces itself, and a sender that shares its address still has its slot for as long as the
//! flood needs to fill the address's share again.
//!
//! A connection that was closed is not gone: QUIC answers for it for three probe timeouts (RFC
//! 9000, 10.2), which a peer can stretch. What is closing is therefore counted too. It cannot be
//! evicted: at its bound, newcomers are ignored.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The address is validated, and the TLS handshake has begun.
    Handshake,
    /// The handshake is complete: the peer holds the key of its certificate. Nothing says that it
    /// has a ticket.
    Unproven,
    /// The peer has proven that it has a ticket, or a certificate of the authority. Its offer is
    /// awaited, checked, or refused.
    Proven,
    /// Closed, and not yet forgotten by QUIC.
    Closing,
}

/// The bounds of one stage.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all, of one network, of one address, of one key.
    pub connections: usize,
    pub each_network: usize,
    pub each_address: usize,
    pub each_key: usize,
    /// For the whole stage, however busy the peer seems.
    pub time: Duration,
}

impl Stage {
    pub const fn limits(self) -> Limits {
        match self {
            // Some 45 KB each, nearly all of it quinn's and rustls's. At a thousand new ones a
            // second from one address each has 0.4 s, in which an honest handshake over a link of
            // as much completes.
            Stage::Handshake => Limits {
                connections: 512,
                each_network: 480,
                each_address: 448,
                each_key: usize::MAX,
                time: Duration::from_secs(5),
            },
            // A proof comes right behind the handshake, so that slots turn over faster. Keys cost
            // nothing here: each peer makes its own.
            Stage::Unproven => Limits {
                connections: 256,
                each_network: 192,
                each_address: 128,
                each_key: 8,
                time: Duration::from_secs(5),
            },
            // A peer that has proven a ticket is bounded by that, and not by the address that it
            // shares with others.
            Stage::Proven => Limits {
                connections: 64,
                each_network: usize::MAX,
                each_address: usize::MAX,
                each_key: 3,
                time: Duration::from_secs(10),
            },
            // Twice as many as wait out three probe timeouts at the initial estimate of a round
            // trip, at a thousand a second.
            Stage::Closing => Limits {
                connections: 1024,
                each_network: 960,
                each_address: 896,
                each_key: usize::MAX,
                time: Duration::MAX,
            },
        }
    }
}

/// What offers may hold together before they are accepted: three of the largest, and thousands of
/// ordinary ones.
pub const OFFERS_BYTES_MAX: usize = 16 << 20;

/// A key by which a peer is known: that of its certificate, or what it has proven.
pub type Key = [u8; 32];

/// One connection that is counted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId(u64);

struct Held {
    address: IpAddr,
    key: Option<Key>,
    stage: Stage,
    /// Grows with each change of a stage, of any slot: the smallest is the oldest of its stage.
    since: u64,
    bytes: usize,
}

/// What a slot counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    All,
    Network(IpAddr),
    Address(IpAddr),
    Key(Key),
}

impl Held {
    fn groups(&self) -> impl Iterator<Item = Group> + use<> {
        let network = Group::Network(network(self.address));
        [Group::All, network, Group::Address(self.address)].into_iter().chain(self.key.map(Group::Key))
    }
}

/// All connections without an accepted offer.
#[derive(Default)]
pub struct Admission {
    held: BTreeMap<SlotId, Held>,
    /// The slots of each stage, the oldest first.
    order: BTreeMap<(Stage, u64), SlotId>,
    counts: BTreeMap<(Stage, Group), usize>,
    changes: u64,
    bytes: usize,
}

/// What to do with a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Begin its handshake, and close the connection of the slot that has to make room.
    Admitted { slot: SlotId, evicted: Option<SlotId> },
    /// Send nothing: too much of its address, or of all, is closing.
    Ignored,
}

/// What to do with a connection whose offer has grown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Growth {
    /// Read on, and close the connections of these slots.
    Granted(Vec<SlotId>),
    /// Its key holds most of what there is.
    Refused,
}

impl Admission {
    /// A peer with a validated address wants to begin a handshake.
    pub fn arrive(&mut self, address: IpAddr) -> Arrival {
        let address = host(address);
        let stage = Stage::Handshake;
        let newcomer = Held { address, key: None, stage, since: 0, bytes: 0 };
        if self.victim(Stage::Closing, &newcomer).is_some() {
            return Arrival::Ignored;
        }
        let evicted = self.evict_for(stage, &newcomer);
        self.changes += 1;
        let slot = SlotId(self.changes);
        self.put(slot, newcomer, stage);
        Arrival::Admitted { slot, evicted }
    }

    /// A connection has come to `stage`, and is known by `key` from now on. Returns the slot that
    /// has to make room. A slot that was evicted meanwhile stays so.
    pub fn advance(&mut self, slot: SlotId, stage: Stage, key: Key) -> Option<SlotId> {
        if !self.is_open(slot) {
            return None;
        }
        let held = Held { key: Some(key), ..self.take(slot)? };
        let evicted = self.evict_for(stage, &held);
        self.put(slot, held, stage);
        evicted
    }

    /// The offer of a connection now takes so many bytes of memory. The key that holds most is
    /// evicted from first.
    pub fn hold(&mut self, slot: SlotId, bytes: usize) -> Growth {
        if !self.is_open(slot) {
            return Growth::Refused;
        }
        let Some(held) = self.held.get_mut(&slot) else { return Growth::Refused };
        self.bytes = self.bytes - held.bytes + bytes;
        held.bytes = bytes;
        let mut evicted = Vec::new();
        while self.bytes > OFFERS_BYTES_MAX {
            match self.largest() {
                Some(largest) if largest != slot => {
                    self.close(largest);
                    evicted.push(largest);
                }
                _ => return Growth::Refused,
            }
        }
        Growth::Granted(evicted)
    }

    /// The connection was closed, by whichever side.
    pub fn close(&mut self, slot: SlotId) {
        if let Some(held) = self.take(slot) {
            self.bytes -= held.bytes;
            self.put(slot, Held { bytes: 0, ..held }, Stage::Closing);
        }
    }

    /// Nothing is left of the connection, or a transfer has it.
    pub fn forget(&mut self, slot: SlotId) {
        if let Some(held) = self.take(slot) {
            self.bytes -= held.bytes;
        }
    }

    /// How many connections are in `stage`.
    pub fn count(&self, stage: Stage) -> usize {
        self.counted(stage, Group::All)
    }

    fn is_open(&self, slot: SlotId) -> bool {
        self.held.get(&slot).is_some_and(|held| held.stage != Stage::Closing)
    }

    fn put(&mut self, slot: SlotId, mut held: Held, stage: Stage) {
        self.changes += 1;
        held.stage = stage;
        held.since = self.changes;
        self.order.insert((stage, held.since), slot);
        held.groups().for_each(|group| *self.counts.entry((stage, group)).or_default() += 1);
        self.held.insert(slot, held);
    }

    fn take(&mut self, slot: SlotId) -> Option<Held> {
        let held = self.held.remove(&slot)?;
        self.order.remove(&(held.stage, held.since));
        for group in held.groups() {
            let left = self.counted(held.stage, group).saturating_sub(1);
            match left {
                0 => self.counts.remove(&(held.stage, group)),
                left => self.counts.insert((held.stage, group), left),
            };
        }
        Some(held)
    }

    fn counted(&self, stage: Stage, group: Group) -> usize {
        self.counts.get(&(stage, group)).copied().unwrap_or(0)
    }

    fn evict_for(&mut self, stage: Stage, newcomer: &Held) -> Option<SlotId> {
        let victim = self.victim(stage, newcomer)?;
        self.close(victim);
        Some(victim)
    }

    /// Which slot of `stage` a newcomer has to take the place of, if any.
    fn victim(&self, stage: Stage, newcomer: &Held) -> Option<SlotId> {
        let limits = stage.limits();
        let bound = |group: &Group| match group {
            Group::Key(_) => limits.each_key,
            Group::Address(_) => limits.each_address,
            Group::Network(_) => limits.each_network,
            Group::All => limits.connections,
        };
        let full = newcomer.groups().filter(|group| self.counted(stage, *group) >= bound(group));
        // The narrowest comes last in the order of groups.
        match full.max()? {
            Group::All => self.oldest(stage, self.largest_network(stage)?),
            group => self.oldest(stage, group),
        }
    }

    fn largest_network(&self, stage: Stage) -> Option<Group> {
        let of_stage = self.counts.range((stage, Group::All)..).take_while(|((of, _), _)| *of == stage);
        let networks = of_stage.filter(|((_, group), _)| matches!(group, Group::Network(_)));
        networks.max_by_key(|(_, count)| **count).map(|((_, group), _)| *group)
    }

    fn oldest(&self, stage: Stage, group: Group) -> Option<SlotId> {
        let in_order = self.order.range((stage, 0)..=(stage, u64::MAX)).map(|(_, slot)| *slot);
        let is_of = |slot: &SlotId| self.held.get(slot).is_some_and(|held| held.groups().any(|of| of == group));
        in_order.into_iter().find(is_of)
    }

    /// The largest offer of the key whose offers are the largest together; of equal ones the
    /// oldest.
    fn largest(&self) -> Option<SlotId> {
        let mut keys: BTreeMap<Option<Key>, usize> = BTreeMap::new();
        self.held.values().for_each(|held| *keys.entry(held.key).or_default() += held.bytes);
        let (key, _) = keys.into_iter().max_by_key(|(_, bytes)| *bytes)?;
        let of_key = self.held.iter().filter(|(_, held)| held.key == key);
        of_key.min_by_key(|(_, held)| (Reverse(held.bytes), held.since)).map(|(slot, _)| *slot)
    }
}

/// What counts as one address: of IPv6 the first 64 bits, since a host chooses the others itself.
pub fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !0 << 64).into(),
        address => address,
    }
}

/// What one customer of a provider may have to itself: IPv4 by 24 bits, IPv6 by 48.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) & !0xff).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !0 << 80).into(),
    }
}

#[cfg(test)]
mod tests;
