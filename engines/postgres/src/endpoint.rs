//! `postgres://USER@HOST/DATABASE`.

use std::sync::Arc;

use sealift_engine_api::{Endpoint, Engines, Form, Place, Scheme, Source, SourceOptions, Target, TargetOptions};
use sealift_protocol::{disposition::sender::Replay, failure::Outcome, manifest::Engine};

use crate::{
    PostgresSource,
    client::{Address, Host},
    engine,
    target::PostgresTarget,
};

#[derive(Debug)]
struct PostgresUrl(Address);

/// The URLs of the engine.
pub const SCHEMES: &[Scheme] = &[
    Scheme { name: "postgres", usage: "postgres://USER@HOST/DATABASE", is_source: true, parse: PostgresUrl::parse },
    Scheme { name: "postgresql", usage: "postgresql://USER@HOST/DATABASE", is_source: true, parse: PostgresUrl::parse },
];

impl PostgresUrl {
    fn parse(rest: &str) -> Outcome<Arc<dyn Endpoint>> {
        Ok(Arc::new(Self(Address::parse(rest)?)))
    }
}

impl Endpoint for PostgresUrl {
    fn engine(&self, _form: Form) -> Engine {
        engine::engine()
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn shown(&self) -> String {
        self.0.shown()
    }

    fn place(&self) -> Place {
        let Address { host, port, database, .. } = &self.0;
        let host = match host {
            Host::Socket(folder) => folder.to_string_lossy().into_owned(),
            Host::Tcp { name, .. } => name.to_ascii_lowercase(),
        };
        Place::Named(vec!["postgres".into(), host, port.to_string(), database.clone()])
    }

    fn replay(&self) -> Replay {
        Replay::WhileSnapshotHeld
    }

    fn has_filter(&self) -> bool {
        true
    }

    fn open_source(&self, options: SourceOptions) -> Outcome<Box<dyn Source>> {
        let source = PostgresSource::new(self.0.clone()).with_filter(options.filter).with_readers(options.workers);
        Ok(Box::new(source.with_kept_snapshot(options.keep)))
    }

    fn check_target(&self, _options: &TargetOptions) -> Outcome {
        Ok(())
    }

    fn open_target(&self, options: &TargetOptions, _engines: Engines) -> Outcome<Arc<dyn Target>> {
        let target = PostgresTarget::new(self.0.clone(), options.row_bytes_max as usize);
        Ok(Arc::new(target.with_workers(options.workers).with_waivers(options.waivers.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_is_known_however_it_is_written() {
        let place = |rest: &str| PostgresUrl::parse(rest).expect(rest).place();
        assert!(place("//a@DB.example.org/ehr").is_shared_with(&place("//b@db.example.org:5432/ehr")));
        assert!(!place("//a@db.example.org/ehr").is_shared_with(&place("//a@db.example.org/lab")));
    }

    #[test]
    fn a_url_is_shown_without_its_parameters() {
        let endpoint = PostgresUrl::parse("//a@db.example.org/ehr?passfile=/users/a/secret").expect("it is good");
        assert_eq!(endpoint.shown(), "postgres://a@db.example.org:5432/ehr");
    }
}
