//! The tables of docs/protocol.md and docs/codes.md that repeat the code. `SEALIFT_BLESS=1` writes
//! them again.

use std::{fmt::Write, path::PathBuf};

use sealift_protocol::{
    close::Code,
    disposition::{
        RaisedBy, Stage,
        receiver::{Input, Interruption, Loading, Then, While, receiver_disposition},
        sender::{Contact, During, Failed, Replay, SenderDisposition, SenderStage, Standing, sender_disposition},
    },
    limits::*,
    message::ALPN,
};

/// What a receiver does when a connection of a transfer that has begun ends with this code after
/// Ready, whichever side found it and whatever it is an input of.
fn at_receiver(code: Code) -> Then {
    let inputs = [Input::Listen, Input::Serve];
    let then = |input| {
        let at = Loading { input, stage: Stage::Loading };
        let drops = [RaisedBy::ThisSide, RaisedBy::Peer].map(|raised_by| {
            let then = receiver_disposition(at, Interruption { code, raised_by, during: While::Data });
            assert!(matches!(then, Then::Wait | Then::Suspend | Then::Drop), "{code:?}: {then:?}");
            then == Then::Drop
        });
        assert_eq!(drops[0], drops[1], "{code:?}: it does not matter who found it");
        if drops[0] { Then::Drop } else { Then::Suspend }
    };
    let [listen, serve] = inputs.map(then);
    assert_eq!(listen, serve, "{code:?}: both kinds of receiver do the same");
    listen
}

/// What a sender does then, which sends from its source.
fn at_sender(code: Code) -> SenderDisposition {
    let found = Standing::found(SenderStage::Begun, Replay::Always);
    let at = Standing { contact: Contact::Made, ..found };
    let dispositions = [RaisedBy::ThisSide, RaisedBy::Peer]
        .map(|raised_by| sender_disposition(at, Failed { code, raised_by, during: During::Data }));
    assert_eq!(dispositions[0], dispositions[1], "{code:?}: it does not matter who found it");
    dispositions[0]
}

/// By the tables of [`sealift_protocol::disposition`], which both agents go by.
fn codes() -> String {
    let mut table =
        String::from("| number | word | exit code | a begun transfer is | sender |\n|---|---|---|---|---|\n");
    for &code in Code::ALL {
        let (number, word, exit) = (code.number(), code.as_str(), code.exit_code());
        let transfer = match code {
            Code::Done => "over",
            code => match at_receiver(code) {
                Then::Drop => "dropped",
                _ => "kept",
            },
        };
        let disposition = at_sender(code);
        let is_dropped = disposition == SenderDisposition::Drop;
        assert_eq!(is_dropped, transfer != "kept", "{code:?}: both sides do the same");
        let sender = if disposition == SenderDisposition::Retry { "again" } else { "" };
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
    let rows: [(&str, u64); 23] = [
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
        ("streams at once, at most", STREAMS_MAX.into()),
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
