use sealift_engines::ENGINES;

use super::*;

const TARGET: &str = "[targets.ehr]\nurl = \"sqlite:/srv/ehr.db\"\n";

/// Fault O1.
#[test]
fn a_mistake_is_an_error_and_never_repeats_a_value() {
    let table = [
        ("listn = [\"[::]:7443\"]", "unknown field `listn`"),
        ("listen = \"[::]:7443\"", "expected: a sequence"),
        ("listen = [\"host\"]", "line 1"),
        ("listen = []", "listen: give 1 to 8"),
        ("listen = [\"[::]:0\"]", "port of 0"),
        ("addresses = [\"receiver\"]", "addresses: receiver"),
        ("memory = 64", "expected: a string"),
        ("memory = \"64 megs\"", "give a size such as 64MiB"),
        ("memory = \"1MiB\"", "share of each transfer"),
        ("memory = \"64MiB\"\nmemory = \"64MiB\"", "line 2: duplicate key"),
        ("transfers_max = 0", "transfers_max: give 1 to 16"),
        ("transfers_max = -1", "expected: u64"),
        ("transfers_max = 17", "transfers_max: give 1 to 16"),
        ("row_bytes_max = \"2GiB\"", "row_bytes_max cannot be used"),
        ("grace = \"soon\"", "give a time"),
        ("suite = \"rot13\"", "give auto, aes-256-gcm or chacha20-poly1305"),
        ("suite = \"none\"", "give auto, aes-256-gcm or chacha20-poly1305"),
        ("[targets.other]", "missing field `url`"),
        ("[targets.other]\nurl = \"discard:\"\ndanger = true", "unknown field `danger`"),
        ("[targets.other]\nurl = \"discard:\"\ndanger_plaintext_file = \"yes\"", "expected: a boolean"),
        ("[targets.other]\nurl = \"mysql://h/secret\"", "targets.other: 'mysql:' is not known"),
        ("[targets.other]\nurl = \"-\"", "no standard output"),
        ("[targets.other]\nurl = \"discard:\"\nworkers = 65", "workers is too large"),
        ("[targets.other]\nurl = \"sqlite:ehr.db\"", "not absolute"),
        ("[targets.other]\nurl = \"sqlite:///srv/./ehr.db\"", "the same place"),
        ("[targets.other]\nurl = \"file:/srv/dump\"", "every row in the clear"),
        ("[targets.other]\nurl = \"exec:psql postgres://u:secret@h/d\"", "seems to hold a password"),
        ("[targets.other]\nurl = \"exec:psql 'host=h password=secret'\"", "seems to hold a password"),
        ("[targets.other]\nurl = \"exec:env PGPASSWORD=secret psql\"", "seems to hold a password"),
        ("[targets.other]\nurl = \"exec:mariadb --password=secret ehr\"", "seems to hold a password"),
        ("[targets.\"a b\"]\nurl = \"discard:\"", "a target's name cannot be used"),
        ("targets.other = \"exec:psql secret\"", "line 1"),
        ("listen = [", "line "),
    ];
    for (text, expected) in table {
        let is_setting = !text.starts_with("[targets");
        let whole = if is_setting { format!("{text}\n{TARGET}") } else { format!("{TARGET}{text}\n") };
        let failure = Config::parse(&whole, ENGINES).expect_err(text);
        assert_eq!(failure.code.exit_code(), 2, "{text}");
        let said = failure.to_string();
        assert!(said.contains(expected), "{text}: {said}");
        assert!(!said.contains("secret"), "{text}: {said}");
    }
    assert!(Config::parse("", ENGINES).expect_err("no target").what.contains("no targets"));
}

#[test]
fn what_is_not_said_has_a_default() {
    let config = Config::parse(TARGET, ENGINES).unwrap();
    assert_eq!(config.listen, listen_default());
    assert_eq!(config.memory_each(), 64 << 20);
    assert_eq!(config.grace, Duration::from_secs(900));
    let named = config.target("ehr_prod").expect_err("no such target");
    assert!(named.hints.to_string().contains("ehr"));
    let dangerous = "[targets.a]\nurl = \"file:/srv/a\"\ndanger_plaintext_file = true\n";
    let options = Config::parse(dangerous, ENGINES).unwrap().targets["a"].options(1, ENGINES).unwrap();
    assert_eq!((options.danger_plaintext_file, options.danger_show_program_output), (true, false));
}
