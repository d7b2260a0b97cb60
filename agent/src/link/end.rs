//! How connections and streams end, in terms of no transport, and the one place that says what that
//! means to an agent.

use sealift_protocol::{
    close::Code,
    hint::{Hint, Restart},
    message::Refuse,
};

use crate::{
    clock::now_seconds,
    failure::{Failure, explain},
    refused::refused_by_peer,
    role::Role,
};

/// Why a connection is over. Each transport translates its own errors into this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The peer closed it; `None` if the number is none of ours.
    Closed(Option<Code>),
    /// The peer closed it before the handshake was complete, when no code can be sent yet.
    ClosedInHandshake,
    /// A TLS alert (RFC 8446, 6) that this side has sent.
    AlertSent(u8),
    /// A TLS alert that the peer has sent.
    AlertReceived(u8),
    /// Nothing arrives, or nothing that is sent is acknowledged.
    TimedOut,
    ClosedHere,
    /// The peer's host has no such connection any more, or its transport closed it.
    Gone,
    /// No version of the transport in common.
    NoCommonTransport,
    /// The peer broke the rules of the transport.
    Violation,
}

/// Why nothing can be sent or received on a stream any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// With its whole connection.
    Lost(LinkEnd),
    /// The peer takes no more of it, or this side has ended it.
    Stopped,
    /// The peer has given it up.
    Reset,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    Control,
    Part,
}

/// no_application_protocol (RFC 7301, 3.2): no version of our protocol in common.
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// Alerts that are about TLS itself, not about a certificate: handshake_failure, protocol_version,
/// insufficient_security, missing_extension (RFC 8446, 6.2).
const NO_COMMON_GROUND: [u8; 4] = [40, 70, 71, 109];

/// What the end of a stream means to the agent of this `role`.
pub(super) fn stream_failure(role: Role, kind: StreamKind, broken: &Broken) -> Failure {
    match (kind, broken) {
        (_, Broken::Lost(end)) => end.failure(role),
        (StreamKind::Control, Broken::Stopped) => {
            Failure::new(Code::ProtocolViolation, "the control stream was closed", "")
        }
        (StreamKind::Control, Broken::Reset) => exchange_ended(role),
        (StreamKind::Part, Broken::Stopped) => {
            Failure::new(Code::Interrupted, format!("the {} stopped reading a part", role.peer()), "")
        }
        // A sender that gives up resets its streams; why, it says on the control stream.
        (StreamKind::Part, Broken::Reset) => Failure::new(
            Code::Interrupted,
            format!("the {} gave a part up", role.peer()),
            Hint::StartAgain(Restart::Resumes),
        ),
    }
}

/// The peer has ended the control stream where a message was to come.
pub(crate) fn exchange_ended(role: Role) -> Failure {
    Failure::new(Code::Interrupted, format!("the {} ended the exchange", role.peer()), "")
}

impl LinkEnd {
    /// What the end of a connection means to the agent of this `role`.
    pub fn failure(self, role: Role) -> Failure {
        let peer = role.peer();
        let interrupted = |what: String| Failure::new(Code::Interrupted, what, Hint::StartAgain(Restart::Resumes));
        match self {
            Self::Closed(Some(Code::Done) | None) | Self::Gone => interrupted(format!("the {peer} went away")),
            Self::Closed(Some(code)) => refused_by_peer(peer.name(), Refuse::new(code), now_seconds()),
            Self::ClosedInHandshake => refused_by_peer(peer.name(), Refuse::new(Code::Interrupted), now_seconds()),
            Self::AlertSent(NO_APPLICATION_PROTOCOL) | Self::AlertReceived(NO_APPLICATION_PROTOCOL) => {
                let (what, hints) = explain(Code::VersionUnsupported);
                Failure::new(Code::VersionUnsupported, what, hints)
            }
            Self::AlertSent(alert) | Self::AlertReceived(alert) if NO_COMMON_GROUND.contains(&alert) => Failure::new(
                Code::SuiteUnsupported,
                format!("the {peer} and this side share no version, cipher suite or key exchange of TLS"),
                "Install the same version of Sealift on both hosts.",
            ),
            Self::AlertSent(_) => Failure::new(
                Code::IdentityRefused,
                format!("the {peer} is not the one that the ticket is for, or refuses this {role}'s certificate"),
                "Use the ticket that the receiver printed last; if it is right, another program answers at its address.",
            ),
            Self::AlertReceived(_) => Failure::new(
                Code::IdentityRefused,
                format!("the {peer} refuses this {role}'s certificate"),
                "Use the ticket that the receiver printed last, and compare the clocks of the two hosts.",
            ),
            Self::TimedOut => interrupted(format!("the link to the {peer} is down")),
            Self::ClosedHere => Failure::new(Code::Interrupted, "the connection was closed here", ""),
            Self::NoCommonTransport => {
                let what = format!("the {peer} speaks another version of QUIC");
                Failure::new(Code::VersionUnsupported, what, "")
            }
            Self::Violation => Failure::new(Code::ProtocolViolation, format!("the {peer} broke the rules of QUIC"), ""),
        }
    }
}
