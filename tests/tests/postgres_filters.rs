//! Issue 11, "row filters (`--where table='…'`, whose literals never reach a log, receipt or
//! audit), schema-only": which rows arrive, and that the receipt says that some were left out.

use std::{fs, path::Path, process::Command, time::Duration};

use sealift_protocol::manifest::{Filtered, Plan, RowsMoved, SignedReceipt};
use sealift_tests::{
    agents::{Launch, OPERATOR},
    exit,
    finished::Finished,
    launch::program,
    pair::Pair,
    postgres::Postgres,
};

const WITHIN: Duration = Duration::from_secs(120);

const CLINIC: &str = "
    create table patient (id int primary key, name text); insert into patient select n, 'p' || n from generate_series(1, 200) n;
    create table visit (id int primary key, patient int references patient, note text) ;
    insert into visit select n, 1 + n % 200, case n % 4 when 0 then 's3cret' else 'open' end from generate_series(1, 4000) n;
    create table log (at int, what text) partition by range (at);
    create table log_old partition of log for values from (0) to (50);
    create table log_new partition of log for values from (50) to (100);
    insert into log select n, 's3cret' from generate_series(0, 99) n;
    create table \"Odd=Name\" (a int); insert into \"Odd=Name\" values (1), (2);
    create table scratch (a int); create table audit (a int)";

fn clinic() -> Option<Postgres> {
    let server = Postgres::start_durable()?;
    server.create_database("clinic");
    server.query("clinic", CLINIC);
    Some(server)
}

fn plan_of(ended: &Finished) -> Plan {
    let receipt = SignedReceipt::from_bytes(&fs::read(&ended.receipts()[0]).unwrap()).unwrap();
    receipt.verify().unwrap();
    receipt.receipt.plan
}

fn verified(ended: &Finished) -> String {
    let file = ended.receipts()[0].clone();
    let shown = Launch::bare(OPERATOR, &["receipt", "verify"]).arg(file).start().wait(WITHIN);
    String::from_utf8(shown.stdout()).unwrap()
}

/// Every file below a folder, in one.
fn all_of(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => all.append(&mut all_of(&entry.path())),
            false => all.append(&mut fs::read(entry.path()).unwrap_or_default()),
        }
    }
    all
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn rows_are_chosen_and_the_receipt_says_so() {
    let Some(server) = clinic() else { return };
    let wheres = [
        "--where",
        "public.visit=note <> 's3cret' or id < 5 -- and no more",
        "--where",
        "log=at >= 40 and what = 's3cret'",
        "--where",
        "\"Odd=Name\"=a=1",
        "--exclude",
        "scratch",
        "--exclude",
        "audit",
    ];
    let moved = Pair::new(server.url("clinic"), server.url("copy")).sender_args(&wheres).within(WITHIN).run();
    moved.assert_done();
    let content = "select (select count(*) from visit), (select count(*) from visit where note = 's3cret'), \
                   (select count(*) from log_old), (select count(*) from log_new), (select sum(a) from \"Odd=Name\"), \
                   (select count(*) from patient)";
    assert_eq!(server.query("copy", content), "3001|1|10|50|1|200");
    let plan = plan_of(&moved.receiver);
    let filtered = |name: &str| plan.tables.iter().find(|table| table.name == name).unwrap().filtered;
    for name in ["visit", "log_old", "log_new", "Odd=Name"] {
        assert_eq!(filtered(name), Some(Filtered::ByCondition), "{name}");
    }
    assert_eq!((filtered("patient"), plan.left_out, plan.rows), (None, Some(2), None));
    let receipt = verified(&moved.receiver);
    assert!(receipt.contains("2 tables, by choice") && receipt.contains("filtered: rows may"), "{receipt}");
    let findings = moved.sender.events_named("finding");
    assert!(findings.iter().any(|finding| finding["name"] == "filtered"), "{findings:?}");
    for ended in [&moved.sender, &moved.receiver] {
        let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout()), ended.stderr());
        assert!(!said.contains("s3cret"), "{said}");
        assert!(!holds(&all_of(&ended.state_dir()), "s3cret"), "on disk");
    }
}

#[test]
fn a_condition_is_one_expression_over_one_table() {
    let Some(server) = clinic() else { return };
    let dry = |wheres: &[&str]| {
        let mut sender = Command::new(program("sealift-sender"));
        sender.args(["push", "--dry-run", "--source", &server.url("clinic")]);
        sender.args(wheres.iter().flat_map(|text| ["--where", text]));
        let output = sender.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), said)
    };
    let (code, table, said) = dry(&["patient=name <> 's3cret'"]);
    assert_eq!(code, Some(exit::DONE), "{said}");
    assert!(table.contains("public.patient, filtered by --where"), "{table}");
    assert!(said.contains("public.visit (visit_patient_fkey)"), "a foreign key that may fail is named: {said}");
    for bad in [
        "nothing = 's3cret'",
        "name = 's3cret') or (true",
        "name = 's3cret'] or ARRAY[true",
        "name = 's3cret'; drop table scratch",
        "name = 's3cret') ; drop table scratch; select (true",
        "count(*) > 1 or name = 's3cret'",
        "name = $1 or name = 's3cret'",
        "name || 's3cret'",
        "name = 's3cret' /* ",
        "name = 's3cret",
        "name = 's3cret') union select 1 where (true",
    ] {
        let (code, _, said) = dry(&[&format!("patient={bad}")]);
        assert_eq!(code, Some(exit::USAGE), "{bad}: {said}");
        assert!(said.contains("one boolean expression") && !said.contains("s3cret"), "{bad}: {said}");
    }
    for (bad, why) in [
        (&["log_*=true"][..], "matches several tables"),
        (&["nothing=true"], "no table"),
        (&["patient"], "has no table, or no condition"),
        (&["patient=true", "public.patient=false"], "two conditions"),
    ] {
        let (code, _, said) = dry(bad);
        assert!(code == Some(exit::USAGE) && said.contains(why), "{bad:?}: {said}");
    }
    assert_eq!(server.query("clinic", "select count(*) from scratch"), "0");
}

#[test]
fn definitions_alone_are_moved() {
    let Some(server) = clinic() else { return };
    let moved =
        Pair::new(server.url("clinic"), server.url("copy")).sender_args(&["--schema-only"]).within(WITHIN).run();
    moved.assert_done();
    let content = "select (select count(*) from visit), (select count(*) from log), (select count(*) from pg_constraint \
                   where contype in ('p', 'f') and connamespace = 'public'::regnamespace)";
    assert_eq!(server.query("copy", content), "0|0|3");
    let plan = plan_of(&moved.receiver);
    assert!(plan.tables.is_empty() && plan.rows == Some(RowsMoved::None));
    let receipt = verified(&moved.receiver);
    assert!(receipt.contains("definitions alone were moved"), "{receipt}");
}
