//! Disks that keep what was synced, and of the rest whatever they like: a killed process leaves its
//! unsynced writes to the system, which may or may not get to them before the power goes.

use crate::random::Random;

/// A file that is replaced as a whole: written beside its place, synced, renamed.
#[derive(Clone)]
pub struct Kept<T> {
    synced: T,
    /// What was written since, oldest first.
    unsynced: Vec<T>,
}

impl<T: Clone> Kept<T> {
    pub fn new(value: T) -> Self {
        Self { synced: value, unsynced: Vec::new() }
    }

    pub fn read(&self) -> &T {
        self.unsynced.last().unwrap_or(&self.synced)
    }

    /// Whether what is read is what a loss of power leaves.
    pub fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    pub fn write(&mut self, value: T) {
        self.unsynced.push(value);
    }

    pub fn sync(&mut self) {
        if let Some(last) = self.unsynced.pop() {
            self.synced = last;
            self.unsynced.clear();
        }
    }

    /// Power is lost: any of the states since the last sync is what is found.
    pub fn lose_power(&mut self, chance: &mut Random) {
        let found = chance.below(self.unsynced.len() + 1);
        self.unsynced.truncate(found);
        self.sync();
    }
}

/// A file that is appended to.
#[derive(Clone)]
pub struct Log<T> {
    entries: Vec<Entry<T>>,
    synced: usize,
    /// Its contents before it was begun again, until that is synced.
    before: Option<Vec<Entry<T>>>,
}

#[derive(Clone)]
enum Entry<T> {
    Whole(T),
    /// Never written, or half: its checksum shows that.
    Torn,
}

impl<T: Clone> Log<T> {
    pub fn new() -> Self {
        Self { entries: Vec::new(), synced: 0, before: None }
    }

    /// What is there, whether or not it is synced.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Whole(value) => Some(value),
            Entry::Torn => None,
        })
    }

    /// Entries that no loss of power takes away.
    pub fn synced(&self) -> usize {
        self.synced
    }

    /// Whether none is lost with the power.
    pub fn is_synced(&self) -> bool {
        self.synced == self.entries.len()
    }

    pub fn append(&mut self, entry: T) {
        self.entries.push(Entry::Whole(entry));
    }

    pub fn sync(&mut self) {
        self.synced = self.entries.len();
        self.before = None;
    }

    pub fn begin_anew(&mut self) {
        let synced = self.entries[..self.synced].to_vec();
        self.before.get_or_insert(synced);
        (self.entries, self.synced) = (Vec::new(), 0);
    }

    /// Power is lost: any of the unsynced entries are there, in whichever order they reached the
    /// disk.
    pub fn lose_power(&mut self, chance: &mut Random) {
        if let Some(before) = self.before.take().filter(|_| chance.chance(50.0)) {
            (self.synced, self.entries) = (before.len(), before);
        }
        for entry in &mut self.entries[self.synced..] {
            if chance.chance(50.0) {
                *entry = Entry::Torn;
            }
        }
    }

    /// Reads it after a crash: cuts it at the first entry that is not whole (faults C10, C11).
    pub fn recover(&mut self) -> Vec<T> {
        let whole = self.entries.iter().take_while(|entry| matches!(entry, Entry::Whole(_))).count();
        assert!(whole >= self.synced, "what was synced is there");
        self.entries.truncate(whole);
        self.sync();
        let values = self.entries.iter().map(|entry| match entry {
            Entry::Whole(value) => value.clone(),
            Entry::Torn => unreachable!("cut off above"),
        });
        values.collect()
    }
}
