//! The engines of the agents. This table is the one place that names them.
#![forbid(unsafe_code)]

use sealift_engine_api::{Engines, Instead};

/// What `sealift-sender` and `sealift-receiver` can read and write.
pub const ENGINES: Engines = Engines {
    specs: &[&sealift_opaque::SPEC, &sealift_sqlite::SPEC, &sealift_postgres::SPEC],
    instead: &[Instead {
        schemes: &["mysql", "mariadb"],
        what: "MariaDB and MySQL are moved through their own programs",
        hint: MARIADB,
    }],
};

const MARIADB: &str = "As a source: 'exec:mariadb-dump --single-transaction --quick --hex-blob --routines --triggers \
    --events --max-allowed-packet=1G --default-character-set=utf8mb4 NAME'. As a target: 'exec:mariadb \
    \"--init-command=SET SESSION innodb_strict_mode=OFF\" --max-allowed-packet=1G --default-character-set=utf8mb4 NAME'. \
    The recipe in docs/operations.md has the rest, and what this load cannot promise.";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sealift_engine_api::{Form, Place};
    use sealift_protocol::disposition::sender::Replay;

    use super::*;

    #[test]
    fn urls_are_read_or_refused() {
        let place = |url: &str| ENGINES.parse(url).expect(url).place();
        assert_eq!(place("-"), Place::StandardStream);
        assert_eq!(place("discard:"), Place::Nowhere);
        assert!(matches!(place("sqlite:///a/b"), Place::File(_)));
        assert_eq!(place("exec:psql -c 'a b'"), Place::Named(["psql", "-c", "a b"].map(String::from).into()));
        for (url, hint) in [("postgres://u:secret@h/ehr", ".pgpass"), ("mysql://u:secret@h/ehr", "mariadb-dump")] {
            let failure = ENGINES.parse(url).expect_err(url);
            assert!(failure.hints.to_string().contains(hint) && !failure.to_string().contains("secret"), "{failure}");
        }
        for bad in ["", "x", "ftp://h/p", "exec:", "exec:'open", "exec:''", "sqlite:", "discard:x", "postgres:secret"] {
            let failure = ENGINES.parse(bad).expect_err(bad);
            assert_eq!(failure.code.exit_code(), 2);
            assert!(!failure.what.contains("secret"));
        }
        let unknown = ENGINES.parse("ftp://h").expect_err("no engine has it");
        let usage = "Use '-', 'file:PATH', 'exec:COMMAND', 'sqlite:PATH', 'postgres://USER@HOST/DATABASE', \
                     'postgresql://USER@HOST/DATABASE', or as a target \
                     'discard:'.";
        assert_eq!(unknown.hints.to_string(), usage);
    }

    #[test]
    fn one_place_is_known_however_it_is_written() {
        let place = |url: &str| ENGINES.parse(url).expect(url).place();
        assert!(place("sqlite:/srv/a").is_shared_with(&place("file:/srv/./a")));
        assert!(place("exec:psql  -d 'ehr'").is_shared_with(&place("exec:psql -d ehr")));
        assert!(!place("exec:psql -d ehr").is_shared_with(&place("exec:psql -d lab")));
        assert!(!place("discard:").is_shared_with(&place("discard:")));
    }

    /// What may be secret is not shown.
    #[test]
    fn a_command_is_shown_by_its_program() {
        assert_eq!(ENGINES.shown("exec:psql postgres://u:secret@h/d"), "exec:psql");
        assert_eq!(ENGINES.shown("sqlite:///srv/ehr.db"), "sqlite:/srv/ehr.db");
        assert_eq!(ENGINES.shown("postgres://u:secret@h/d"), "not known");
    }

    #[test]
    fn replay_is_a_capability() {
        let replay = |url: &str| ENGINES.parse(url).expect(url).replay();
        assert_eq!(replay("-"), Replay::Never);
        assert_eq!(replay("exec:pg_dump ehr"), Replay::RunAgain);
        assert_eq!(replay("sqlite:a.db"), Replay::Always);
        assert_eq!(replay("file:/dev/null"), Replay::Never);
        assert_eq!(replay("file:/proc/self/status"), Replay::Always);
    }

    #[test]
    fn only_a_database_has_an_image() {
        let has_image = |url: &str| ENGINES.parse(url).expect(url).forms().contains(&Form::Image);
        assert!(has_image("sqlite:a.db"));
        for url in ["file:a.db", "-", "exec:cat a.db"] {
            assert!(!has_image(url), "{url}");
        }
    }

    #[test]
    fn a_scheme_has_one_engine() {
        let schemes: Vec<_> = ENGINES.specs.iter().flat_map(|spec| spec.schemes).map(|scheme| scheme.name).collect();
        assert_eq!(schemes.iter().collect::<BTreeSet<_>>().len(), schemes.len());
    }
}
