//! Materialized views, in the order in which they can be filled.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    client::{Connection, Result},
    document::MaterializedView,
};

const VIEWS: &str = "\
    SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relispopulated \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'm' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' \
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
          AND d.objid = c.oid AND d.deptype = 'e') \
    ORDER BY 2, 3";

/// Which relation each view reads, through the rule that is its query.
const READS: &str = "\
    SELECT DISTINCT r.ev_class, d.refobjid \
    FROM pg_catalog.pg_rewrite r \
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid \
         AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.ev_class \
    JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind IN ('v', 'm')";

pub fn read(connection: &mut Connection) -> Result<Vec<MaterializedView>> {
    let mut views = Vec::new();
    for row in connection.query(VIEWS, &[])? {
        let view = MaterializedView { schema: row.try_get(1)?, name: row.try_get(2)?, populated: row.try_get(3)? };
        views.push((row.try_get(0)?, view));
    }
    if views.is_empty() {
        return Ok(Vec::new());
    }
    let mut reads: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for row in connection.query(READS, &[])? {
        reads.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?);
    }
    Ok(in_order(views, &reads))
}

/// Each after all that it reads, also through other views. `reads` has no cycles in a catalogue
/// that is whole; one in a damaged catalogue is cut somewhere.
fn in_order(views: Vec<(u32, MaterializedView)>, reads: &BTreeMap<u32, BTreeSet<u32>>) -> Vec<MaterializedView> {
    let order: Vec<u32> = views.iter().map(|(oid, _)| *oid).collect();
    let mut by_oid: BTreeMap<u32, MaterializedView> = views.into_iter().collect();
    let mut seen = BTreeSet::new();
    let mut sorted = Vec::new();
    for oid in order {
        // Depth first, by a stack of its own: views can be stacked deeply.
        let mut stack = vec![(oid, false)];
        while let Some((oid, is_done)) = stack.pop() {
            if is_done {
                sorted.extend(by_oid.remove(&oid));
            } else if seen.insert(oid) {
                stack.push((oid, true));
                let below = reads.get(&oid).into_iter().flatten();
                stack.extend(below.filter(|below| !seen.contains(below)).map(|below| (*below, false)));
            }
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_comes_after_what_it_reads() {
        let view = |oid: u32| (oid, MaterializedView { schema: "s".into(), name: oid.to_string(), populated: true });
        // 1 reads 3 through the plain view 9, 3 reads 2, and 2 reads a table.
        let reads = [(1, 9), (9, 3), (3, 2), (2, 7)];
        let reads = reads.into_iter().map(|(view, below)| (view, BTreeSet::from([below]))).collect();
        let names: Vec<_> =
            in_order(vec![view(1), view(2), view(3)], &reads).into_iter().map(|view| view.name).collect();
        assert_eq!(names, ["2", "3", "1"]);
    }
}
