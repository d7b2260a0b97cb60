//! Types of columns, and in which of COPY's two formats a table travels.

use std::collections::HashMap;

use crate::{
    client::{Connection, Result},
    document::Format,
};

/// Types whose binary form holds no OID and has been the same since version 12, by their names in
/// `pg_catalog`. So have arrays of them, whose elements' OIDs are fixed, and domains over both,
/// which are encoded as what they are made of.
const BINARY: &[&str] = &[
    "bit",
    "bool",
    "box",
    "bpchar",
    "bytea",
    "char",
    "cid",
    "cidr",
    "circle",
    "date",
    "datemultirange",
    "daterange",
    "float4",
    "float8",
    "inet",
    "int2",
    "int4",
    "int4multirange",
    "int4range",
    "int8",
    "int8multirange",
    "int8range",
    "interval",
    "json",
    "jsonb",
    "line",
    "lseg",
    "macaddr",
    "macaddr8",
    "name",
    "numeric",
    "nummultirange",
    "numrange",
    "oid",
    "path",
    "pg_lsn",
    "point",
    "polygon",
    "text",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "tsmultirange",
    "tsquery",
    "tsrange",
    "tstzmultirange",
    "tstzrange",
    "tsvector",
    "uuid",
    "varbit",
    "varchar",
    "xid",
    "xid8",
];

/// Types whose hash is the same on every server, so that a row belongs to the same hash partition
/// everywhere. Not those of text, whose collation may differ, unless it compares bytes.
const HASHED_ALIKE: &[&str] = &[
    "bool",
    "bytea",
    "char",
    "cidr",
    "date",
    "inet",
    "int2",
    "int4",
    "int8",
    "interval",
    "macaddr",
    "macaddr8",
    "numeric",
    "oid",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "uuid",
];

/// Types that the server has from the start have OIDs below that, the same in every version
/// (`FirstGenbkiObjectId`).
const BUILT_IN_OID_END: u32 = 10_000;

/// One type, as far as it matters here.
struct Type {
    name: String,
    base: u32,
    element: u32,
    array: u32,
}

/// The types of a database by their OIDs.
pub struct Types(HashMap<u32, Type>);

const TYPES: &str = "\
    SELECT t.oid, t.typname::pg_catalog.text, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE 0::pg_catalog.oid END, \
           t.typelem, t.typarray \
    FROM pg_catalog.pg_type t";

impl Types {
    pub fn read(connection: &mut Connection) -> Result<Self> {
        let mut types = HashMap::new();
        for row in connection.query(TYPES, &[])? {
            let (name, base) = (row.try_get(1)?, row.try_get(2)?);
            types.insert(row.try_get(0)?, Type { name, base, element: row.try_get(3)?, array: row.try_get(4)? });
        }
        Ok(Self(types))
    }

    /// What a domain is made of, or the type itself.
    fn base(&self, mut oid: u32) -> u32 {
        // A chain of domains has an end; a damaged catalogue may have none.
        for _ in 0..self.0.len() {
            match self.0.get(&oid) {
                Some(Type { base, .. }) if *base != 0 => oid = *base,
                _ => break,
            }
        }
        oid
    }

    fn is_one_of(&self, oid: u32, names: &[&str]) -> bool {
        oid < BUILT_IN_OID_END && self.0.get(&oid).is_some_and(|found| names.contains(&found.name.as_str()))
    }

    fn is_binary(&self, oid: u32) -> bool {
        let oid = self.base(oid);
        // `int2vector` and others have elements, too, and are no arrays.
        let element = self.0.get(&oid).map(|found| found.element).filter(|element| {
            let is_array = |element: &Type| element.array == oid;
            self.0.get(element).is_some_and(is_array)
        });
        self.is_one_of(element.unwrap_or(oid), BINARY)
    }

    /// The format for a table with columns of these types: binary if all of them allow it.
    pub fn format(&self, columns: &[u32]) -> Format {
        match columns.iter().all(|&oid| self.is_binary(oid)) {
            true => Format::Binary,
            false => Format::Text,
        }
    }

    /// Whether a key of this type has the same hash on every server.
    pub fn is_hashed_alike(&self, oid: u32) -> bool {
        self.is_one_of(self.base(oid), HASHED_ALIKE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Types {
        let named = |name: &str, base, element, array| Type { name: name.into(), base, element, array };
        Types(HashMap::from([
            (23, named("int4", 0, 0, 1007)),
            (1007, named("_int4", 0, 23, 0)),
            (22, named("int2vector", 0, 21, 1006)),
            (21, named("int2", 0, 0, 1005)),
            (790, named("money", 0, 0, 791)),
            (791, named("_money", 0, 790, 0)),
            (20_000, named("text", 0, 0, 20_001)),
            (20_002, named("quantity", 23, 0, 20_003)),
            (20_003, named("_quantity", 0, 20_002, 0)),
            (20_004, named("quantities", 1007, 0, 0)),
            (20_005, named("loop", 20_005, 0, 0)),
        ]))
    }

    #[test]
    fn binary_is_for_built_in_types_without_oids() {
        let types = types();
        for binary in [23, 1007, 20_002, 20_004] {
            assert_eq!(types.format(&[23, binary]), Format::Binary, "{binary}");
        }
        for text in [22, 790, 791, 20_000, 20_003, 20_005, 30_000] {
            assert_eq!(types.format(&[23, text]), Format::Text, "{text}");
        }
        assert_eq!(types.format(&[]), Format::Binary);
        assert!(BINARY.is_sorted() && HASHED_ALIKE.is_sorted());
    }
}
