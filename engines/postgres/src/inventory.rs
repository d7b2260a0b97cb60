//! The objects of a database, listed by the same statements on both ends.
//!
//! The source lists them at its snapshot, and the target when everything is made; the two lists
//! must be the same. A fact is something that `pg_dump` and a server of a later version keep:
//! definitions are not among them, since their text differs between versions.

mod owners;

pub use self::owners::{expected, is_compared};
use crate::{
    client::{Connection, Result},
    document::Object,
};

/// Not of the system, and not a member of an extension: `class` and `oid` name an object.
macro_rules! own {
    ($class:literal, $oid:literal) => {
        concat!(
            " NOT EXISTS (SELECT FROM pg_catalog.pg_depend own WHERE own.classid = 'pg_catalog.",
            $class,
            "'::pg_catalog.regclass AND own.objid = ",
            $oid,
            " AND own.deptype = 'e') "
        )
    };
}

/// The schema `n` is one that people made, or `public`.
macro_rules! of_people {
    () => {
        " n.nspname <> 'information_schema' AND n.nspname <> 'sealift' AND n.nspname !~ '^pg_' "
    };
}

/// Each gives kind, identity and facts of some objects.
const STATEMENTS: &[&str] = &[
    concat!(
        "SELECT 'schema', pg_catalog.quote_ident(n.nspname), '' FROM pg_catalog.pg_namespace n WHERE",
        of_people!(),
        "AND",
        own!("pg_namespace", "n.oid"),
    ),
    // Tables, views, materialized views, sequences, foreign tables, composite types.
    concat!(
        "SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' \
             WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' \
             ELSE 'composite type' END, \
         pg_catalog.format('%I.%I', n.nspname, c.relname), \
         pg_catalog.format('persistence %s, row security %s %s, partition %s, replica identity %s', c.relpersistence, \
             c.relrowsecurity, c.relforcerowsecurity, c.relispartition, c.relreplident) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND c.relpersistence <> 't' AND",
        of_people!(),
        "AND",
        own!("pg_class", "c.oid"),
    ),
    concat!(
        "SELECT 'column', pg_catalog.format('%I.%I.%I', n.nspname, c.relname, a.attname), \
         pg_catalog.format('type %s, not null %s, default %s, identity %s, generated %s, collation %s', \
             pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef, a.attidentity, a.attgenerated, \
             (SELECT l.collname FROM pg_catalog.pg_collation l WHERE l.oid = a.attcollation)) \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'm', 'f') AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped AND",
        of_people!(),
        "AND",
        own!("pg_class", "c.oid"),
    ),
    concat!(
        "SELECT 'index', pg_catalog.format('%I.%I', n.nspname, c.relname), \
         pg_catalog.format('table %I, method %s, unique %s, primary %s, exclusion %s, valid %s, clustered %s, columns %s %s', \
             t.relname, m.amname, i.indisunique, i.indisprimary, i.indisexclusion, i.indisvalid, i.indisclustered, \
             i.indnkeyatts, i.indnatts) \
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
         JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_am m ON m.oid = c.relam WHERE t.relpersistence <> 't' AND",
        of_people!(),
        "AND",
        own!("pg_class", "t.oid"),
    ),
    // From version 18 on, NOT NULL is a constraint, too.
    concat!(
        "SELECT 'constraint', pg_catalog.format('%I.%I.%I', n.nspname, \
             COALESCE((SELECT t.relname FROM pg_catalog.pg_class t WHERE t.oid = k.conrelid), \
                 (SELECT y.typname FROM pg_catalog.pg_type y WHERE y.oid = k.contypid)), k.conname), \
         pg_catalog.format('type %s, validated %s, deferrable %s %s', k.contype, k.convalidated, k.condeferrable, \
             k.condeferred) \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_namespace n ON n.oid = k.connamespace \
         WHERE k.contype NOT IN ('n', 't') AND",
        of_people!(),
        "AND",
        own!("pg_class", "k.conrelid"),
        "AND",
        own!("pg_type", "k.contypid"),
    ),
    // Before version 15, a partition's copy of a trigger is internal; it depends on the trigger.
    concat!(
        "SELECT 'trigger', pg_catalog.format('%I.%I.%I', n.nspname, c.relname, t.tgname), \
         pg_catalog.format('enabled %s, type %s', t.tgenabled, t.tgtype) \
         FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint \
         WHERE (NOT t.tgisinternal OR COALESCE(k.contype = 't', true) AND EXISTS (SELECT FROM pg_catalog.pg_depend p \
             WHERE p.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND p.objid = t.oid \
             AND p.refclassid = 'pg_catalog.pg_trigger'::pg_catalog.regclass)) AND",
        of_people!(),
        "AND",
        own!("pg_class", "c.oid"),
    ),
    concat!(
        "SELECT 'rule', pg_catalog.format('%I.%I.%I', n.nspname, c.relname, r.rulename), \
         pg_catalog.format('enabled %s, event %s, instead %s', r.ev_enabled, r.ev_type, r.is_instead) \
         FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE",
        of_people!(),
        "AND",
        own!("pg_class", "c.oid"),
    ),
    concat!(
        "SELECT 'policy', pg_catalog.format('%I.%I.%I', n.nspname, c.relname, p.polname), \
         pg_catalog.format('command %s, permissive %s', p.polcmd, p.polpermissive) \
         FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE",
        of_people!(),
    ),
    concat!(
        "SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END, \
         pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)), \
         pg_catalog.format('kind %s, security definer %s, volatile %s, strict %s, leakproof %s, parallel %s, \
             body %s', p.prokind, p.prosecdef, p.provolatile, p.proisstrict, p.proleakproof, p.proparallel, \
             pg_catalog.\"left\"(pg_catalog.encode(pg_catalog.sha256(pg_catalog.textsend(p.prosrc)), 'hex'), 16)) \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE",
        of_people!(),
        "AND",
        own!("pg_proc", "p.oid"),
        // The constructors of a range are made with it, and their names differ between versions.
        "AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass \
             AND d.objid = p.oid AND d.deptype = 'i')",
    ),
    // Enums, domains, ranges and base types; rows and arrays come with what they are made of.
    concat!(
        "SELECT 'type', pg_catalog.format('%I.%I', n.nspname, t.typname), \
         pg_catalog.format('kind %s, not null %s, labels %s', t.typtype, t.typnotnull, \
             (SELECT pg_catalog.count(*) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)) \
         FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
         WHERE t.typtype IN ('e', 'd', 'r', 'b') AND t.typelem = 0 AND",
        of_people!(),
        "AND",
        own!("pg_type", "t.oid"),
    ),
    "SELECT 'extension', pg_catalog.quote_ident(e.extname), '' FROM pg_catalog.pg_extension e",
    "SELECT 'event trigger', pg_catalog.quote_ident(e.evtname), pg_catalog.format('enabled %s, event %s', e.evtenabled, \
         e.evtevent) FROM pg_catalog.pg_event_trigger e",
    "SELECT 'publication', pg_catalog.quote_ident(p.pubname), pg_catalog.format('all tables %s, insert %s, update %s, \
         delete %s, truncate %s', p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate) \
         FROM pg_catalog.pg_publication p",
    concat!(
        "SELECT 'statistics', pg_catalog.format('%I.%I', n.nspname, s.stxname), s.stxkind::pg_catalog.text \
         FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE",
        of_people!(),
    ),
    // What has no rows and no facts that matter, by its identity alone.
    concat!(
        "SELECT identified.type, identified.identity, '' FROM ( \
             SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass AS class, o.oid AS oid, o.oprnamespace AS schema \
                 FROM pg_catalog.pg_operator o \
             UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, c.oid, c.opcnamespace \
                 FROM pg_catalog.pg_opclass c \
             UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, f.oid, f.opfnamespace \
                 FROM pg_catalog.pg_opfamily f \
             UNION ALL SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, c.oid, c.collnamespace \
                 FROM pg_catalog.pg_collation c \
             UNION ALL SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, c.oid, c.connamespace \
                 FROM pg_catalog.pg_conversion c \
             UNION ALL SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, c.oid, c.cfgnamespace \
                 FROM pg_catalog.pg_ts_config c \
             UNION ALL SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, d.oid, d.dictnamespace \
                 FROM pg_catalog.pg_ts_dict d \
         ) AS object JOIN pg_catalog.pg_namespace n ON n.oid = object.schema \
         CROSS JOIN LATERAL pg_catalog.pg_identify_object(object.class, object.oid, 0) AS identified WHERE",
        of_people!(),
        "AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend own WHERE own.classid = object.class AND own.objid = object.oid \
             AND own.deptype = 'e')",
    ),
    // Objects without a schema.
    "SELECT identified.type, identified.identity, '' FROM ( \
         SELECT 'pg_catalog.pg_cast'::pg_catalog.regclass AS class, c.oid AS oid FROM pg_catalog.pg_cast c \
         UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, l.oid FROM pg_catalog.pg_language l \
         UNION ALL SELECT 'pg_catalog.pg_am'::pg_catalog.regclass, a.oid FROM pg_catalog.pg_am a \
         UNION ALL SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, w.oid \
             FROM pg_catalog.pg_foreign_data_wrapper w \
         UNION ALL SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, s.oid FROM pg_catalog.pg_foreign_server s \
     ) AS object \
     CROSS JOIN LATERAL pg_catalog.pg_identify_object(object.class, object.oid, 0) AS identified \
     WHERE object.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend own WHERE own.classid = object.class \
         AND own.objid = object.oid AND own.deptype = 'e')",
    owners::OWNERS,
    owners::PRIVILEGES,
    owners::DEFAULTS,
];

/// All of them, sorted, each once.
pub fn read(connection: &mut Connection) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for statement in STATEMENTS {
        let sql = format!(
            "SELECT found.kind::pg_catalog.text, found.identity::pg_catalog.text, found.facts::pg_catalog.text \
             FROM ({statement}) AS found(kind, identity, facts)"
        );
        for row in connection.query(&sql, &[])? {
            objects.push(Object { kind: row.try_get(0)?, identity: row.try_get(1)?, facts: row.try_get(2)? });
        }
    }
    objects.sort();
    objects.dedup();
    Ok(objects)
}
