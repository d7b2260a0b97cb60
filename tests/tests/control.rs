//! The control stream between two ends of a link, without the agents around it.

use std::{
    net::UdpSocket,
    sync::Arc,
    time::{Duration, Instant},
};

use sealift_agent::{
    control::{accept_control, open_control},
    credentials::Credentials,
    door::Door,
    identity::Identity,
    link::{Acceptor, Arrived, Dialer, Listener},
    role::Role,
    trust::Trust,
};
use sealift_protocol::{
    close::Code,
    message::{Message, Offer, Refuse},
    negotiate::suites_auto,
};
use sealift_sender::transfer::proof_of;
use sealift_tests::{invited::Invited, wire::table_plan};

const WITHIN: Duration = Duration::from_secs(30);
/// Long enough for what the peer's window takes to be sent, and too short for the rest.
const CANCELLED_AFTER: Duration = Duration::from_millis(300);

/// An offer of several times what a receiver takes before it reads.
fn long_offer(invited: &Invited) -> Message {
    Message::Offer(Offer {
        versions: vec![1],
        suites: suites_auto(true).into_iter().map(Into::into).collect(),
        grant: invited.ticket.grant.clone(),
        plan: table_plan(16_000),
        nonce: [0; 32],
        fresh: false,
        now_seconds: 0,
    })
}

/// What is said after a message whose sending was cancelled is understood: the rest of
/// that message goes first.
#[test]
fn a_message_that_was_cancelled_is_sent_before_the_next() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let invited = Invited::at(socket.local_addr().unwrap().to_string());
    let offer = long_offer(&invited);
    assert!(offer.to_frame().unwrap().len() > 4 * (64 << 10), "more than the window");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let both = async {
        let (cancelled, reads) = tokio::sync::oneshot::channel();
        let sending = async {
            let identity = Identity::generate(Role::Sender).unwrap();
            let dialer = Dialer::new(&identity, Trust::Pinned(invited.ticket.receiver)).unwrap();
            let link = dialer.connect(&invited.ticket.addresses).await.unwrap();
            let (mut writer, control) =
                open_control(&link, &proof_of(&invited.ticket, &identity, &link)).await.unwrap();
            let sent = tokio::time::timeout(CANCELLED_AFTER, writer.send(&offer)).await;
            assert!(sent.is_err(), "nobody reads it");
            cancelled.send(()).unwrap();
            writer.send(&Message::Refuse(Refuse::new(Code::UserInterrupt))).await.unwrap();
            writer.finish().await;
            drop(control);
            link.close(Code::Done);
        };
        let receiving = async {
            let credentials = Credentials::new(Arc::clone(&invited.identity), Trust::AnyKey);
            let listener = Listener::start(socket, &credentials).unwrap();
            let door = Door::default();
            let Arrived { link, slot } = Acceptor::new(&listener, &door).unwrap().next().await.unwrap();
            let (_writer, mut control, _proof) = accept_control(&link).await.unwrap();
            reads.await.unwrap();
            let first = control.first(Instant::now(), &slot).await.unwrap();
            assert_eq!(first.to_frame().unwrap(), offer.to_frame().unwrap());
            let refused = control.next().await.map(|_| ()).unwrap_err();
            assert_eq!(refused.code, Code::Interrupted, "what an interrupted sender is to its peer: {refused}");
        };
        tokio::join!(sending, receiving)
    };
    runtime.block_on(async { tokio::time::timeout(WITHIN, both).await }).expect("it ends");
}
