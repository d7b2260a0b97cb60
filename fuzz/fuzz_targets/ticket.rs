#![no_main]
//! A ticket as a person pastes it. One that is read is written again as a ticket that reads the
//! same. The armour's checksum keeps random text out, so bytes that are no ticket's text are also
//! tried as what the armour would hold.

use libfuzzer_sys::fuzz_target;
use sealift_agent::ticket::{TICKET_BYTES_MAX, Ticket};
use sealift_protocol::codec;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Ticket::from_text(text);
    }
    let Ok(ticket) = codec::decode::<Ticket>(bytes, TICKET_BYTES_MAX, "ticket") else { return };
    if let Ok(read) = Ticket::from_text(&ticket.to_text()) {
        assert_eq!(codec::encode(&read), bytes);
    }
});
