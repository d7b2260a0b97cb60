//! Passwords by reference: `~/.pgpass` and service files, as libpq reads them.

use std::{fs, io, os::unix::fs::MetadataExt};

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

use super::address::{Address, Host, password_of};

/// A password file is a line for each database; a wrong path may name anything.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The host that stands for the default socket in a password file.
const LOCAL: &str = "localhost";

/// The password of an address, if a file has one. It is in no other place: `PGPASSWORD` is not
/// read, since every process of the user can read it.
pub fn find(address: &Address) -> Outcome<Option<String>> {
    if let Some(password) = address.service.as_ref().map(password_of).transpose()?.flatten() {
        return Ok(Some(password));
    }
    let file = &address.password_file;
    let shown = file.display();
    let unreadable = |error: &io::Error| {
        Failure::io(
            Code::Usage,
            format!("the password file {shown} cannot be read"),
            error,
            "Check its owner and mode.",
        )
    };
    let found = match fs::metadata(file) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&error)),
    };
    if !found.is_file() || found.len() > FILE_BYTES_MAX {
        return Err(unreadable(&io::ErrorKind::InvalidData.into()));
    }
    if found.mode() & 0o077 != 0 {
        let what = format!("the password file {shown} can be read by other users of this host");
        return Err(Failure::usage(what, format!("Run: chmod 600 {shown}")));
    }
    let text = fs::read_to_string(file).map_err(|error| unreadable(&error))?;
    Ok(text.lines().find_map(|line| password_in(line, address)))
}

/// The password of a line, if the four fields before it fit.
fn password_in(line: &str, address: &Address) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let host = match &address.host {
        Host::Socket(folder) => folder.to_string_lossy().into_owned(),
        Host::Tcp { name, .. } => name.clone(),
    };
    let is_socket = matches!(address.host, Host::Socket(_));
    let mut fields = fields(line);
    let mut fits = |wanted: &str, also: Option<&str>| {
        let field = fields.next()?;
        (field == "*" || field.text() == wanted || also.is_some_and(|also| field.text() == also)).then_some(())
    };
    fits(&host, is_socket.then_some(LOCAL))?;
    fits(&address.port.to_string(), None)?;
    fits(&address.database, None)?;
    fits(&address.user, None)?;
    Some(fields.next()?.text()).filter(|password| !password.is_empty())
}

/// A field as it is written: `*` alone fits everything, `\*` is a star.
struct Field<'a>(&'a str);

impl PartialEq<&str> for Field<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl Field<'_> {
    fn text(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        let mut characters = self.0.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => text.extend(characters.next()),
                other => text.push(other),
            }
        }
        text
    }
}

/// The fields of a line, between colons that no backslash is before.
fn fields(line: &str) -> impl Iterator<Item = Field<'_>> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut escaped = false;
        let end = line.char_indices().find(|(_, character)| {
            let ends = *character == ':' && !escaped;
            escaped = *character == '\\' && !escaped;
            ends
        });
        let (field, after) = match end {
            Some((at, _)) => (&line[..at], Some(&line[at + 1..])),
            None => (line, None),
        };
        rest = after;
        Some(Field(field))
    })
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    fn address(rest: &str) -> Address {
        Address::parse(rest).expect(rest)
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let there = address("//me@db.example.org:7/a:b");
        let password = |line: &str| password_in(line, &there);
        assert_eq!(password("db.example.org:7:a\\:b:me:pass\\:word\\\\").as_deref(), Some("pass:word\\"));
        assert_eq!(password("*:*:*:*:x").as_deref(), Some("x"));
        assert_eq!(password("*:8:*:*:x"), None);
        assert_eq!(password("*:*:a:*:x"), None);
        assert_eq!(password("#*:*:*:*:x"), None);
        assert_eq!(password("*:*:*:*"), None);
        assert_eq!(password("\\*:*:*:*:x"), None);
        let socket = address("//me@/d?host=/run/pg");
        assert_eq!(password_in("localhost:*:d:me:x", &socket).as_deref(), Some("x"));
        assert_eq!(password_in("/run/pg:*:d:me:x", &socket).as_deref(), Some("x"));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pgpass");
        fs::write(&file, "a:1:*:*:other\n*:*:*:*:this\n").expect("written");
        let there = address(&format!("//me@localhost/d?passfile={}", file.display()));
        fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("its mode");
        assert!(find(&there).expect_err("others read it").hints.to_string().contains("chmod 600"));
        fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("its mode");
        assert_eq!(find(&there), Ok(Some("this".into())));
        fs::remove_file(&file).expect("it is gone");
        assert_eq!(find(&there), Ok(None));
    }
}
