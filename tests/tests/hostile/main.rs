//! Peers that hold a good ticket and do not keep to the protocol, against the real agents: each is
//! refused with its own code, nothing is loaded, memory stays bounded, and nobody waits for ever.

mod offers;
mod packets;
mod standing;
mod strangers;
mod streams;

use std::{
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::Connection;
use sealift_agent::{
    budget::Budget,
    cli::MEMORY_BYTES_MIN,
    control::{ControlReader, ControlWriter, MESSAGE_TIMEOUT, accept_control, open_control},
    credentials::Credentials,
    door::{Door, Slot},
    identity::Identity,
    link::{Acceptor, Arrived, Dialer, Link, Listener},
    random::SystemRandom,
    role::Role,
    ticket::Ticket,
    trust::Trust,
};
use sealift_protocol::{
    chunk::{Chunk, Sealed},
    close::Code,
    compress::{Compression, Packer},
    disposition::Asks,
    frame::StreamHeader,
    id::{ChunkCount, ChunkIndex, PartIndex},
    key::DigestSecret,
    manifest::{Origin, Plan},
    message::{Accept, Ack, Message, Ready, Refuse},
    negotiate::suites_auto,
    random::Nonces,
    receive::{Listening, Window},
    seal::seal,
    send::{SenderSession, SenderTransfer},
    sign::{Signature, Signer},
};
use sealift_sender::{
    lane::Sealer,
    outgoing::Outgoing,
    pipeline::{OfferTerms, negotiate},
    transfer::proof_of,
    workers::Workers,
};
use sealift_tests::{
    agents::{Agent, Launch},
    finished::Finished,
    invited::{Invited, write_ticket},
    wire::{opaque_plan, ready},
};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);
const MEMORY_BYTES_MAX: u64 = 128 << 20;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn plan() -> Plan {
    opaque_plan()
}

/// A real receiver that waits, and the folder in which nothing may ever appear.
struct Victim {
    receiver: Agent,
    folder: TempDir,
}

impl Victim {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
        let target = format!("file:{}", folder.path().join("target").display());
        let receiver =
            Launch::receiver(&target).bind_loopback().args(&["--danger-plaintext-file", "--grace", "0s"]).start();
        Self { receiver, folder }
    }

    fn ticket(&mut self) -> Ticket {
        Ticket::from_text(&std::fs::read_to_string(self.receiver.ticket()).unwrap()).unwrap()
    }

    fn address(&mut self) -> SocketAddr {
        self.ticket().addresses[0].parse().unwrap()
    }

    fn end(self) -> Finished {
        let finished = self.receiver.wait(WITHIN);
        let is_suspended = finished.code() == Some(Code::Interrupted.exit_code().into());
        let files = std::fs::read_dir(self.folder.path()).unwrap().flatten().map(|entry| entry.path());
        let is_staging = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sealift-staging");
        let left: Vec<_> = files.filter(|path| !(is_suspended && is_staging(path))).collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "nothing of it is left in the target's folder");
        assert!(finished.receipts().is_empty());
        assert!(finished.peak_memory_bytes < MEMORY_BYTES_MAX, "{} bytes", finished.peak_memory_bytes);
        finished
    }

    /// Still there, and good for an honest sender, which is admitted the first time that it tries.
    fn serves_an_honest_sender(mut self) -> Finished {
        let source = self.folder.path().join("source");
        std::fs::write(&source, "rows").unwrap();
        let ticket = self.receiver.ticket();
        let sender = Launch::sender(&format!("file:{}", source.display()), ticket).json().start().wait(WITHIN);
        sender.assert_code(0);
        assert_eq!(sender.number("retries"), 0, "{}", sender.stderr());
        let receiver = self.receiver.wait(WITHIN);
        receiver.assert_code(0);
        assert!(receiver.peak_memory_bytes < MEMORY_BYTES_MAX, "{} bytes", receiver.peak_memory_bytes);
        assert_eq!(std::fs::read(self.folder.path().join("target")).unwrap(), b"rows");
        receiver
    }
}

/// A sender of ours that can do what the real one never does.
struct Attacker {
    link: Link,
    identity: Identity,
    ticket: Ticket,
}

impl Attacker {
    async fn connect(ticket: Ticket) -> Self {
        Self::connect_with(ticket, |_, _| {}).await
    }

    async fn connect_with(ticket: Ticket, change: impl Fn(&Identity, &mut quinn::ClientConfig)) -> Self {
        let identity = Identity::generate(Role::Sender).unwrap();
        let mut dialer = Dialer::new(&identity, Trust::Pinned(ticket.receiver)).unwrap();
        change(&identity, &mut dialer.quic);
        let link = dialer.connect(&ticket.addresses).await.unwrap();
        Self { link, identity, ticket }
    }

    /// The control stream, behind a good proof of the ticket.
    async fn control(&self) -> (ControlWriter, ControlReader) {
        open_control(&self.link, &proof_of(&self.ticket, &self.identity, &self.link)).await.unwrap()
    }

    /// Goes through the exchange as an honest sender does.
    async fn ready(&self) -> (SenderSession, ControlWriter, ControlReader) {
        let secret = DigestSecret::generate(&mut SystemRandom::default());
        let transfer =
            SenderTransfer::new(suites_auto(true), self.ticket.grant.clone(), plan(), secret, Origin::unknown())
                .unwrap();
        let (mut writer, mut control) = self.control().await;
        let outgoing =
            Outgoing::new(transfer, None, Sealer::new(Workers::new(Compression::Off), Budget::new(MEMORY_BYTES_MIN)));
        let session = negotiate(
            &outgoing,
            OfferTerms { asks: Asks::Continue, sealing_key: self.ticket.sealing_key },
            &self.link,
            &self.identity,
            &mut writer,
            &mut control,
            |accepted| Ok(sealift_tests::wire::begin(accepted)?),
        )
        .await
        .unwrap();
        (session, writer, control)
    }
}

fn sealed(session: &SenderSession, index: u64, last: bool) -> Sealed {
    let chunk = Chunk::new(PartIndex(0), ChunkIndex(index), last, "row\n".repeat(1000));
    let packed = Packer::new(Compression::Level(1)).unwrap().pack(chunk, session.keys.digests());
    seal(packed, &session.keys, Nonces::new(SystemRandom::default()).draw().unwrap()).unwrap()
}

async fn raw_part(connection: &Connection, part: u32, bytes: &[u8]) -> quinn::SendStream {
    let mut stream = connection.open_uni().await.unwrap();
    let header = StreamHeader { part: PartIndex(part), first: ChunkIndex(0) };
    stream.write_all(&header.to_bytes()).await.unwrap();
    // The receiver may already have refused what came before.
    let _ = stream.write_all(bytes).await;
    stream
}

/// The code with which the other side closed. Issue 9, D3: an application close carries no text.
async fn closed_with(connection: &Connection) -> Option<Code> {
    match tokio::time::timeout(WITHIN, connection.closed()).await.expect("the agent ends the connection") {
        quinn::ConnectionError::ApplicationClosed(close) => {
            assert!(close.reason.is_empty(), "{close:?}");
            Code::from_number(close.error_code.into_inner())
        }
        _ => None,
    }
}

/// Issue 9, C1; fault X15: a peer that says nothing, or a byte a second, is let go within the time
/// of the exchange.
#[test]
fn x15_silence_is_let_go_and_the_ticket_stays_good() {
    let mut victim = Victim::start();
    let (silent, slow) = (victim.ticket(), victim.ticket());
    run(async {
        let attacker = Attacker::connect(silent).await;
        assert_eq!(closed_with(attacker.link.quic()).await, Some(Code::TooSlow));
        let attacker = Attacker::connect(slow).await;
        let proof = proof_of(&attacker.ticket, &attacker.identity, &attacker.link).to_bytes();
        let (mut out, _in) = attacker.link.quic().open_bi().await.unwrap();
        let mut dripped = 0;
        let drip = async {
            for byte in &proof {
                if out.write_all(&[*byte]).await.is_err() {
                    return;
                }
                dripped += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = drip => {}
            code = closed_with(attacker.link.quic()) => assert_eq!(code, Some(Code::TooSlow)),
        }
        // Issue 9, C1: the length and the rest of a message have one clock together.
        assert!(dripped <= MESSAGE_TIMEOUT.as_secs() + 1, "{dripped} bytes, one a second, were waited for");
    });
    victim.serves_an_honest_sender();
}

/// Faults X1, X2, X4, X5, X8, X16: every wrong thing on a data stream ends the transfer with its
/// own code.
#[test]
fn x1_to_x8_wrong_data_ends_the_transfer_with_nothing_loaded() {
    type Make = fn(&SenderSession) -> (u32, Vec<u8>);
    let cases: [(&str, Make, Code); 9] = [
        ("no such part", |session| (7, sealed(session, 0, true).frame.to_vec()), Code::ProtocolViolation),
        ("garbage", |_| (0, vec![0x41; 4096]), Code::ChunkMalformed),
        ("length that lies", |s| (0, change(sealed(s, 0, true), 44, 0x7f)), Code::ChunkMalformed),
        ("forged", |s| (0, change(sealed(s, 0, true), 130, 1)), Code::ChunkForged),
        ("another transfer", |s| (0, change(sealed(s, 0, true), 9, 1)), Code::ChunkForeign),
        ("skips one", |s| (0, sealed(s, 1, true).frame.to_vec()), Code::ChunkOrder),
        ("repeats one", |s| (0, [sealed(s, 0, false).frame, sealed(s, 0, true).frame].concat()), Code::ChunkOrder),
        ("after the last", |s| (0, [sealed(s, 0, true).frame, sealed(s, 1, true).frame].concat()), Code::ChunkOrder),
        ("ends early", |s| (0, sealed(s, 0, false).frame.to_vec()), Code::PartTruncated),
    ];
    for (name, make, code) in cases {
        let mut victim = Victim::start();
        let ticket = victim.ticket();
        run(async {
            let attacker = Attacker::connect(ticket).await;
            let (session, _writer, _control) = attacker.ready().await;
            let (part, bytes) = make(&session);
            let mut stream = raw_part(attacker.link.quic(), part, &bytes).await;
            let _ = stream.finish();
            assert_eq!(closed_with(attacker.link.quic()).await, Some(code), "{name}");
        });
        victim.end().assert_code(code.exit_code().into()).assert_one_message();
    }
}

fn change(sealed: Sealed, place: usize, with: u8) -> Vec<u8> {
    let mut frame = sealed.frame.to_vec();
    frame[place] ^= with;
    frame
}

/// Faults X13, X17: messages out of turn, and a manifest that nobody signed.
#[test]
fn x13_x17_messages_out_of_turn_end_the_transfer() {
    for (message, code) in [
        (Message::Ready(Ready { transcript: [0; 32] }), Code::ProtocolViolation),
        (ack(1), Code::ProtocolViolation),
        // No peer can say that all went well.
        (refuse(Code::Done), Code::ProtocolViolation),
        (refuse(Code::SourceFailed), Code::SourceFailed),
    ] {
        let mut victim = Victim::start();
        let ticket = victim.ticket();
        run(async {
            let attacker = Attacker::connect(ticket).await;
            let (_session, mut writer, _control) = attacker.ready().await;
            writer.send(&message).await.unwrap();
            assert_eq!(closed_with(attacker.link.quic()).await, Some(code));
        });
        victim.end().assert_code(code.exit_code().into());
    }
}

fn refuse(code: Code) -> Message {
    Message::Refuse(Refuse::new(code))
}

/// A first word that says "done" does not end a receiver as if something had been loaded.
#[test]
fn x13_done_as_the_first_word_is_no_success() {
    let mut victim = Victim::start();
    let ticket = victim.ticket();
    run(async {
        let attacker = Attacker::connect(ticket).await;
        let (mut writer, _control) = attacker.control().await;
        writer.send(&refuse(Code::Done)).await.unwrap();
        let _ = closed_with(attacker.link.quic()).await;
    });
    victim.end().assert_code(Code::ProtocolViolation.exit_code().into()).assert_one_message();
}

fn ack(chunks: u64) -> Message {
    Message::Ack(Ack { part: PartIndex(0), verified: ChunkCount(chunks), durable: ChunkCount(chunks) })
}

/// What a false receiver does to an honest sender.
#[derive(Clone, Copy, Debug)]
enum Falsehood {
    SaysNothing,
    ForgesAccept,
    ForgesReady,
    AcknowledgesTooMuch,
    SaysDone,
    GoesAway,
}

/// Faults X7, X12: a false receiver is found out by the sender, which ends with the right code.
#[test]
fn x7_x12_a_false_receiver_is_found_out() {
    for (falsehood, code) in [
        (Falsehood::SaysNothing, Code::TooSlow),
        (Falsehood::ForgesAccept, Code::TranscriptMismatch),
        (Falsehood::ForgesReady, Code::TranscriptMismatch),
        (Falsehood::AcknowledgesTooMuch, Code::AckImpossible),
        (Falsehood::SaysDone, Code::ProtocolViolation),
        (Falsehood::GoesAway, Code::Interrupted),
    ] {
        let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
        let ticket = folder.path().join("ticket");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let invited = Invited::at(address);
        write_ticket(&ticket, invited.ticket.to_text().as_bytes());
        let sender = Launch::sender("exec:sleep 60", &ticket).start();
        run(async {
            let credentials = Credentials::new(Arc::clone(&invited.identity), Trust::AnyKey);
            let listener = Listener::start(socket, &credentials).unwrap();
            let door = Door::default();
            let mut acceptor = Acceptor::new(&listener, &door).unwrap();
            let Arrived { link, slot } = acceptor.next().await.unwrap();
            deceive(&link, &slot, &invited, falsehood).await;
            if matches!(falsehood, Falsehood::GoesAway) {
                link.close(Code::Done);
                listener.wait_idle().await;
            } else {
                assert_eq!(closed_with(link.quic()).await, Some(code), "{falsehood:?}");
            }
        });
        sender.wait(WITHIN).assert_code(code.exit_code().into()).assert_one_message();
    }
}

async fn deceive(link: &Link, slot: &Slot, invited: &Invited, falsehood: Falsehood) {
    let mut random = SystemRandom::default();
    let (mut writer, mut control, proof) = accept_control(link).await.unwrap();
    let Message::Offer(offer) = control.first(Instant::now(), slot).await.unwrap() else { panic!("no offer") };
    if matches!(falsehood, Falsehood::SaysNothing | Falsehood::GoesAway) {
        return hold_open(link, writer, falsehood).await;
    }
    let grant = offer.grant.grant.clone();
    let listening = Listening {
        suites: suites_auto(true),
        grant_keys: vec![invited.identity.public_key()],
        receiver: grant.receiver,
        sender_key: link.peer,
        proven: proof.transfer,
        begun: false,
        targets: vec![grant.target.clone()],
    };
    let deciding = listening.handle_offer(offer, &link.channel, grant.not_before_seconds).unwrap();
    let key = &invited.sealing_key;
    let window = Window::share(32 << 20, 1);
    let mut loading = deciding.new_transfer();
    let (accepting, message) =
        deciding.accept(&loading, window, key.public_key(), &*invited.identity, &mut random).unwrap();
    if let (Falsehood::ForgesAccept, Message::Accept(accept)) = (falsehood, &message) {
        let forged = Message::Accept(Accept { body: accept.body.clone(), signature: Signature([9; 64]) });
        writer.send(&forged).await.unwrap();
        return hold_open(link, writer, falsehood).await;
    }
    writer.send(&message).await.unwrap();
    let Message::Begin(begin) = control.expect(0).await.unwrap() else { panic!("no Begin") };
    let agreed = accepting.handle_begin(begin, key, &mut loading).unwrap();
    let (_receiving, ready) = ready(agreed, &loading).unwrap();
    if matches!(falsehood, Falsehood::ForgesReady) {
        writer.send(&Message::Ready(Ready { transcript: [7; 32] })).await.unwrap();
    } else {
        let then = if matches!(falsehood, Falsehood::SaysDone) { refuse(Code::Done) } else { ack(5) };
        writer.send(&ready).await.unwrap();
        writer.send(&then).await.unwrap();
    }
    hold_open(link, writer, falsehood).await;
}

/// Keeps the control stream open until the sender has made up its mind.
async fn hold_open(link: &Link, writer: ControlWriter, falsehood: Falsehood) {
    if !matches!(falsehood, Falsehood::GoesAway) {
        let _ = tokio::time::timeout(WITHIN, link.quic().closed()).await;
    }
    drop(writer);
}
