//! The statements that give a database the properties that the source's has.

use std::collections::BTreeSet;

use crate::{
    document::{Database, LocaleProvider, Setting},
    sql::{literal, quote},
};

/// Roles of the target's server, by name.
pub type Roles = BTreeSet<String>;

/// Settings whose value is a list of names, each quoted by itself (`GUC_LIST_QUOTE`).
const LISTS_OF_NAMES: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// `CREATE DATABASE` under this name. Nobody can connect to it.
pub fn create(name: &str, database: &Database, server_version: u32) -> String {
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ALLOW_CONNECTIONS false ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        quote(name),
        literal(&database.encoding),
        literal(&database.collate),
        literal(&database.ctype),
    );
    // Before 15 there is one provider, which is not named.
    if server_version >= 150_000 {
        let (provider, locale) = match database.provider {
            LocaleProvider::Libc => ("libc", None),
            LocaleProvider::Icu => ("icu", Some("ICU_LOCALE")),
            LocaleProvider::Builtin => ("builtin", Some("BUILTIN_LOCALE")),
        };
        sql += &format!(" LOCALE_PROVIDER {provider}");
        if let (Some(option), Some(locale)) = (locale, &database.locale) {
            sql += &format!(" {option} {}", literal(locale));
        }
        if let Some(rules) = &database.icu_rules {
            sql += &format!(" ICU_RULES {}", literal(rules));
        }
    }
    sql
}

/// The provider that this server does not have, if it is the database's.
pub fn missing_provider(database: &Database, server_version: u32) -> Option<&'static str> {
    match database.provider {
        LocaleProvider::Icu if server_version < 150_000 => Some("icu"),
        LocaleProvider::Builtin if server_version < 170_000 => Some("builtin"),
        _ => None,
    }
}

/// The statements that finish a database before others may connect to it: owner, connection limit,
/// settings and privileges. What is of a role that is not there is left out.
pub fn finish(name: &str, database: &Database, roles: &Roles) -> Vec<String> {
    let target = quote(name);
    let mut statements = Vec::new();
    if roles.contains(&database.owner) {
        statements.push(format!("ALTER DATABASE {target} OWNER TO {}", quote(&database.owner)));
    }
    if database.connection_limit != -1 {
        statements.push(format!("ALTER DATABASE {target} CONNECTION LIMIT {}", database.connection_limit));
    }
    statements.extend(database.settings.iter().filter_map(|setting| set(&target, setting, roles)));
    statements.extend(grants(&target, database, roles));
    statements
}

/// The roles that the database's own properties name and the server does not have.
pub fn missing_roles(database: &Database, roles: &Roles) -> Roles {
    let grantees = database.acl.iter().flat_map(|acl| items(acl)).map(|item| item.grantee);
    let of_settings = database.settings.iter().filter_map(|setting| setting.role.clone());
    let named = grantees.chain(of_settings).chain([database.owner.clone()]);
    named.filter(|role| !role.is_empty() && !roles.contains(role)).collect()
}

fn set(target: &str, setting: &Setting, roles: &Roles) -> Option<String> {
    let subject = match &setting.role {
        None => format!("DATABASE {target}"),
        Some(role) if roles.contains(role) => format!("ROLE {} IN DATABASE {target}", quote(role)),
        Some(_) => return None,
    };
    let value = match LISTS_OF_NAMES.contains(&setting.name.to_ascii_lowercase().as_str()) {
        true => names(&setting.value).iter().map(|name| literal(name)).collect::<Vec<_>>().join(", "),
        false => literal(&setting.value),
    };
    // An empty list is a list of one empty name.
    let value = if value.is_empty() { "''".to_owned() } else { value };
    Some(format!("ALTER {subject} SET {} TO {value}", quote(&setting.name)))
}

/// The names of a list as `GUC_LIST_QUOTE` settings are stored: separated by commas, in double
/// quotes where needed.
fn names(list: &str) -> Vec<String> {
    split_quoted(list, ',').into_iter().map(|name| name.trim().to_owned()).map(|name| unquote(&name)).collect()
}

/// Divides at `separator` outside of double quotes.
fn split_quoted(text: &str, separator: char) -> Vec<String> {
    let mut is_quoted = false;
    text.split(|character| {
        is_quoted ^= character == '"';
        character == separator && !is_quoted
    })
    .map(str::to_owned)
    .collect()
}

fn unquote(name: &str) -> String {
    match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

/// One item of an access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclItem {
    /// Empty for PUBLIC.
    pub grantee: String,
    /// Letters, each followed by `*` if it may be granted on.
    pub privileges: String,
}

/// The items of an ACL's text, such as `{=Tc/postgres,"\"a b\"=CTc*/postgres"}`.
pub fn items(acl: &str) -> Vec<AclItem> {
    let Some(inner) = acl.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else { return Vec::new() };
    array_elements(inner).iter().filter_map(|element| item(element)).collect()
}

/// The elements of an array's text, without its braces.
fn array_elements(inner: &str) -> Vec<String> {
    let mut elements = Vec::new();
    let mut element = String::new();
    let mut is_quoted = false;
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => element.extend(characters.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => elements.push(std::mem::take(&mut element)),
            other => element.push(other),
        }
    }
    if !element.is_empty() {
        elements.push(element);
    }
    elements
}

/// `grantee=privileges/grantor`, names in double quotes where needed.
fn item(text: &str) -> Option<AclItem> {
    let mut parts = split_quoted(text, '=').into_iter();
    let (grantee, rest) = (parts.next()?, parts.next()?);
    let privileges = split_quoted(&rest, '/').into_iter().next()?;
    Some(AclItem { grantee: unquote(&grantee), privileges })
}

/// The statements that give a database, on which PUBLIC has nothing, the privileges of the source.
fn grants(target: &str, database: &Database, roles: &Roles) -> Vec<String> {
    let Some(acl) = &database.acl else {
        return vec![format!("GRANT CONNECT, TEMPORARY ON DATABASE {target} TO PUBLIC")];
    };
    let mut statements = Vec::new();
    for item in items(acl) {
        if !item.grantee.is_empty() && !roles.contains(&item.grantee) {
            continue;
        }
        let grantee = if item.grantee.is_empty() { "PUBLIC".to_owned() } else { quote(&item.grantee) };
        for (letter, privilege) in [('C', "CREATE"), ('T', "TEMPORARY"), ('c', "CONNECT")] {
            let Some((_, after)) = item.privileges.split_once(letter) else { continue };
            let option = if after.starts_with('*') { " WITH GRANT OPTION" } else { "" };
            statements.push(format!("GRANT {privilege} ON DATABASE {target} TO {grantee}{option}"));
        }
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Database {
        let setting = |role: Option<&str>, name: &str, value: &str| Setting {
            role: role.map(str::to_owned),
            name: name.into(),
            value: value.into(),
        };
        Database {
            encoding: "UTF8".into(),
            provider: LocaleProvider::Icu,
            collate: "C".into(),
            ctype: "de_DE.utf8".into(),
            locale: Some("de-x'".into()),
            icu_rules: None,
            collation_version: None,
            owner: "app".into(),
            connection_limit: 7,
            comment: None,
            acl: Some(r#"{=T/app,app=CTc/app,"\"a,=b\"=c*/app",gone=C/app}"#.into()),
            tablespace: "pg_default".into(),
            settings: vec![
                setting(None, "search_path", "\"$user\", \"a\"\"b, c\", public"),
                setting(None, "work_mem", "4MB"),
                setting(Some("app"), "ehr.note", "it's"),
                setting(Some("gone"), "work_mem", "1GB"),
            ],
        }
    }

    #[test]
    fn a_database_is_made_as_the_source_is() {
        let sql = create("s\"", &database(), 150_000);
        assert_eq!(
            sql,
            "CREATE DATABASE \"s\"\"\" TEMPLATE template0 ALLOW_CONNECTIONS false ENCODING E'UTF8' LC_COLLATE E'C' \
             LC_CTYPE E'de_DE.utf8' LOCALE_PROVIDER icu ICU_LOCALE E'de-x'''"
        );
        assert!(create("s", &database(), 140_000).ends_with("LC_CTYPE E'de_DE.utf8'"));
        assert_eq!(missing_provider(&database(), 140_000), Some("icu"));
        assert_eq!(missing_provider(&database(), 150_000), None);
    }

    #[test]
    fn properties_of_roles_that_are_there_are_given() {
        let roles = ["app", "a,=b"].map(str::to_owned).into();
        assert_eq!(
            finish("ehr", &database(), &roles),
            [
                "ALTER DATABASE \"ehr\" OWNER TO \"app\"",
                "ALTER DATABASE \"ehr\" CONNECTION LIMIT 7",
                "ALTER DATABASE \"ehr\" SET \"search_path\" TO E'$user', E'a\"b, c', E'public'",
                "ALTER DATABASE \"ehr\" SET \"work_mem\" TO E'4MB'",
                "ALTER ROLE \"app\" IN DATABASE \"ehr\" SET \"ehr.note\" TO E'it''s'",
                "GRANT TEMPORARY ON DATABASE \"ehr\" TO PUBLIC",
                "GRANT CREATE ON DATABASE \"ehr\" TO \"app\"",
                "GRANT TEMPORARY ON DATABASE \"ehr\" TO \"app\"",
                "GRANT CONNECT ON DATABASE \"ehr\" TO \"app\"",
                "GRANT CONNECT ON DATABASE \"ehr\" TO \"a,=b\" WITH GRANT OPTION",
            ]
        );
        assert_eq!(missing_roles(&database(), &roles), Roles::from(["gone".to_owned()]));
    }

    #[test]
    fn without_privileges_of_its_own_it_has_the_default() {
        let database = Database { acl: None, settings: Vec::new(), connection_limit: -1, ..database() };
        assert_eq!(finish("ehr", &database, &Roles::new()), ["GRANT CONNECT, TEMPORARY ON DATABASE \"ehr\" TO PUBLIC"]);
    }
}
