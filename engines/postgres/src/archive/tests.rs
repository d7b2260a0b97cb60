use super::*;

/// Writes archives as `pg_dump` does.
struct Writer(Vec<u8>);

impl Writer {
    fn new(minor: u8) -> Self {
        let mut writer = Self([MAGIC, &[1, minor, 0, 4, 8, FORMAT_CUSTOM]].concat());
        match minor >= 15 {
            true => writer.0.push(0),
            false => writer.int(-1),
        }
        (0..7).for_each(|_| writer.int(0));
        for text in ["ehr", "15.4", "15.18"] {
            writer.text(Some(text));
        }
        writer
    }

    fn int(&mut self, number: i32) {
        self.0.push((number < 0).into());
        self.0.extend_from_slice(&number.unsigned_abs().to_le_bytes());
    }

    fn text(&mut self, text: Option<&str>) {
        self.int(text.map_or(-1, |text| text.len() as i32));
        self.0.extend_from_slice(text.unwrap_or_default().as_bytes());
    }

    fn entry(&mut self, minor: u8, entry: &Entry, section: i32) {
        self.int(entry.id);
        self.int(0);
        for text in ["1259", "16384", &entry.tag, &entry.kind] {
            self.text(Some(text));
        }
        self.int(section);
        self.text(Some(&entry.definition));
        self.text(Some(&entry.drop));
        self.text(None);
        self.text(entry.schema.as_deref());
        self.text(entry.tablespace.as_deref());
        if minor >= 14 {
            self.text(entry.access_method.as_deref());
        }
        if minor >= 16 {
            self.int(0);
        }
        self.text(Some(&entry.owner));
        self.text(Some("false"));
        for number in &entry.depends_on {
            self.text(Some(&number.to_string()));
        }
        self.text(None);
        self.0.extend_from_slice(&[0; 9]);
    }
}

fn entry(id: i32, kind: &str, tag: &str) -> Entry {
    Entry {
        id,
        tag: tag.into(),
        kind: kind.into(),
        section: Section::PreData,
        definition: format!("CREATE {kind} {tag}"),
        drop: format!("DROP {kind} {tag};\n"),
        schema: Some("public".into()),
        tablespace: None,
        access_method: (kind == "TABLE").then(|| "heap".into()),
        is_partitioned: false,
        owner: "clinic".into(),
        depends_on: vec![3, 4],
    }
}

fn archive(minor: u8, entries: &[(Entry, i32)]) -> Vec<u8> {
    let mut writer = Writer::new(minor);
    writer.int(entries.len() as i32);
    entries.iter().for_each(|(entry, section)| writer.entry(minor, entry, *section));
    writer.0
}

#[test]
fn every_version_is_read() {
    for minor in 14..=16 {
        let expected = entry(7, "TABLE", "patient");
        let read = Archive::from_bytes(&archive(minor, &[(expected.clone(), 2)])).unwrap();
        assert_eq!(read.entries, [expected]);
        assert_eq!((&*read.server_version, &*read.dump_version), ("15.4", "15.18"));
    }
    for minor in [11, 17] {
        assert!(Archive::from_bytes(&archive(minor, &[])).is_err());
    }
}

/// Grants come after what they are on, event triggers last, and what is of no section stays with
/// what it follows.
#[test]
fn entries_come_in_the_order_of_pg_restore() {
    let entries = [
        (entry(1, "EVENT TRIGGER", "e"), 4),
        (entry(2, "TABLE", "t"), 2),
        (entry(3, "ACL", "TABLE t"), 1),
        (entry(4, "TABLE", "u"), 2),
        (entry(5, "INDEX", "i"), 4),
        (entry(6, "COMMENT", "INDEX i"), 1),
    ];
    let archive = Archive::from_bytes(&archive(15, &entries)).unwrap();
    let ids = |section| archive.section(section).map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(ids(Section::PreData), [2, 4, 3]);
    assert_eq!(ids(Section::PostData), [5, 6, 1]);
}

/// However it is cut or changed, it is read or refused.
#[test]
fn a_damaged_archive_is_refused() {
    let whole = archive(15, &[(entry(7, "TABLE", "patient"), 2), (entry(8, "INDEX", "i"), 4)]);
    for length in 0..whole.len() {
        assert!(Archive::from_bytes(&whole[..length]).is_err(), "{length}");
    }
    for place in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[place] = value;
            let _ = Archive::from_bytes(&changed);
        }
    }
}

/// D2: names are quoted, and end no statement.
#[test]
fn hostile_names_stay_names() {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let table = entry(1, "TABLE", "a\"; DROP TABLE b");
    assert_eq!(owned_object(&table, quote).as_deref(), Some("TABLE \"public\".\"a\"\"; DROP TABLE b\""));
    let function = Entry { drop: "DROP FUNCTION public.f(integer);\n".into(), ..entry(1, "FUNCTION", "f(integer)") };
    assert_eq!(owned_object(&function, quote).as_deref(), Some("FUNCTION public.f(integer)"));
    assert_eq!(owned_object(&entry(1, "INDEX", "i"), quote), None);

    let grants = "GRANT SELECT ON TABLE public.\"a;b\"\"c\" TO \"x;\";\nREVOKE ALL ON t FROM y;\n\n";
    let expected = ["GRANT SELECT ON TABLE public.\"a;b\"\"c\" TO \"x;\"", "REVOKE ALL ON t FROM y"];
    assert_eq!(statements(grants).collect::<Vec<_>>(), expected);

    let roles = |statement: &str| roles_of(statement).join(",");
    assert_eq!(roles("GRANT SELECT(\"TO x\") ON TABLE public.t TO \"a \"\"b\" WITH GRANT OPTION"), "a \"b");
    assert_eq!(roles("ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s GRANT ALL ON TABLES TO b"), "a,b");
    assert_eq!(roles("REVOKE ALL ON SCHEMA public FROM PUBLIC"), "");
    assert_eq!(roles("SET SESSION AUTHORIZATION c"), "c");
}
