//! The tables of docs/protocol.md and docs/codes.md that repeat the code. `SEALIFT_BLESS=1` writes
//! them again.

use std::{fmt::Write, path::PathBuf};

use sealift_protocol::{close::Code, limits::*, message::ALPN};

fn codes() -> String {
    let mut table =
        String::from("| number | word | exit code | a begun transfer is | sender |\n|---|---|---|---|---|\n");
    for &code in Code::ALL {
        let (number, word, exit) = (code.number(), code.word(), code.exit_code());
        let transfer = match code {
            Code::Done => "over",
            code if code.keeps_transfer() => "kept",
            _ => "dropped",
        };
        let sender = if code.retry_may_help() { "again" } else { "" };
        writeln!(table, "| 0x{number:03x} | `{word}` | {exit} | {transfer} | {sender} |").unwrap();
    }
    table
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn limits() -> String {
    let mut table = String::from("| what | limit |\n|---|---|\n");
    let rows: [(&str, u64); 22] = [
        ("plaintext of a chunk, as senders cut it", CHUNK_PLAIN_BYTES as u64),
        ("plaintext of a chunk, at most", CHUNK_PLAIN_BYTES_MAX as u64),
        ("frame of a sealed chunk", FRAME_BYTES_MAX as u64),
        ("chunks sealed under one key", CHUNKS_PER_KEY),
        ("highest chunk index", CHUNK_INDEX_MAX),
        ("lowest epoch", 1),
        ("highest epoch", EPOCH_MAX.into()),
        ("parts of a plan", PARTS_MAX as u64),
        ("bytes of a plan", PLAN_BYTES_MAX as u64),
        ("bytes of a name or text", NAME_BYTES_MAX as u64),
        ("bytes of a control message", CONTROL_BYTES_MAX as u64),
        ("bytes of an Offer", OFFER_BYTES_MAX as u64),
        ("bytes of a signed grant", GRANT_BYTES_MAX as u64),
        ("lanes, at least", 1),
        ("lanes, at most", LANES_MAX.into()),
        ("window of a part in bytes, at least", LANE_WINDOW_BYTES_MIN),
        ("window of a part in bytes, at most", LANE_WINDOW_BYTES_MAX),
        ("bytes of a row, unless set", ROW_BYTES_MAX as u64),
        ("columns of a table", COLUMNS_MAX as u64),
        ("seconds of clock difference forgiven, between the hosts and at a grant's start", CLOCK_SKEW_SECONDS_MAX),
        ("addresses of a ticket", sealift_agent::ticket::ADDRESSES_MAX as u64),
        ("bytes of a ticket", sealift_agent::ticket::TICKET_BYTES_MAX as u64),
    ];
    for (what, limit) in rows {
        writeln!(table, "| {what} | {} |", grouped(limit)).unwrap();
    }
    table
}

#[test]
fn the_tables_are_those_of_the_code() {
    check_table("codes.md", "codes", &codes());
    check_table("protocol.md", "limits", &limits());
    let text = std::fs::read_to_string(document("protocol.md")).unwrap();
    assert!(text.contains(&format!("`{}`", std::str::from_utf8(ALPN).unwrap())));
}

fn document(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

fn check_table(file: &str, name: &str, table: &str) {
    let now = std::fs::read_to_string(document(file)).unwrap();
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = now.split_once(&begin).unwrap();
    let (_, after) = rest.split_once(&end).unwrap();
    let expected = format!("{before}{begin}{table}{end}{after}");
    if std::env::var_os("SEALIFT_BLESS").is_some() {
        std::fs::write(document(file), &expected).unwrap();
    } else {
        assert!(now == expected, "docs/{file}: SEALIFT_BLESS=1 writes its table again");
    }
}
