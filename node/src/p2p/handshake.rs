//! `Handshake`: version and verack, as a state machine without I/O.
//!
//! The side that connected sends its version first; the other answers with its own. Each side then
//! names the features it wants (`wtxidrelay`, `sendaddrv2`) and ends with `verack`; features after
//! that are a fault (BIP-0155, BIP-0339).

use super::message::{Message, PROTOCOL_VERSION, Version};

/// Peers below this are too old to be of use (Bitcoin Core's `MIN_PEER_PROTO_VERSION`).
const VERSION_MIN: u32 = 31_800;

/// The version from which `wtxidrelay` and `sendaddrv2` may be sent.
const VERSION_OF_FEATURES: u32 = 70_016;

/// The handshake of one connection.
#[derive(Debug)]
pub(crate) struct Handshake {
    inbound: bool,
    ours: Version,
    theirs: Option<Version>,
    done: bool,
}

/// What to do after a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Send these and go on.
    Send(Vec<Message>),
    /// The peer is ready.
    Ready(Version),
    /// Nothing; the text says why, for the log.
    Ignore(&'static str),
    /// Close the connection.
    Refuse(String),
}

impl Handshake {
    /// Begins a handshake in which we say `ours`.
    pub(crate) const fn new(inbound: bool, ours: Version) -> Self {
        Self { inbound, ours, theirs: None, done: false }
    }

    /// Returns what to send before anything was received.
    pub(crate) fn first(&self) -> Option<Message> {
        (!self.inbound).then(|| Message::Version(self.ours.clone()))
    }

    /// Returns whether both sides are ready.
    pub(crate) const fn is_done(&self) -> bool {
        self.done
    }

    /// Takes a message in; `is_own` says whether a nonce is of a connection that we began.
    pub(crate) fn receive(&mut self, message: &Message, is_own: impl Fn(u64) -> bool) -> Step {
        match (message, &self.theirs) {
            (Message::Version(_), Some(_)) => Step::Ignore("redundant version message"),
            (Message::Version(version), None) => {
                if self.inbound && is_own(version.nonce) {
                    return Step::Refuse("connected to self".into());
                }
                if version.version < VERSION_MIN {
                    return Step::Refuse(format!("using obsolete version {}", version.version));
                }
                self.theirs = Some(version.clone());
                Step::Send(self.answer(version.version))
            }
            (_, None) => Step::Ignore("non-version message before version handshake"),
            (Message::Verack, Some(_)) if self.done => Step::Ignore("redundant verack message"),
            (Message::Verack, Some(theirs)) => {
                self.done = true;
                Step::Ready(theirs.clone())
            }
            (Message::WtxidRelay | Message::SendAddrV2, Some(_)) if self.done => {
                Step::Refuse(format!("{} received after verack", message.command()))
            }
            (Message::WtxidRelay | Message::SendAddrV2 | Message::SendHeaders, Some(_)) => {
                Step::Send(Vec::new())
            }
            (_, Some(_)) => Step::Ignore("unsupported message prior to verack"),
        }
    }

    fn answer(&self, their_version: u32) -> Vec<Message> {
        let mut messages = Vec::new();
        if self.inbound {
            messages.push(Message::Version(self.ours.clone()));
        }
        if their_version.min(PROTOCOL_VERSION) >= VERSION_OF_FEATURES {
            messages.extend([Message::WtxidRelay, Message::SendAddrV2]);
        }
        messages.push(Message::Verack);
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(nonce: u64, number: u32) -> Version {
        Version {
            version: number,
            services: 9,
            time: 0,
            nonce,
            user_agent: "/x/".into(),
            start_height: 0,
            relay: false,
        }
    }

    fn commands(step: &Step) -> Vec<&'static str> {
        let Step::Send(messages) = step else { panic!("{step:?}") };
        messages.iter().map(Message::command).collect()
    }

    #[test]
    fn both_sides_become_ready() {
        let mut inbound = Handshake::new(true, version(1, PROTOCOL_VERSION));
        let mut outbound = Handshake::new(false, version(2, PROTOCOL_VERSION));
        assert_eq!(inbound.first(), None);
        let hello = outbound.first().unwrap();
        let answer = inbound.receive(&hello, |_| false);
        assert_eq!(commands(&answer), ["version", "wtxidrelay", "sendaddrv2", "verack"]);
        let Step::Send(answer) = answer else { panic!() };
        let reply = outbound.receive(&answer[0], |_| false);
        assert_eq!(commands(&reply), ["wtxidrelay", "sendaddrv2", "verack"]);
        for message in &answer[1..3] {
            assert_eq!(outbound.receive(message, |_| false), Step::Send(vec![]));
        }
        assert!(matches!(outbound.receive(&answer[3], |_| false), Step::Ready(_)));
        assert!(matches!(inbound.receive(&Message::Verack, |_| false), Step::Ready(_)));
        assert!(inbound.is_done() && outbound.is_done());
    }

    #[test]
    fn own_obsolete_and_late_messages_are_refused() {
        let mut handshake = Handshake::new(true, version(1, PROTOCOL_VERSION));
        assert!(matches!(handshake.receive(&Message::Verack, |_| false), Step::Ignore(_)));
        let own = Message::Version(version(5, PROTOCOL_VERSION));
        assert_eq!(
            handshake.receive(&own, |nonce| nonce == 5),
            Step::Refuse("connected to self".into())
        );
        let old = Message::Version(version(6, 31_799));
        assert_eq!(
            handshake.receive(&old, |_| false),
            Step::Refuse("using obsolete version 31799".into())
        );
        handshake.receive(&Message::Version(version(6, 70_001)), |_| false);
        assert!(matches!(handshake.receive(&Message::Ping(1), |_| false), Step::Ignore(_)));
        handshake.receive(&Message::Verack, |_| false);
        assert!(matches!(handshake.receive(&Message::WtxidRelay, |_| false), Step::Refuse(_)));
    }
}
