//! Who owns the objects of a database, and who has privileges on them.
//!
//! A role that the target's server does not have owns nothing there: what would be its belongs to
//! the loading role, and privileges that it has or has granted are left out. So what is expected of
//! the target follows from the source's list and the roles of the target's server.

use std::collections::BTreeSet;

use crate::{
    archive::{unquote, words},
    document::Object,
    sql::quote,
};

/// What the kind of an owner begins with.
const OWNER: &str = "owner of ";

/// What the kinds of privileges begin with: those that are granted besides the default ones, and
/// those of the default ones that are revoked.
const PRIVILEGE: [&str; 2] = ["privilege on ", "revoked privilege on "];

/// The kind of what `ALTER DEFAULT PRIVILEGES` has made.
const DEFAULT_PRIVILEGES: &str = "default privileges";

/// A privilege on tables that only servers from this version on have, and GRANT ALL and a default
/// ACL with it.
const MAINTAIN_SINCE: u32 = 170_000;
const MAINTAIN: &str = "MAINTAIN";

/// Objects with an owner: class, OID, column, kind of ACL (of `acldefault`), owner and ACL.
macro_rules! owned {
    () => {
        "SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS class, c.oid AS oid, 0 AS part, \
                CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END AS acl_kind, c.relowner AS owner, c.relacl AS acl, \
                c.relnamespace AS schema \
             FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND c.relpersistence <> 't' \
         UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, a.attnum, 'c', c.relowner, a.attacl, \
                c.relnamespace \
             FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
             WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND c.relpersistence <> 't' \
         UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, 0, 'n', n.nspowner, n.nspacl, n.oid \
             FROM pg_catalog.pg_namespace n \
         UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0, 'f', p.proowner, p.proacl, p.pronamespace \
             FROM pg_catalog.pg_proc p WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
                 WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'i') \
         UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, 0, 'T', t.typowner, t.typacl, t.typnamespace \
             FROM pg_catalog.pg_type t WHERE t.typtype IN ('e', 'd', 'r', 'b') AND t.typelem = 0 \
         UNION ALL SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid, 0, NULL, o.oprowner, NULL, o.oprnamespace \
             FROM pg_catalog.pg_operator o \
         UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid, 0, NULL, o.opcowner, NULL, o.opcnamespace \
             FROM pg_catalog.pg_opclass o \
         UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, o.oid, 0, NULL, o.opfowner, NULL, o.opfnamespace \
             FROM pg_catalog.pg_opfamily o \
         UNION ALL SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, o.oid, 0, NULL, o.collowner, NULL, o.collnamespace \
             FROM pg_catalog.pg_collation o \
         UNION ALL SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, o.oid, 0, NULL, o.conowner, NULL, o.connamespace \
             FROM pg_catalog.pg_conversion o \
         UNION ALL SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, o.oid, 0, NULL, o.cfgowner, NULL, o.cfgnamespace \
             FROM pg_catalog.pg_ts_config o \
         UNION ALL SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, o.oid, 0, NULL, o.dictowner, NULL, o.dictnamespace \
             FROM pg_catalog.pg_ts_dict o \
         UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, o.oid, 0, NULL, o.stxowner, NULL, o.stxnamespace \
             FROM pg_catalog.pg_statistic_ext o \
         UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, o.oid, 0, 'l', o.lanowner, o.lanacl, NULL \
             FROM pg_catalog.pg_language o \
         UNION ALL SELECT 'pg_catalog.pg_publication'::pg_catalog.regclass, o.oid, 0, NULL, o.pubowner, NULL, NULL \
             FROM pg_catalog.pg_publication o \
         UNION ALL SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, o.oid, 0, 'F', o.fdwowner, o.fdwacl, NULL \
             FROM pg_catalog.pg_foreign_data_wrapper o \
         UNION ALL SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, o.oid, 0, 'S', o.srvowner, o.srvacl, NULL \
             FROM pg_catalog.pg_foreign_server o"
    };
}

/// Not of the system, not Sealift's, and not a member of an extension.
macro_rules! of_people {
    () => {
        " object.oid >= 16384 OR n.nspname = 'public') AND (n.oid IS NULL OR n.nspname NOT IN ('information_schema', 'sealift') \
              AND n.nspname !~ '^pg_') \
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend own WHERE own.classid = object.class AND own.objid = object.oid \
              AND own.deptype = 'e')"
    };
}

/// The name of a role in quotes, whatever words are reserved there.
macro_rules! role {
    ($oid:literal) => {
        concat!("'\"' || pg_catalog.replace(pg_catalog.pg_get_userbyid(", $oid, "), '\"', '\"\"') || '\"'")
    };
}

/// Who owns what: kind, identity, and the name of the role.
pub const OWNERS: &str = concat!(
    "SELECT 'owner of ' || identified.type, identified.identity, pg_catalog.pg_get_userbyid(object.owner) FROM (",
    owned!(),
    ") AS object LEFT JOIN pg_catalog.pg_namespace n ON n.oid = object.schema \
     CROSS JOIN LATERAL pg_catalog.pg_identify_object(object.class, object.oid, 0) AS identified \
     WHERE object.part = 0 AND (",
    of_people!(),
);

/// Who may do what, as far as it differs from what the owner alone would have given: the facts are
/// `PRIVILEGE TO role BY role OF role`, where the last is the owner.
pub const PRIVILEGES: &str = concat!(
    "SELECT granted.kind || identified.type, identified.identity, \
            pg_catalog.format('%s TO %s BY %s OF %s%s', granted.privilege_type, \
                CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE ",
    role!("granted.grantee"),
    " END, ",
    role!("granted.grantor"),
    ", ",
    role!("object.owner"),
    ", CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
     FROM (",
    owned!(),
    ") AS object LEFT JOIN pg_catalog.pg_namespace n ON n.oid = object.schema \
     CROSS JOIN LATERAL pg_catalog.acldefault(object.acl_kind::pg_catalog.\"char\", object.owner) AS usual \
     CROSS JOIN LATERAL ( \
         SELECT 'privilege on ' AS kind, given.* FROM (SELECT * FROM pg_catalog.aclexplode(object.acl) \
             EXCEPT SELECT * FROM pg_catalog.aclexplode(usual)) AS given \
         UNION ALL SELECT 'revoked privilege on ', taken.* FROM (SELECT * FROM pg_catalog.aclexplode(usual) \
             EXCEPT SELECT * FROM pg_catalog.aclexplode(object.acl)) AS taken) AS granted \
     CROSS JOIN LATERAL pg_catalog.pg_identify_object(object.class, object.oid, object.part) AS identified \
     WHERE object.acl IS NOT NULL AND (",
    of_people!(),
);

/// What `ALTER DEFAULT PRIVILEGES` gives: of which role and schema, on what, and `PRIVILEGE TO role
/// BY role OF role`.
pub const DEFAULTS: &str = concat!(
    "SELECT 'default privileges', pg_catalog.format('%s %s %s', ",
    role!("d.defaclrole"),
    ", COALESCE((SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_namespace n WHERE n.oid = d.defaclnamespace), '-'), \
       d.defaclobjtype), \
       pg_catalog.format('%s TO %s BY %s OF %s%s', given.privilege_type, CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE ",
    role!("given.grantee"),
    " END, ",
    role!("given.grantor"),
    ", ",
    role!("d.defaclrole"),
    ", CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
     FROM pg_catalog.pg_default_acl d CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) AS given",
);

/// What the target has to have of this, given the roles of its server and the one that loads. `of`
/// is the version of the source's server.
pub fn expected(objects: &[Object], roles: &BTreeSet<String>, loader: &str, of: u32) -> Vec<Object> {
    objects
        .iter()
        .filter(|object| is_compared(object, of))
        .filter_map(|object| in_target(object, roles, loader))
        .collect()
}

/// Whether what the target has is compared with a source of this version: earlier servers have no
/// privilege MAINTAIN to grant.
pub fn is_compared(object: &Object, of: u32) -> bool {
    of >= MAINTAIN_SINCE || !is_privilege(object) || words(&object.facts).next() != Some(MAINTAIN)
}

fn is_privilege(object: &Object) -> bool {
    object.kind == DEFAULT_PRIVILEGES || PRIVILEGE.iter().any(|kind| object.kind.starts_with(kind))
}

fn in_target(object: &Object, roles: &BTreeSet<String>, loader: &str) -> Option<Object> {
    let object = object.clone();
    if object.kind.starts_with(OWNER) {
        let facts = if roles.contains(&object.facts) { object.facts } else { loader.to_owned() };
        return Some(Object { facts, ..object });
    }
    if !is_privilege(&object) {
        return Some(object);
    }
    let mut given: Vec<String> = words(&object.facts).map(str::to_owned).collect();
    let [_, _, grantee, _, grantor, _, owner, ..] = &mut given[..] else { return Some(object) };
    let is_there = |role: &str| role == "PUBLIC" || roles.contains(&unquote(role));
    let by_owner = grantor == owner;
    if !is_there(grantee) || !is_there(grantor) && (!by_owner || object.kind == DEFAULT_PRIVILEGES) {
        return None;
    }
    for role in [grantor, owner] {
        if !is_there(role) {
            *role = quote(loader);
        }
    }
    Some(Object { facts: given.join(" "), ..object })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_missing_role_has_is_expected_of_the_loading_role_or_of_none() {
        let object =
            |kind: &str, facts: &str| Object { kind: kind.into(), identity: "public.t".into(), facts: facts.into() };
        let source = [
            object("owner of table", "app"),
            object("owner of view", "gone"),
            object("privilege on table", "SELECT TO \"nurse\" BY \"gone\" OF \"gone\" WITH GRANT OPTION"),
            object("privilege on table", "SELECT TO \"gone\" BY \"app\" OF \"app\""),
            object("privilege on table", "SELECT TO PUBLIC BY \"gone\" OF \"app\""),
            object("privilege on table", "MAINTAIN TO \"nurse\" BY \"app\" OF \"app\""),
            object("default privileges", "SELECT TO \"nurse\" BY \"gone\" OF \"gone\""),
            object("table", "persistence p"),
        ];
        let roles = ["app", "nurse"].map(str::to_owned).into();
        let found = expected(&source, &roles, "load er", 160_000);
        let facts: Vec<_> = found.iter().map(|object| object.facts.as_str()).collect();
        let granted = "SELECT TO \"nurse\" BY \"load er\" OF \"load er\" WITH GRANT OPTION";
        assert_eq!(facts, ["app", "load er", granted, "persistence p"]);
        assert_eq!(expected(&source, &roles, "x", 170_000).len(), 5);
    }
}
