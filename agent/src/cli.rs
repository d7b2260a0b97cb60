//! Arguments that both agents have, and what they do with them.

use std::{num::NonZero, path::PathBuf, process::ExitCode};

use clap::{
    Args, CommandFactory, Parser, ValueEnum,
    error::{ContextKind, ContextValue, ErrorKind},
};
use sealift_protocol::{
    close::Code,
    limits::{LANE_WINDOW_BYTES_MIN, ROW_BYTES_MAX},
    negotiate::suites_auto,
    seal::Suite,
};
use tracing_subscriber::filter::LevelFilter;

use crate::{
    audit::AuditLog,
    enrolment,
    failure::{Failure, Outcome},
    identity::Identity,
    manual, misplaced, output,
    process::{aes_accelerated, report_panics},
    report::{Report, print_failure},
    role::Role,
    state::StateDir,
    telemetry,
    units::parse_bytes,
};

/// What `--help` says of the exit codes (design.md, 9).
pub const EXIT_CODES: &str = "Exit codes: 0 done and verified; 1 other failure, or loaded by the operator's statement alone; \
2 usage or configuration; 3 preflight; 4 peer or authentication; 5 interrupted, in doubt or abandoned; 6 verification mismatch; \
7 refused: the ticket does not permit it, or something else is running; 8 source or target unusable; 9 audit log cannot be \
written; 130 interrupted by the user.";

/// Options of every command that runs a transfer.
#[derive(Args, Clone, Debug)]
pub struct TransferArgs {
    /// Folder for receipts, the audit log and unfinished transfers, keys among them [default: the
    /// system's state directory for a service, else ~/.local/state/PROGRAM]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Print one JSON object a line on standard output; the last is `finished`
    #[arg(long)]
    pub json: bool,

    /// Cipher suite; auto takes AES-256-GCM where both processors accelerate it
    #[arg(long, value_enum, default_value_t = SuiteChoice::Auto)]
    pub suite: SuiteChoice,

    /// Memory for bytes in flight; a large row may need more besides
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_bytes)]
    pub memory: u64,

    /// The largest single row that is moved; both sides hold a row whole
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_bytes)]
    pub row_bytes_max: u64,

    /// Sessions of a database that are used at once: at the source to read, at the target to make
    /// indexes and to prove the load [default: 8 and 4]
    #[arg(long, value_name = "N", value_parser = parse_workers)]
    pub workers: Option<NonZero<u16>>,

    /// Let what programs run by exec: print through to the terminal. It may hold rows
    #[arg(long)]
    pub danger_show_program_output: bool,

    /// How much to say about what happens inside, on standard error
    #[arg(long, value_enum, default_value_t = LogLevel::Warn)]
    pub log_level: LogLevel,
}

/// Options of `status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Print one JSON object: schema `sealift.status/1`
    #[arg(long)]
    pub json: bool,

    /// The folder that the transfers were run with [default: as for a transfer]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Options of `identity`.
#[derive(Args, Clone, Debug)]
pub struct IdentityArgs {
    /// The folder that holds the identity [default: as for a transfer]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Print a signing request (PKCS #10) for an authority instead; the key stays here
    #[arg(long, conflicts_with = "certificate")]
    pub request: bool,

    /// Show this certificate from now on, which an authority has issued on the request: PEM,
    /// without the authority's own
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
}

/// `identity`: prints the fingerprint or a signing request, and nothing else, on standard output.
pub fn identity(args: &IdentityArgs, role: Role) -> Outcome {
    let program = role.program();
    let state = StateDir::open(args.state_dir.clone(), program)?;
    let audit = AuditLog::open(&state, program)?;
    let identity = Identity::open(&state, role, &audit)?;
    if let Some(path) = &args.certificate {
        enrolment::certify(&identity, role, &state, &audit, path)?;
    }
    let printed = match args.request {
        true => identity.signing_request(role)?,
        false => format!("{}\n", identity.fingerprint()),
    };
    output::print(printed.as_bytes())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SuiteChoice {
    Auto,
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl SuiteChoice {
    /// The suites that this side allows, the preferred one first.
    pub fn suites(self) -> Vec<Suite> {
        match self {
            SuiteChoice::Auto => suites_auto(aes_accelerated()),
            SuiteChoice::Aes256Gcm => vec![Suite::Aes256Gcm],
            SuiteChoice::ChaCha20Poly1305 => vec![Suite::ChaCha20Poly1305],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The least `--memory`: two frames in flight need as much again around them.
pub const MEMORY_BYTES_MIN: u64 = 2 * LANE_WINDOW_BYTES_MIN;
/// The most: more than any link needs.
pub const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// The largest row that may be asked for: a length of a row fits 32 bits, and SQLite and PostgreSQL
/// stop at 1 GB.
pub const ROW_BYTES_SETTING_MAX: u64 = 1 << 30;
const _: () = assert!(ROW_BYTES_MAX as u64 <= ROW_BYTES_SETTING_MAX);

impl TransferArgs {
    /// Checks the numbers and starts the log.
    pub fn apply(&self) -> Outcome {
        check_memory("--memory", self.memory)?;
        check_row_bytes("--row-bytes-max", self.row_bytes_max)?;
        self.log_level.start();
        Ok(())
    }
}

/// The most sessions of a database at once: more would be more than a server is set up for.
pub const WORKERS_MAX: u16 = 64;

fn parse_workers(text: &str) -> Result<NonZero<u16>, String> {
    let number = text.parse().ok().filter(|number: &NonZero<u16>| number.get() <= WORKERS_MAX);
    number.ok_or_else(|| format!("give a number from 1 to {WORKERS_MAX}"))
}

/// Whether so much memory for bytes in flight makes sense for one transfer.
pub fn check_memory(setting: &str, bytes: u64) -> Outcome {
    if (MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&bytes) {
        return Ok(());
    }
    let next = format!("Give between {}MiB and {}GiB.", MEMORY_BYTES_MIN.div_ceil(1 << 20), MEMORY_BYTES_MAX >> 30);
    Err(Failure::usage(format!("{setting} of {bytes} bytes cannot be used"), next))
}

/// Whether a row may be so large.
pub fn check_row_bytes(setting: &str, bytes: u64) -> Outcome {
    match (1..=ROW_BYTES_SETTING_MAX).contains(&bytes) {
        true => Ok(()),
        false => Err(Failure::usage(format!("{setting} cannot be used"), "Give between 1B and 1GiB.")),
    }
}

impl LogLevel {
    /// Starts the log.
    pub fn start(self) {
        telemetry::start(match self {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        });
    }
}

/// `completions` and `man`, made from the same definitions as `--help`.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum DocCommand {
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Print a manual page, for `man -l -`
    Man {
        /// The command that it is about [default: the program]
        command: Vec<String>,
    },
}

impl DocCommand {
    pub fn run<C: CommandFactory>(&self) -> Outcome {
        let mut command = C::command();
        let mut page = Vec::new();
        match self {
            DocCommand::Completions { shell } => {
                let name = command.get_name().to_owned();
                clap_complete::generate(*shell, &mut command, name, &mut page);
            }
            DocCommand::Man { command: words } => manual::render(command, words, &mut page)?,
        }
        output::print(&page)
    }
}

/// Parses arguments; a mistake in them is reported, and the exit code is 2. Call first: from here
/// on every line on standard error is ours.
pub fn parse<C: Parser>(program: &str) -> Result<C, ExitCode> {
    report_panics();
    C::try_parse().map_err(|error| refuse::<C>(program, &error))
}

/// The same of an agent, which reports it as an event as well.
pub fn parse_agent<C: Parser>(role: Role) -> Result<C, ExitCode> {
    report_panics();
    C::try_parse().map_err(|error| {
        // What `status` prints is no event.
        let reads_events = std::env::args_os().nth(1).is_none_or(|command| command != "status");
        if error.use_stderr() && reads_events && std::env::args_os().any(|argument| argument == "--json") {
            Report::new(role, true).end_untold(&mistake::<C>(&error));
        }
        refuse::<C>(role.name(), &error)
    })
}

/// Help was asked for, or is what a bare call needs; anything else is a mistake, told as any other
/// failure.
fn refuse<C: CommandFactory>(program: &str, error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => exit(program, output::printed(error.print())),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(Code::Usage.exit_code())
        }
        _ => exit(program, Err(mistake::<C>(error))),
    }
}

/// The first paragraph of clap's message in one line, and what there is to say about it. Behind it
/// are usage and help.
fn mistake<C: CommandFactory>(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n").map(|lines| lines.split_whitespace().collect::<Vec<_>>().join(" "));
    let what = paragraphs.next().unwrap_or_default();
    let tips = paragraphs.filter_map(|tip| Some(format!("Hint: {}.", tip.strip_prefix("tip: ")?)));
    let hints = match hint::<C>(error) {
        Some(hint) => vec![hint],
        None => tips.chain(["See --help.".to_owned()]).collect(),
    };
    Failure::usage(what.trim_start_matches("error: "), hints.join(" "))
}

/// Where a command or an option that this program does not have is at home.
fn hint<C: CommandFactory>(error: &clap::Error) -> Option<String> {
    let given = match error.kind() {
        ErrorKind::InvalidSubcommand => error.get(ContextKind::InvalidSubcommand),
        ErrorKind::UnknownArgument => error.get(ContextKind::InvalidArg),
        _ => None,
    };
    let Some(ContextValue::String(given)) = given else { return None };
    misplaced::hint(C::command().get_name(), given)
}

/// The end of a command that is no transfer.
pub fn exit(program: &str, outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_failure(program, &failure);
            ExitCode::from(failure.code.exit_code())
        }
    }
}
