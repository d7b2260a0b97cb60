//! The URLs of the opaque engine.

use std::sync::Arc;

use sealift_engine_api::{
    Endpoint, Engines, Form, Place, Recovery, Scheme, Source, SourceOptions, Target, TargetOptions, not_a_source,
};
use sealift_host::path::FilePath;
use sealift_protocol::{
    close::Code,
    disposition::sender::Replay,
    failure::{Failure, Outcome},
    manifest::Engine,
    printable::printable,
};

use crate::{
    command, discard, guard,
    program::{self, Program},
    source::OpaqueSource,
    target::OpaqueTarget,
};

/// `-`: standard input as a source, standard output as a target.
#[derive(Debug)]
struct Standard;

impl Standard {
    fn parse(rest: &str) -> Outcome<Arc<dyn Endpoint>> {
        if rest.is_empty() { Ok(Arc::new(Self)) } else { Err(Failure::usage("'-' stands alone", "Give '-' itself.")) }
    }
}

impl Endpoint for Standard {
    fn engine(&self, _form: Form) -> Engine {
        crate::engine()
    }

    fn url(&self) -> String {
        "-".into()
    }

    fn place(&self) -> Place {
        Place::StandardStream
    }

    fn replay(&self) -> Replay {
        Replay::Never
    }

    fn open_source(&self, _options: SourceOptions) -> Outcome<Box<dyn Source>> {
        Ok(Box::new(OpaqueSource::standard()))
    }

    fn check_target(&self, options: &TargetOptions) -> Outcome {
        match options.standing {
            true => Err(Failure::usage("a service has no standard output", "Give it a database, exec: or file:.")),
            false => Ok(()),
        }
    }

    fn open_target(&self, options: &TargetOptions, _engines: Engines) -> Outcome<Arc<dyn Target>> {
        self.check_target(options)?;
        Ok(Arc::new(OpaqueTarget::standard()?))
    }

    fn open_leftover(&self, _options: &TargetOptions, _engines: Engines) -> Outcome<Option<Arc<dyn Recovery>>> {
        Ok(None)
    }
}

/// `file:PATH`.
#[derive(Debug)]
struct FileUrl(FilePath);

impl FileUrl {
    fn parse(rest: &str) -> Outcome<Arc<dyn Endpoint>> {
        Ok(Arc::new(Self(FilePath::parse("file", rest)?)))
    }
}

impl Endpoint for FileUrl {
    fn engine(&self, _form: Form) -> Engine {
        crate::engine()
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn place(&self) -> Place {
        Place::File(self.0.resolved())
    }

    fn replay(&self) -> Replay {
        // A FIFO or a device gives its bytes once.
        if self.0.given.is_file() { Replay::Always } else { Replay::Never }
    }

    fn open_source(&self, _options: SourceOptions) -> Outcome<Box<dyn Source>> {
        Ok(Box::new(OpaqueSource::file(&self.0.given)?))
    }

    fn check_target(&self, options: &TargetOptions) -> Outcome {
        if options.standing {
            self.0.check_absolute()?;
        }
        let next = match options.standing {
            _ if options.danger_plaintext_file => return Ok(()),
            true => "Load into a database, or set danger_plaintext_file = true if you mean it: it is logged.",
            false => "Load into a database, or type --danger-plaintext-file if you mean it: it is logged.",
        };
        Err(Failure::usage("a file: target would hold every row in the clear", next))
    }

    fn open_target(&self, options: &TargetOptions, _engines: Engines) -> Outcome<Arc<dyn Target>> {
        self.check_target(options)?;
        Ok(Arc::new(OpaqueTarget::file(&self.0.resolved())?))
    }

    fn open_leftover(&self, options: &TargetOptions, engines: Engines) -> Outcome<Option<Arc<dyn Recovery>>> {
        if self.0.has_folder() { Ok(Some(self.open_target(options, engines)?)) } else { Ok(None) }
    }
}

/// `exec:COMMAND`. The words are never empty.
#[derive(Debug)]
struct Exec {
    given: String,
    words: Vec<String>,
}

impl Exec {
    fn parse(rest: &str) -> Outcome<Arc<dyn Endpoint>> {
        Ok(Arc::new(Self { given: rest.to_owned(), words: command::split(rest)? }))
    }
}

impl Endpoint for Exec {
    fn engine(&self, _form: Form) -> Engine {
        crate::engine()
    }

    fn url(&self) -> String {
        format!("exec:{}", self.given)
    }

    /// The program alone: arguments may be secret.
    fn shown(&self) -> String {
        format!("exec:{}", printable(&self.words[0]))
    }

    fn place(&self) -> Place {
        Place::Named(self.words.clone())
    }

    fn replay(&self) -> Replay {
        Replay::RunAgain
    }

    fn open_source(&self, options: SourceOptions) -> Outcome<Box<dyn Source>> {
        let program = Program::new(self.words.clone(), options.danger_show_program_output)?;
        let hides = command::hides_exit_codes(&self.words);
        let findings = if hides { vec![command::hidden_exit_codes()] } else { Vec::new() };
        Ok(Box::new(OpaqueSource::exec(program, findings)))
    }

    fn check_target(&self, options: &TargetOptions) -> Outcome {
        if options.standing && self.words.iter().any(|word| command::holds_secret(word)) {
            let next = "Arguments are visible to every user of the host. Use a local socket with peer authentication, \
                        or a file of mode 0600 that the program reads: ~/.pgpass, or an option file.";
            return Err(Failure::usage("the command seems to hold a password", next));
        }
        Ok(())
    }

    fn open_target(&self, options: &TargetOptions, _engines: Engines) -> Outcome<Arc<dyn Target>> {
        self.check_target(options)?;
        program::find(&self.words[0], Code::TargetFailed)?;
        guard::check()?;
        Ok(Arc::new(OpaqueTarget::exec(self.words.clone(), options.danger_show_program_output)))
    }

    /// Nothing is started for this, so that the program need not be there any more.
    fn open_leftover(&self, _options: &TargetOptions, _engines: Engines) -> Outcome<Option<Arc<dyn Recovery>>> {
        Ok(Some(Arc::new(OpaqueTarget::exec(self.words.clone(), false))))
    }
}

/// `discard:`.
#[derive(Debug)]
struct Discard;

impl Discard {
    fn parse(rest: &str) -> Outcome<Arc<dyn Endpoint>> {
        match rest.is_empty() {
            true => Ok(Arc::new(Self)),
            false => Err(Failure::usage("nothing can stand behind 'discard:'", "Give 'discard:' itself.")),
        }
    }
}

impl Endpoint for Discard {
    fn engine(&self, _form: Form) -> Engine {
        crate::engine()
    }

    fn url(&self) -> String {
        "discard:".into()
    }

    fn place(&self) -> Place {
        Place::Nowhere
    }

    fn replay(&self) -> Replay {
        Replay::Never
    }

    fn open_source(&self, _options: SourceOptions) -> Outcome<Box<dyn Source>> {
        Err(not_a_source("discard:"))
    }

    fn check_target(&self, _options: &TargetOptions) -> Outcome {
        Ok(())
    }

    fn open_target(&self, options: &TargetOptions, engines: Engines) -> Outcome<Arc<dyn Target>> {
        Ok(Arc::new(discard::DiscardTarget { engines, options: options.clone() }))
    }
}

/// The URLs of the engine.
pub const SCHEMES: &[Scheme] = &[
    Scheme { name: "-", usage: "-", is_source: true, parse: Standard::parse },
    Scheme { name: "file", usage: "file:PATH", is_source: true, parse: FileUrl::parse },
    Scheme { name: "exec", usage: "exec:COMMAND", is_source: true, parse: Exec::parse },
    Scheme { name: "discard", usage: "discard:", is_source: false, parse: Discard::parse },
];
