//! The order in which definitions are made side by side.

use std::collections::{BTreeMap, BTreeSet};

use crate::archive::{Archive, Entry};

/// Definitions that are not made yet. Each begins when those that it depends on are made, and no
/// other one that runs needs a lock on the same table: they would wait for each other, or worse.
/// Indexes of one table are made side by side.
pub struct Schedule<'a> {
    waiting: Vec<Planned<'a>>,
    running: Vec<Planned<'a>>,
    /// The numbers of both.
    unfinished: BTreeSet<i32>,
}

#[derive(Clone)]
struct Planned<'a> {
    entry: &'a Entry,
    /// The tables that it locks.
    tables: BTreeSet<i32>,
}

impl<'a> Schedule<'a> {
    pub fn new(archive: &Archive, entries: &[&'a Entry]) -> Self {
        let by_id: BTreeMap<i32, &Entry> = archive.entries.iter().map(|entry| (entry.id, entry)).collect();
        let plan = |entry: &&'a Entry| Planned { entry, tables: tables(entry, &by_id) };
        let unfinished = entries.iter().map(|entry| entry.id).collect();
        Self { waiting: entries.iter().map(plan).collect(), running: Vec::new(), unfinished }
    }

    /// Whether everything is made.
    pub fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Takes the next one that can begin now. Until it [ends](Self::end), it is running.
    pub fn begin(&mut self) -> Option<&'a Entry> {
        let place = self.waiting.iter().position(|planned| self.may_begin(planned));
        // What depends on each other in a circle is made in the order of the archive.
        let place = place.or((self.running.is_empty() && !self.waiting.is_empty()).then_some(0))?;
        let planned = self.waiting.remove(place);
        self.running.push(planned.clone());
        Some(planned.entry)
    }

    /// It is made, or could not be.
    pub fn end(&mut self, entry: &Entry) {
        self.running.retain(|running| running.entry.id != entry.id);
        self.unfinished.remove(&entry.id);
    }

    fn may_begin(&self, planned: &Planned<'_>) -> bool {
        let is_free = |running: &Planned<'_>| {
            let both_indexes = is_index(running.entry) && is_index(planned.entry);
            both_indexes || running.tables.is_disjoint(&planned.tables)
        };
        let depends = planned.entry.depends_on.iter().any(|id| self.unfinished.contains(id));
        !depends && self.running.iter().all(is_free)
    }
}

fn is_index(entry: &Entry) -> bool {
    entry.kind == "INDEX"
}

/// The tables that an entry names as what it depends on, and those of the indexes and constraints
/// among that: a foreign key names the key that it refers to, not the table.
fn tables(entry: &Entry, by_id: &BTreeMap<i32, &Entry>) -> BTreeSet<i32> {
    let of = |entry: &Entry| entry.depends_on.iter().filter_map(|id| by_id.get(id).copied()).collect::<Vec<_>>();
    let is_table = |entry: &&Entry| matches!(entry.kind.as_str(), "TABLE" | "MATERIALIZED VIEW" | "FOREIGN TABLE");
    let direct = of(entry);
    let indirect = direct.iter().filter(|entry| !is_table(entry)).flat_map(|entry| of(entry)).collect::<Vec<_>>();
    direct.iter().chain(&indirect).filter(|entry| is_table(entry)).map(|entry| entry.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Section;

    fn entry(id: i32, kind: &str, depends_on: &[i32]) -> Entry {
        Entry {
            id,
            tag: format!("{kind} {id}"),
            kind: kind.into(),
            section: Section::PostData,
            definition: String::new(),
            drop: String::new(),
            schema: None,
            tablespace: None,
            access_method: None,
            is_partitioned: false,
            owner: String::new(),
            depends_on: depends_on.to_vec(),
        }
    }

    /// Indexes of one table run together; a key waits for them, and a foreign key for both keys and
    /// for what else is done to both tables.
    #[test]
    fn what_would_wait_for_each_other_does_not_run_together() {
        let entries = vec![
            entry(1, "TABLE", &[]),
            entry(2, "TABLE", &[]),
            entry(11, "INDEX", &[1]),
            entry(12, "INDEX", &[1]),
            entry(13, "CONSTRAINT", &[1]),
            entry(14, "CONSTRAINT", &[2]),
            entry(15, "FK CONSTRAINT", &[2, 13]),
            entry(16, "TRIGGER", &[1]),
        ];
        let archive = Archive { server_version: String::new(), dump_version: String::new(), entries };
        let after: Vec<&Entry> = archive.entries[2..].iter().collect();
        let mut schedule = Schedule::new(&archive, &after);
        let begun = |schedule: &mut Schedule<'_>| {
            std::iter::from_fn(|| schedule.begin().map(|entry| entry.id)).collect::<Vec<_>>()
        };
        let end = |schedule: &mut Schedule<'_>, id: i32| {
            schedule.end(archive.entries.iter().find(|entry| entry.id == id).unwrap());
        };
        assert_eq!(begun(&mut schedule), [11, 12, 14]);
        end(&mut schedule, 11);
        assert_eq!(begun(&mut schedule), [0; 0]);
        end(&mut schedule, 12);
        assert_eq!(begun(&mut schedule), [13]);
        end(&mut schedule, 14);
        assert_eq!(begun(&mut schedule), [0; 0]);
        end(&mut schedule, 13);
        assert_eq!(begun(&mut schedule), [15]);
        end(&mut schedule, 15);
        assert_eq!(begun(&mut schedule), [16]);
        assert!(!schedule.is_over());
        end(&mut schedule, 16);
        assert!(schedule.is_over());
    }

    #[test]
    fn a_circle_is_broken() {
        let entries = vec![entry(1, "RULE", &[2]), entry(2, "RULE", &[1])];
        let archive = Archive { server_version: String::new(), dump_version: String::new(), entries };
        let mut schedule = Schedule::new(&archive, &archive.entries.iter().collect::<Vec<_>>());
        let first = schedule.begin().unwrap();
        assert_eq!((first.id, schedule.begin().map(|entry| entry.id)), (1, None));
        schedule.end(first);
        assert_eq!(schedule.begin().map(|entry| entry.id), Some(2));
    }
}
