//! `Handshake`: version and verack, as a state machine without I/O.
//!
//! The side that connected sends its version first; the other answers with its own. Each side then
//! names the features it wants (`wtxidrelay`, `sendaddrv2`) and ends with `verack`; features after
//! that are a fault (BIP-0155, BIP-0339, BIP-0434).

use super::message::{Message, PROTOCOL_VERSION, Version};
use super::peer::Kind;

/// Peers below this are too old to be of use (Bitcoin Core's `MIN_PEER_PROTO_VERSION`).
const VERSION_MIN: i32 = 31_800;

/// The versions from which `wtxidrelay` and `sendaddrv2`, and from which `feature` may be sent.
const VERSION_OF_WTXID_RELAY: u32 = 70_016;
const VERSION_OF_FEATURES: u32 = 70_017;

/// The services of a peer that serves the blocks of the last two days, and of one that serves all.
pub(crate) const NETWORK_LIMITED: u64 = 1 << 10;
const WITNESS: u64 = 1 << 3;
pub(crate) const NETWORK: u64 = 1;

/// The handshake of one connection.
#[derive(Debug)]
pub(crate) struct Handshake {
    kind: Kind,
    ours: Version,
    theirs: Option<u32>,
    done: bool,
}

/// What the outside knows and the handshake asks for.
pub(crate) trait Facts {
    /// Returns whether a nonce is of a connection that we began.
    fn is_own(&self, nonce: u64) -> bool;
    /// Returns whether the tip is recent: what is missing is then had from any peer.
    fn is_tip_recent(&self) -> bool;
}

/// What to do after a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The peer said who it is: answer with these.
    Version(Version, Vec<Message>),
    /// As `Version`, and that was all that was wanted: close the connection.
    Probed(Version),
    /// The peer is ready.
    Ready,
    /// A wish of the peer, to be noted.
    Noted,
    /// Nothing; the text says why, for the log.
    Ignore(String),
    /// Close the connection.
    Refuse(String),
}

impl Handshake {
    /// Begins a handshake in which we say `ours`.
    pub(crate) const fn new(kind: Kind, ours: Version) -> Self {
        Self { kind, ours, theirs: None, done: false }
    }

    /// Returns what to send before anything was received.
    pub(crate) fn first(&self) -> Option<Message> {
        (self.kind != Kind::Inbound).then(|| Message::Version(self.ours.clone()))
    }

    /// Returns whether both sides are ready.
    pub(crate) const fn is_done(&self) -> bool {
        self.done
    }

    /// Takes a message in.
    pub(crate) fn receive(&mut self, message: &Message, command: &str, facts: &impl Facts) -> Step {
        match (message, self.theirs) {
            (Message::Version(_), Some(_)) => Step::Ignore("redundant version message".into()),
            (Message::Version(version), None) => self.version(version, facts),
            (_, None) => {
                let text = "non-version message before version handshake.";
                Step::Ignore(format!("{text} Message \"{command}\""))
            }
            (Message::Verack, Some(_)) if self.done => {
                Step::Ignore("ignoring redundant verack message".into())
            }
            (Message::Verack, Some(_)) => {
                self.done = true;
                Step::Ready
            }
            (Message::WtxidRelay | Message::SendAddrV2 | Message::Feature, Some(_))
                if self.done =>
            {
                Step::Refuse(format!("{command} received after verack"))
            }
            (Message::Feature, Some(common)) if common < VERSION_OF_FEATURES => {
                Step::Refuse(format!("feature received with incompatible version {common}"))
            }
            (Message::WtxidRelay, Some(common)) if common < VERSION_OF_WTXID_RELAY => {
                Step::Ignore(format!("ignoring wtxidrelay due to old common version={common}"))
            }
            (
                Message::WtxidRelay
                | Message::SendAddrV2
                | Message::Feature
                | Message::SendHeaders
                | Message::SendCmpct(..),
                Some(_),
            ) => Step::Noted,
            (_, Some(_)) => {
                Step::Ignore(format!("Unsupported message \"{command}\" prior to verack"))
            }
        }
    }

    fn version(&mut self, version: &Version, facts: &impl Facts) -> Step {
        let wanted = desirable(version.services, facts);
        if self.kind.expects_services() && version.services & wanted != wanted {
            let offered = version.services;
            return Step::Refuse(format!(
                "peer does not offer the expected services ({offered:08x} offered, {wanted:08x} expected)"
            ));
        }
        let number = version.version.cast_signed();
        if number < VERSION_MIN {
            return Step::Refuse(format!("peer using obsolete version {number}"));
        }
        if self.kind == Kind::Inbound && facts.is_own(version.nonce) {
            return Step::Refuse("connected to self".into());
        }
        let common = version.version.min(PROTOCOL_VERSION);
        self.theirs = Some(common);
        if self.kind == Kind::Feeler {
            return Step::Probed(version.clone());
        }
        let mut messages = Vec::new();
        if self.kind == Kind::Inbound {
            messages.push(Message::Version(self.ours.clone()));
        }
        if common >= VERSION_OF_WTXID_RELAY {
            messages.extend([Message::WtxidRelay, Message::SendAddrV2]);
        }
        messages.push(Message::Verack);
        if self.kind != Kind::Inbound && self.kind.relays_addresses() {
            messages.push(Message::GetAddr);
        }
        Step::Version(version.clone(), messages)
    }
}

/// Returns the services that a peer which offers `services` has to offer.
pub(crate) fn desirable(services: u64, facts: &impl Facts) -> u64 {
    if services & NETWORK_LIMITED != 0 && facts.is_tip_recent() {
        NETWORK_LIMITED | WITNESS
    } else {
        NETWORK | WITNESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Facts for tests: our own nonce, and whether the tip is recent.
    struct Known(u64, bool);

    impl Facts for Known {
        fn is_own(&self, nonce: u64) -> bool {
            nonce == self.0
        }
        fn is_tip_recent(&self) -> bool {
            self.1
        }
    }

    const NOTHING: Known = Known(99, false);

    fn version(nonce: u64, number: u32) -> Version {
        Version {
            version: number,
            services: 9,
            time: 0,
            receiver: None,
            nonce,
            user_agent: "/x/".into(),
            start_height: 0,
            relay: false,
        }
    }

    fn receive(handshake: &mut Handshake, message: &Message) -> Step {
        handshake.receive(message, message.command(), &NOTHING)
    }

    fn answers(step: &Step) -> Vec<&'static str> {
        let Step::Version(_, messages) = step else { panic!("{step:?}") };
        messages.iter().map(Message::command).collect()
    }

    #[test]
    fn both_sides_become_ready() {
        let mut inbound = Handshake::new(Kind::Inbound, version(1, PROTOCOL_VERSION));
        let mut outbound = Handshake::new(Kind::Manual, version(2, PROTOCOL_VERSION));
        assert_eq!(inbound.first(), None);
        let hello = outbound.first().unwrap();
        let answer = receive(&mut inbound, &hello);
        assert_eq!(answers(&answer), ["version", "wtxidrelay", "sendaddrv2", "verack"]);
        let Step::Version(_, answer) = answer else { panic!() };
        let reply = receive(&mut outbound, &answer[0]);
        assert_eq!(answers(&reply), ["wtxidrelay", "sendaddrv2", "verack", "getaddr"]);
        for message in &answer[1..3] {
            assert_eq!(receive(&mut outbound, message), Step::Noted);
        }
        assert_eq!(receive(&mut outbound, &answer[3]), Step::Ready);
        assert_eq!(receive(&mut inbound, &Message::Verack), Step::Ready);
        assert!(inbound.is_done() && outbound.is_done());
    }

    #[test]
    fn each_kind_of_connection_asks_for_what_it_is_for() {
        let hello = Message::Version(version(1, PROTOCOL_VERSION));
        let answer = |kind| {
            let mut handshake = Handshake::new(kind, version(2, PROTOCOL_VERSION));
            receive(&mut handshake, &hello)
        };
        for kind in [Kind::Manual, Kind::OutboundFullRelay, Kind::AddrFetch] {
            assert!(answers(&answer(kind)).contains(&"getaddr"));
        }
        assert!(!answers(&answer(Kind::BlockRelayOnly)).contains(&"getaddr"));
        assert_eq!(answer(Kind::Feeler), Step::Probed(version(1, PROTOCOL_VERSION)));
    }

    #[test]
    fn a_peer_that_we_chose_must_offer_what_we_chose_it_for() {
        let refused = |kind, services, recent| {
            let mut handshake = Handshake::new(kind, version(2, PROTOCOL_VERSION));
            let theirs = Version { services, ..version(1, PROTOCOL_VERSION) };
            match handshake.receive(&Message::Version(theirs), "version", &Known(99, recent)) {
                Step::Refuse(text) => Some(text),
                _ => None,
            }
        };
        let text =
            "peer does not offer the expected services (00000408 offered, 00000009 expected)";
        assert_eq!(refused(Kind::OutboundFullRelay, 0x408, false).as_deref(), Some(text));
        assert_eq!(refused(Kind::OutboundFullRelay, 0x408, true), None);
        assert_eq!(refused(Kind::BlockRelayOnly, 9, false), None);
        assert!(refused(Kind::AddrFetch, 8, true).is_some());
        for kind in [Kind::Inbound, Kind::Manual, Kind::Feeler] {
            assert_eq!(refused(kind, 0, false), None);
        }
    }

    #[test]
    fn own_obsolete_early_and_late_messages_are_named_as_core_names_them() {
        let mut handshake = Handshake::new(Kind::Inbound, version(1, PROTOCOL_VERSION));
        let text = "non-version message before version handshake. Message \"ping\"";
        assert_eq!(receive(&mut handshake, &Message::Ping(1)), Step::Ignore(text.into()));
        let own = Message::Version(version(99, PROTOCOL_VERSION));
        assert_eq!(receive(&mut handshake, &own), Step::Refuse("connected to self".into()));
        let old = Message::Version(version(6, 31_799));
        let text = "peer using obsolete version 31799";
        assert_eq!(receive(&mut handshake, &old), Step::Refuse(text.into()));
        let hello = Message::Version(version(6, 70_001));
        assert_eq!(answers(&receive(&mut handshake, &hello)), ["version", "verack"]);
        let text = "redundant version message";
        assert_eq!(receive(&mut handshake, &hello), Step::Ignore(text.into()));
        let text = "Unsupported message \"ping\" prior to verack";
        assert_eq!(receive(&mut handshake, &Message::Ping(1)), Step::Ignore(text.into()));
        assert!(matches!(receive(&mut handshake, &Message::Feature), Step::Refuse(_)));
        assert_eq!(receive(&mut handshake, &Message::Verack), Step::Ready);
        let text = "ignoring redundant verack message";
        assert_eq!(receive(&mut handshake, &Message::Verack), Step::Ignore(text.into()));
        let text = "wtxidrelay received after verack";
        assert_eq!(receive(&mut handshake, &Message::WtxidRelay), Step::Refuse(text.into()));
    }
}
