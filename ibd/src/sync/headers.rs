//! `HeaderSync`: which peer to ask for headers next.
//!
//! One peer, the *leader*, sends the whole chain of headers, 2,000 at a time; the others are asked
//! when it has no more, so that each says which blocks it has without sending 70 MB of headers
//! that are known. A leader that is silent for [`PATIENCE`] loses the part to the next peer, and a
//! peer that we chose and that is silent for [`RESPONSE_TIME`] is dropped.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Dropped, PeerId};

/// Headers of one message: a full message means that there are more (Core's `MAX_HEADERS_RESULTS`).
pub const HEADERS_MAX: usize = 2000;

/// How long a silent leader keeps the others waiting: several round trips of the slowest links.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a request for headers may take (Core's `HEADERS_RESPONSE_TIME`).
const RESPONSE_TIME: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Peer {
    outbound: bool,
    /// Whether it was asked since it connected.
    asked: bool,
    /// When the request was sent that it has not answered.
    waiting_since: Option<Duration>,
}

/// Which peer to ask for headers next. A "request" is `getheaders` with a locator of the best header.
#[derive(Debug, Default)]
pub struct HeaderSync {
    peers: BTreeMap<PeerId, Peer>,
    leader: Option<PeerId>,
    /// Whether a peer once had no more headers, or the best header is recent.
    caught_up: bool,
}

impl HeaderSync {
    /// Adds a peer whose handshake is done; [`HeaderSync::poll`] says when to ask it.
    pub fn peer_ready(&mut self, peer: PeerId, outbound: bool) {
        self.peers.insert(peer, Peer { outbound, asked: false, waiting_since: None });
    }

    /// Removes a peer.
    pub fn peer_gone(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        if self.leader == Some(peer) {
            self.leader = None;
        }
    }

    /// Notes that the best header is recent: from now on every peer is asked at once.
    pub const fn set_caught_up(&mut self) {
        self.caught_up = true;
    }

    /// Notes that the peer was asked for a reason of its own (an announcement).
    pub fn asked(&mut self, peer: PeerId, now: Duration) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.asked = true;
            peer.waiting_since = Some(now);
        }
    }

    /// Notes a message of headers, and whether the peer is asked for more of them.
    pub fn headers_received(&mut self, peer: PeerId, more: bool, now: Duration) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        entry.waiting_since = more.then_some(now);
        if !more && self.leader == Some(peer) {
            self.leader = None;
            self.caught_up = true;
        }
    }

    /// Returns the peers to ask now, and those that were silent for too long.
    pub fn poll(&mut self, now: Duration) -> (Vec<PeerId>, Vec<Dropped>) {
        let silent =
            |peer: &Peer, limit| peer.waiting_since.is_some_and(|since| now >= since + limit);
        let drops: Vec<Dropped> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.outbound && silent(peer, RESPONSE_TIME))
            .map(|(id, _)| Dropped { peer: *id, reason: "no answer to getheaders" })
            .collect();
        for drop in &drops {
            self.peer_gone(drop.peer);
        }
        let mut ask = Vec::new();
        if self.caught_up {
            ask.extend(self.peers.iter().filter(|(_, peer)| !peer.asked).map(|(id, _)| *id));
        } else {
            let leader = self.leader.and_then(|id| self.peers.get(&id));
            if leader.is_none_or(|peer| silent(peer, PATIENCE)) {
                let next = self.next_leader();
                self.leader = next.or(self.leader);
                ask.extend(next);
            }
        }
        for peer in &ask {
            self.asked(*peer, now);
        }
        (ask, drops)
    }

    /// A peer that was not asked yet; one that we chose is better than one that came.
    fn next_leader(&self) -> Option<PeerId> {
        let fresh = self.peers.iter().filter(|(_, peer)| !peer.asked);
        fresh.min_by_key(|(id, peer)| (!peer.outbound, **id)).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_leader_first_and_everyone_when_it_has_no_more() {
        let mut sync = HeaderSync::default();
        sync.peer_ready(1, false);
        sync.peer_ready(2, true);
        sync.peer_ready(3, true);
        assert_eq!(sync.poll(at(0)).0, [2], "outbound first");
        assert!(sync.poll(at(1)).0.is_empty());
        sync.headers_received(2, true, at(2));
        assert!(sync.poll(at(3)).0.is_empty());
        sync.headers_received(2, false, at(4));
        assert_eq!(sync.poll(at(5)).0, [1, 3]);
        assert!(sync.poll(at(6)).0.is_empty(), "each is asked once");
        sync.peer_ready(4, false);
        assert_eq!(sync.poll(at(7)).0, [4]);
    }

    #[test]
    fn a_silent_leader_is_replaced_soon_and_dropped_later() {
        let mut sync = HeaderSync::default();
        sync.peer_ready(1, true);
        sync.peer_ready(2, true);
        assert_eq!(sync.poll(at(0)).0, [1]);
        assert!(sync.poll(at(4)).0.is_empty());
        assert_eq!(sync.poll(at(5)).0, [2]);
        sync.headers_received(2, false, at(6));
        let (_, drops) = sync.poll(at(120));
        assert_eq!(drops, [Dropped { peer: 1, reason: "no answer to getheaders" }]);
    }

    #[test]
    fn a_leader_that_leaves_is_replaced_at_once() {
        let mut sync = HeaderSync::default();
        sync.peer_ready(1, true);
        sync.peer_ready(2, false);
        assert_eq!(sync.poll(at(0)).0, [1]);
        sync.peer_gone(1);
        assert_eq!(sync.poll(at(1)).0, [2]);
        assert!(
            sync.poll(at(500)).1.is_empty(),
            "a peer that came to us is not dropped for silence"
        );
    }

    #[test]
    fn with_recent_headers_nobody_waits_for_a_leader() {
        let mut sync = HeaderSync::default();
        sync.set_caught_up();
        sync.peer_ready(1, false);
        sync.peer_ready(2, false);
        assert_eq!(sync.poll(at(0)).0, [1, 2]);
    }
}
