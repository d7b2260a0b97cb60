use std::fs;

use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Environment { variables, home: Some("/users/me".into()), user: Some("me".into()) }
}

fn parsed(rest: &str) -> Address {
    Address::parse_in(rest, &environment(&[])).expect(rest)
}

fn refused(rest: &str) -> String {
    let failure = Address::parse_in(rest, &environment(&[])).expect_err(rest);
    assert_eq!(failure.code.exit_code(), 2);
    assert!(!failure.to_string().contains("secret"), "{failure}");
    failure.what
}

fn tcp(name: &str) -> Host {
    Host::Tcp { name: name.into(), at: None }
}

#[test]
fn urls_as_people_type_them() {
    let address = parsed("//ehr@db.example.org:6432/clinic%20one");
    assert_eq!(address.host, tcp("db.example.org"));
    assert_eq!((address.port, &*address.user, &*address.database), (6432, "ehr", "clinic one"));
    assert_eq!(address.tls, TlsMode::VerifyFull);
    let address = parsed("//ehr@/clinic?host=/run/postgresql");
    assert_eq!(address.host, Host::Socket("/run/postgresql".into()));
    assert_eq!((address.port, address.tls), (5432, TlsMode::Off));
    assert_eq!(parsed("//%2Frun%2Fpg/clinic").host, Host::Socket("/run/pg".into()));
    let address = parsed("//[::1]:5433");
    assert_eq!((address.host, address.port, &*address.database), (tcp("::1"), 5433, "me"));
    assert_eq!(parsed("//127.0.0.1/x").tls, TlsMode::Off);
    assert_eq!(parsed("//localhost/x?sslmode=verify-full").tls, TlsMode::VerifyFull);
    assert!(matches!(parsed("//").host, Host::Socket(_)));
    assert_eq!(parsed("//h/d?user=other&port=1").user, "other");
}

#[test]
fn what_could_weaken_something_is_refused() {
    for bad in [
        "//u:secret@h/d",
        "//h/d?password=secret",
        "//h/d?sslpassword=secret",
        "//h/d?secret=1",
        "//h/d?options=-c%20x=secret",
        "//a,b/d",
        "//a:1,b:2/d",
        "//h/d?sslmode=disable",
        "//h/d?sslmode=prefer",
        "//h/d?sslmode=require",
        "//h/d?sslmode=verify-ca",
        "//h/d?sslmode=secret",
        "//h/d?sslrootcert=system",
        "//h:secret/d",
        "//h:0/d",
        "//::1/d",
        "//[::1/d",
        "//h/d%2",
        "//h/d%00",
        "//h/d%ff",
        "h/d",
        "//h/d?x",
    ] {
        refused(bad);
    }
    assert!(refused("//h/d?sslmode=disable").contains("in the clear"));
}

#[test]
fn a_url_names_the_same_place_again() {
    for rest in ["//a%40b@db.example.org/x%2Fy?sslrootcert=/ca.pem", "//[::1]:5433/d", "//u@/d?host=/run/a%20b&port=7"]
    {
        let address = parsed(rest);
        let again = Address::parse_in(address.url().strip_prefix("postgres:").expect("its scheme"), &environment(&[]));
        assert_eq!(again, Ok(address));
    }
}

#[test]
fn a_service_is_before_the_environment_and_after_the_url() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pg_service.conf");
    fs::write(&file, "# ours\n[other]\nhost=no\n[ehr]\nhost=db.example.org\nport=7\npassword=secret\nuser=svc\n")
        .expect("written");
    let file = file.to_str().expect("its path");
    let environment =
        environment(&[("PGSERVICEFILE", file), ("PGSERVICE", "ehr"), ("PGPORT", "9"), ("PGDATABASE", "env")]);
    let address = Address::parse_in("//me@", &environment).expect("it is good");
    assert_eq!(address.host, tcp("db.example.org"));
    assert_eq!((address.port, &*address.user, &*address.database), (7, "me", "env"));
    let service = address.service.expect("it has one");
    assert_eq!(service::password_of(&service), Ok(Some("secret".into())));
    let missing = Address::parse_in("//?service=none", &environment).expect_err("there is none");
    assert!(missing.what.contains("'none'"));
}
