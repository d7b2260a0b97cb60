//! The tables that `--include` and `--exclude` leave out.
//!
//! A table is left out with what is its own: partitions, indexes, constraints, triggers and the
//! sequences of its columns. All else that people made is moved, as a schema without tables is.
//! What is moved must not need what is left out: a foreign key or a view on such a table is an
//! error.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use sealift_engine_api::{Filter, Finding};
use sealift_protocol::failure::{Failure, Outcome};

use super::{
    moment::{Relation, Relations},
    pattern::Pattern,
};
use crate::{
    client::{At, Connection, End, Error, Result},
    document::Object,
    large_objects::RELATION as LARGE_OBJECTS,
    names::listed,
    sql::quote_qualified,
};

/// Relations that pg_dump is to leave out, each an argument of its command line. The system bounds
/// the length of all of them.
const LEFT_OUT_MAX: usize = 10_000;

/// The relations that are not moved.
#[derive(Clone, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct LeftOut {
    /// Tables and partitioned tables.
    #[n(0)]
    tables: Relations,
    /// Sequences of their columns, as (schema, name).
    #[n(1)]
    sequences: Vec<(u32, String, String)>,
    /// No large object is moved.
    #[n(2)]
    pub large_objects: bool,
}

impl LeftOut {
    /// Finds what the filter leaves out of these relations. A pattern that matches nothing is an
    /// error.
    pub fn find(connection: &mut Connection, filter: &Filter, relations: &Relations) -> Outcome<Self> {
        if filter.has_all_tables() {
            return Ok(Self::default());
        }
        let parents = parents(connection, relations).at(End::Source, "listing the partitions")?;
        let mut universe: Vec<u32> = relations.keys().copied().collect();
        universe.push(LARGE_OBJECTS);
        let mut matching = |patterns: &[String]| -> Outcome<BTreeSet<u32>> {
            let mut found = BTreeSet::new();
            for pattern in patterns {
                found.append(&mut matches(connection, pattern, &universe)?);
            }
            // A partition goes with the table that it is a part of.
            let with_parent = |oid: &&u32| above(**oid, &parents).any(|above| found.contains(&above));
            Ok(universe.iter().filter(with_parent).copied().collect())
        };
        let (included, excluded) = (matching(&filter.include)?, matching(&filter.exclude)?);
        let is_left_out = |oid: &u32| !filter.include.is_empty() && !included.contains(oid) || excluded.contains(oid);
        let tables: Relations = relations
            .iter()
            .filter(|(oid, _)| is_left_out(oid))
            .map(|(oid, relation)| (*oid, relation.clone()))
            .collect();
        let oids: Vec<u32> = tables.keys().copied().collect();
        let sequences = sequences(connection, &oids).at(End::Source, "listing the sequences of tables")?;
        let left_out = Self { tables, sequences, large_objects: is_left_out(&LARGE_OBJECTS) };
        match left_out.names().count() <= LEFT_OUT_MAX {
            true => Ok(left_out),
            false => {
                let what = format!("over {LEFT_OUT_MAX} tables and sequences would be left out");
                Err(Failure::usage(what, "Leave out fewer tables, or move the database whole."))
            }
        }
    }

    pub fn has(&self, oid: u32) -> bool {
        self.tables.contains_key(&oid)
    }

    /// How many tables are left out; all large objects are one.
    pub fn count(&self) -> usize {
        self.tables.len() + usize::from(self.large_objects)
    }

    /// Whether it is the sequence of a column of a table that is left out.
    pub fn has_sequence(&self, schema: &str, name: &str) -> bool {
        self.sequences.iter().any(|(_, of, sequence)| of == schema && sequence == name)
    }

    /// The relations as pg_dump's patterns have them, each matching one alone.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let tables = self.tables.values().map(|Relation { schema, name, .. }| (schema, name));
        let sequences = self.sequences.iter().map(|(_, schema, name)| (schema, name));
        tables.chain(sequences).map(|(schema, name)| quote_qualified(schema, name))
    }

    /// The objects of the database without those that are left out.
    pub fn retain_moved(&self, connection: &mut Connection, objects: &mut Vec<Object>) -> Result {
        if self.tables.is_empty() {
            return Ok(());
        }
        let identities: Vec<String> = connection
            .query(IDENTITIES, &[&self.oids()])?
            .iter()
            .map(|row| Ok(row.try_get(0)?))
            .collect::<Result<_>>()?;
        let identities: BTreeSet<String> = identities.into_iter().collect();
        objects.retain(|object| !is_of(object, &identities));
        Ok(())
    }

    /// What is left out, and what needs it.
    pub fn findings(&self, connection: &mut Connection) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let mut names: Vec<String> =
            self.tables.values().map(|Relation { schema, name, .. }| format!("{schema}.{name}")).collect();
        if self.large_objects {
            names.push("all large objects".into());
        }
        if !names.is_empty() {
            let what = format!("not moved, as --include and --exclude have it: {}", listed(&names));
            findings.push(Finding::note("left-out", what));
        }
        let needs: Vec<String> =
            connection.query(NEEDS, &[&self.oids()])?.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<_>>()?;
        if !needs.is_empty() {
            let what = format!("what is moved needs tables that are left out: {}", listed(&needs));
            let hint = "Include those tables, too, or exclude the tables of which these are.";
            findings.push(Finding::error("left-out-is-needed", what, hint));
        }
        Ok(findings)
    }

    fn oids(&self) -> Vec<u32> {
        self.tables.keys().copied().chain(self.sequences.iter().map(|(oid, ..)| *oid)).collect()
    }
}

const MATCHES: &str = "\
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.oid = ANY ($1) AND n.nspname::pg_catalog.text OPERATOR(pg_catalog.~) $2 \
      AND c.relname::pg_catalog.text OPERATOR(pg_catalog.~) $3";

/// An expression that the server does not take.
const INVALID_REGULAR_EXPRESSION: &str = "2201B";

/// The relations of `universe` that match a pattern. One that matches none is an error.
pub(super) fn matches(connection: &mut Connection, text: &str, universe: &[u32]) -> Outcome<BTreeSet<u32>> {
    let invalid = || {
        let next = "Give TABLE or SCHEMA.TABLE, where * is any text and ? is any character; names with capitals in double quotes.";
        Failure::usage(format!("'{text}' is no pattern for the names of tables"), next)
    };
    let Pattern { schema, table } = Pattern::parse(text).ok_or_else(invalid)?;
    let rows = match connection.query(MATCHES, &[&universe, &schema, &table]) {
        Ok(rows) => rows,
        Err(error) if error.sqlstate() == Some(INVALID_REGULAR_EXPRESSION) => return Err(invalid()),
        Err(error) => return Err(error.at(End::Source, "looking for the tables of a pattern")),
    };
    if rows.is_empty() {
        let what = format!("no table of the source matches '{text}'");
        return Err(Failure::usage(
            what,
            "See the names with --dry-run. Names with capitals have to be in double quotes.",
        ));
    }
    let oids = rows.iter().map(|row| row.try_get(0).map_err(Error::from));
    oids.collect::<Result<_>>().at(End::Source, "looking for the tables of a pattern")
}

/// Of each partition, the table above it.
pub(super) fn parents(connection: &mut Connection, relations: &Relations) -> Result<BTreeMap<u32, u32>> {
    let sql = "SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i \
               JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition";
    let pairs = connection.query(sql, &[])?;
    let pairs: Vec<(u32, u32)> =
        pairs.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_>>()?;
    Ok(pairs.into_iter().filter(|(child, _)| relations.contains_key(child)).collect())
}

/// A table, the one above it, and so on.
pub(super) fn above(oid: u32, parents: &BTreeMap<u32, u32>) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(oid), |oid| parents.get(oid).copied()).take(parents.len() + 1)
}

fn sequences(connection: &mut Connection, tables: &[u32]) -> Result<Vec<(u32, String, String)>> {
    let sql = "SELECT DISTINCT s.oid, n.nspname::pg_catalog.text, s.relname::pg_catalog.text FROM pg_catalog.pg_depend d \
               JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S' \
               JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace \
               WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                 AND d.refobjid = ANY ($1) AND d.deptype IN ('a', 'i')";
    let row = |row: &crate::client::Row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    connection.query(sql, &[&tables])?.iter().map(row).collect()
}

/// As the inventory names relations, and what is of them.
const IDENTITIES: &str = "\
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.oid = ANY ($1) OR c.oid IN (SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = ANY ($1)) \
    UNION ALL SELECT pg_catalog.format('%I.%I', n.nspname, s.stxname) FROM pg_catalog.pg_statistic_ext s \
        JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = ANY ($1)";

/// Kinds of the inventory that are relations, or of one: `schema.relation` or
/// `schema.relation.name`. Other kinds may have a relation's name.
const OF_RELATIONS: [&str; 12] = [
    "table",
    "partitioned table",
    "sequence",
    "index",
    "column",
    "constraint",
    "trigger",
    "rule",
    "policy",
    "statistics",
    "statistics object",
    "table column",
];

fn is_of(object: &Object, identities: &BTreeSet<String>) -> bool {
    let kind = object
        .kind
        .split_once(" of ")
        .or_else(|| object.kind.split_once(" on "))
        .map_or(&*object.kind, |split| split.1);
    if !OF_RELATIONS.contains(&kind) {
        return false;
    }
    let identity = &object.identity;
    let mut ends = identity.match_indices('.').map(|(end, _)| &identity[..end]);
    identities.contains(identity) || ends.any(|relation| identities.contains(relation))
}

/// What depends on these relations or on the types of their rows, and is not of one of them.
const NEEDS: &str = "\
    WITH needed AS ( \
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS class, oid FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS oid \
        UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid FROM pg_catalog.pg_type t \
            WHERE t.typrelid = ANY ($1) OR t.typelem IN (SELECT r.oid FROM pg_catalog.pg_type r WHERE r.typrelid = ANY ($1))) \
    SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, 0) \
    FROM pg_catalog.pg_depend d JOIN needed ON d.refclassid = needed.class AND d.refobjid = needed.oid \
    LEFT JOIN LATERAL ( \
        SELECT c.oid FROM pg_catalog.pg_class c \
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid AND c.relkind NOT IN ('i', 'I', 't') \
        UNION ALL SELECT i.indrelid FROM pg_catalog.pg_index i \
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.indexrelid = d.objid \
        UNION ALL SELECT k.conrelid FROM pg_catalog.pg_constraint k \
            WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = d.objid \
        UNION ALL SELECT a.adrelid FROM pg_catalog.pg_attrdef a \
            WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = d.objid \
        UNION ALL SELECT t.tgrelid FROM pg_catalog.pg_trigger t \
            WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = d.objid \
        UNION ALL SELECT r.ev_class FROM pg_catalog.pg_rewrite r \
            WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid \
        UNION ALL SELECT p.polrelid FROM pg_catalog.pg_policy p \
            WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = d.objid \
        UNION ALL SELECT s.stxrelid FROM pg_catalog.pg_statistic_ext s \
            WHERE d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND s.oid = d.objid \
        UNION ALL SELECT p.prrelid FROM pg_catalog.pg_publication_rel p \
            WHERE d.classid = 'pg_catalog.pg_publication_rel'::pg_catalog.regclass AND p.oid = d.objid \
    ) AS of_relation ON true \
    WHERE d.deptype IN ('n', 'a') AND NOT COALESCE(of_relation.oid = ANY ($1), false) \
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass \
          AND t.oid = d.objid AND t.tgisinternal) \
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
          AND c.oid = d.objid AND c.relkind = 't') \
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass \
          AND t.oid = d.objid AND t.typrelid = ANY ($1)) \
    ORDER BY 1";
