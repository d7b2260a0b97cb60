//! An authority certifies an agent's key on a signing request, and a receiver that serves shows
//! the certificate without a restart.

use std::{fs, io::Write, path::PathBuf, process::Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};
use sealift_agent::{identity::Identity, link::Dialer, role::Role, trust::Trust};
use sealift_tests::{
    agents::{RECEIVER, SENDER},
    exit,
};

use crate::{
    FAR_BYTES,
    place::{Place, WITHIN, events, url, wait_for_events, wait_for_progress},
    slow_down, speed_up, stop,
};

const NAME: &str = "spiffe://example.test/sealift/receiver/dst";

/// What an authority decides; the rest is the request's.
#[derive(Clone, Copy)]
struct Issue {
    name: &'static str,
    purpose: fn() -> ExtendedKeyUsagePurpose,
    until_year: i32,
}

const GOOD: Issue = Issue { name: NAME, purpose: || ExtendedKeyUsagePurpose::ServerAuth, until_year: 9999 };

struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self(Issuer::new(params, key))
    }

    /// PEM and DER.
    fn issue(&self, request: &str, issue: Issue) -> (String, Vec<u8>) {
        let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
        let params = &mut request.params;
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(issue.until_year, 1, 1);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![(issue.purpose)()];
        params.subject_alt_names = vec![SanType::URI(issue.name.try_into().unwrap())];
        let certificate = request.signed_by(&self.0).unwrap();
        (certificate.pem(), certificate.der().to_vec())
    }
}

fn request(place: &Place, program: &str) -> String {
    let requested = place.run(program, &["identity", "--request"]);
    String::from_utf8(requested.assert_code(exit::DONE).stdout()).unwrap()
}

fn file(place: &Place, text: &str) -> PathBuf {
    let path = place.path("issued.pem");
    fs::write(&path, text).unwrap();
    path
}

/// The certificate that a sender is shown.
fn shown(place: &Place) -> Vec<u8> {
    let stranger = Identity::generate(Role::Sender).unwrap_or_else(|failure| panic!("{failure}"));
    let address = [format!("127.0.0.1:{}", place.port())];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dialer = Dialer::new(&stranger, Trust::AnyKey).unwrap_or_else(|failure| panic!("{failure}"));
        let link = dialer.connect(&address).await.unwrap_or_else(|failure| panic!("{failure}"));
        link.channel.receiver_certificate.clone()
    })
}

/// Issue 10, item 5: the key stays where it was made, and what was issued for it takes effect while
/// the receiver serves. Tickets of before and pins are of the key.
#[test]
fn an_issued_certificate_is_shown_without_a_restart() {
    let place = Place::new("", &[("ehr", "sqlite:{}/ehr.db")]);
    let mut receiver = place.serve();
    let ticket = place.ticket("ehr");
    let source = place.database("ehr");
    let fingerprint = place.run(RECEIVER, &["identity"]).assert_code(exit::DONE).stdout();
    let (issued, der) = Authority::new().issue(&request(&place, RECEIVER), GOOD);
    assert_ne!(shown(&place), der);

    let issued = file(&place, &issued);
    let taken = place.run(RECEIVER, &["identity", "--certificate", issued.to_str().unwrap()]);
    assert_eq!(taken.assert_code(exit::DONE).stdout(), fingerprint, "the agent stays who it is");
    wait_for_events(&mut receiver, "identity_renewed", 1);
    assert_eq!(shown(&place), der);

    place.push(&url(&source), &ticket).wait(WITHIN).assert_code(exit::DONE);
    wait_for_events(&mut receiver, "ended", 1);
    place.assert_same(&source, "ehr.db");
    let log = fs::read_to_string(place.path("receiver/audit.jsonl")).unwrap();
    let certified: Vec<_> = log.lines().filter(|line| line.contains("identity.certify")).collect();
    assert!(certified.len() == 1 && certified[0].contains(NAME), "{certified:?}");
    stop(receiver);
}

/// Nothing else takes the place of the certificate that the agent has.
#[test]
fn what_is_not_of_this_agent_is_refused() {
    let place = Place::new("", &[("ehr", "sqlite:{}/ehr.db")]);
    let authority = Authority::new();
    let request_here = request(&place, RECEIVER);
    let identity = || fs::read(place.path("receiver/identity")).unwrap();
    let before = identity();
    let (good, _) = authority.issue(&request_here, GOOD);
    let (of_another_key, _) = authority.issue(&request(&place, SENDER), GOOD);
    let client_auth = Issue { purpose: || ExtendedKeyUsagePurpose::ClientAuth, ..GOOD };
    let (of_another_role, _) = authority.issue(&request_here, client_auth);
    let (expired, _) = authority.issue(&request_here, Issue { until_year: 2020, ..GOOD });
    let (nameless, _) = authority.issue(&request_here, Issue { name: "https://example.test/dst", ..GOOD });
    let refused = [
        (of_another_key, exit::PEER, "another key"),
        (of_another_role, exit::PEER, "role"),
        (expired, exit::PEER, "expired"),
        (nameless, exit::PEER, "name"),
        (good.repeat(2), exit::USAGE, "more than one certificate"),
        (request_here, exit::USAGE, "no certificate"),
        (good.replace("MII", "M!I"), exit::USAGE, "damaged"),
    ];
    for (text, code, why) in refused {
        let path = file(&place, &text);
        let taken = place.run(RECEIVER, &["identity", "--certificate", path.to_str().unwrap()]);
        taken.assert_code(code).assert_one_message();
        assert!(taken.stderr().contains(why), "{why}: {}", taken.stderr());
        assert!(identity() == before, "{why}");
    }
}

/// Any authority's tool can read the request, and it is signed by the key that it is for.
#[test]
fn openssl_verifies_a_request() {
    let place = Place::new("", &[("ehr", "sqlite:{}/ehr.db")]);
    for program in [RECEIVER, SENDER] {
        let mut openssl = std::process::Command::new("openssl")
            .args(["req", "-verify", "-noout", "-text"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        openssl.stdin.take().unwrap().write_all(request(&place, program).as_bytes()).unwrap();
        let said = openssl.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && text.contains("ED25519"), "{text}");
    }
}

/// Issue 10, item 5: a sender that has lost its receiver shows what was issued meanwhile.
#[test]
fn a_sender_shows_an_issued_certificate_when_it_connects_again() {
    let place = Place::new("", &[("ehr", "sqlite:{}/ehr.db")]);
    slow_down(&place);
    let mut receiver = place.serve();
    let source = place.database("ehr");
    let mut sender = place.push(&url(&source), &place.ticket("ehr"));
    wait_for_progress(&mut receiver, 1, FAR_BYTES);
    stop(receiver);
    let of_sender = Issue {
        name: "spiffe://example.test/sealift/sender/src",
        purpose: || ExtendedKeyUsagePurpose::ClientAuth,
        ..GOOD
    };
    let (issued, der) = Authority::new().issue(&request(&place, SENDER), of_sender);
    let issued = file(&place, &issued);
    place.run(SENDER, &["identity", "--certificate", issued.to_str().unwrap()]).assert_code(exit::DONE);
    wait_for_events(&mut sender, "identity_renewed", 1);
    // The attempt that is under way began with the certificate of before.
    let attempts = events(&sender, "attempt").len();
    wait_for_events(&mut sender, "attempt", attempts + 1);

    speed_up(&place);
    let receiver = place.serve();
    let ended = sender.wait(WITHIN);
    let receipt = fs::read(ended.assert_code(exit::DONE).finished_event()["receipt"].as_str().unwrap()).unwrap();
    assert!(receipt.windows(der.len()).any(|window| window == der), "the receipt holds another certificate");
    place.assert_same(&source, "ehr.db");
    stop(receiver);
}
