//! `RECEIVER.pub`: a receiver's standing public keys as text that can be mailed. The fingerprint in
//! it is that of the receiver's identity and has to be compared with its operator's first: the text
//! by itself proves nothing.

use sealift_protocol::{archive::ReceiverKey, codec};

use crate::{
    armour::Armour,
    failure::{Failure, Outcome},
};

const ARMOUR: Armour =
    Armour { label: "SEALIFT RECEIVER KEY", checksum_context: "sealift/1 2026-11 receiver key checksum" };

/// Both keys with their CBOR around them: 1,260 bytes.
const RECEIVER_KEY_BYTES_MAX: usize = 2 << 10;

/// The text, with room for what people write around it.
pub const RECEIVER_KEY_TEXT_BYTES_MAX: u64 = 64 << 10;

/// The text, with the fingerprint above it for people.
pub fn to_text(key: &ReceiverKey) -> String {
    let armour = ARMOUR.to_text(&codec::encode(key));
    format!("Fingerprint: {}\n{}", key.fingerprint(), *armour)
}

/// Reads the one key in `text`.
pub fn from_text(text: &str) -> Outcome<ReceiverKey> {
    let damaged = |what: &str| {
        let next = "Have it made again on the target host: sealift-receiver key --out RECEIVER.pub.";
        Failure::usage(format!("the receiver's key is damaged: {what}"), next)
    };
    let bytes = ARMOUR.bytes_of(text).map_err(damaged)?;
    let key: ReceiverKey =
        codec::decode(&bytes, RECEIVER_KEY_BYTES_MAX, "receiver key").map_err(|_| damaged("its content"))?;
    key.sealing().map_err(|_| damaged("its signature"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use sealift_protocol::{close::Code, envelope::SealingPublicKey};

    use super::*;
    use crate::{identity::Identity, role::Role};

    #[test]
    fn a_key_is_read_or_refused() {
        let key = ReceiverKey::sign(SealingPublicKey(vec![7; 1216]), &Identity::generate(Role::Receiver).unwrap());
        let text = to_text(&key);
        assert_eq!(from_text(&format!("Dear colleague,\r\n{}", text.replace('\n', "\r\n"))).unwrap(), key);
        let bad =
            [String::new(), text.replace("BEGIN", "BEGUN"), text.replacen("BwcH", "BwcI", 1), text[..600].to_owned()];
        for bad in bad {
            assert_eq!(from_text(&bad).unwrap_err().code, Code::Usage);
        }
    }
}
