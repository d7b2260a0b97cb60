//! Large objects in the target: their bytes as parts of rows, and after that their owners,
//! privileges and comments.

use std::collections::BTreeMap;

use sealift_engine_api::{PartSink, WrittenChunks, row_over_limit};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    error::Error,
    failure::{Failure, Outcome},
    id::PartIndex,
    receive::WholePart,
    row::{RowReader, read_cells},
};

use super::{
    document_sink::Repeated,
    doubt, ledger,
    properties::{self, Roles},
    session::Session,
    shared::SharedLoad,
};
use crate::{
    client::{At, Connection, End, Result},
    document::{Format, LargeObjects},
    large_objects::{PIECE_BYTES, properties as read_properties},
    sql::{literal, quote},
};

const LOADING: &str = "loading the large objects";

/// Bytes of pieces that are written by one statement, and how many pieces at most.
const WRITE_BYTES: usize = 1 << 20;
const WRITE_PIECES: usize = 1000;

/// Objects whose properties one transaction gives: each is locked to its end, and a server has room
/// for some 6,400 locks by default.
const OBJECTS_AT_ONCE: usize = 500;

/// The first piece makes the object.
const CREATE: &str = "\
    SELECT pg_catalog.lo_from_bytea(oid, data) \
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.bytea[])) AS made(oid, data)";

const PUT: &str = "\
    SELECT pg_catalog.lo_put(oid, place, data) \
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.int8[]), \
        pg_catalog.unnest($3::pg_catalog.bytea[])) AS put(oid, place, data)";

/// Loads one part of the large objects: its line in the ledger and the objects, in one transaction.
pub struct LargeObjectsSink<'a> {
    shared: &'a SharedLoad,
    part: PartIndex,
    session: Session,
    reader: RowReader,
    pieces: Pieces,
    rows: u64,
    written: WrittenChunks,
}

/// One row.
struct Piece {
    oid: u32,
    number: i64,
    data: Vec<u8>,
}

/// Those that are not written yet.
#[derive(Default)]
struct Pieces {
    pieces: Vec<Piece>,
    bytes: usize,
}

impl<'a> LargeObjectsSink<'a> {
    pub fn begin(shared: &'a SharedLoad, part: PartIndex) -> Outcome<Box<dyn PartSink + 'a>> {
        let mut session = shared.session()?;
        if ledger::begin(&mut session.connection, part).at(End::Target, LOADING)? {
            shared.note_committed(part);
            shared.give_back(session);
            return Ok(Box::new(Repeated { part }));
        }
        let reader = RowReader::new(shared.row_bytes_max);
        let pieces = Pieces::default();
        Ok(Box::new(Self { shared, part, session, reader, pieces, rows: 0, written: WrittenChunks::default() }))
    }

    fn insert(&mut self, chunk: &VerifiedChunk) -> Outcome {
        let Self { shared, session, reader, pieces, rows, .. } = self;
        let insert = |row: &[u8]| -> Outcome {
            *rows += 1;
            pieces.add(Piece::from_row(row)?);
            if pieces.bytes >= WRITE_BYTES || pieces.pieces.len() >= WRITE_PIECES {
                pieces.write(&mut session.connection).at(End::Target, LOADING)?;
            }
            Ok(())
        };
        reader.feed(chunk.plain().clone(), insert).map_err(|failure: Failure| match failure.code {
            Code::LimitExceeded => row_over_limit(shared.row_bytes_max),
            _ => failure,
        })
    }

    fn end(self, whole: &WholePart) -> Outcome {
        let Self { shared, part, mut session, reader, mut pieces, rows, written } = self;
        written.check_whole(part, whole)?;
        reader.finish()?;
        shared.check_stop()?;
        pieces.write(&mut session.connection).at(End::Target, LOADING)?;
        doubt::complete(shared, session, whole, rows, LOADING)
    }
}

impl PartSink for LargeObjectsSink<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.shared.check_stop()?;
        self.insert(chunk).map_err(|failure| self.shared.reason(failure).at_part(self.part))?;
        self.written.add(chunk);
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn finish(self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let (shared, part) = (self.shared, self.part);
        self.end(whole).map_err(|failure| shared.reason(failure).at_part(part))?;
        Ok(vec![part])
    }
}

impl Piece {
    fn from_row(row: &[u8]) -> sealift_protocol::error::Result<Self> {
        let mut cells: Vec<&[u8]> = Vec::with_capacity(3);
        read_cells(row, 3, |cell| {
            if cell.format != Format::Binary.number() {
                return Err(malformed());
            }
            cells.push(cell.bytes);
            Ok(())
        })?;
        let [oid, number, data] = cells[..] else { return Err(malformed()) };
        let oid = u32::from_be_bytes(oid.try_into().map_err(|_| malformed())?);
        let number = i64::from_be_bytes(number.try_into().map_err(|_| malformed())?);
        if oid == 0 || number < 0 || data.len() > PIECE_BYTES {
            return Err(malformed());
        }
        Ok(Self { oid, number, data: data.to_vec() })
    }
}

fn malformed() -> Error {
    Error::new(Code::RowMalformed, "piece of a large object")
}

impl Pieces {
    fn add(&mut self, piece: Piece) {
        self.bytes += piece.data.len();
        self.pieces.push(piece);
    }

    /// Writes them, in the transaction that is open: first those that make an object.
    fn write(&mut self, connection: &mut Connection) -> Result {
        let Self { pieces, .. } = std::mem::take(self);
        let (first, more): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|piece| piece.number == 0);
        let oids = |pieces: &[Piece]| pieces.iter().map(|piece| piece.oid).collect::<Vec<_>>();
        if !first.is_empty() {
            connection.execute(CREATE, &[&oids(&first), &data(&first)])?;
        }
        if !more.is_empty() {
            let place = |piece: &Piece| piece.number.saturating_mul(PIECE_BYTES as i64);
            let places: Vec<i64> = more.iter().map(place).collect();
            connection.execute(PUT, &[&oids(&more), &places, &data(&more)])?;
        }
        Ok(())
    }
}

fn data(pieces: &[Piece]) -> Vec<&[u8]> {
    pieces.iter().map(|piece| &piece.data[..]).collect()
}

/// Gives the objects their owners, privileges and comments, so far as the roles are there. May be
/// repeated.
pub fn give_properties(connection: &mut Connection, objects: &[LargeObjects], roles: &Roles) -> Outcome {
    const WHAT: &str = "giving the large objects their owners and privileges";
    for group in objects {
        for oids in group.oids.chunks(OBJECTS_AT_ONCE) {
            let statements = statements(group, oids, roles).join("; ");
            connection.batch(&format!("BEGIN; {statements}; COMMIT")).at(End::Target, WHAT)?;
        }
    }
    Ok(())
}

fn statements(group: &LargeObjects, oids: &[u32], roles: &Roles) -> Vec<String> {
    let owner = quote(&group.owner);
    let mut statements = Vec::new();
    if let Some(comment) = &group.comment {
        let comment = literal(comment);
        statements.extend(oids.iter().map(|oid| format!("COMMENT ON LARGE OBJECT {oid} IS {comment}")));
    }
    if roles.contains(&group.owner) {
        statements.extend(oids.iter().map(|oid| format!("ALTER LARGE OBJECT {oid} OWNER TO {owner}")));
    }
    let Some(acl) = &group.acl else { return statements };
    let listed = oids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    if roles.contains(&group.owner) {
        statements.push(format!("REVOKE ALL ON LARGE OBJECT {listed} FROM {owner}"));
    }
    for ((grantee, letter), is_granted_on) in privileges(acl, roles) {
        let privilege = if letter == 'r' { "SELECT" } else { "UPDATE" };
        let grantee = if grantee.is_empty() { "PUBLIC".to_owned() } else { quote(&grantee) };
        let option = if is_granted_on { " WITH GRANT OPTION" } else { "" };
        statements.push(format!("GRANT {privilege} ON LARGE OBJECT {listed} TO {grantee}{option}"));
    }
    statements
}

/// For each role that is there, and PUBLIC (without a name), what it may do: `r` or `w`, and
/// whether it may grant that, from all grantors together.
fn privileges(acl: &str, roles: &Roles) -> BTreeMap<(String, char), bool> {
    let mut privileges = BTreeMap::new();
    for item in properties::items(acl) {
        if !item.grantee.is_empty() && !roles.contains(&item.grantee) {
            continue;
        }
        for letter in ['r', 'w'] {
            let Some((_, after)) = item.privileges.split_once(letter) else { continue };
            *privileges.entry((item.grantee.clone(), letter)).or_default() |= after.starts_with('*');
        }
    }
    privileges
}

/// The roles that large objects name and the server does not have.
pub fn missing_roles(objects: &[LargeObjects], roles: &Roles) -> Roles {
    let grantees = objects.iter().filter_map(|group| group.acl.as_deref()).flat_map(properties::items);
    let owners = objects.iter().map(|group| group.owner.clone());
    let named = grantees.map(|item| item.grantee).chain(owners);
    named.filter(|role| !role.is_empty() && !roles.contains(role)).collect()
}

/// That the target has these large objects, with the owners, privileges and comments that were
/// sent, and no others. What a role that is not there would have is left out.
pub fn check(connection: &mut Connection, expected: &[LargeObjects], roles: &Roles) -> Outcome {
    let found = read_properties(connection).at(End::Target, "listing the large objects of the target")?;
    let found: BTreeMap<u32, &LargeObjects> = by_oid(&found);
    let expected: BTreeMap<u32, &LargeObjects> = by_oid(expected);
    let others = found.keys().find(|oid| !expected.contains_key(oid));
    let differs = |(oid, group): (&u32, &&LargeObjects)| {
        let is_same = found.get(oid).is_some_and(|found| is_same(group, found, roles));
        (!is_same).then_some(*oid)
    };
    let Some(oid) = others.copied().or_else(|| expected.iter().find_map(differs)) else { return Ok(()) };
    let what =
        format!("large object {oid} in the target is not what the source has: it, its owner, privileges or comment");
    let next = "The load was dropped. Look for other programs that use the staging database.";
    Err(Failure::new(Code::TargetMismatch, what, next))
}

fn by_oid(objects: &[LargeObjects]) -> BTreeMap<u32, &LargeObjects> {
    objects.iter().flat_map(|group| group.oids.iter().map(move |oid| (*oid, group))).collect()
}

fn is_same(expected: &LargeObjects, found: &LargeObjects, roles: &Roles) -> bool {
    let has_owner = roles.contains(&expected.owner);
    // Without its owner it belongs to the loading role, which has privileges of its own.
    let of_others = |objects: &LargeObjects| {
        let mut privileges = objects.acl.as_deref().map(|acl| privileges(acl, roles)).unwrap_or_default();
        privileges.retain(|(grantee, _), _| has_owner || *grantee != found.owner);
        privileges
    };
    let has_default = |objects: &LargeObjects| has_owner && objects.acl.is_none();
    expected.comment == found.comment
        && (!has_owner || expected.owner == found.owner)
        && has_default(expected) == has_default(found)
        && of_others(expected) == of_others(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> LargeObjects {
        let acl = Some("{app=r/app,=r/app,gone=w/app,\"a b\"=r*w/app,\"a b\"=w*/gone}".into());
        LargeObjects { owner: "app".into(), acl, comment: Some("it's".into()), oids: vec![7, 9] }
    }

    #[test]
    fn properties_of_roles_that_are_there_are_given() {
        let roles = ["app", "a b"].map(str::to_owned).into();
        let expected = [
            "COMMENT ON LARGE OBJECT 7 IS E'it''s'",
            "COMMENT ON LARGE OBJECT 9 IS E'it''s'",
            "ALTER LARGE OBJECT 7 OWNER TO \"app\"",
            "ALTER LARGE OBJECT 9 OWNER TO \"app\"",
            "REVOKE ALL ON LARGE OBJECT 7, 9 FROM \"app\"",
            "GRANT SELECT ON LARGE OBJECT 7, 9 TO PUBLIC",
            "GRANT SELECT ON LARGE OBJECT 7, 9 TO \"a b\" WITH GRANT OPTION",
            "GRANT UPDATE ON LARGE OBJECT 7, 9 TO \"a b\" WITH GRANT OPTION",
            "GRANT SELECT ON LARGE OBJECT 7, 9 TO \"app\"",
        ];
        assert_eq!(statements(&objects(), &[7, 9], &roles), expected);
        assert_eq!(missing_roles(&[objects()], &roles), Roles::from(["gone".to_owned()]));
    }

    #[test]
    fn another_owner_privilege_or_comment_is_told_apart() {
        let roles = ["app", "a b", "loader"].map(str::to_owned).into();
        let arrived = LargeObjects { acl: Some("{app=r/app,=r/app,\"a b\"=r*w*/app}".into()), ..objects() };
        assert!(is_same(&objects(), &arrived, &roles));
        let without_owner = Roles::from(["a b", "loader"].map(str::to_owned));
        let of_loader = LargeObjects {
            owner: "loader".into(),
            acl: Some("{loader=rw/loader,=r/loader,\"a b\"=r*w*/loader}".into()),
            ..objects()
        };
        assert!(is_same(&objects(), &of_loader, &without_owner));
        let changes: [fn(&mut LargeObjects); 4] = [
            |objects| objects.owner = "loader".into(),
            |objects| objects.comment = None,
            |objects| objects.acl = None,
            |objects| objects.acl = Some("{app=rw/app,=r/app,\"a b\"=r*w*/app}".into()),
        ];
        for change in changes {
            let mut other = arrived.clone();
            change(&mut other);
            assert!(!is_same(&objects(), &other, &roles), "{other:?}");
        }
    }
}
