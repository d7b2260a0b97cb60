//! The sender's commands.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use sealift_agent::{
    cli::{DocCommand, EXIT_CODES, IdentityArgs, LogLevel, StatusArgs, TransferArgs},
    preflight::WaiveArgs,
    units::{parse_bytes, parse_duration, parse_wait},
};
use sealift_engine_api::{KeepSnapshot, SourceOptions, Waivers};
use sealift_protocol::{compress::Compression, manifest::Empty};

use crate::{chosen::ChosenArgs, form::Form};

/// Sends a database or a dump, sealed, to one receiver
///
/// Reads the source, hashes, compresses and seals it chunk by chunk, and sends it over mutually
/// authenticated QUIC to the receiver that issued the ticket. Nothing is written to this host's
/// disk in the clear.
#[derive(Parser, Debug)]
#[command(name = "sealift-sender", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the one transfer that a ticket permits
    #[command(after_help = PUSH_EXAMPLES)]
    Push(PushArgs),
    /// Seal the source into a file that is carried to one receiver, and that nobody else can open
    #[command(after_help = SEAL_EXAMPLES)]
    Seal(SealArgs),
    /// Look at a source and at what reads it, and print what a transfer would meet; touches nothing
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Print the fingerprint by which receivers know this sender; makes its identity the first time
    Identity(IdentityArgs),
    /// List the transfers that were begun and have not ended
    Status(StatusArgs),
    /// End an unfinished transfer for good: at the receiver, too, if its ticket is given
    Abandon(AbandonArgs),
    #[command(flatten)]
    Doc(DocCommand),
}

const CHECK_EXAMPLES: &str = "Examples:
  sealift-sender check --source 'postgres://reader@/ehr?host=/var/run/postgresql'
  sealift-sender check --source sqlite:/srv/ehr.db --json

Exit code 3: an error was found, and no transfer begins.";

#[derive(clap::Args, Clone, Debug)]
pub struct CheckArgs {
    /// What is to be sent: sqlite:PATH, postgres://..., exec:COMMAND or file:PATH
    #[arg(long, value_name = "URL")]
    pub source: String,

    /// How an sqlite: source is sent
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    pub form: Form,

    #[command(flatten)]
    pub chosen: ChosenArgs,

    #[command(flatten)]
    pub waivers: WaiveArgs,

    /// Print one JSON object a line on standard output; the last is `finished`
    #[arg(long)]
    pub json: bool,

    /// How much to say about what happens inside, on standard error
    #[arg(long, value_enum, default_value_t = LogLevel::Warn)]
    pub log_level: LogLevel,
}

const PUSH_EXAMPLES: &str = "Examples:
  sealift-sender push --source sqlite:/srv/ehr.db --ticket ehr.ticket --to FINGERPRINT
  sealift-sender push --source 'exec:pg_dump -Fc ehr' --ticket -
  ssh dst sealift-receiver listen --target sqlite:/srv/ehr.db --ticket-out - |
    ssh src sealift-sender push --source sqlite:/srv/ehr.db --ticket -";

#[derive(clap::Args, Clone, Debug)]
pub struct AbandonArgs {
    /// The transfer, as `status` prints it: it is forgotten here, and the receiver is not told
    #[arg(required_unless_present_any = ["ticket", "all"], conflicts_with_all = ["ticket", "all"])]
    pub transfer: Option<String>,

    /// Its ticket: a file, or - for standard input. The receiver, if it runs, drops what it has
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    pub ticket: Option<String>,

    /// Every unfinished transfer of this state directory; the receivers are not told
    #[arg(long)]
    pub all: bool,

    /// The folder that the transfer was run with [default: as for a transfer]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

#[derive(clap::Args, Clone, Debug)]
pub struct PushArgs {
    /// What to send: sqlite:PATH, postgres://..., exec:COMMAND, file:PATH, or - for standard input
    #[arg(long, value_name = "URL")]
    pub source: String,

    /// How an sqlite: source is sent
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    pub form: Form,

    #[command(flatten)]
    pub chosen: ChosenArgs,

    /// Print what would be moved, in which parts, and what would not; send and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// The ticket that the receiver printed: a file, or - for standard input
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    ticket: Option<String>,

    /// The receiver that the ticket has to lead to: its fingerprint, or its name in the file of
    /// known agents
    #[arg(long, value_name = "FINGERPRINT|NAME")]
    pub to: Option<String>,

    /// File of known agents: a name and a fingerprint a line [default: known-agents in the state
    /// directory]
    #[arg(long, value_name = "FILE")]
    pub known_agents: Option<PathBuf>,

    /// The ticket came by a way on which nobody can alter it: go where it leads, without a pin and
    /// without asking
    #[arg(long, conflicts_with = "to")]
    pub trust_ticket: bool,

    /// zstd level 1 to 19, off, or auto
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = parse_compression)]
    pub compression: Compression,

    /// How long to try again when the link is lost; 0s: not at all [default: until the ticket
    /// expires]
    #[arg(long, value_name = "TIME", value_parser = parse_wait)]
    pub retry_for: Option<Duration>,

    /// Drop what the receiver has of this transfer, and send the source as it is now
    #[arg(long)]
    pub restart: bool,

    /// For - and exec: keep what was read in this folder, sealed to the receiver alone, until the
    /// transfer is over: if this sender is killed after the source has ended, the same command
    /// continues without the source
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,

    /// Room for the spool, which holds all that crosses the link; a source that needs more ends the
    /// transfer
    #[arg(long, value_name = "SIZE", default_value = "64GiB", value_parser = parse_bytes, requires = "spool")]
    pub spool_bytes_max: u64,

    #[command(flatten)]
    pub snapshot: SnapshotArgs,

    #[command(flatten)]
    pub empty: EmptyArgs,

    #[command(flatten)]
    pub waivers: WaiveArgs,

    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// How long a source holds its snapshot for this transfer.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct SnapshotArgs {
    /// Of a postgres: source: how long its snapshot is held when this sender has ended before the
    /// transfer has, so that the same command resumes on it; 0s: not at all
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_wait)]
    pub hold_snapshot: Duration,

    /// Of a postgres: source: how old its snapshot may become; then the transfer fails. While it is
    /// held, the server can vacuum nothing that is deleted
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    pub snapshot_age_max: Duration,
}

impl SnapshotArgs {
    /// For the transfer of this folder.
    pub fn keep(self, folder: PathBuf, fresh: bool) -> KeepSnapshot {
        KeepSnapshot { folder, fresh, unattended: self.hold_snapshot, age_max: self.snapshot_age_max }
    }
}

/// What may be said about a source with nothing in it.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct EmptyArgs {
    /// Move a source that has nothing in it: a dump without a byte, a database without a table.
    /// Without this it is refused, since a dump that failed behind a pipe looks the same
    #[arg(long)]
    pub allow_empty: bool,
}

impl EmptyArgs {
    pub fn said(self) -> Option<Empty> {
        self.allow_empty.then_some(Empty::Allowed)
    }
}

const SEAL_EXAMPLES: &str = "Examples:
  sealift-sender seal --source sqlite:/srv/ehr.db --to RECEIVER.pub --out /media/disk/ehr.sealift
  sealift-sender seal --source 'exec:pg_dump -Fc ehr' --to RECEIVER.pub --out - | ssh dst 'cat > ehr.sealift'

RECEIVER.pub is made on the target host: sealift-receiver key --out RECEIVER.pub. Compare its fingerprint out of band.";

#[derive(clap::Args, Clone, Debug)]
pub struct SealArgs {
    /// What to seal: sqlite:PATH, postgres://..., exec:COMMAND, file:PATH, or - for standard input
    #[arg(long, value_name = "URL")]
    pub source: String,

    /// How an sqlite: source is sent
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    pub form: Form,

    #[command(flatten)]
    pub chosen: ChosenArgs,

    /// The public key of the receiver that is to load it
    #[arg(long, value_name = "RECEIVER.pub")]
    pub to: PathBuf,

    /// Where the archive goes: a new file, a FIFO, or - for standard output
    #[arg(long, value_name = "FILE")]
    pub out: String,

    /// Why: a change or ticket number, for the grant, the audit log and the receipt
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub purpose: String,

    /// How long the archive may be loaded; its journey is part of that
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_duration)]
    pub valid_for: Duration,

    /// zstd level 1 to 19, off, or auto
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = parse_compression)]
    pub compression: Compression,

    #[command(flatten)]
    pub empty: EmptyArgs,

    #[command(flatten)]
    pub waivers: WaiveArgs,

    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// `auto` is level 1 until links are measured: on two cores it costs less time than it saves below
/// about 2 Gbit/s.
fn parse_compression(text: &str) -> Result<Compression, String> {
    match text {
        "auto" => Ok(Compression::Level(1)),
        "off" => Ok(Compression::Off),
        _ => match text.parse() {
            Ok(level @ 1..=19) => Ok(Compression::Level(level)),
            _ => Err("give auto, off, or a level from 1 to 19".into()),
        },
    }
}

impl PushArgs {
    /// Where the ticket is; a dry run needs none.
    pub fn ticket(&self) -> &str {
        self.ticket.as_deref().unwrap_or_default()
    }

    pub fn source_options(&self, waivers: Waivers) -> SourceOptions {
        source_options(self.form, &self.chosen, &self.transfer, waivers)
    }
}

impl SealArgs {
    pub fn source_options(&self, waivers: Waivers) -> SourceOptions {
        source_options(self.form, &self.chosen, &self.transfer, waivers)
    }
}

fn source_options(form: Form, chosen: &ChosenArgs, transfer: &TransferArgs, waivers: Waivers) -> SourceOptions {
    SourceOptions {
        form: form.of_engine(),
        filter: chosen.filter(),
        workers: transfer.workers,
        danger_show_program_output: transfer.danger_show_program_output,
        keep: None,
        waivers,
    }
}
