use sealift_protocol::{
    certificate::Chain,
    codec,
    disposition::Asks,
    envelope::SealingKey,
    error::Result,
    fingerprint::Fingerprint,
    grant::{Grant, SignedGrant},
    id::{Epoch, TableIndex, TransferId},
    key::DigestSecret,
    limits::{LANE_WINDOW_BYTES_MIN, LANES_MAX},
    link_facts::{CipherSuite, KeyExchangeGroup, LinkFacts, TlsVersion, Transport},
    manifest::{LinkEvidence, Origin, Plan, PlannedPart, PlannedTable, Section},
    message::{AcceptBody, BeginBody, Message},
    receive::{self, Agreed, Durability, Listening, Window},
    seal::Suite,
    sealed_log::KeyFingerprint,
    send::{Accepted, Beginning, ExpectedReceiver, Resume, SenderRecord, SenderSession, SenderTransfer},
    sign::{Purpose, Signer},
    transcript::{Channel, Transcript},
};
use sealift_sqlite::engine;

use super::{Seeded, TestSigner};

/// The one transfer of a test.
pub const TRANSFER: TransferId = TransferId([7; 16]);
/// A moment within every grant made here.
pub const NOW_SECONDS: u64 = 1_800_000_000;

/// What two agents that run on one host agree on.
pub const LINK_FACTS: LinkFacts = LinkFacts {
    transport: Transport::Quic,
    tls_version: TlsVersion(0x0304),
    group: KeyExchangeGroup(0x11ec),
    cipher_suite: CipherSuite(0x1302),
};

/// Who takes part, and the connection between them.
pub struct Parties {
    pub sender: TestSigner,
    pub receiver: TestSigner,
    pub channel: Channel,
    pub random: Seeded,
    /// The receiver's, where it has to be the same on several connections; else each has another.
    pub sealing_key: Option<SealingKey>,
    last_secret: [u8; 32],
}

/// What a test varies.
#[derive(Clone)]
pub struct Terms {
    pub plan: Plan,
    pub offered: Vec<Suite>,
    pub allowed: Vec<Suite>,
    pub epoch: Epoch,
    pub window: Window,
}

/// A transfer after the exchange: data may flow. At each end what outlives the connection, and what
/// does not.
pub struct Pair {
    pub transfer: SenderTransfer,
    pub session: SenderSession,
    pub loading: receive::ReceiverTransfer,
    pub receiving: receive::ReceiverSession,
}

impl Parties {
    pub fn new(seed: u64) -> Self {
        let mut random = Seeded::new("parties", seed);
        let mut key = || TestSigner::new(random.bytes(32).try_into().unwrap());
        let (sender, receiver) = (key(), key());
        let channel = Channel {
            exporter: random.bytes(32).try_into().unwrap(),
            sender_certificate: sender.certificate(),
            receiver_certificate: receiver.certificate(),
        };
        Self { sender, receiver, channel, random, sealing_key: None, last_secret: [0; 32] }
    }

    /// What a receipt says of the connection.
    pub fn link(&self) -> LinkEvidence {
        LinkEvidence {
            facts: LINK_FACTS,
            sender: Chain::self_signed(&self.channel.sender_certificate),
            receiver: Chain::self_signed(&self.channel.receiver_certificate),
        }
    }

    pub fn grant(&self) -> SignedGrant {
        self.grant_of(TRANSFER).sign(&self.receiver)
    }

    /// What the receiver permits the sender.
    pub fn grant_of(&self, transfer: TransferId) -> Grant {
        Grant {
            transfer,
            sender: Some(Fingerprint::of(&self.sender.public_key())),
            receiver: Fingerprint::of(&self.receiver.public_key()),
            source: "ehr".into(),
            target: "ehr_prod".into(),
            purpose: "CHG-1234".into(),
            not_before_seconds: NOW_SECONDS - 3600,
            begin_before_seconds: NOW_SECONDS + 3600,
            finish_before_seconds: NOW_SECONDS + 7200,
            retain_until_seconds: NOW_SECONDS + 86_400,
            scope: None,
            policy: None,
        }
    }

    pub fn listening(&self, terms: &Terms) -> Listening {
        Listening {
            suites: terms.allowed.clone(),
            grant_keys: vec![self.receiver.public_key()],
            receiver: Fingerprint::of(&self.receiver.public_key()),
            sender_key: self.sender.public_key(),
            proven: TRANSFER,
            begun: false,
            targets: vec!["ehr_prod".into()],
        }
    }

    pub fn transfer(&mut self, terms: &Terms) -> SenderTransfer {
        let secret = DigestSecret::generate(&mut self.random);
        self.last_secret = *secret.expose();
        SenderTransfer::new(terms.offered.clone(), self.grant(), terms.plan.clone(), secret, Origin::unknown()).unwrap()
    }

    fn sealing_key(&mut self) -> SealingKey {
        match &self.sealing_key {
            Some(key) => SealingKey::from_bytes(&key.expose()).unwrap(),
            None => SealingKey::generate(&mut self.random),
        }
    }

    /// What the sender knows of the receiver from its ticket.
    pub fn expected(&self, sealing_key: &SealingKey) -> ExpectedReceiver {
        let sealing_key = KeyFingerprint::of(&sealing_key.public_key());
        ExpectedReceiver { receiver_key: self.receiver.public_key(), sealing_key }
    }

    /// The receiver, whatever it has the keys sealed to: for offers that are not answered.
    pub fn anybody(&self) -> ExpectedReceiver {
        ExpectedReceiver { receiver_key: self.receiver.public_key(), sealing_key: KeyFingerprint([0; 32]) }
    }

    /// The digest secret of the transfer that was made last.
    pub fn last_secret(&self) -> DigestSecret {
        DigestSecret::from_bytes(self.last_secret)
    }

    /// The whole exchange over a faultless connection.
    pub fn agree(&mut self, terms: &Terms) -> Pair {
        self.exchange(terms, &Exchange::default()).unwrap()
    }

    /// The whole exchange; `tamper` may change what each side reads of the other.
    pub fn exchange(&mut self, terms: &Terms, tamper: &Exchange<'_>) -> Result<Pair> {
        let transfer = self.transfer(terms);
        let mut loading = None;
        let (session, receiving) = self.connect(terms, &transfer, &mut loading, Asks::Continue, tamper)?;
        Ok(Pair { transfer, session, loading: loading.expect("made for the first connection"), receiving })
    }

    /// One connection's exchange of a transfer of which `loading` is there already. `asks` says
    /// what becomes of that.
    pub fn connect(
        &mut self,
        terms: &Terms,
        transfer: &SenderTransfer,
        loading: &mut Option<receive::ReceiverTransfer>,
        asks: Asks,
        tamper: &Exchange<'_>,
    ) -> Result<(SenderSession, receive::ReceiverSession)> {
        let sender_channel = tamper.sender_channel.clone().unwrap_or(self.channel.clone());
        let sealing_key = self.sealing_key();
        let expected = self.expected(&sealing_key);
        let (offering, offer) = transfer.offer(&sender_channel, expected, asks, NOW_SECONDS, &mut self.random);
        let Message::Offer(offer) = (tamper.message)(offer) else { panic!("tampered into another kind") };
        let deciding = self.listening(terms).handle_offer(offer, &self.channel, NOW_SECONDS)?;
        let mut found = match loading.take() {
            Some(found) => match deciding.asks(false) {
                Asks::StartOver => deciding.started_over(&found, Asks::StartOver)?.expect("as asked"),
                Asks::Continue => found,
            },
            None => terms.first(deciding.new_transfer()),
        };
        let (accepting, accept) =
            deciding.accept(&found, terms.window, sealing_key.public_key(), &self.receiver, &mut self.random)?;
        let Message::Accept(accept) = (tamper.message)(accept) else { panic!("tampered into another kind") };
        let (beginning, begin) = begin(offering.handle_accept(transfer, accept, &self.sender, &mut self.random)?)?;
        let Message::Begin(begin) = (tamper.message)(begin) else { panic!("tampered into another kind") };
        let agreed = accepting.handle_begin(begin, &sealing_key, &mut found)?;
        let (receiving, ready) = ready(agreed, &found)?;
        let Message::Ready(ready) = (tamper.message)(ready) else { panic!("tampered into another kind") };
        let session = beginning.handle_ready(ready)?;
        *loading = Some(found);
        Ok((session, receiving))
    }
}

impl Pair {
    /// The connection is lost, and another stands: what each side does at its beginning.
    pub fn reconnect(&mut self, parties: &mut Parties, terms: &Terms) -> Result<Vec<Resume>> {
        self.connect_again(parties, terms, &Exchange::default(), Asks::Continue)
    }

    /// As `reconnect`; `asks` says whether to resume or to start over, and `tamper` is in between.
    pub fn connect_again(
        &mut self,
        parties: &mut Parties,
        terms: &Terms,
        tamper: &Exchange<'_>,
        asks: Asks,
    ) -> Result<Vec<Resume>> {
        let empty = receive::ReceiverTransfer::new(parties.grant(), terms.plan.clone());
        let mut loading = Some(std::mem::replace(&mut self.loading, empty));
        let (session, receiving) = parties.connect(terms, &self.transfer, &mut loading, asks, tamper)?;
        self.loading = loading.expect("was there");
        self.transfer.handle_agreed(self.session.keys.suite());
        (self.session, self.receiving) = (session, receiving);
        self.transfer.handle_have(&self.session.have, self.session.keys.epoch())
    }
}

impl Parties {
    /// The exchange with peers that hold their keys and sign what they should not. Signs over a
    /// transcript that is put together here once more, from what docs/protocol.md says.
    pub fn resigned(
        &mut self,
        terms: &Terms,
        change_accept: impl Fn(&mut AcceptBody),
        change_begin: impl Fn(&mut BeginBody),
    ) -> Result<Pair> {
        let transfer = self.transfer(terms);
        let sealing_key = self.sealing_key();
        let expected = self.expected(&sealing_key);
        let (offering, offer) = transfer.offer(&self.channel, expected, Asks::Continue, NOW_SECONDS, &mut self.random);
        let mut transcript = Transcript::new(&self.channel, &self.grant());
        transcript.absorb(&codec::encode(&offer));
        let Message::Offer(offer) = offer else { unreachable!() };
        let deciding = self.listening(terms).handle_offer(offer, &self.channel, NOW_SECONDS)?;
        let mut loading = terms.first(deciding.new_transfer());
        let public_key = sealing_key.public_key();
        let (accepting, accept) =
            deciding.accept(&loading, terms.window, public_key, &self.receiver, &mut self.random)?;
        let Message::Accept(mut accept) = accept else { unreachable!() };
        change_accept(&mut accept.body);
        transcript.absorb(&codec::encode(&accept.body));
        accept.signature = self.receiver.sign(Purpose::Accept, &transcript.hash());
        transcript.absorb(&accept.signature.0);
        let (beginning, begin) = begin(offering.handle_accept(&transfer, accept, &self.sender, &mut self.random)?)?;
        let Message::Begin(mut begin) = begin else { unreachable!() };
        change_begin(&mut begin.body);
        transcript.absorb(&codec::encode(&begin.body));
        begin.signature = self.sender.sign(Purpose::Begin, &transcript.hash());
        let agreed = accepting.handle_begin(begin, &sealing_key, &mut loading)?;
        let (receiving, ready) = ready(agreed, &loading)?;
        let Message::Ready(ready) = ready else { unreachable!() };
        let session = beginning.handle_ready(ready)?;
        Ok(Pair { transfer, session, loading, receiving })
    }
}

/// Begin, of a sender that keeps nothing.
pub fn begin(accepted: Accepted) -> Result<(Beginning, Message)> {
    let mut record = SenderRecord::default();
    record.handle_accepted(&accepted);
    record.handle_written();
    record.begin(accepted)
}

/// Ready, of a receiver that keeps nothing.
pub fn ready(mut agreed: Agreed, transfer: &receive::ReceiverTransfer) -> Result<(receive::ReceiverSession, Message)> {
    while agreed.poll(transfer).is_some() {}
    agreed.ready()
}

/// Who is in between.
pub struct Exchange<'a> {
    /// What the sender takes for its connection, if not the one that the receiver has.
    pub sender_channel: Option<Channel>,
    pub message: &'a dyn Fn(Message) -> Message,
}

impl Default for Exchange<'_> {
    fn default() -> Self {
        Self { sender_channel: None, message: &|message| message }
    }
}

impl Terms {
    pub fn new(plan: Plan, suite: Suite) -> Self {
        Self {
            plan,
            offered: vec![suite],
            allowed: vec![suite],
            epoch: Epoch(1),
            window: Window { lanes: LANES_MAX, lane_bytes: LANE_WINDOW_BYTES_MIN },
        }
    }

    /// The transfer as a receiver knows it before the connection of `epoch`.
    fn first(&self, mut transfer: receive::ReceiverTransfer) -> receive::ReceiverTransfer {
        transfer.handle_earlier(Epoch(self.epoch.0 - 1), None);
        transfer.handle_prepared(Durability::Parts);
        transfer
    }
}

/// One dump.
pub fn opaque_plan() -> Plan {
    Plan::opaque(sealift_opaque::engine(), None)
}

/// A database with this many tables.
pub fn table_plan(tables: usize) -> Plan {
    let mut parts = vec![PlannedPart::of_section(Section::PreData)];
    parts.extend((0..tables).map(|index| PlannedPart::of_table(TableIndex(index as u32))));
    parts.push(PlannedPart::of_section(Section::PostData));
    let tables = (0..tables).map(|index| PlannedTable::named(&format!("table_{index}"))).collect();
    Plan { engine: engine::rows(), tables, parts, empty: None, left_out: None, rows: None }
}
