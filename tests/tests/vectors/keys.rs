use sealift_protocol::{
    id::{Epoch, TransferId},
    key::EpochSecret,
};
use sealift_tests::wire::Seeded;
use serde_json::{Value, json};

use super::{hex, reference};

pub const TRANSFER: [u8; 16] = [0x5a; 16];
pub const EPOCH: u32 = 3;
pub const DIGEST_SECRET: [u8; 32] = [0xd1; 32];

/// The secret of the vectors, and the bytes that it was made of.
pub fn epoch_secret() -> (EpochSecret, [u8; 32]) {
    let bytes = Seeded::new("epoch secret", 0).bytes(32).try_into().unwrap();
    (EpochSecret::generate(&mut Seeded::new("epoch secret", 0)), bytes)
}

pub fn vectors() -> Value {
    let (secret, bytes) = epoch_secret();
    let commitment = secret.commitment(TransferId(TRANSFER), Epoch(EPOCH));
    assert_eq!(commitment, reference::commitment(&bytes, TRANSFER, EPOCH));
    let places = [(0, 0), (0, 65_535), (0, 65_536), (1, 0), (16_383, (1u64 << 40) - 1)];
    let data_keys = places.map(|(part, index)| {
        // That these are the keys in use, the chunks' vectors show.
        let key = reference::data_key(&bytes, TRANSFER, EPOCH, part, index);
        json!({ "part": part, "chunk": index, "generation": index / 65_536, "key": hex(key) })
    });
    let digest_keys = ["chunk hash", "part root", "transfer root", "row digest"].map(|what| {
        let context = format!("sealift/1 2026-11 {what}");
        json!({ "context": context, "key": hex(reference::digest_key(&context, &DIGEST_SECRET)) })
    });
    json!({
        "transfer": hex(TRANSFER),
        "epoch": EPOCH,
        "epoch_secret": hex(bytes),
        "commitment": hex(commitment),
        "data_keys": data_keys,
        "digest_secret": hex(DIGEST_SECRET),
        "digest_keys": digest_keys,
    })
}
