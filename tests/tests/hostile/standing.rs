//! What holders of good tickets say instead of an offer, to a receiver that stands and has a ticket
//! for each of them.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    time::Duration,
};

use nix::sys::signal::Signal;
use sealift_agent::{identity::Identity, ticket::Ticket};
use sealift_protocol::{
    close::Code,
    message::{Message, Ready, Refuse},
};
use sealift_sender::transfer::proof_of;
use sealift_tests::{
    agents::{Agent, Launch, RECEIVER},
    port::free_udp_port,
};
use tempfile::TempDir;

use super::{Attacker, MEMORY_BYTES_MAX, WITHIN, closed_with, raw_part, run, sealed};

/// A real receiver that stands, with a ticket of its own for each who asks: a good proof binds one
/// to its sender, and leaves the others as they are.
struct Standing {
    receiver: Agent,
    folder: TempDir,
}

impl Standing {
    fn start() -> Self {
        Self::start_with("")
    }

    /// With these lines in its configuration.
    fn start_with(settings: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_udp_port());
        let at = folder.path().display();
        let config = format!(
            "listen = [\"{address}\"]\naddresses = [\"{address}\"]\nstate_dir = \"{at}/state\"\n{settings}\n\
             [targets.drill]\nurl = \"discard:\"\n[targets.dump]\nurl = \"exec:sh -c 'cat > {at}/part && mv {at}/part {at}/target'\"\n"
        );
        fs::write(folder.path().join("config"), config).unwrap();
        DirBuilder::new().mode(0o700).create(folder.path().join("state")).unwrap();
        let launch = Launch::bare(RECEIVER, &["serve", "--json", "--config"]).arg(folder.path().join("config"));
        let mut receiver = launch.start();
        receiver.wait_for_event("listening", 1, WITHIN);
        Self { receiver, folder }
    }

    fn ticket_file(&self, target: &str, name: &str) -> PathBuf {
        let ticket = self.folder.path().join(name);
        let launch = Launch::bare(RECEIVER, &["ticket", "--target", target, "--config"]);
        let launch = launch.arg(self.folder.path().join("config")).arg("--ticket-out").arg(&ticket);
        launch.start().wait(WITHIN).assert_code(0);
        ticket
    }

    fn ticket(&self, name: &str) -> Ticket {
        self.ticket_for("dump", name)
    }

    fn ticket_for(&self, target: &str, name: &str) -> Ticket {
        Ticket::from_text(&fs::read_to_string(self.ticket_file(target, name)).unwrap()).unwrap()
    }

    /// Nothing was loaded of any other peer, and an honest sender is admitted the first time that
    /// it tries.
    fn serves_an_honest_sender(self) {
        let (source, target) = (self.folder.path().join("source"), self.folder.path().join("target"));
        assert!(!target.exists());
        fs::write(&source, "rows").unwrap();
        let ticket = self.ticket_file("dump", "honest");
        let sender = Launch::sender(&format!("file:{}", source.display()), ticket).json().start().wait(WITHIN);
        sender.assert_code(0);
        assert_eq!(sender.number("retries"), 0, "{}", sender.stderr());
        assert_eq!(fs::read(target).unwrap(), b"rows");
        self.receiver.signal(Signal::SIGTERM);
        let receiver = self.receiver.wait(WITHIN);
        receiver.assert_code(0);
        assert!(receiver.peak_memory_bytes < MEMORY_BYTES_MAX, "{} bytes", receiver.peak_memory_bytes);
    }
}

/// Faults X15, X17, X18: what a sender that has proven its ticket says instead of an offer is
/// bounded and refused.
#[test]
fn x15_x17_x18_garbage_instead_of_an_offer_is_refused() {
    let begin_first = Message::Ready(Ready { transcript: [0; 32] }).to_frame().unwrap();
    let mut unknown = vec![0, 0, 0, 3];
    unknown.extend([0x82, 0x18, 0x63]);
    let victim = Standing::start();
    for (at, (garbage, code)) in [
        (vec![0xff; 4], Code::LimitExceeded),
        (vec![0, 0, 0, 0], Code::ProtocolViolation),
        ([&[0, 0x0f, 0xff, 0xff][..], &[0x55; 0x0f_ffff]].concat(), Code::ProtocolViolation),
        (unknown, Code::ProtocolViolation),
        (begin_first, Code::ProtocolViolation),
    ]
    .into_iter()
    .enumerate()
    {
        let ticket = victim.ticket(&at.to_string());
        run(async {
            let attacker = Attacker::connect(ticket).await;
            let (mut out, mut answer) = attacker.link.quic().open_bi().await.unwrap();
            let proof = proof_of(&attacker.ticket, &attacker.identity, &attacker.link);
            out.write_all(&proof.to_bytes()).await.unwrap();
            // It may be refused before all of it is written.
            let _ = out.write_all(&garbage).await;
            let answer = answer.read_to_end(1024).await.unwrap();
            let refuse = Refuse::new(code);
            assert_eq!(answer, Message::Refuse(refuse).to_frame().unwrap());
        });
    }
    victim.serves_an_honest_sender();
}

/// Fault X16: peers that leave no room for an answer, as many as are served at once and more, are
/// let go; the next sender is served.
#[test]
fn x16_peers_that_take_no_answer_are_let_go() {
    let victim = Standing::start();
    let tickets: Vec<Ticket> = (0..12).map(|at| victim.ticket(&at.to_string())).collect();
    let deaf = |_: &Identity, config: &mut quinn::ClientConfig| {
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(quinn::VarInt::from_u32(0)).keep_alive_interval(Some(Duration::from_secs(1)));
        config.transport_config(std::sync::Arc::new(transport));
    };
    run(async {
        let mut attackers = Vec::new();
        for ticket in tickets {
            let attacker = Attacker::connect_with(ticket, deaf).await;
            let (mut writer, control) = attacker.control().await;
            writer.send(&Message::Ready(Ready { transcript: [0; 32] })).await.unwrap();
            attackers.push((attacker, writer, control));
        }
        for (attacker, _writer, _control) in attackers {
            assert_eq!(closed_with(attacker.link.quic()).await, Some(Code::ProtocolViolation));
        }
    });
    victim.serves_an_honest_sender();
}

/// Issue 9, C1: holders of tickets that are let in and then say nothing, or a byte now and then,
/// keep their places only until a sender needs one: it is admitted the first time that it tries.
#[test]
fn c1_silence_after_ready_keeps_no_place() {
    let victim = Standing::start_with("transfers_max = 2\nidle_max = \"2s\"");
    let tickets = ["silent", "dribbling"].map(|name| victim.ticket_for("drill", name));
    let (let_in, wait_for_them) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let attack = std::thread::spawn(move || {
        run(async {
            let [silent, dribbling] = tickets.map(Attacker::connect);
            let (silent, dribbling) = (silent.await, dribbling.await);
            let _silent = silent.ready().await;
            let (session, _writer, _control) = dribbling.ready().await;
            let frame = sealed(&session, 0, false).frame;
            let mut stream = raw_part(dribbling.link.quic(), 0, &frame[..8]).await;
            let_in.send(()).unwrap();
            let dribble = async {
                for byte in &frame[8..] {
                    let _ = stream.write_all(&[*byte]).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::select! {
                () = dribble => {}
                _ = stopped => {}
            }
        });
    });
    wait_for_them.recv_timeout(WITHIN).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    victim.serves_an_honest_sender();
    drop(stop);
    attack.join().unwrap();
}
