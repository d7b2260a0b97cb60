//! A file that a URL names.

use std::path::{Path, PathBuf};

use sealift_protocol::failure::{Failure, Outcome};

/// The path in a URL.
#[derive(Clone, Debug)]
pub struct FilePath {
    /// What is before the colon.
    scheme: &'static str,
    /// As it was given; relative to the working folder, if it is relative.
    pub given: PathBuf,
}

impl FilePath {
    /// What is after the colon of a URL: `PATH`, or `//PATH`, as other tools write it.
    pub fn parse(scheme: &'static str, rest: &str) -> Outcome<Self> {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        match path.is_empty() {
            true => Err(Failure::usage(format!("'{scheme}:' names no file"), format!("Use '{scheme}:PATH'."))),
            false => Ok(Self { scheme, given: path.into() }),
        }
    }

    /// The same file, whatever the working folder will be.
    pub fn absolute(&self) -> PathBuf {
        std::path::absolute(&self.given).unwrap_or_else(|_| self.given.clone())
    }

    /// [`Self::absolute`] with the links of its folder resolved, if that is there. A path that ends
    /// in a slash names a folder, and stays as it is.
    pub fn resolved(&self) -> PathBuf {
        let path = self.absolute();
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return path;
        }
        match (path.parent().and_then(|folder| folder.canonicalize().ok()), path.file_name()) {
            (Some(folder), Some(name)) => folder.join(name),
            _ => path,
        }
    }

    /// As a URL again, made absolute.
    pub fn url(&self) -> String {
        format!("{}:{}", self.scheme, self.absolute().display())
    }

    pub fn check_absolute(&self) -> Outcome {
        match self.given.is_absolute() {
            true => Ok(()),
            false => {
                let next = "A service has no working folder: begin it with '/'.";
                Err(Failure::usage("the path is not absolute", next))
            }
        }
    }

    /// Whether the folder that the file is in, or would be in, is there.
    pub fn has_folder(&self) -> bool {
        self.absolute().parent().unwrap_or(Path::new("/")).is_dir()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_known_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let resolved = |rest: &str| {
            FilePath::parse("sqlite", &rest.replace("DIR", &folder.path().display().to_string())).unwrap().resolved()
        };
        for twin in ["//DIR/a", "DIR/./a", "DIR/link/a"] {
            assert_eq!(resolved("DIR/a"), resolved(twin), "{twin}");
        }
        assert_ne!(resolved("DIR/a"), resolved("DIR/b"));
    }

    #[test]
    fn a_url_names_a_file() {
        assert_eq!(FilePath::parse("sqlite", "///a/b").unwrap().given, Path::new("/a/b"));
        assert_eq!(FilePath::parse("file", "a b").unwrap().given, Path::new("a b"));
        assert_eq!(FilePath::parse("file", "").unwrap_err().code.exit_code(), 2);
        assert!(FilePath::parse("file", "a").unwrap().check_absolute().is_err());
        assert_eq!(FilePath::parse("file", "/srv/a").unwrap().url(), "file:/srv/a");
    }
}
