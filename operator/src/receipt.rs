//! Reading a receipt: whether it contradicts itself, what vouches for it, and what it says.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use sealift_agent::{
    audit::entry::receipt_hash,
    audit_chain,
    failure::{Failure, Outcome},
    image, output, pins,
    role::Role,
    telemetry::printable,
    units::{counted, grouped, human_bytes},
};
use sealift_protocol::{
    archive::ARCHIVE_TARGET,
    audit_head::AuditHead,
    close::Code,
    fingerprint::Fingerprint,
    grant::LISTEN_TARGET,
    limits::CONTROL_BYTES_MAX,
    manifest::{Authority, Check, Proof, Receipt, ReceiverTrust, RowsMoved, SignedReceipt},
    sign::PublicKey,
};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The exit code for a receipt that contradicts nothing, and that nothing vouches for. No transfer
/// ends with it.
pub const NOT_VOUCHED: u8 = 10;

#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// The receipt that an agent kept in its state directory
    file: PathBuf,

    /// The sender that must have signed it: its fingerprint, or a name in --known-agents
    #[arg(long, value_name = "FINGERPRINT")]
    sender: Option<String>,

    /// The receiver that must have signed it, likewise
    #[arg(long, value_name = "FINGERPRINT")]
    receiver: Option<String>,

    /// File of agents, one a line: NAME FINGERPRINT
    #[arg(long, value_name = "FILE")]
    known_agents: Option<PathBuf>,

    /// An agent's audit log that must have an entry of this receipt. It vouches as far as you trust
    /// where it comes from. May be repeated
    #[arg(long, value_name = "LOG")]
    audit: Vec<PathBuf>,
}

/// What vouches for the keys of a receipt that does not contradict itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vouched {
    Both,
    SenderAlone,
    ReceiverAlone,
    Nothing,
}

/// Checks the receipt and prints it.
pub fn verify(args: &VerifyArgs) -> Outcome<Vouched> {
    let signed = read(&args.file)?;
    signed.verify().map_err(|error| {
        let what = format!("{} does not hold: {}", args.file.display(), error.check);
        let next = "It was changed after it was signed, or was not made by the agents that it names.";
        Failure { part: error.part, ..Failure::new(Code::ManifestMismatch, what, next) }
    })?;
    let receipt = &signed.receipt;
    let sender = is_as_given("sender", args.sender.as_deref(), &receipt.sender_key, args)?;
    let receiver = is_as_given("receiver", args.receiver.as_deref(), &receipt.receiver_key, args)?;
    args.audit.iter().try_for_each(|log| find_in(log, &signed))?;
    let vouched = match (sender, receiver) {
        _ if !args.audit.is_empty() => Vouched::Both,
        (true, true) => Vouched::Both,
        (true, false) => Vouched::SenderAlone,
        (false, true) => Vouched::ReceiverAlone,
        (false, false) => Vouched::Nothing,
    };
    output::print(describe(&signed, vouched).as_bytes())?;
    Ok(vouched)
}

fn read(file: &Path) -> Outcome<SignedReceipt> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|file| file.take(CONTROL_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::io(Code::Usage, format!("{} cannot be read", file.display()), &error, ""))?;
    SignedReceipt::from_bytes(&bytes).map_err(|_| {
        Failure::new(Code::ManifestMismatch, format!("{} is no receipt, or was changed", file.display()), "")
    })
}

/// Whether a key was given for this side; fails if it is another than the receipt's.
fn is_as_given(side: &str, given: Option<&str>, found: &PublicKey, args: &VerifyArgs) -> Outcome<bool> {
    let Some(given) = given else { return Ok(false) };
    let meant = match (Fingerprint::parse(given), &args.known_agents) {
        (Some(fingerprint), _) => fingerprint,
        (None, Some(file)) => pins::resolve(given, file)?,
        (None, None) => {
            let what = format!("'{}' is no fingerprint", printable(given));
            return Err(Failure::usage(what, "Give the fingerprint, or name the file of agents with --known-agents."));
        }
    };
    let found = Fingerprint::of(found);
    if found == meant {
        return Ok(true);
    }
    let what = format!("the {side} of this receipt is {found}, and not {meant}");
    let next =
        format!("Compare both with what `sealift-{side} identity` prints. This receipt proves nothing of the other.");
    Err(Failure::new(Code::IdentityRefused, what, next))
}

/// What a log has to have of one agent.
struct Side {
    program: &'static str,
    /// Named by this agent in what it signed.
    head: Option<AuditHead>,
    has_receipt: bool,
    has_head: bool,
}

impl Side {
    fn new(role: Role, head: Option<AuditHead>) -> Self {
        Self { program: role.program(), head, has_receipt: false, has_head: false }
    }

    fn look_at(&mut self, entry: &Value, is_receipt: bool) {
        self.has_receipt |= is_receipt && entry["program"] == self.program;
        self.has_head |= self.head.is_some_and(|head| audit_chain::is_entry(entry, &head));
    }
}

/// A log whose chain holds, which has this receipt, and in which the entry that its agent named
/// when it signed is what it was: a log that was rewritten since has another.
fn find_in(log: &Path, signed: &SignedReceipt) -> Outcome {
    let file = File::open(log)
        .map_err(|error| Failure::io(Code::Usage, format!("{} cannot be read", log.display()), &error, ""))?;
    let receipt = &signed.receipt;
    let hash = receipt_hash(signed).to_string();
    let transfer = receipt.grant.grant.transfer.to_string();
    let mut sides =
        [Side::new(Role::Sender, receipt.manifest.manifest.audit_head), Side::new(Role::Receiver, receipt.audit_head)];
    let checked = audit_chain::check(BufReader::new(file), |entry| {
        let kind = &entry["event"];
        let is_receipt = (kind == "transfer.publish" || kind == "transfer.end")
            && entry["receipt"] == hash.as_str()
            && entry["transfer"] == transfer.as_str();
        sides.iter_mut().for_each(|side| side.look_at(entry, is_receipt));
    });
    checked.map_err(|broken| {
        let what = format!("the audit log {} does not hold, {broken}", log.display());
        Failure::new(Code::ManifestMismatch, what, "It was changed after it was written, and vouches for nothing.")
    })?;
    if !sides.iter().any(|side| side.has_receipt) {
        let what = format!("the audit log {} has no entry of this receipt", log.display());
        return Err(Failure::new(
            Code::ManifestMismatch,
            what,
            "Give a log of an agent that took part in this transfer.",
        ));
    }
    if sides.iter().any(|side| side.has_receipt && side.head.is_some() && !side.has_head) {
        let what =
            format!("the audit log {} is not the one that its agent had when it signed this receipt", log.display());
        return Err(Failure::new(Code::ManifestMismatch, what, "It was rewritten since, and vouches for nothing."));
    }
    Ok(())
}

fn verdict(vouched: Vouched, proof: Proof) -> String {
    let (is, but) = match vouched {
        Vouched::Both => ("receipt good", None),
        Vouched::SenderAlone => ("consistent", Some("but nothing vouches for the receiver's key")),
        Vouched::ReceiverAlone => ("consistent", Some("but nothing vouches for the sender's key")),
        Vouched::Nothing => ("consistent", Some("but nothing vouches for these keys")),
    };
    let holds = match proof {
        Proof::Discarded => "of a drill: nothing was loaded, and what arrived is what was sent",
        _ => "all signatures hold, and what was loaded is what was sent",
    };
    match but {
        None => format!("{is}: {holds}\n"),
        Some(but) => format!(
            "{is}, {but}: anyone can make such a receipt\n\
             next         compare the fingerprints with what `identity` prints on each host, and give them as --sender and \
             --receiver; or give an agent's log as --audit\n"
        ),
    }
}

fn describe(signed: &SignedReceipt, vouched: Vouched) -> String {
    let receipt: &Receipt = &signed.receipt;
    let manifest = &receipt.manifest.manifest;
    let origin = &manifest.origin;
    let grant = &receipt.grant.grant;
    let plain_bytes = manifest.parts.iter().map(|part| part.plain_bytes).fold(0, u64::saturating_add);
    // Names come from a database or a peer: none may steer the terminal, or pass for a line of the
    // receipt.
    let named = |text: &str| printable(if text.is_empty() { "-" } else { text });
    let mut text = verdict(vouched, receipt.evidence.proof);
    let mut line = |name: &str, value: String| text += &format!("{name:<12} {value}\n");
    line("transfer", manifest.transfer.to_string());
    line("receipt", receipt_hash(signed).to_string());
    line("sender", Fingerprint::of(&receipt.sender_key).to_string());
    line("receiver", Fingerprint::of(&receipt.receiver_key).to_string());
    line(
        "trust",
        match origin.receiver_trust {
            ReceiverTrust::Pinned => "pinned: the sender's operator had named the receiver's key".into(),
            ReceiverTrust::Ticket => {
                "ticket: the ticket, or the key file of an archive, named the receiver's key, and nothing else".into()
            }
        },
    );
    line(
        "authority",
        match receipt.authority {
            Authority::Ticket => "ticket: one of the two agents signed the grant".into(),
            Authority::Operator(key) => format!("operator: {} signed the grant", Fingerprint::of(&key)),
        },
    );
    line("from", format!("{} on {}", named(&origin.source), named(&origin.host)));
    let has_name = ![LISTEN_TARGET, ARCHIVE_TARGET].contains(&grant.target.as_str());
    let called = if has_name { format!(", called {}", named(&grant.target)) } else { String::new() };
    line("target", format!("{} on {}{called}", named(&receipt.target), named(&receipt.target_host)));
    line("purpose", named(&grant.purpose));
    line("time", format!("{} to {}", when(receipt.started_ms), when(receipt.finished_ms)));
    line("sealed", receipt.suite.name().to_owned());
    line(
        "link",
        receipt.link.as_ref().map_or_else(|| "none: carried as an archive".into(), |link| link.facts.to_string()),
    );
    line("software", named(&receipt.software));
    line(
        "proof",
        match receipt.evidence.proof {
            Proof::RowsReadBack => "every table was read back from the target, counted and digested".into(),
            Proof::LoaderExit => "the loader took every verified byte and ended with exit code 0".into(),
            Proof::Written => "every verified byte was written out".into(),
            Proof::Discarded => "a drill: nothing was loaded; every row that arrived was counted and digested".into(),
            Proof::BytesReadBack => "every byte was read back from the target and is the one that was sent".into(),
        },
    );
    for (name, head) in [("sender log", manifest.audit_head), ("receiver log", receipt.audit_head)] {
        if let Some(head) = head {
            line(name, format!("entry {}, {}", grouped(head.sequence), hex(&head.hash)));
        }
    }
    let how = if receipt.evidence.proof == Proof::Discarded { "sent" } else { "size" };
    line(how, format!("{} in {} parts", human_bytes(plain_bytes), grouped(manifest.parts.len() as u64)));
    for (table, found) in receipt.plan.tables.iter().zip(&receipt.evidence.tables) {
        let name = table.full_name();
        let digest = hex(&found.sum[..8]);
        let filtered = if table.filtered.is_some() { "  filtered: rows may have been left out" } else { "" };
        line("table", format!("{:<40} {:>14} rows  {digest}{filtered}", named(&name), grouped(found.rows)));
    }
    if let Some(count) = receipt.plan.left_out {
        line("left out", format!("{}, by choice of the sender's operator", counted(count.into(), "table")));
    }
    if receipt.plan.rows == Some(RowsMoved::None) {
        line("rows", "none: definitions alone were moved, by choice of the sender's operator".into());
    }
    for check in &receipt.evidence.checks {
        match check {
            Check::Catalogue(found) => {
                line("catalogue", format!("{} compared, all as sent", counted(found.definitions, "definition")));
            }
            Check::Rows(found) => {
                if found.tables_read_early > 0 {
                    let tables = counted(found.tables_read_early, "table");
                    line("rows", format!("{tables} read back when loaded, with no row changed at the end"));
                }
                for column in &found.columns_not_compared {
                    line("not compared", format!("{}, which the target computes", named(column)));
                }
            }
            Check::Image(found) => image::describe(found).into_iter().for_each(|found| line("image", found)),
        }
    }
    let image = receipt.evidence.image();
    for table in image.iter().flat_map(|image| &image.tables) {
        let rows = table.rows.map_or_else(|| "not counted".to_owned(), |rows| format!("{} rows", grouped(rows)));
        let checked = if table.checked { "" } else { "  not checked" };
        line("table", format!("{:<40} {rows:>19}{checked}", named(&table.name)));
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn when(unix_ms: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "unknown".into())
}
