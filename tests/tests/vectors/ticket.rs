use sealift_agent::ticket::Ticket;
use sealift_protocol::codec;
use sealift_tests::wire::Parties;
use serde_json::{Value, json};

use super::hex;

fn ticket(addresses: &[&str]) -> Ticket {
    Ticket {
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        root: vec![0x30; 40],
        certificate: vec![0x31; 44],
        key: vec![0x32; 48],
        grant: Parties::new(99).grant(),
    }
}

pub fn vectors() -> Value {
    let good = ticket(&["receiver.example.test:7443", "[2001:db8::1]:7443"]);
    let text = good.to_text().to_string();
    assert_eq!(codec::encode(&Ticket::from_text(&text).unwrap_or_else(|_| panic!("it is good"))), codec::encode(&good));
    let first = text.lines().nth(1).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.swap(1, 2);
    let no_address = ticket(&[]);
    let many = ticket(&["h:1"; 17]);
    let cases = [
        ("nothing", String::new()),
        ("no end", text.replace("-----END SEALIFT TICKET-----", "")),
        ("no beginning", text.replace("-----BEGIN SEALIFT TICKET-----", "")),
        ("a line missing", text.replacen(&format!("{first}\n"), "", 1)),
        ("two lines swapped", lines.join("\n")),
        ("a character changed", text.replacen('w', "x", 1)),
        ("not base64", text.replacen(&first[..4], "****", 1)),
        ("no address", no_address.to_text().to_string()),
        ("seventeen addresses", many.to_text().to_string()),
    ];
    let bad = cases.map(|(defect, text)| {
        let failure = Ticket::from_text(&text).err().unwrap_or_else(|| panic!("{defect} was accepted"));
        json!({ "defect": defect, "text": text, "code": failure.code.word(), "number": failure.code.number() })
    });
    json!({ "good": { "bytes": hex(codec::encode(&good)), "text": text }, "bad": bad })
}
