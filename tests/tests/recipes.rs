//! The recipes of docs/operations.md, run as they are written there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sealift_tests::{agents::Launch, mariadb::MariaDb, pair::Pair, postgres::Postgres, shared, sqlite};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(120);

/// What stands below a heading, up to the next one.
fn section(heading: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(&format!("\n### {heading}\n")).unwrap();
    rest.split("\n### ").next().unwrap().to_owned()
}

/// Its commands that begin so, in order.
fn commands(section: &str, begins: &str) -> String {
    let lines = section.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with(begins));
    let commands = lines.collect::<Vec<_>>().join("\n");
    assert!(!commands.is_empty(), "no command begins with {begins}");
    commands
}

/// Every value that is given to an option, in order.
fn values<'a>(section: &'a str, option: &str) -> Vec<&'a str> {
    let values: Vec<_> = section.split(option).skip(1).map(|rest| rest.split('\'').next().unwrap()).collect();
    assert!(!values.is_empty(), "{option}");
    values
}

/// Runs commands as a person at one host would.
fn run(commands: &str, folder: &Path, environment: &[(&str, String)]) {
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", commands]).current_dir(folder);
    shell.envs(environment.iter().map(|(name, value)| (*name, value)));
    shared::run(&mut shell);
}

fn within(launch: Launch, environment: &[(&str, String)]) -> Launch {
    environment.iter().fold(launch, |launch, (name, value)| launch.env(name, value))
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn environment_of(server: &Postgres) -> Vec<(&'static str, String)> {
    let programs = server.program("psql").parent().unwrap().display().to_string();
    vec![
        ("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap())),
        ("PGHOST", server.socket_folder().display().to_string()),
        ("PGPORT", server.port().to_string()),
        ("PGUSER", "postgres".to_owned()),
    ]
}

/// How a database was made, and the bytes of its text.
const POSTGRES_STATE: &str = "
    select encoding, datlocprovider, datcollate, datctype, daticulocale, pg_get_userbyid(datdba),
           (select array_agg(acl::text order by acl::text) from unnest(datacl) acl),
           shobj_description(oid, 'pg_database') from pg_database where datname = 'ehr';
    select setrole::regrole, setconfig from pg_db_role_setting where setdatabase = (
        select oid from pg_database where datname = 'ehr') order by 1;
    select id, encode(convert_to(name, getdatabaseencoding()), 'hex') from patient order by id;";

/// Issue 9, D2, and its case 30: encodings that are not the target's own, and what belongs to the
/// database itself.
#[test]
fn postgres_as_written() {
    let (Some(source), Some(target)) = (Postgres::start(), Postgres::start()) else { return };
    let text = section("PostgreSQL");
    let (from, to) = (environment_of(&source), environment_of(&target));
    for server in [&source, &target] {
        server.query("postgres", "create role app; create role keeper");
    }
    let databases = [
        ("SQL_ASCII", "locale 'C'", r"E'M\374ller'"),
        ("LATIN1", "locale 'C'", "chr(252)"),
        ("EUC_JP", "locale 'C'", r"convert_from('\xc6fccbdc', 'EUC_JP')"),
        ("UTF8", "locale_provider icu icu_locale 'de-u-co-phonebk' locale 'C.UTF-8'", "chr(252)"),
    ];
    for (place, (encoding, locale, name)) in databases.into_iter().enumerate() {
        let create = format!("create database ehr template template0 encoding '{encoding}' {locale} owner keeper");
        source.query("postgres", &create);
        let settings = "alter database ehr set search_path = clinic, public;
                        alter database ehr set datestyle = 'German';
                        alter role app in database ehr set work_mem = '8MB';
                        comment on database ehr is 'patients; and
                        others'; revoke connect on database ehr from public; grant connect on database ehr to app;
                        create table patient(id int primary key, name text)";
        source.query("ehr", settings);
        source.query("ehr", &format!("insert into patient values (1, {name}), (2, 'plain')"));
        let expected = source.query("ehr", POSTGRES_STATE);

        let carried = folder();
        run(&commands(&text, "pg_dump --format=custom --create"), carried.path(), &from);
        run(&commands(&text, "pg_restore --create"), carried.path(), &to);
        // Both forms of the recipe, in turn.
        let form = place % 2;
        let urls = (values(&text, "--source '")[form], values(&text, "--target '")[form]);
        let pair = Pair::new(urls.0, urls.1);
        pair.start_with(|sender| within(sender, &from), |receiver| within(receiver, &to)).wait(WITHIN).assert_done();
        assert_eq!(target.query("ehr", POSTGRES_STATE), expected, "{encoding}");
        for server in [&source, &target] {
            server.wait_until_idle("ehr");
            server.query("postgres", "drop database ehr");
        }
    }
}

/// Issue 9, D2, and its case 31: a table that strict mode refuses, a row of more than 16 MB,
/// another character set.
#[test]
fn mariadb_as_written() {
    let Some(server) = MariaDb::start() else { return };
    let text = section("MariaDB");
    let home = folder();
    let options = format!("[client]\nsocket={}\nuser=root\n", server.socket().display());
    fs::write(home.path().join(".my.cnf"), options).unwrap();
    let environment = [("HOME", home.path().display().to_string())];
    let columns: String = (0..60).map(|number| format!("c{number} varchar(60) character set utf8mb3, ")).collect();
    server.query("mysql", "create database ehr character set latin2 collate latin2_hungarian_ci");
    let tables = format!(
        "set session innodb_strict_mode=off;
         create table wide({columns} id int primary key) engine=InnoDB row_format=compact;
         insert into wide(id, c0) values (1, 'x');
         create table scan(id int primary key, image longblob, note varchar(20)) engine=InnoDB;
         insert into scan values (1, repeat('\\0x', 10000000), _latin2 x'f5fb')"
    );
    server.query("ehr", &tables);

    run(&commands(&text, "mariadb -N"), home.path(), &environment);
    run(&commands(&text, "mariadb < "), home.path(), &environment);
    run(&commands(&text, "mariadb -e"), home.path(), &environment);
    let home_of = |launch: Launch| within(launch, &environment);
    let urls = (values(&text, "--source '")[0], values(&text, "--target '")[0]);
    Pair::new(urls.0, urls.1).start_with(home_of, home_of).wait(WITHIN).assert_done();
    let state = |database: &str| {
        let rows = "select id, md5(image), hex(note) from scan union all select id, c0, count(*) from wide group by id";
        let made = format!(
            "select default_character_set_name, default_collation_name from information_schema.schemata \
             where schema_name = '{database}'"
        );
        (server.query(database, rows), server.query(database, &made))
    };
    assert_eq!(state("ehr_incoming"), state("ehr"));
}

/// Issue 9, D2: what an application's own collation, function or virtual table can do instead.
#[test]
fn sqlite_as_a_file_as_written() {
    let text = section("SQLite");
    let place = folder();
    let (source, target) = (place.path().join("ehr.db"), place.path().join("new.db"));
    sqlite::create(&source, "create table t(a text collate nocase primary key); insert into t values ('x')");
    let at = |url: &str| url.replace("/srv/ehr", &place.path().display().to_string());
    let url_of = |option: &str| {
        let url = text.split(option).nth(1).unwrap().split_whitespace().next().unwrap();
        at(&format!("file:{url}"))
    };
    let pair = Pair::new(url_of("--source file:"), url_of("--target file:"));
    pair.receiver_args(&["--danger-plaintext-file"]).run().assert_done();
    assert_eq!(fs::read(&source).unwrap(), fs::read(&target).unwrap());
}

/// Issue 9, D1, D2: what a refusal of a URL without an engine prints is what the recipe has, for
/// any name.
#[test]
fn the_commands_of_a_refused_url_are_those_of_the_recipe() {
    let recipe = section("MariaDB");
    let hints = sealift_engines::ENGINES.parse("mysql://host/ehr").unwrap_err().hints.to_string();
    let printed = hints.split('\'').filter(|part| part.starts_with("exec:"));
    let found = printed.map(|command| {
        let named = ["ehr", "ehr_incoming"].map(|name| format!("'{}'", command.replace("NAME", name)));
        assert!(named.iter().any(|command| recipe.contains(command)), "{command}");
    });
    assert_eq!(found.count(), 2, "a source and a target");
}
