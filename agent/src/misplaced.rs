//! What was typed to the wrong one of the three programs: where it belongs.

/// Each program with the commands that it alone has, and the options of its transfers that a
/// transfer of the other agent does not have.
pub const AT_HOME: [(&str, &[&str], &[&str]); 3] = [
    (
        "sealift-sender",
        &["push", "seal"],
        &[
            "--source",
            "--form",
            "--include",
            "--exclude",
            "--where",
            "--recompute",
            "--schema-only",
            "--dry-run",
            "--ticket",
            "--to",
            "--trust-ticket",
            "--compression",
            "--retry-for",
            "--restart",
            "--spool",
            "--spool-bytes-max",
            "--hold-snapshot",
            "--snapshot-age-max",
            "--allow-empty",
        ],
    ),
    (
        "sealift-receiver",
        &["listen", "serve", "ticket", "key", "load", "resolve"],
        &[
            "--target",
            "--ticket-out",
            "--bind",
            "--address",
            "--valid-for",
            "--finish-within",
            "--keep-for",
            "--from",
            "--purpose",
            "--grace",
            "--journal-bytes-max",
            "--danger-plaintext-file",
            "--config",
        ],
    ),
    ("sealift", &["receipt"], &["--sender", "--receiver", "--audit"]),
];

/// Commands that both agents have.
pub const OF_BOTH_AGENTS: [&str; 4] = ["status", "abandon", "identity", "check"];

/// What to type instead of `given`, a command or an option that `program` does not have.
pub fn hint(program: &str, given: &str) -> Option<String> {
    let option = given.split('=').next().unwrap_or(given);
    for (home, commands, options) in AT_HOME.iter().filter(|(home, ..)| *home != program) {
        if commands.contains(&given) {
            return Some(format!("'{given}' is a command of {home}: {home} {given} --help"));
        }
        if options.contains(&option) {
            let place = if home.contains('-') { ", which runs on the other host" } else { "" };
            return Some(format!("'{option}' is an option of {home}{place}: see {home} --help"));
        }
    }
    OF_BOTH_AGENTS.contains(&given).then(|| {
        format!("'{given}' is a command of the two agents: sealift-sender {given}, or sealift-receiver {given}")
    })
}
