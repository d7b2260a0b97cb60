//! Connection services: `service=NAME`, `PGSERVICE`, and the files that define them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

use super::{Environment, ServiceName, Settings};

/// A service file is a few lines for each database; a wrong path may name anything.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One service, as its file defines it.
pub(super) struct Service {
    pub settings: Settings,
    pub name: ServiceName,
}

impl Service {
    /// From `PGSERVICEFILE` or `~/.pg_service.conf`, then from the system's file.
    pub fn find(name: &str, environment: &Environment) -> Outcome<Self> {
        let own = environment.variable("PGSERVICEFILE").map(PathBuf::from);
        let own = own.unwrap_or_else(|| environment.in_home(".pg_service.conf"));
        let system = environment.variable("PGSYSCONFDIR").unwrap_or_else(|| "/etc/postgresql-common".into());
        for file in [own, Path::new(&system).join("pg_service.conf")] {
            let Some(text) = read(&file)? else { continue };
            if let Some(settings) = settings_of(&text, name, &file)? {
                return Ok(Self { settings, name: ServiceName { name: name.to_owned(), file } });
            }
        }
        let next = "Define it in ~/.pg_service.conf, or name the file in PGSERVICEFILE.";
        Err(Failure::usage(format!("the service '{name}' is not defined"), next))
    }
}

/// The password that a service's file has for it.
pub fn password_of(service: &ServiceName) -> Outcome<Option<String>> {
    let Some(text) = read(&service.file)? else { return Ok(None) };
    let password = section(&text, &service.name).into_iter().flatten().find_map(|line| line.strip_prefix("password="));
    Ok(password.map(str::to_owned))
}

fn read(file: &Path) -> Outcome<Option<String>> {
    let failed = |error: &io::Error| {
        let what = format!("the service file {} cannot be read", file.display());
        Failure::io(Code::Usage, what, error, "Check its path, its mode and its content.")
    };
    match fs::metadata(file) {
        Ok(found) if !found.is_file() || found.len() > FILE_BYTES_MAX => {
            Err(failed(&io::Error::from(io::ErrorKind::InvalidData)))
        }
        Ok(_) => fs::read_to_string(file).map(Some).map_err(|error| failed(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

/// The lines of a service, without comments and empty ones; `None` if it is not there.
fn section<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.find(|line| line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) == Some(name))?;
    Some(lines.take_while(|line| !line.starts_with('[')).collect())
}

fn settings_of(text: &str, name: &str, file: &Path) -> Outcome<Option<Settings>> {
    let Some(lines) = section(text, name) else { return Ok(None) };
    let mut settings = Settings::default();
    for line in lines {
        let (key, value) = line.split_once('=').ok_or_else(|| {
            let what = format!("the service file {} has a line that is no NAME=VALUE", file.display());
            Failure::usage(what, "Correct the file.")
        })?;
        match settings.field(key.trim()) {
            // The first counts, as for libpq; a service within a service is not known to it.
            Some(field) if key.trim() != "service" => {
                field.get_or_insert_with(|| value.trim().to_owned());
            }
            // What means nothing here, and the password, which is read when a session is opened.
            _ => {}
        }
    }
    Ok(Some(settings))
}
