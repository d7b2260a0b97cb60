//! Who is let in (fault matrix I): real handshakes between the agents' own endpoints and a peer that presents anything.

use std::time::{Duration, Instant};

use quinn::{ConnectionError, Endpoint};
use rustls::{CipherSuite, crypto::aws_lc_rs::kx_group};
use sealift_agent::{
    identity::Identity,
    link::{accept, connect},
};
use sealift_tests::{
    certs::{
        authority::{Authority, Presented, Role},
        catalogue::{self, Bad},
        key::{Key, Kind},
    },
    exit,
    peer::{Offer, agent_client, agent_server, hostile_client, hostile_server, identity},
};

/// Ten handshakes' time on a busy machine.
const WITHIN: Duration = Duration::from_secs(10);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn authority() -> Authority {
    Authority::new("example.test", Kind::P256)
}

/// How a receiver's endpoint meets this client: `Ok` if it took the connection, else how the client's ended.
async fn meet_as_receiver(server: &Endpoint, own: &Identity, client: &Endpoint) -> Result<(), ConnectionError> {
    let connecting = client.connect(server.local_addr().unwrap(), "receiver.test").unwrap();
    let refused = async {
        let connection = match connecting.await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        // A TLS 1.3 client believes itself connected before the server has judged its certificate.
        connection.closed().await
    };
    let met = async {
        tokio::select! {
            link = accept(server, own) => link.map(|_| ()).map_err(|failure| panic!("{failure}")),
            error = refused => Err(error),
        }
    };
    tokio::time::timeout(WITHIN, met).await.expect("neither accepted nor refused in time")
}

/// The exit code with which a sender's endpoint leaves this server; `DONE` if it took the connection.
async fn meet_as_sender(client: &Endpoint, own: &Identity, server: &Endpoint) -> i32 {
    let address = server.local_addr().unwrap().to_string();
    let accepting = async {
        let connection = match server.accept().await.unwrap().accept().unwrap().await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        connection.closed().await
    };
    let addresses = [address];
    let connecting = connect(|_| Ok(client.clone()), &addresses, own);
    let met = async {
        let (accepting, connected) = tokio::join!(tokio::time::timeout(WITHIN, accepting), async {
            match connecting.await {
                Ok((_, link)) => {
                    link.close(sealift_protocol::close::Code::Done);
                    exit::DONE
                }
                Err(failure) => i32::from(failure.code.exit_code()),
            }
        });
        drop(accepting);
        connected
    };
    tokio::time::timeout(2 * WITHIN, met).await.expect("an end in time")
}

/// A receiver before a sender that presents this.
async fn receiver_refuses(authority: &Authority, presented: &Presented, offer: Offer) -> Result<(), ConnectionError> {
    let own = identity(&authority.present(Role::Receiver), Role::Receiver);
    let server = agent_server(&own, &presented.trusted);
    meet_as_receiver(&server, &own, &hostile_client(presented, offer)).await
}

/// A sender before a receiver that presents this.
async fn sender_refuses(authority: &Authority, presented: &Presented, offer: Offer) -> i32 {
    let own = identity(&authority.present(Role::Sender), Role::Sender);
    let client = agent_client(&own, &presented.trusted);
    meet_as_sender(&client, &own, &hostile_server(presented, offer)).await
}

/// Without this, everything below would prove nothing.
#[test]
fn the_faultless_are_let_in() {
    block_on(async {
        for kind in [Kind::Ed25519, Kind::P256, Kind::P384] {
            let authority = Authority::new("example.test", kind);
            for (what, build) in [
                ("directly", Authority::present as fn(&Authority, Role) -> Presented),
                ("through an intermediate", catalogue::through_intermediate),
            ] {
                println!("{kind:?} {what}");
                let sender = build(&authority, Role::Sender);
                receiver_refuses(&authority, &sender, Offer::default())
                    .await
                    .unwrap_or_else(|e| panic!("{kind:?} {e}"));
                let receiver = build(&authority, Role::Receiver);
                assert_eq!(sender_refuses(&authority, &receiver, Offer::default()).await, exit::DONE, "{kind:?}");
            }
        }
    });
}

/// I1 to I8, I13, I14: every bad certificate, shown to a receiver.
#[test]
fn a_receiver_refuses_every_bad_sender() {
    let authority = authority();
    let let_in = block_on(async {
        let mut let_in = Vec::new();
        for bad in catalogue::all() {
            let started = Instant::now();
            let presented = bad.build(&authority, Role::Sender);
            let met = receiver_refuses(&authority, &presented, Offer::default()).await;
            println!("{}: {}: {} in {:?}", bad.row, bad.name, ending(&met), started.elapsed());
            if met.is_ok() {
                let_in.push(name(bad));
            }
        }
        let_in
    });
    assert!(let_in.is_empty(), "let in: {let_in:#?}");
}

/// I1 to I8, I13, I14: every bad certificate, shown to a sender, which ends as for any peer that is not the right one.
#[test]
fn a_sender_refuses_every_bad_receiver() {
    let authority = authority();
    let wrong = block_on(async {
        let mut wrong = Vec::new();
        // A server without any certificate has no TLS to speak.
        for bad in catalogue::all().filter(|bad| bad.row != "I1") {
            let presented = bad.build(&authority, Role::Receiver);
            let code = sender_refuses(&authority, &presented, Offer::default()).await;
            println!("{}: {}: exit code {code}", bad.row, bad.name);
            if code != exit::PEER {
                wrong.push((code, name(bad)));
            }
        }
        wrong
    });
    assert!(wrong.is_empty(), "not refused with exit code {}: {wrong:#?}", exit::PEER);
}

fn name(bad: &Bad) -> String {
    format!("{}: {}", bad.row, bad.name)
}

fn ending(met: &Result<(), ConnectionError>) -> String {
    met.as_ref().map_or_else(ToString::to_string, |()| "LET IN".into())
}

/// I10: the protocol's name must be agreed on.
#[test]
fn i10_no_or_another_protocol_is_refused() {
    let authority = authority();
    block_on(async {
        for alpn in [vec![], vec![b"h3".to_vec()], vec![b"sealift/2".to_vec()], vec![b"sealift".to_vec()]] {
            let offer = || Offer { alpn: alpn.clone(), ..Offer::default() };
            let met = receiver_refuses(&authority, &authority.present(Role::Sender), offer()).await;
            assert!(met.is_err(), "receiver, {alpn:?}");
            let code = sender_refuses(&authority, &authority.present(Role::Receiver), offer()).await;
            assert_eq!(code, exit::PEER, "sender, {alpn:?}");
        }
    });
}

/// I11: a key exchange without the post-quantum half, or a 128-bit cipher, is refused.
#[test]
fn i11_weak_offers_are_refused() {
    let authority = authority();
    let offer = |what: &str| match what {
        "only X25519" => Offer::default().only_groups(&[kx_group::X25519]),
        "only P-256 and P-384" => Offer::default().only_groups(&[kx_group::SECP256R1, kx_group::SECP384R1]),
        _ => Offer::default().only_suite(CipherSuite::TLS13_AES_128_GCM_SHA256),
    };
    block_on(async {
        for what in ["only X25519", "only P-256 and P-384", "only AES-128"] {
            let met = receiver_refuses(&authority, &authority.present(Role::Sender), offer(what)).await;
            assert!(met.is_err(), "receiver, {what}");
            let code = sender_refuses(&authority, &authority.present(Role::Receiver), offer(what)).await;
            assert_eq!(code, exit::PEER, "sender, {what}");
        }
    });
}

/// I12: a client that would resume is never given the means to, so early data cannot be sent.
#[test]
fn i12_no_resumption_and_no_early_data() {
    let authority = authority();
    block_on(async {
        let own = identity(&authority.present(Role::Receiver), Role::Receiver);
        let server = agent_server(&own, &authority.certificate);
        let offer = Offer { resumption: true, ..Offer::default() };
        let client = hostile_client(&authority.present(Role::Sender), offer);
        for round in 0..3 {
            let connecting = client.connect(server.local_addr().unwrap(), "receiver.test").unwrap();
            let (connected, link) = tokio::join!(
                async {
                    match connecting.into_0rtt() {
                        Ok(_) => panic!("early data in round {round}"),
                        Err(connecting) => connecting.await.unwrap(),
                    }
                },
                accept(&server, &own)
            );
            let link = link.unwrap_or_else(|failure| panic!("{failure}"));
            // Time for a ticket to arrive, if one were sent.
            tokio::time::sleep(Duration::from_millis(200)).await;
            link.close(sealift_protocol::close::Code::Done);
            connected.closed().await;
        }
    });
}

/// I17: an agent that is shown its own certificate is not talking to a peer.
#[test]
fn i17_reflection_is_refused() {
    let authority = authority();
    block_on(async {
        let receiver = authority.present(Role::Receiver);
        let own = identity(&receiver, Role::Receiver);
        let server = agent_server(&own, &authority.certificate);
        let met = meet_as_receiver(&server, &own, &hostile_client(&receiver, Offer::default())).await;
        assert!(met.is_err());
        let sender = authority.present(Role::Sender);
        let own = identity(&sender, Role::Sender);
        let client = agent_client(&own, &authority.certificate);
        assert_eq!(meet_as_sender(&client, &own, &hostile_server(&sender, Offer::default())).await, exit::PEER);
    });
}

/// I2, I4: what an agent would not believe of another, it does not accept as its own identity either.
#[test]
fn an_agent_refuses_to_be_what_it_would_refuse() {
    let authority = authority();
    let key = Key::generate(Kind::Ed25519);
    for (role, wrong) in [(Role::Sender, Role::Receiver), (Role::Receiver, Role::Sender)] {
        let presented = authority.present_leaf(&authority.leaf(wrong, &key), &key);
        let chain = presented.chain.iter().cloned().map(rustls_pki_types::CertificateDer::from).collect();
        let own = Identity::new(chain, zeroize::Zeroizing::new(presented.private_key.clone()), role.into());
        assert!(own.is_err(), "{role:?}");
    }
}
