//! Reading a receipt.

use std::{fs::File, io::Read, path::Path};

use sealift_agent::{
    failure::{Failure, Outcome},
    image, output,
    telemetry::printable,
    units::{grouped, human_bytes},
};
use sealift_protocol::{
    close::Code,
    fingerprint::Fingerprint,
    limits::CONTROL_BYTES_MAX,
    manifest::{PartKind, Proof, Receipt, SignedReceipt},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Checks the receipt in `file` and prints it. Whoever trusts the two public keys that it names can trust the rest.
pub fn verify(file: &Path) -> Outcome {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|file| file.take(CONTROL_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::io(Code::Usage, format!("{} cannot be read", file.display()), &error, ""))?;
    let signed = SignedReceipt::from_bytes(&bytes).map_err(|_| {
        Failure::new(Code::ManifestMismatch, format!("{} is no receipt, or was changed", file.display()), "")
    })?;
    signed.verify().map_err(|error| Failure {
        what: format!("{} does not hold: {}", file.display(), error.check),
        next: "It was changed after it was signed, or was not made by the agents that it names.".into(),
        ..Failure::from(error)
    })?;
    let text = describe(&signed.receipt);
    output::print(text.as_bytes())
}

fn describe(receipt: &Receipt) -> String {
    let manifest = &receipt.manifest.manifest;
    let grant = &receipt.grant.grant;
    let plain_bytes = manifest.parts.iter().map(|part| part.plain_bytes).fold(0, u64::saturating_add);
    // Names come from a database or a peer: none may steer the terminal, or pass for a line of the receipt.
    let named = |text: &str| printable(if text.is_empty() { "-" } else { text });
    let mut text = format!(
        "receipt good: both signatures hold, and what was loaded is what was sent\n\
         transfer   {}\nsender     {}\nreceiver   {}\ntarget     {}\npurpose    {}\n\
         time       {} to {}\nsealed     {}\nlink       {}\nproof      {}\nsize       {} in {} parts\n",
        manifest.transfer,
        Fingerprint::of(&receipt.sender_key),
        Fingerprint::of(&receipt.receiver_key),
        named(&grant.target),
        named(&grant.purpose),
        when(receipt.started_ms),
        when(receipt.finished_ms),
        receipt.suite.name(),
        named(&receipt.tls),
        match receipt.proof {
            Proof::ReadAgain => "every table was read again from the target, counted and digested",
            Proof::LoaderExit => "the loader took every verified byte and ended with exit code 0",
            Proof::Written => "every verified byte was written out",
            Proof::Discarded => "a drill: nothing was loaded; every row that arrived was counted and digested",
            Proof::PagesReadAgain => "every page was read again from the target and is the one that was sent",
        },
        human_bytes(plain_bytes),
        grouped(manifest.parts.len() as u64),
    );
    let tables = receipt.plan.parts.iter().zip(&receipt.loaded).filter(|(part, _)| part.kind == PartKind::Rows);
    for (part, loaded) in tables {
        let digest = loaded.digest.map_or_else(|| "not read again".to_owned(), |root| hex(&root.0[..8]));
        text += &format!("table      {:<40} {:>14} rows  {digest}\n", named(&part.name), grouped(loaded.rows));
    }
    let image = receipt.loaded.first().and_then(|loaded| loaded.image.as_ref());
    for line in image.into_iter().flat_map(image::describe) {
        text += &format!("image      {line}\n");
    }
    for table in image.iter().flat_map(|image| &image.tables) {
        let rows = table.rows.map_or_else(|| "not counted".to_owned(), |rows| format!("{} rows", grouped(rows)));
        let checked = if table.checked { "" } else { "  not checked" };
        text += &format!("table      {:<40} {rows:>19}{checked}\n", named(&table.name));
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
