//! Text that looks like a plain dump of a hospital's database, made from a seed: five tables as
//! `COPY` blocks, packed about 3.2 times by zstd at level 1, as a real one is. Nobody in it exists.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::Path,
};

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): fast, and the same on every machine.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

const FAMILY: &[&str] = &[
    "Alvarez",
    "Bergmann",
    "Chaudhry",
    "Dubois",
    "Eriksen",
    "Fontaine",
    "Grabowski",
    "Haddad",
    "Ivanova",
    "Jankovic",
    "Kimura",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "Okafor",
    "Petrov",
    "Quintero",
    "Rossi",
    "Santos",
    "Tanaka",
];
const GIVEN: &[&str] = &[
    "Ada", "Bruno", "Chiara", "Dmitri", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Keiko", "Lars", "Mina",
    "Noor", "Olga", "Pavel", "Rania", "Sven", "Tomas", "Yara",
];
const OBSERVED: &[(&str, &str, &str)] = &[
    ("8867-4", "Heart rate", "/min"),
    ("8480-6", "Systolic blood pressure", "mm[Hg]"),
    ("8462-4", "Diastolic blood pressure", "mm[Hg]"),
    ("2339-0", "Glucose [Mass/volume] in Blood", "mg/dL"),
    ("2160-0", "Creatinine [Mass/volume] in Serum", "mg/dL"),
    ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL"),
    ("6690-2", "Leukocytes [#/volume] in Blood", "10*3/uL"),
    ("2951-2", "Sodium [Moles/volume] in Serum", "mmol/L"),
    ("9279-1", "Respiratory rate", "/min"),
    ("8310-5", "Body temperature", "Cel"),
];
const PHRASES: &[&str] = &[
    "Patient seen on the ward round",
    "denies chest pain",
    "reports mild shortness of breath on exertion",
    "lungs clear to auscultation",
    "no peripheral oedema",
    "continue current medication",
    "repeat laboratory work tomorrow morning",
    "discussed with the family",
    "wound dry and healing well",
    "afebrile overnight",
    "pain controlled with oral analgesia",
    "mobilising with assistance",
    "awaiting review by cardiology",
    "plan for discharge at the end of the week",
    "blood pressure above target",
    "advised to return if symptoms worsen",
    "allergies reviewed and unchanged",
    "tolerating a normal diet",
];
const CLASSES: &[&str] = &["inpatient", "outpatient", "emergency", "home", "virtual"];

/// Rows of one `COPY` block of each table: a block of all five is about 4 MB, so that a pass of a
/// bench sees them all.
const BLOCK_ROWS: [u64; 5] = [500, 2000, 12_000, 2500, 120];

/// An endless dump; the same seed gives the same bytes.
pub struct Dump {
    numbers: Numbers,
    table: usize,
    row: u64,
    id: u64,
    line: Vec<u8>,
    taken: usize,
}

impl Dump {
    pub fn new(seed: u64) -> Self {
        Self { numbers: Numbers(seed), table: 0, row: 0, id: 1, line: Vec::new(), taken: 0 }
    }

    /// The first `bytes` of it.
    pub fn take_bytes(seed: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes);
        Self::new(seed).take(bytes as u64).read_to_end(&mut out)?;
        Ok(out)
    }

    fn write_next(&mut self) -> io::Result<()> {
        self.line.clear();
        self.taken = 0;
        if self.row == 0 {
            self.write_head()?;
        }
        match self.table {
            0 => self.write_patient()?,
            1 => self.write_encounter()?,
            2 => self.write_observation()?,
            3 => self.write_note()?,
            _ => self.write_document()?,
        }
        self.id += 1;
        self.row += 1;
        if self.row == BLOCK_ROWS[self.table] {
            self.line.extend_from_slice(b"\\.\n\n");
            self.row = 0;
            self.table = (self.table + 1) % BLOCK_ROWS.len();
        }
        Ok(())
    }

    fn write_head(&mut self) -> io::Result<()> {
        let head = match self.table {
            0 => "patient (id, mrn, family, given, born, sex, phone, street, updated)",
            1 => "encounter (id, patient_id, class, started, ended, ward, clinician)",
            2 => "observation (id, patient_id, encounter_id, taken, code, display, value, unit)",
            3 => "note (id, encounter_id, written, author, body)",
            _ => "document (id, encounter_id, type, content)",
        };
        writeln!(self.line, "COPY hospital.{head} FROM stdin;")
    }

    fn write_time(&mut self) -> io::Result<()> {
        let second = self.numbers.below(86_400);
        let day = self.numbers.below(28) + 1;
        let month = self.numbers.below(12) + 1;
        let (hour, minute) = (second / 3600, second / 60 % 60);
        write!(self.line, "\t2024-{month:02}-{day:02} {hour:02}:{minute:02}:{:02}+00", second % 60)
    }

    fn write_patient(&mut self) -> io::Result<()> {
        let numbers = &mut self.numbers;
        let (family, given) = (numbers.one_of(FAMILY), numbers.one_of(GIVEN));
        let (mrn, phone, house) = (numbers.below(100_000_000), numbers.below(10_000_000), numbers.below(400));
        let (year, sex) = (1930 + numbers.below(90), numbers.one_of(&["F", "M"]));
        write!(self.line, "{}\tMRN{mrn:08}\t{family}\t{given}\t{year}-06-15\t{sex}", self.id)?;
        write!(self.line, "\t+1-555-{phone:07}\t{house} {given} Street")?;
        self.write_time()?;
        self.line.write_all(b"\n")
    }

    fn write_encounter(&mut self) -> io::Result<()> {
        let (patient, class) = (self.numbers.below(self.id) + 1, self.numbers.one_of(CLASSES));
        write!(self.line, "{}\t{patient}\t{class}", self.id)?;
        self.write_time()?;
        self.write_time()?;
        let (ward, clinician) = (self.numbers.below(40), self.numbers.one_of(FAMILY));
        writeln!(self.line, "\tward-{ward:02}\tDr {clinician}")
    }

    fn write_observation(&mut self) -> io::Result<()> {
        let numbers = &mut self.numbers;
        let (code, display, unit) = numbers.one_of(OBSERVED);
        let (patient, value) = (numbers.below(self.id) + 1, numbers.below(2000));
        write!(self.line, "{}\t{patient}\t{}", self.id, self.id / 7)?;
        self.write_time()?;
        writeln!(self.line, "\t{code}\t{display}\t{}.{}\t{unit}", value / 10, value % 10)
    }

    fn write_note(&mut self) -> io::Result<()> {
        write!(self.line, "{}\t{}", self.id, self.id / 3)?;
        self.write_time()?;
        let author = self.numbers.one_of(FAMILY);
        write!(self.line, "\tDr {author}\t")?;
        for _ in 0..4 + self.numbers.below(12) {
            let phrase = self.numbers.one_of(PHRASES);
            write!(self.line, "{phrase} ({}). ", self.numbers.below(1000))?;
        }
        self.line.write_all(b"\n")
    }

    /// A scan in hexadecimal, as `bytea` is dumped: half of it is all that packs.
    fn write_document(&mut self) -> io::Result<()> {
        write!(self.line, "{}\t{}\tapplication/pdf\t\\\\x", self.id, self.id / 5)?;
        for _ in 0..64 + self.numbers.below(1024) {
            let word = self.numbers.next();
            for nibble in 0..16 {
                self.line.push(b"0123456789abcdef"[(word >> (4 * nibble)) as usize & 15]);
            }
        }
        self.line.write_all(b"\n")
    }
}

/// Writes the first `bytes` of a dump into a file.
pub fn write_file(path: &Path, seed: u64, bytes: u64) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    io::copy(&mut Dump::new(seed).take(bytes), &mut out)?;
    out.into_inner()?.sync_all()
}

impl Read for Dump {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.line.len() {
            self.write_next()?;
        }
        let copied = out.len().min(self.line.len() - self.taken);
        out[..copied].copy_from_slice(&self.line[self.taken..][..copied]);
        self.taken += copied;
        Ok(copied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the figures rest on: the same text every time, and packed as far as a real dump is.
    #[test]
    fn a_dump_is_repeatable_and_packs_like_a_real_one() {
        let dump = Dump::take_bytes(1, 16 << 20).unwrap();
        assert_eq!(dump, Dump::take_bytes(1, 16 << 20).unwrap());
        assert_ne!(dump, Dump::take_bytes(2, 16 << 20).unwrap());
        let packed: usize = dump.chunks(1 << 20).map(|chunk| zstd::bulk::compress(chunk, 1).unwrap().len()).sum();
        let ratio = dump.len() as f64 / packed as f64;
        assert!((3.0..3.5).contains(&ratio), "{ratio}");
    }
}
