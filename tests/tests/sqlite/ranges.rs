//! Large tables, which are loaded in ranges: issue 10, item 2. The ranges are small here.

use rusqlite::Connection;
use sealift_protocol::{id::PartIndex, manifest::Section, receive::WholePart};
use sealift_tests::one_load::OneLoad;

use crate::{
    assert_same,
    compare::strings,
    nasty,
    pump::{Folder, Pump, TRANSFER, digests},
};

const RANGE_BYTES: u64 = 64 << 10;

/// Rows with negative rowids and gaps, in tables of which one has indexes that are sorted, one a
/// trigger, and one counts.
const TABLES: &str = "
    CREATE TABLE visit(x INTEGER PRIMARY KEY, y UNIQUE, z); CREATE INDEX visit_z ON visit(z);
    CREATE INDEX visit_length ON visit(length(z));
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 4000)
    INSERT INTO visit SELECT (i - 1000) * 1000003, 'row ' || i, hex(randomblob(i % 90)) FROM n;
    CREATE TABLE scan(x INTEGER PRIMARY KEY AUTOINCREMENT, y AS (x * 2) STORED, z);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000)
    INSERT INTO scan(z) SELECT zeroblob(100) FROM n;
    CREATE TABLE visited(x); CREATE TRIGGER visits AFTER INSERT ON visit BEGIN INSERT INTO visited VALUES(new.x); END;";

/// Loads the parts that are not there.
fn load_missing(pump: &mut Pump<'_>) {
    let have: Vec<PartIndex> = pump.have.iter().map(|whole| whole.part).collect();
    let parts = (0..pump.plan.parts.len() as u32).map(PartIndex);
    for part in parts.filter(|part| !have.contains(part)) {
        pump.part(part).unwrap();
    }
}

fn prove_and_publish(pump: &mut Pump<'_>, load: &OneLoad) {
    let tables = load.prove(&digests()).unwrap().tables;
    assert_eq!(tables, pump.tables_as_read());
    load.publish().unwrap();
    load.target.forget(TRANSFER);
}

fn ranges(pump: &Pump<'_>) -> usize {
    pump.plan.parts.iter().filter(|part| part.range.is_some()).count()
}

#[test]
fn tables_in_ranges_arrive_exactly() {
    for encoding in ["UTF-8", "UTF-16le"] {
        let folder = Folder::new();
        let source = folder.build(&format!("PRAGMA encoding='{encoding}';"));
        nasty::fill(&source);
        source.execute_batch(TABLES).unwrap();
        source.close().unwrap();
        let load = folder.load();
        let mut pump = Pump::start_in_ranges(&folder, &load, RANGE_BYTES).unwrap();
        assert!(ranges(&pump) > 5);
        load_missing(&mut pump);
        prove_and_publish(&mut pump, &load);
        assert_same(&folder);
        let [source, target] = [folder.source(), folder.target()].map(|path| Connection::open(path).unwrap());
        // Some rows break a constraint, in both.
        assert_eq!(strings(&source, "PRAGMA integrity_check"), strings(&target, "PRAGMA integrity_check"));
    }
}

/// Faults C2, C6: suspended after each part, and in the middle of each, a load goes on from the
/// ranges that are committed.
#[test]
fn a_load_goes_on_from_the_ranges_that_are_committed() {
    let folder = Folder::new();
    folder.build(TABLES).close().unwrap();
    let mut loaded: Vec<WholePart> = Vec::new();
    for part in 0.. {
        let load = folder.load();
        let mut pump = Pump::start_in_ranges(&folder, &load, RANGE_BYTES).unwrap();
        assert_eq!(pump.have, loaded);
        if part == pump.plan.parts.len() {
            assert!(ranges(&pump) > 5);
            prove_and_publish(&mut pump, &load);
            break;
        }
        loaded.push(pump.whole_part(PartIndex(part as u32)).unwrap().1);
        let next = PartIndex(part as u32 + 1);
        if pump.plan.section(next) == Some(Section::Data) {
            let mut loader = load.begin(next, &digests()).unwrap();
            pump.feed(next, &mut *loader).unwrap();
        }
    }
    assert_same(&folder);
    assert_eq!(strings(&Connection::open(folder.target()).unwrap(), "PRAGMA integrity_check"), ["ok"]);
}
