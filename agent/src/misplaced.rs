//! What was typed to the wrong one of the three programs: where it belongs.

/// Each program with the commands that it alone has, and the options of its transfers that the other agent does not have.
pub const AT_HOME: [(&str, &[&str], &[&str]); 3] = [
    ("sealift-sender", &["push", "seal"], &["--source", "--ticket", "--spool", "--retry-for", "--restart"]),
    (
        "sealift-receiver",
        &["listen", "serve", "ticket", "key", "load"],
        &[
            "--target",
            "--ticket-out",
            "--bind",
            "--address",
            "--grace",
            "--journal-bytes-max",
            "--danger-plaintext-file",
        ],
    ),
    ("sealift", &["receipt"], &[]),
];

/// Commands that both agents have.
pub const OF_BOTH_AGENTS: [&str; 2] = ["status", "abandon"];

/// What to type instead of `given`, a command or an option that `program` does not have.
pub fn hint(program: &str, given: &str) -> Option<String> {
    let option = given.split('=').next().unwrap_or(given);
    for (home, commands, options) in AT_HOME.iter().filter(|(home, ..)| *home != program) {
        if commands.contains(&given) {
            return Some(format!("'{given}' is a command of {home}: {home} {given} --help"));
        }
        if options.contains(&option) {
            return Some(format!("'{option}' is an option of {home}, which runs on the other host: see {home} --help"));
        }
    }
    OF_BOTH_AGENTS.contains(&given).then(|| {
        format!("'{given}' is a command of the two agents: sealift-sender {given}, or sealift-receiver {given}")
    })
}
