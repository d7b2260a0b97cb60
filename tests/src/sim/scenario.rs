//! One run, drawn from a seed: what is moved, over which link, and what goes wrong.

use std::sync::Arc;

use bytes::BytesMut;
use sealift_protocol::{
    compress::Compression,
    id::TableIndex,
    limits::LANES_MAX,
    manifest::{Empty, Plan, PlannedPart, PlannedTable, Range, Section},
    receive::Durability,
    row::{Cell, put_cell, put_length},
    seal::Suite,
    transcript::Channel,
};

use super::{
    fault::{Action, Hostile, Planned},
    world::Side,
};
use crate::{
    grid,
    random::Random,
    wire::{NOW_SECONDS, Seeded, opaque_plan, table_plan},
};

/// All of a source at one moment: each part.
pub type Version = Vec<PartContent>;

/// What a part holds.
#[derive(Clone)]
pub struct PartContent {
    pub section: Section,
    /// Encoded, without their lengths.
    pub rows: Vec<Vec<u8>>,
}

impl PartContent {
    /// As it arrives in the target.
    pub fn plain(&self) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        for row in &self.rows {
            if self.section == Section::Data {
                put_length(&mut bytes, row.len());
            }
            bytes.extend_from_slice(row);
        }
        bytes.to_vec()
    }
}

pub struct Scenario {
    pub seed: u64,
    pub plan: Plan,
    /// What the source holds, one after the other, if it is changed.
    pub versions: Arc<Vec<Version>>,
    pub source: SourceKind,
    /// The sender spools what can be read only once.
    pub spools: bool,
    /// Readers of tables, at most.
    pub readers_max: usize,
    /// Of plaintext, in each chunk but the last.
    pub chunk_bytes: usize,
    pub target: TargetKind,
    pub offered: Vec<Suite>,
    pub allowed: Vec<Suite>,
    pub compression: Compression,
    lanes: usize,
    pub window_bytes: u64,
    pub stream_bytes: usize,
    pub one_writer: bool,
    /// A write or a sync of the target takes less.
    pub disk_ms: usize,
    /// A source that is spooled ends so long after its last byte, at most.
    pub lingers_ms: usize,
    pub delay_ms: (usize, usize),
    pub bytes_per_second: Option<u64>,
    pub grace_ms: u64,
    pub not_after_seconds: u64,
    pub theme: Theme,
    pub hostile: Option<Hostile>,
    pub planned: Vec<Planned>,
    /// A write of the target fails after so many others, once.
    pub target_fails_in: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Tables, as of when the process opened them.
    Tables,
    /// Bytes, as of when they are read.
    File,
    /// Bytes that are read once; another process gets others.
    Pipe,
    /// The same, and the process can start it again.
    Program,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Each part is committed with a row in the ledger.
    Tables,
    /// Bytes, each chunk of which is journalled before it counts.
    Journalled,
    /// Bytes of a file, which is its own durable prefix.
    Synced,
    /// Bytes that a killed process has lost.
    Plain,
    /// Parts that are looked at and not kept, as in a drill.
    Discarded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Theme {
    Quiet,
    Hostile,
    /// Links and processes are lost, as often as it takes; the transfer has to complete.
    Outages,
    /// And a host goes back to an earlier state.
    RollBacks,
    /// And the source changes.
    Changes,
    /// And clocks are set, grants end early, and no side waits for long.
    Clocks,
}

impl Scenario {
    pub fn draw(seed: u64) -> Self {
        let mut chance = Random::new(seed);
        let theme = match chance.below(20) {
            0 => Theme::Quiet,
            1..6 => Theme::Hostile,
            6..13 => Theme::Outages,
            13..16 => Theme::RollBacks,
            16..18 => Theme::Changes,
            _ => Theme::Clocks,
        };
        let opaque = chance.chance(35.0);
        let plan = match (opaque, chance.chance(50.0)) {
            (true, _) => opaque_plan(),
            (false, false) => table_plan(chance.below(7)),
            (false, true) => range_plan(&mut chance),
        };
        // Some of them hold nothing.
        let plan = Plan { empty: Some(Empty::Allowed), ..plan };
        let mut tables: Vec<_> = plan.parts.iter().map(|part| Table::draw(part.section, &mut chance)).collect();
        let mut versions = Vec::new();
        for _ in 0..3 {
            versions.push(tables.iter().map(Table::content).collect());
            let changed = chance.below(tables.len());
            tables[changed].change(&mut chance);
        }
        let chunk_bytes = 50 + chance.below(600);
        let chunks = tables.iter().map(|table| table.content().plain().len().div_ceil(chunk_bytes).max(1)).sum();
        let suites = |chance: &mut Random| match chance.below(3) {
            0 => vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
            1 => vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm],
            _ => vec![Suite::ChaCha20Poly1305],
        };
        let clocks = theme == Theme::Clocks;
        let (source, target) = match opaque {
            false => (SourceKind::Tables, if chance.chance(25.0) { TargetKind::Discarded } else { TargetKind::Tables }),
            true => (
                [SourceKind::File, SourceKind::Pipe, SourceKind::Program][chance.below(3)],
                [TargetKind::Journalled, TargetKind::Synced, TargetKind::Plain][chance.below(3)],
            ),
        };
        Self {
            seed,
            spools: matches!(source, SourceKind::Pipe | SourceKind::Program) && chance.chance(50.0),
            readers_max: if opaque { 1 } else { 1 + chance.below(3) },
            chunk_bytes,
            source,
            target,
            offered: suites(&mut chance),
            allowed: suites(&mut chance),
            compression: if chance.chance(70.0) { Compression::Level(1) } else { Compression::Off },
            lanes: chance.below(LANES_MAX.into()),
            window_bytes: 300 + chance.below(3000) as u64,
            stream_bytes: 100 + chance.below(3000),
            one_writer: chance.chance(60.0),
            // A file's may take longer than a connection that is lost.
            disk_ms: [30, 1000, if target == TargetKind::Synced { 20_000 } else { 30 }][chance.below(3)],
            lingers_ms: [1, 3000][chance.below(2)],
            delay_ms: [(0, 0), (1, 40), (0, 400), (400, 1200)][chance.below(4)],
            // Fault N15: 64 kbit/s.
            bytes_per_second: chance.chance(10.0).then_some(8000),
            grace_ms: if clocks && chance.chance(50.0) { 1000 + chance.below(20_000) as u64 } else { 900_000 },
            not_after_seconds: NOW_SECONDS
                + if clocks && chance.chance(70.0) { 1 + chance.below(60) as u64 } else { 3600 },
            theme,
            hostile: (theme == Theme::Hostile).then(|| Hostile::draw(&mut chance, chunks)),
            planned: draw_planned(theme, &mut chance),
            target_fails_in: (theme == Theme::Outages && !opaque && chance.chance(30.0))
                .then(|| chance.below(chunks + 1) as u64),
            plan,
            versions: Arc::new(versions),
        }
    }

    /// Parts in flight at once over one connection; another has others.
    pub fn lanes_of(&self, connection: u64) -> u16 {
        1 + ((self.lanes as u64 + connection) % u64::from(LANES_MAX)) as u16
    }

    /// What both sides know of the TLS connection with this number.
    pub fn channel(&self, connection: u64) -> Channel {
        let mut random = Seeded::new("channel", self.seed ^ connection << 48);
        Channel {
            exporter: random.bytes(32).try_into().expect("as many as asked for"),
            sender_certificate: b"the sender's".to_vec(),
            receiver_certificate: b"the receiver's".to_vec(),
        }
    }

    /// What the target promises.
    pub fn durability(&self) -> Durability {
        match self.target {
            TargetKind::Tables => Durability::Parts,
            TargetKind::Journalled => Durability::Journal,
            TargetKind::Synced => Durability::SyncedChunks,
            TargetKind::Plain | TargetKind::Discarded => Durability::Nothing,
        }
    }

    /// Whether what the receiver calls durable is there after its process was killed.
    pub fn keeps_durable(&self) -> bool {
        self.durability() != Durability::Nothing
    }

    /// Whether what the receiver acknowledged is there after its process was killed.
    pub fn keeps_verified(&self) -> bool {
        matches!(self.durability(), Durability::Journal | Durability::SyncedChunks)
    }

    /// Whether parts can be read again by the same process.
    pub fn can_repeat(&self) -> bool {
        matches!(self.source, SourceKind::Tables | SourceKind::File)
    }
}

/// Tables of which some are divided into ranges.
fn range_plan(chance: &mut Random) -> Plan {
    let tables = chance.below(4);
    let mut parts = vec![PlannedPart::of_section(Section::PreData)];
    for table in 0..tables {
        let ranges = 1 + chance.below(3) as u64;
        parts.extend((0..ranges).map(|at| PlannedPart {
            range: (ranges > 1).then(|| Range { from: at * 100, to: (at + 1 < ranges).then_some((at + 1) * 100) }),
            ..PlannedPart::of_table(TableIndex(table as u32))
        }));
    }
    parts.push(PlannedPart::of_section(Section::PostData));
    let tables = (0..tables).map(|table| PlannedTable::named(&format!("t{table}"))).collect();
    Plan { engine: grid::engine(), tables, parts, empty: None, left_out: None, rows: None }
}

fn draw_planned(theme: Theme, chance: &mut Random) -> Vec<Planned> {
    if matches!(theme, Theme::Quiet | Theme::Hostile) {
        return Vec::new();
    }
    let mut planned: Vec<_> = (0..1 + chance.below(5)).map(|_| Planned::outage(chance)).collect();
    match theme {
        Theme::RollBacks => {
            let side = Side::draw(chance);
            planned.push(Planned::snapshot(chance, side));
            planned.push(Planned::draw(chance, Action::RollBack(side)));
        }
        Theme::Changes => {
            planned.push(Planned::draw(chance, Action::ChangeSource));
            planned.push(Planned::draw(chance, Action::ChangeSource));
        }
        Theme::Clocks => {
            let year_ms = 365 * 24 * 3_600_000;
            let by_ms = [year_ms, -year_ms, 20_000, -20_000, 3_600_000][chance.below(5)];
            let jump = Action::ClockJump(Side::draw(chance), by_ms);
            planned.push(Planned::draw(chance, jump));
        }
        _ => {}
    }
    planned
}

/// The rows of one part.
struct Table {
    section: Section,
    rows: Vec<(i64, Vec<u8>)>,
}

impl Table {
    fn draw(section: Section, chance: &mut Random) -> Self {
        let row = |chance: &mut Random| (chance.number() as i64, vec![b'a' + chance.below(3) as u8; chance.below(120)]);
        Self { section, rows: (0..chance.below(40)).map(|_| row(chance)).collect() }
    }

    fn change(&mut self, chance: &mut Random) {
        let at = chance.below(self.rows.len());
        match chance.below(3) {
            0 if !self.rows.is_empty() => self.rows[at].0 ^= 1,
            1 if !self.rows.is_empty() => self.rows.truncate(at),
            _ => self.rows.push((0, b"one more".to_vec())),
        }
    }

    fn content(&self) -> PartContent {
        let row = |(number, text): &(i64, Vec<u8>)| {
            let mut row = BytesMut::new();
            put_cell(&mut row, Cell { format: 1, bytes: &number.to_be_bytes() });
            put_cell(&mut row, Cell { format: 2, bytes: text });
            row.to_vec()
        };
        PartContent { section: self.section, rows: self.rows.iter().map(row).collect() }
    }
}
