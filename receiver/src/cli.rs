//! The receiver's commands.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use sealift_agent::{
    address::parse_own,
    cli::{DocCommand, EXIT_CODES, IdentityArgs, LogLevel, StatusArgs, TransferArgs},
    preflight::WaiveArgs,
    units::{parse_bytes, parse_duration, parse_wait},
};
use sealift_protocol::fingerprint::Fingerprint;

/// Receives a database or a dump, verifies each chunk before it is loaded, and proves what was
/// loaded
///
/// Takes what the sender that holds its ticket sends over mutually authenticated QUIC, and loads
/// it. A database and a file have a staging name until everything was verified; a program that
/// loads sees the end of its input only then. Nothing is written to disk in the clear except by the
/// target itself.
#[derive(Parser, Debug)]
#[command(name = "sealift-receiver", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Print a ticket, wait for the sender that uses it, load what it sends, and end
    #[command(after_help = LISTEN_EXAMPLES)]
    Listen(ListenArgs),
    /// Look at a target and print what a load would meet; touches nothing
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Print the fingerprint by which senders know this receiver; makes its identity the first time
    Identity(IdentityArgs),
    /// Write this receiver's public key, to which archives are sealed; makes the key the first time
    #[command(after_help = KEY_EXAMPLE)]
    Key(KeyArgs),
    /// Verify an archive that was carried here, and load it
    #[command(after_help = LOAD_EXAMPLES)]
    Load(LoadArgs),
    /// Take transfers into named targets, one after another and several at once, until stopped
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Print a ticket for one transfer into a target of `serve`
    #[command(after_help = TICKET_EXAMPLES)]
    Ticket(TicketArgs),
    /// List the transfers that were begun and have not ended, and what they hold
    Status(StatusArgs),
    /// End an unfinished transfer for good: drop what is staged, the journal and the keys
    Abandon(AbandonArgs),
    /// State what the target holds of a transfer that is in doubt
    #[command(after_help = RESOLVE_EXAMPLES)]
    Resolve(ResolveArgs),
    #[command(flatten)]
    Doc(DocCommand),
}

const CHECK_EXAMPLES: &str = "Examples:
  sealift-receiver check --target 'postgres://loader@/ehr?host=/var/run/postgresql'
  sealift-receiver check --config /etc/sealift/receiver.toml --json

Exit code 3: an error was found, and no transfer begins.";

#[derive(clap::Args, Clone, Debug)]
pub struct CheckArgs {
    /// Where to load, as for `listen`; with --config, the name of one of its targets [default
    /// there: all of them]
    #[arg(long, value_name = "URL|NAME", required_unless_present = "config")]
    pub target: Option<String>,

    /// The configuration of `serve`: its targets are looked at, with their waivers
    #[arg(long, value_name = "FILE", conflicts_with_all = ["waive", "danger_waive", "danger_plaintext_file"])]
    pub config: Option<PathBuf>,

    /// Write plaintext to a file: for file: targets, which hold every row in the clear
    #[arg(long)]
    pub danger_plaintext_file: bool,

    #[command(flatten)]
    pub waivers: WaiveArgs,

    /// Print one JSON object a line on standard output; the last is `finished`
    #[arg(long)]
    pub json: bool,

    /// How much to say about what happens inside, on standard error
    #[arg(long, value_enum, default_value_t = LogLevel::Warn)]
    pub log_level: LogLevel,
}

const KEY_EXAMPLE: &str = "Example:
  sealift-receiver key --out RECEIVER.pub

Its fingerprint is shown, for the person who seals an archive to the key to compare out of band first.";

#[derive(clap::Args, Clone, Debug)]
pub struct KeyArgs {
    /// Where to put the public key: a file, a FIFO, or - for standard output
    #[arg(long, value_name = "FILE")]
    pub out: String,

    /// Folder in which the key is kept [default: as for the other commands]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

const LOAD_EXAMPLES: &str = "Examples:
  sealift-receiver load ehr.sealift --target sqlite:/srv/ehr.db --from 0f3a-...
  sealift-receiver load ehr.sealift --target discard: --from 0f3a-...      # looks at all of it, loads nothing

The fingerprint is what `sealift-sender seal` printed. Compare it out of band, not over the way that the archive came.";

#[derive(clap::Args, Clone, Debug)]
pub struct LoadArgs {
    /// The archive
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Where to load: sqlite:PATH, postgres://..., exec:COMMAND, - for standard output, discard:,
    /// or file:PATH with its danger flag
    #[arg(long, value_name = "URL")]
    pub target: String,

    /// The sender's fingerprint
    #[arg(long, value_name = "FINGERPRINT", value_parser = parse_fingerprint)]
    pub from: Fingerprint,

    /// Write plaintext to a file: for file: targets, which hold every row in the clear
    #[arg(long)]
    pub danger_plaintext_file: bool,

    #[command(flatten)]
    pub waivers: WaiveArgs,

    #[command(flatten)]
    pub transfer: TransferArgs,
}

fn parse_fingerprint(text: &str) -> Result<Fingerprint, String> {
    Fingerprint::parse(text)
        .ok_or_else(|| "give the sixteen groups of four digits that `sealift-sender seal` printed".into())
}

const LISTEN_EXAMPLES: &str = "Examples:
  sealift-receiver listen --target sqlite:/srv/ehr.db --ticket-out ehr.ticket
  sealift-receiver listen --target 'exec:psql -X -q -v ON_ERROR_STOP=1 --single-transaction ehr' --ticket-out -
  sealift-receiver listen --target discard: --ticket-out - --address receiver.example.org:7443";

const TICKET_EXAMPLES: &str = "Examples:
  sealift-receiver ticket --config /etc/sealift/receiver.toml --target ehr_prod --ticket-out -

The ticket works for one transfer, while `serve` runs with the same configuration and state directory.";

const SERVE_EXAMPLES: &str = "Examples:
  sealift-receiver serve --config /etc/sealift/receiver.toml
  sealift-receiver ticket --config /etc/sealift/receiver.toml --target ehr_prod --ticket-out -

The configuration is TOML; an unknown key is an error. Without a key, what
stands here holds, but for addresses, state_dir and targets:
  listen = [\"[::]:7443\"]                      # UDP
  addresses = [\"receiver.example.org:7443\"]   # for tickets [default: this host's addresses]
  state_dir = \"/var/lib/sealift-receiver\"     # [default: as for listen]
  transfers_max = 2                           # at once, 1 to 16
  memory = \"128MiB\"                           # for bytes in flight, shared by the transfers
  row_bytes_max = \"256MiB\"                    # the largest row, for each transfer
  grace = \"15m\"                               # how long a load is kept open for its sender
  idle_max = \"1m\"                             # for a silent sender whose place another needs
  journal_bytes_max = \"64GiB\"                 # for each transfer; 0B for none
  suite = \"auto\"                              # or aes-256-gcm, or chacha20-poly1305

  [targets.ehr_prod]
  url = \"sqlite:/srv/ehr/ehr.db\"
  # danger_plaintext_file = true              # needed for file:
  # danger_show_program_output = true         # for exec:
  # waive = [\"locks\"]                         # errors of `check` that are accepted, by name
  # danger_waive = [\"fsync-off\"]

SIGTERM, SIGINT and SIGHUP drain: loads are suspended, and resumed at the next start.
A second signal ends it at once.";

#[derive(clap::Args, Clone, Debug)]
pub struct ServeArgs {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// Print one JSON object a line on standard output; the last is `finished`
    #[arg(long)]
    pub json: bool,

    /// How much to say about what happens inside, on standard error
    #[arg(long, value_enum, default_value_t = LogLevel::Warn)]
    pub log_level: LogLevel,
}

#[derive(clap::Args, Clone, Debug)]
pub struct TicketArgs {
    /// The configuration that `serve` runs with; run this as the same user
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// Name of a target in the configuration
    #[arg(long, value_name = "NAME")]
    pub target: String,

    /// Where to put the ticket: a file, made with mode 0600, a FIFO, or - for standard output
    #[arg(long, value_name = "FILE")]
    pub ticket_out: String,

    /// The unfinished transfer to continue, as `status` prints it: gives it new times [default: a
    /// new transfer]
    #[arg(long, value_name = "TRANSFER")]
    pub transfer: Option<String>,

    #[command(flatten)]
    pub grant: GrantArgs,
}

/// What a ticket permits.
#[derive(clap::Args, Clone, Debug)]
pub struct GrantArgs {
    /// How long the ticket can be used: the sender has to begin within this time
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub valid_for: Duration,

    /// When a transfer that has begun is suspended; another ticket for it lets it continue
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    pub finish_within: Duration,

    /// How long what is staged of a suspended transfer is kept after that; then it is dropped
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    pub keep_for: Duration,

    /// The only sender that may use the ticket: its fingerprint, or its name in the file of known
    /// agents
    #[arg(long, value_name = "FINGERPRINT|NAME")]
    pub from: Option<String>,

    /// File of known agents: a name and a fingerprint a line [default: known-agents in the state
    /// directory]
    #[arg(long, value_name = "FILE")]
    pub known_agents: Option<PathBuf>,

    /// Why: a change or ticket number, for the grant, the audit log and the receipt
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub purpose: String,
}

#[derive(clap::Args, Clone, Debug)]
pub struct AbandonArgs {
    /// The transfer, as `status` prints it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub transfer: Option<String>,

    /// Every unfinished transfer of this state directory that no process runs
    #[arg(long)]
    pub all: bool,

    /// The folder that the transfer was run with [default: as for a transfer]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

const RESOLVE_EXAMPLES: &str = "Examples:
  sealift-receiver resolve 0f3a...        --loaded         # the target holds the load: it is not loaded again
  sealift-receiver resolve 0f3a...        --not-loaded     # nothing of it is there: the same commands load it

A transfer is in doubt if its loader was given everything and its exit was not seen. Look into the target first,
once nothing of the loader is at work there any more. What you state goes into the audit log as your statement;
it proves nothing, and there is no receipt for a load that is only stated.";

#[derive(clap::Args, Clone, Debug)]
pub struct ResolveArgs {
    /// The transfer, as `status` prints it
    pub transfer: String,

    /// The load is in the target: it is not loaded again, and its sender is told so
    #[arg(long, required_unless_present = "not_loaded", conflicts_with = "not_loaded")]
    pub loaded: bool,

    /// Nothing of the load is in the target: the same commands load it again
    #[arg(long)]
    pub not_loaded: bool,

    /// The folder that the transfer was run with [default: as for a transfer]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

#[derive(clap::Args, Clone, Debug)]
pub struct ListenArgs {
    /// Where to load: sqlite:PATH, postgres://..., exec:COMMAND, - for standard output, discard:,
    /// or file:PATH with its danger flag
    #[arg(long, value_name = "URL")]
    pub target: String,

    /// Where to put the ticket: a file, made with mode 0600, a FIFO, or - for standard output
    #[arg(long, value_name = "FILE")]
    pub ticket_out: String,

    /// UDP address to listen at
    #[arg(long, value_name = "IP:PORT", default_value = "[::]:7443", value_parser = parse_own)]
    pub bind: SocketAddr,

    /// Address that the sender shall use; may be given several times [default: this host's
    /// addresses]
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Vec<String>,

    /// How long to wait for a sender whose link was lost; 0s: not at all
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = parse_wait)]
    pub grace: Duration,

    /// Room for the journal of a load that a loader takes: sealed, in the state directory, as large
    /// as what crosses the link. With 0 there is none: if this receiver is killed, the transfer
    /// starts over
    #[arg(long, value_name = "SIZE", default_value = "64GiB", value_parser = parse_bytes)]
    pub journal_bytes_max: u64,

    #[command(flatten)]
    pub grant: GrantArgs,

    /// Write plaintext to a file: for file: targets, which hold every row in the clear
    #[arg(long)]
    pub danger_plaintext_file: bool,

    #[command(flatten)]
    pub waivers: WaiveArgs,

    #[command(flatten)]
    pub transfer: TransferArgs,
}
