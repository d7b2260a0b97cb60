//! A large table is read back when its last part is committed, and what changes it afterwards is
//! found.

use std::{
    thread,
    time::{Duration, Instant},
};

use sealift_protocol::{
    close::Code,
    disposition::Asks,
    id::PartIndex,
    manifest::{Check, RowsCheck},
};

use crate::{Place, STAGING, TWO_TABLES, digests, failure};

/// Waits until `a` was read back.
fn wait_until_read_early(place: &Place) {
    let sql = format!(
        "select count(*) from pg_stat_activity where datname = '{STAGING}' and query = 'RESET client_encoding' and state = 'idle'"
    );
    let deadline = Instant::now() + Duration::from_secs(30);
    while place.server.query("postgres", &sql) == "0" {
        assert!(Instant::now() < deadline, "the table is not read back");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Issue 11, "each table may be read when its last part has committed"; D6, D11: what changes rows
/// between that and the proof is found, although their number may be the same.
#[test]
fn rows_that_change_after_they_were_read_back_are_found() {
    let Some(place) = Place::with_sql(TWO_TABLES) else { return };
    for change in [
        "update a set t = 'other' where n = 7",
        "delete from a where n = 2000",
        "insert into a values (0, 'more')",
        "delete from a where n = 7; insert into a values (7, repeat('x', 600))",
        "alter table a alter t type text using left(t, 5)",
    ] {
        let (load, found) = place.prepare(Asks::StartOver).unwrap();
        place.write(&load, 0).unwrap();
        place.write(&load, 1).unwrap();
        wait_until_read_early(&place);
        place.server.query(STAGING, change);
        (2..4).for_each(|part| drop(place.write(&load, part).unwrap()));
        let failure = failure(load.prove(&digests()));
        assert_eq!(failure.code, Code::TargetMismatch, "{change}: {failure}");
        assert!(failure.what.contains("public.a were changed after"), "{change}: {failure}");
        assert!(found.is_empty());
    }
    // What an earlier process has committed is read when the load is proven.
    for (stop_after, read_early) in [(4, 1), (2, 0)] {
        let (load, _) = place.prepare(Asks::StartOver).unwrap();
        (0..stop_after).for_each(|part| drop(place.write(&load, part).unwrap()));
        let (load, found) = match stop_after {
            4 => (load, vec![0, 1, 2, 3]),
            _ => {
                drop(load);
                place.prepare(Asks::Continue).map(|(load, _)| (load, vec![0, 1])).unwrap()
            }
        };
        let found: Vec<PartIndex> = found.into_iter().map(PartIndex).collect();
        let evidence = place.finish(&load, &found).unwrap();
        let rows = RowsCheck { tables_read_early: read_early, columns_not_compared: Vec::new() };
        assert!(evidence.checks.contains(&Check::Rows(rows)), "{evidence:?}");
        place.assert_published();
        // Of Debian's servers.
        if place.server.query("ehr", "select count(*) from pg_available_extensions where name = 'pg_visibility'") == "1"
        {
            place.server.query("ehr", "create extension pg_visibility");
            let not_frozen = "select count(*) from pg_visibility_map('a') where not all_frozen";
            assert_eq!(place.server.query("ehr", not_frozen), "0");
        }
        place.server.query("postgres", "drop database ehr");
    }
}
