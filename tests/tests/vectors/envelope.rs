use sealift_protocol::{
    close::Code,
    codec,
    envelope::{KeyEnvelope, SealingKey, SealingPublicKey},
    error::Result,
    id::Epoch,
    key::{DigestSecret, EpochSecret},
    random::Random,
};
use sealift_tests::wire::Seeded;
use serde_json::{Value, json};

use super::{bad, hex, keys, reference};

/// Randomness that was drawn before.
struct Once(Option<Vec<u8>>);

impl Random for Once {
    fn fill(&mut self, out: &mut [u8]) {
        out.copy_from_slice(&self.0.take().expect("asked once"));
    }
}

/// What an envelope is made of, each as bytes.
pub struct Ingredients<'a> {
    pub epoch_secret: &'a [u8],
    pub digest_secret: [u8; 32],
    pub randomness: &'a [u8],
    pub to: &'a SealingPublicKey,
    pub info: [u8; 32],
    pub epoch: Epoch,
}

impl Ingredients<'_> {
    /// The envelope. The encapsulation takes its 64 random bytes at once, and no others.
    pub fn make(&self) -> KeyEnvelope {
        let once = |bytes: &[u8]| Once(Some(bytes.to_vec()));
        let epoch_secret = EpochSecret::generate(&mut once(self.epoch_secret));
        let digest_secret = DigestSecret::from_bytes(self.digest_secret);
        let mut random = once(self.randomness);
        KeyEnvelope::seal(&epoch_secret, &digest_secret, self.to, &self.info, self.epoch, &mut random).unwrap()
    }
}

pub fn vectors() -> Value {
    let key = || SealingKey::generate(&mut Seeded::new("sealing key", 0));
    let (info, epoch) = ([0x17; 32], Epoch(keys::EPOCH));
    let (secret, secret_bytes) = keys::epoch_secret();
    let digest_secret = DigestSecret::from_bytes(keys::DIGEST_SECRET);
    let mut random = Seeded::new("encapsulation", 0);
    let public = key().public_key();
    let envelope = KeyEnvelope::seal(&secret, &digest_secret, &public, &info, epoch, &mut random).unwrap();
    let opens = |envelope: &KeyEnvelope, info: [u8; 32], epoch: u32| -> Result<()> {
        envelope.open(&key(), &info, Epoch(epoch)).map(|_| ())
    };
    opens(&envelope, info, keys::EPOCH).unwrap();
    let randomness = Seeded::new("encapsulation", 0).bytes(64);
    let again = Ingredients {
        epoch_secret: &secret_bytes,
        digest_secret: keys::DIGEST_SECRET,
        randomness: &randomness,
        to: &public,
        info,
        epoch,
    };
    assert_eq!(again.make(), envelope);
    let private_key: [u8; 32] = key().expose()[..].try_into().unwrap();
    let (hpke_info, aad) = ([&b"sealift/1 key envelope\0"[..], &info].concat(), keys::EPOCH.to_be_bytes());
    let opened = reference::hpke_open(private_key, &envelope.encapsulated, &envelope.sealed, &hpke_info, &aad);
    assert_eq!(opened.plaintext, [secret_bytes, keys::DIGEST_SECRET].concat());
    let changed = |change: fn(&mut KeyEnvelope)| {
        let mut envelope = envelope.clone();
        change(&mut envelope);
        envelope
    };
    let cases: [(&str, KeyEnvelope, Code); 5] = [
        ("another AEAD named", changed(|envelope| envelope.suite[2] = 1), Code::SuiteUnsupported),
        ("sealed bytes changed", changed(|envelope| envelope.sealed[0] ^= 1), Code::KeyCommitment),
        ("sealed bytes cut", changed(|envelope| envelope.sealed.truncate(79)), Code::KeyCommitment),
        ("encapsulated key changed", changed(|envelope| envelope.encapsulated[0] ^= 1), Code::KeyCommitment),
        ("encapsulated key cut", changed(|envelope| envelope.encapsulated.truncate(1119)), Code::KeyCommitment),
    ];
    let mut defects: Vec<Value> = cases
        .iter()
        .map(|(defect, envelope, code)| bad(defect, codec::encode(envelope), *code, opens(envelope, info, keys::EPOCH)))
        .collect();
    let bytes = codec::encode(&envelope);
    defects.push(bad("under another info", &bytes, Code::KeyCommitment, opens(&envelope, [0x18; 32], keys::EPOCH)));
    defects.push(bad("for another epoch", &bytes, Code::KeyCommitment, opens(&envelope, info, keys::EPOCH + 1)));
    json!({
        "suite": envelope.suite,
        "sealing_key_ikm": hex(Seeded::new("sealing key", 0).bytes(64)),
        "sealing_private_key": hex(private_key),
        "sealing_public_key": hex(&public.0),
        "transcript": hex(info),
        "epoch": keys::EPOCH,
        "epoch_secret": hex(secret_bytes),
        "digest_secret": hex(keys::DIGEST_SECRET),
        "encapsulation_randomness": hex(randomness),
        "hpke_info": hex(&hpke_info),
        "hpke_aad": hex(aad),
        "hpke_shared_secret": hex(opened.shared_secret),
        "hpke_key": hex(opened.key),
        "hpke_base_nonce": hex(opened.nonce),
        "encapsulated": hex(&envelope.encapsulated),
        "sealed": hex(&envelope.sealed),
        "bad": defects,
        "bad_sealing_keys": bad_sealing_keys(&public),
    })
}

/// Keys that nothing may be sealed to: of some, every reader could open it.
fn bad_sealing_keys(good: &SealingPublicKey) -> Vec<Value> {
    let (ml_kem, x25519) = good.0.split_at(1184);
    let u_of = |first: u8, last: u8| {
        let mut u = [0; 32];
        u[0] = first;
        u[31] = last;
        u
    };
    // 2^255 - 19, which is 0.
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    let with_x25519 = |u: &[u8]| [ml_kem, u].concat();
    let cases: [(&str, Vec<u8>); 7] = [
        ("a half for ML-KEM of zeros", [&[0; 1184], x25519].concat()),
        ("a half for X25519 of zeros", with_x25519(&[0; 32])),
        ("a half for X25519 of small order: 1", with_x25519(&u_of(1, 0))),
        ("a half for X25519 of small order: 1, its highest bit set", with_x25519(&u_of(1, 0x80))),
        ("a half for X25519 of small order: 2^255 - 19", with_x25519(&p)),
        ("a byte short", good.0[..1215].to_vec()),
        ("a byte long", [&good.0[..], &[0]].concat()),
    ];
    let secret = DigestSecret::from_bytes(keys::DIGEST_SECRET);
    let refused = |(defect, key): (&str, Vec<u8>)| {
        let (epoch_secret, _) = keys::epoch_secret();
        let to = SealingPublicKey(key.clone());
        let mut random = Seeded::new("encapsulation", 0);
        let got = KeyEnvelope::seal(&epoch_secret, &secret, &to, &[0x17; 32], Epoch(keys::EPOCH), &mut random);
        bad(defect, key, Code::ProtocolViolation, got)
    };
    cases.map(refused).into()
}
