//! What a receipt says of an image, for people and for programs.

use sealift_protocol::manifest::{Checked, ImageChecks};
use serde_json::{Value, json};

use crate::units::{counted, grouped};

/// What it holds, and what was checked of it.
pub fn describe(checks: &ImageChecks) -> [String; 2] {
    let size = format!("{} of {} bytes", counted(checks.pages, "page"), grouped(checks.page_bytes.into()));
    let tables = counted(checks.tables.len() as u64, "table");
    [format!("{size}; {tables} with {}", counted(checks.rows(), "row")), verdict(checks)]
}

fn verdict(checks: &ImageChecks) -> String {
    let found = |check: &str| match checks.findings {
        0 => format!("{check} found nothing"),
        findings => format!(
            "{check} found the structure sound and {} in values or indexes, which came from the source",
            counted(findings, "fault")
        ),
    };
    match checks.checked {
        Checked::Everything => found("integrity_check"),
        Checked::Structure => format!(
            "{}; the contents of indexes were not checked: they need a collation or function of the application",
            found("quick_check")
        ),
        Checked::SomeTables => format!(
            "{}; {} could not be checked or counted: the schema needs what this release of the engine does not have",
            found("quick_check of each table"),
            counted(checks.tables_unread(), "table")
        ),
    }
}

/// The field of the last event.
pub fn to_json(checks: &ImageChecks) -> Value {
    json!({
        "page_bytes": checks.page_bytes,
        "pages": checks.pages,
        "tables": checks.tables.len(),
        "rows": checks.rows(),
        "checked": match checks.checked {
            Checked::Everything => "everything",
            Checked::Structure => "structure",
            Checked::SomeTables => "some_tables",
        },
        "findings": checks.findings,
        "tables_unread": checks.tables_unread(),
    })
}

#[cfg(test)]
mod tests {
    use sealift_protocol::manifest::CountedTable;

    use super::*;

    fn checks(checked: Checked, findings: u64) -> ImageChecks {
        let table =
            |name: &str, rows| CountedTable { name: name.into(), rows, checked: rows.is_some(), internal: false };
        let tables = vec![table("patient", Some(1200)), table("visit", None)];
        ImageChecks { page_bytes: 4096, pages: 7, checked, findings, tables, tables_left_out: 1 }
    }

    #[test]
    fn what_was_not_checked_is_said() {
        let [size, verdict] = describe(&checks(Checked::Everything, 0));
        assert_eq!(size, "7 pages of 4,096 bytes; 2 tables with 1,200 rows");
        assert_eq!(verdict, "integrity_check found nothing");
        let [_, verdict] = describe(&checks(Checked::Structure, 2));
        assert!(verdict.contains("2 faults in values or indexes") && verdict.contains("indexes were not checked"));
        let [_, verdict] = describe(&checks(Checked::SomeTables, 0));
        assert!(verdict.contains("2 tables could not be checked"), "{verdict}");
    }
}
