//! Streams that are asked for, broken off or taken away without end.

use std::time::Duration;

use sealift_agent::ticket::Ticket;
use sealift_protocol::{
    close::Code,
    digest::Root,
    id::ChunkCount,
    limits::STREAMS_MAX,
    manifest::{Manifest, SentPart},
    message::Message,
};

use super::{Attacker, Victim, closed_with, plan, raw_part, run, sealed};

/// More than are served at once.
const BROKEN_OFF: usize = 40;

/// Fault X16: no more streams than are allowed, however many are asked for.
#[test]
fn x16_streams_are_bounded() {
    let mut victim = Victim::start();
    let ticket = victim.ticket();
    run(async {
        let attacker = Attacker::connect(ticket).await;
        let (_session, _writer, _control) = attacker.ready().await;
        let mut held = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(1), attacker.link.quic().open_uni()).await {
            held.push(stream);
            assert!(held.len() <= usize::from(STREAMS_MAX));
        }
        // A second control stream is not to be had either.
        let second = tokio::time::timeout(Duration::from_secs(1), attacker.link.quic().open_bi()).await;
        assert!(!matches!(second, Ok(Ok(_))));
    });
    // The attacker's process went away without a word.
    victim.end().assert_code(Code::Interrupted.exit_code().into());
}

/// Fault X16: streams that are opened and reset without end, with the beginning of a header and
/// without. The first of them ends the transfer; no more are let in than were allowed at once, and
/// as many again.
#[test]
fn x16_resets_without_end_end_the_transfer() {
    let mut victim = Victim::start();
    let ticket = victim.ticket();
    let opened = run(async {
        let attacker = Attacker::connect(ticket).await;
        let (_session, _writer, _control) = attacker.ready().await;
        let connection = attacker.link.quic();
        let resetting = async {
            let mut opened = 0;
            while let Ok(mut stream) = connection.open_uni().await {
                opened += 1;
                let begun = if opened % 2 == 0 { &b"SLp1"[..] } else { b"" };
                let _ = stream.write_all(begun).await;
                let _ = stream.reset(0u32.into());
            }
            opened
        };
        let (code, opened) = tokio::join!(closed_with(connection), resetting);
        assert_eq!(code, Some(Code::Interrupted));
        opened
    });
    assert!(opened <= 2 * usize::from(STREAMS_MAX), "{opened} streams were let in");
    victim.end().assert_code(Code::Interrupted.exit_code().into()).assert_one_message();
}

/// Fault X16: a control stream that is taken away, in each direction, while data flows.
#[test]
fn x16_no_control_stream_is_no_transfer() {
    for (deaf, code) in [(true, Code::ProtocolViolation), (false, Code::Interrupted)] {
        let mut victim = Victim::start();
        let ticket = victim.ticket();
        run(async {
            let attacker = Attacker::connect(ticket).await;
            let (session, writer, control) = attacker.ready().await;
            // What is dropped is stopped, or ended; the other one stays.
            if deaf {
                drop(control)
            } else {
                drop(writer)
            }
            let frame = sealed(&session, 0, false).frame;
            let _stream = raw_part(attacker.link.quic(), 0, &frame).await;
            assert_eq!(closed_with(attacker.link.quic()).await, Some(code), "deaf: {deaf}");
        });
        victim.end().assert_code(code.exit_code().into()).assert_one_message();
    }
}

/// Fault X16: a control stream that is reset inside its first message, or on which no answer is
/// wanted, as often as a peer likes: the ticket stays good.
#[test]
fn x16_control_streams_that_are_broken_off_are_let_go() {
    let mut victim = Victim::start();
    let tickets: Vec<Ticket> = (0..BROKEN_OFF).map(|_| victim.ticket()).collect();
    run(async {
        for (at, ticket) in tickets.into_iter().enumerate() {
            let attacker = Attacker::connect(ticket).await;
            let (mut out, mut answer) = attacker.link.quic().open_bi().await.unwrap();
            let _ = out.write_all(&[0, 0, 0x10, 0, 0x82]).await;
            if at % 2 == 0 {
                let _ = answer.stop(0u32.into());
                let _ = out.finish();
            } else {
                let _ = out.reset(0u32.into());
            }
            let code = closed_with(attacker.link.quic()).await;
            // A reset may overtake what was written before it: RFC 9000, 19.4.
            let may_be_unseen = at % 2 == 1 && code == Some(Code::Interrupted);
            assert!(code == Some(Code::ProtocolViolation) || may_be_unseen, "{at}: {code:?}");
        }
    });
    victim.serves_an_honest_sender();
}

/// Issue 9, A3: a manifest that comes before its data, or before the last of its chunks, is out of
/// turn, however well it is signed.
#[test]
fn a3_a_manifest_before_its_data_is_refused() {
    for chunks in [0, 1] {
        let mut victim = Victim::start();
        let ticket = victim.ticket();
        run(async {
            let attacker = Attacker::connect(ticket).await;
            let (session, mut writer, _control) = attacker.ready().await;
            let frame = sealed(&session, 0, false).frame;
            let sent: &[u8] = if chunks > 0 { &frame } else { &[] };
            let _stream = raw_part(attacker.link.quic(), 0, sent).await;
            let root = Root([1; 32]);
            let part = SentPart { chunks: ChunkCount(chunks), plain_bytes: 4000 * chunks, root, rows: None };
            let grant = &attacker.ticket.grant;
            let manifest = Manifest {
                transfer: grant.grant.transfer,
                grant_hash: grant.hash(),
                plan_hash: plan().hash(),
                tables: Vec::new(),
                parts: vec![part],
                root,
                origin: sealift_protocol::manifest::Origin::unknown(),
                audit_head: None,
            };
            writer.send(&Message::Finish(manifest.sign(&attacker.identity))).await.unwrap();
            assert_eq!(closed_with(attacker.link.quic()).await, Some(Code::ProtocolViolation), "{chunks} chunks");
        });
        victim.end().assert_code(Code::ProtocolViolation.exit_code().into()).assert_one_message();
    }
}
