//! The engines that a program has.

use std::{process::ExitCode, sync::Arc};

use sealift_protocol::{
    failure::{Failure, Outcome},
    manifest::Engine,
};

use crate::{Endpoint, FindingKind, Target, TargetOptions};

/// What an engine is known by.
#[derive(Debug)]
pub struct EngineSpec {
    /// Its name, for people.
    pub name: &'static str,
    /// Its URLs.
    pub schemes: &'static [Scheme],
    /// For a drill: a target that looks at everything that a target of this engine would look at,
    /// and keeps nothing. `None` if the plan's engine is another.
    pub drill: fn(&Engine, &TargetOptions) -> Option<Arc<dyn Target>>,
    /// The processes of its own.
    pub helpers: &'static [Helper],
    /// Those that its targets come to.
    pub fail_points: &'static [FailPoint],
    /// What its sources and targets can be found to be: the closed list.
    pub findings: &'static [FindingKind],
}

/// What an agent's program becomes when an engine starts it again, as a process of the engine's
/// own.
#[derive(Debug)]
pub struct Helper {
    /// Its first argument.
    pub command: &'static str,
    /// Whether it is protected as the agent is, before anything else. What passes open files to
    /// another program is not.
    pub is_hardened: bool,
    /// Runs it with the arguments that follow.
    pub run: fn(&[String]) -> ExitCode,
}

/// A place at which a test has an agent die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailPoint {
    /// What the environment calls it.
    pub name: &'static str,
    /// What is done when it is reached, and what is not.
    pub what: &'static str,
}

/// One kind of URL of an engine.
#[derive(Debug)]
pub struct Scheme {
    /// What is before the colon; `-` is itself.
    pub name: &'static str,
    /// How such a URL is written, for people.
    pub usage: &'static str,
    /// Whether it can be a source.
    pub is_source: bool,
    /// Makes the endpoint from what is after the colon.
    pub parse: fn(&str) -> Outcome<Arc<dyn Endpoint>>,
}

/// A kind of URL that is known and not supported: what to use instead.
#[derive(Debug)]
pub struct Instead {
    /// The schemes of such URLs.
    pub schemes: &'static [&'static str],
    /// What is wrong with it.
    pub what: &'static str,
    /// What to do.
    pub hint: &'static str,
}

/// The engines of a program, and what it says about others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Engines {
    /// Each scheme belongs to one of them.
    pub specs: &'static [&'static EngineSpec],
    /// In place of an engine.
    pub instead: &'static [Instead],
}

impl Engines {
    /// What a URL names. No error repeats more than its scheme: the rest may hold a password.
    pub fn parse(self, url: &str) -> Outcome<Arc<dyn Endpoint>> {
        let (scheme, rest) = match url.split_once(':') {
            Some(split) => split,
            None if url == "-" => ("-", ""),
            None => return Err(Failure::usage(format!("'{url}' is no source or target"), self.usage())),
        };
        if let Some(known) = self.schemes().find(|known| known.name == scheme) {
            return (known.parse)(rest);
        }
        match self.instead.iter().find(|other| other.schemes.contains(&scheme)) {
            Some(other) => Err(Failure::usage(format!("'{scheme}:' is not known: {}", other.what), other.hint)),
            None => Err(Failure::usage(format!("'{scheme}:' is not known"), self.usage())),
        }
    }

    /// What can be found about the source or target that `url` names.
    pub fn findings(self, url: &str) -> &'static [FindingKind] {
        let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
        let spec = self.specs.iter().find(|spec| spec.schemes.iter().any(|known| known.name == scheme));
        spec.map_or(&[], |spec| spec.findings)
    }

    /// What `url` names, for logs and messages, without what may be secret.
    pub fn shown(self, url: &str) -> String {
        self.parse(url).map_or_else(|_| "not known".into(), |endpoint| endpoint.shown())
    }

    /// The target of a drill of the engine that made the plan, if it is one of these.
    pub fn drill(self, engine: &Engine, options: &TargetOptions) -> Option<Arc<dyn Target>> {
        self.specs.iter().find_map(|spec| (spec.drill)(engine, options))
    }

    /// The process that this first argument asks for.
    pub fn helper(self, command: &str) -> Option<&'static Helper> {
        self.specs.iter().flat_map(|spec| spec.helpers).find(|helper| helper.command == command)
    }

    fn schemes(self) -> impl Iterator<Item = &'static Scheme> {
        self.specs.iter().flat_map(|spec| spec.schemes)
    }

    /// The URLs that can be given.
    fn usage(self) -> String {
        let quoted = |is_source: bool| -> Vec<String> {
            let schemes = self.schemes().filter(|scheme| scheme.is_source == is_source);
            schemes.map(|scheme| format!("'{}'", scheme.usage)).collect()
        };
        let sources = quoted(true).join(", ");
        let targets = quoted(false);
        match targets.is_empty() {
            true => format!("Use {sources}."),
            false => format!("Use {sources}, or as a target {}.", targets.join(", ")),
        }
    }
}
