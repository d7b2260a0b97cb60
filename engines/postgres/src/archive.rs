//! The definitions of a database, as `pg_dump --format=custom --schema-only` wrote them.
//!
//! The table of contents of such an archive has, for each object, its SQL, its owner, its section
//! and what it depends on. It is read here, and not by `pg_restore`, so that a target needs no
//! client programs, each definition is run and recorded by itself, and nothing but the definitions
//! is run: a script of `pg_restore` also has the names of objects, in comments that some versions
//! let a newline end (CVE-2025-8715), and commands for `psql` (CVE-2025-8714).
//!
//! The format is that of `src/bin/pg_dump/pg_backup_archiver.c`, versions 1.12 (pg_dump 9.0) to
//! 1.16 (17 and 18). All input is hostile.

mod owner;
mod reader;
mod statement;
#[cfg(test)]
mod tests;

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

use self::reader::ArchiveReader;
pub use self::{
    owner::owned_object,
    statement::{roles_of, statements, unquote, words},
};

/// Entries of one archive: those of some 100,000 tables.
const ENTRIES_MAX: usize = 1 << 20;

/// Dependencies of one entry.
const DEPENDENCIES_MAX: usize = 1 << 16;

/// What identifies the format.
const MAGIC: &[u8] = b"PGDMP";

/// `archCustom`.
const FORMAT_CUSTOM: u8 = 1;

/// The versions that are read, as (major, minor).
const VERSIONS: std::ops::RangeInclusive<(u8, u8)> = (1, 12)..=(1, 16);

/// An archive's table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// The version of the server that was dumped, as it names itself.
    pub server_version: String,
    /// The version of `pg_dump`.
    pub dump_version: String,
    /// In the order in which they can be restored.
    pub entries: Vec<Entry>,
}

/// When an entry is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Before the rows.
    PreData,
    /// Rows; an archive of definitions has none.
    Data,
    /// After the rows.
    PostData,
}

/// The definition of one object, or of a property of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `pg_dump`'s number for it, unique in the archive.
    pub id: i32,
    /// The object's name, without its schema; not quoted.
    pub tag: String,
    /// The kind of entry, such as `TABLE`, `FK CONSTRAINT` or `ACL`.
    pub kind: String,
    /// That of the entry, or for one that has none (a comment, say) of those around it.
    pub section: Section,
    /// Any number of statements.
    pub definition: String,
    /// The statement that drops it; empty for what is no object of its own.
    pub drop: String,
    /// The schema it is in, if any; not quoted.
    pub schema: Option<String>,
    /// The tablespace, if it is not the database's.
    pub tablespace: Option<String>,
    /// The table access method, if it is a table that has one.
    pub access_method: Option<String>,
    /// Whether it is a partitioned table, as archives say from 1.16 on, in which such a table has
    /// an access method for its partitions to come.
    pub is_partitioned: bool,
    /// The role that owns the object; not quoted.
    pub owner: String,
    /// The numbers of the entries that come before it.
    pub depends_on: Vec<i32>,
}

impl Archive {
    /// Reads the table of contents, and refuses what is not one.
    pub fn from_bytes(bytes: &[u8]) -> Outcome<Self> {
        let mut reader = ArchiveReader::new(bytes);
        reader.tag(MAGIC)?;
        let version = (reader.byte()?, reader.byte()?);
        let _revision = reader.byte()?;
        if !VERSIONS.contains(&version) {
            return Err(malformed("version of the archive"));
        }
        let int_bytes = reader.byte()?;
        let offset_bytes = reader.byte()?;
        reader.set_widths(int_bytes, offset_bytes)?;
        if reader.byte()? != FORMAT_CUSTOM {
            return Err(malformed("format of the archive"));
        }
        skip_header(&mut reader, version)?;
        let server_version = reader.string()?.unwrap_or_default();
        let dump_version = reader.string()?.unwrap_or_default();
        let count = usize::try_from(reader.int()?).map_err(|_| malformed("number of entries"))?;
        if count > ENTRIES_MAX {
            return Err(malformed("number of entries"));
        }
        let mut section = Section::PreData;
        let mut entries = Vec::new();
        for _ in 0..count {
            let entry = read_entry(&mut reader, version, section)?;
            section = entry.section;
            entries.push(entry);
        }
        Ok(Self { server_version, dump_version, entries })
    }

    /// The entries that are restored in `section`, in order. Grants come after what they are on,
    /// and event triggers last of all, as `pg_restore` has them.
    pub fn section(&self, section: Section) -> impl Iterator<Item = &Entry> {
        [Pass::Main, Pass::Grants, Pass::Last].into_iter().flat_map(move |pass| {
            self.entries.iter().filter(move |entry| entry.section == section && entry.pass() == pass)
        })
    }
}

/// The passes of a restore.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Main,
    Grants,
    Last,
}

impl Entry {
    fn pass(&self) -> Pass {
        match self.kind.as_str() {
            "ACL" | "DEFAULT ACL" => Pass::Grants,
            "EVENT TRIGGER" | "MATERIALIZED VIEW DATA" => Pass::Last,
            "COMMENT" if self.tag.starts_with("EVENT TRIGGER ") => Pass::Last,
            _ => Pass::Main,
        }
    }

    /// Whether it concerns the database as a whole: the database is made from its own properties.
    pub fn is_of_database(&self) -> bool {
        match self.kind.as_str() {
            "DATABASE" | "DATABASE PROPERTIES" => true,
            "ACL" | "COMMENT" | "SECURITY LABEL" => self.tag.starts_with("DATABASE "),
            _ => false,
        }
    }

    /// The name for messages.
    pub fn name(&self) -> String {
        let kind = self.kind.to_lowercase();
        match &self.schema {
            Some(schema) => format!("{kind} {schema}.{}", self.tag),
            None => format!("{kind} {}", self.tag),
        }
    }
}

/// Compression, time and name of the dump.
fn skip_header(reader: &mut ArchiveReader<'_>, version: (u8, u8)) -> Outcome {
    // A byte for the algorithm since 1.15, the level before. Only data is compressed.
    if version >= (1, 15) {
        reader.byte()?;
    } else {
        reader.int()?;
    }
    for _second_to_dst in 0..7 {
        reader.int()?;
    }
    let _database = reader.string()?;
    Ok(())
}

/// Reads one entry that follows one of section `before`.
fn read_entry(reader: &mut ArchiveReader<'_>, version: (u8, u8), before: Section) -> Outcome<Entry> {
    let id = reader.int()?;
    let _has_data = reader.int()?;
    let _catalogue_table_oid = reader.string()?;
    let _catalogue_oid = reader.string()?;
    let tag = reader.string()?.unwrap_or_default();
    let kind = reader.string()?.unwrap_or_default();
    let section = match reader.int()? {
        // Not of any: comments, grants and settings.
        1 => before,
        2 => Section::PreData,
        3 => Section::Data,
        4 => Section::PostData,
        _ => return Err(malformed("section of an entry")),
    };
    let definition = reader.string()?.unwrap_or_default();
    let drop = reader.string()?.unwrap_or_default();
    let _copy = reader.string()?;
    let schema = reader.string()?.filter(|schema| !schema.is_empty());
    let tablespace = reader.string()?.filter(|tablespace| !tablespace.is_empty());
    let access_method = match version >= (1, 14) {
        true => reader.string()?.filter(|method| !method.is_empty()),
        false => None,
    };
    let is_partitioned = version >= (1, 16) && reader.int()? == i32::from(b'p');
    let owner = reader.string()?.unwrap_or_default();
    let _with_oids = reader.string()?;
    let mut depends_on = Vec::new();
    while let Some(number) = reader.string()? {
        if depends_on.len() == DEPENDENCIES_MAX {
            return Err(malformed("dependencies of an entry"));
        }
        depends_on.push(number.parse().map_err(|_| malformed("dependency of an entry"))?);
    }
    // Where its data is.
    reader.offset()?;
    Ok(Entry {
        id,
        tag,
        kind,
        section,
        definition,
        drop,
        schema,
        tablespace,
        access_method,
        is_partitioned,
        owner,
        depends_on,
    })
}

fn malformed(check: &str) -> Failure {
    let what = format!("the archive of definitions cannot be read ({check})");
    let hint = "Check that the sender's pg_dump is of a supported version, 12 to 18.";
    Failure::new(Code::PlanRefused, what, hint)
}
