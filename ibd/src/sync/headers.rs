//! `HeaderSync`: which peer to ask for headers next.
//!
//! One peer, the *leader*, sends the whole chain of headers, 2,000 at a time; the others are asked
//! when it has no more, so that each says which blocks it has without sending 70 MB of headers
//! that are known. A leader that is silent for [`PATIENCE`] loses the part to the next peer, and a
//! peer that we chose and that is silent for [`RESPONSE_TIME`] is dropped. A leader that never ends,
//! however busy, gives way after the time that the whole chain may take.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Dropped, PeerId};

/// Headers of one message: a full message means that there are more (Core's `MAX_HEADERS_RESULTS`).
pub const HEADERS_MAX: usize = 2000;

/// How long a silent leader keeps the others waiting: several round trips of the slowest links.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a request for headers may take (Core's `HEADERS_RESPONSE_TIME`).
const RESPONSE_TIME: Duration = Duration::from_secs(120);

/// How long a leader may take for all headers, and more for each expected one (Core's
/// `HEADERS_DOWNLOAD_TIMEOUT_BASE` and `HEADERS_DOWNLOAD_TIMEOUT_PER_HEADER`).
const DOWNLOAD_TIME: Duration = Duration::from_secs(15 * 60);
const DOWNLOAD_TIME_A_HEADER: Duration = Duration::from_millis(1);

#[derive(Debug)]
struct Peer {
    outbound: bool,
    /// Whether it was asked since it connected.
    asked: bool,
    /// When the request was sent that it has not answered.
    waiting_since: Option<Duration>,
}

/// The peer that sends the whole chain.
#[derive(Clone, Copy, Debug)]
struct Leader {
    peer: PeerId,
    deadline: Duration,
}

/// Which peer to ask for headers next. A "request" is `getheaders` with a locator of the best header.
#[derive(Debug, Default)]
pub struct HeaderSync {
    peers: BTreeMap<PeerId, Peer>,
    leader: Option<Leader>,
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
        if self.is_leader(peer) {
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
        if !more && self.is_leader(peer) {
            self.leader = None;
            self.caught_up = true;
        }
    }

    fn is_leader(&self, peer: PeerId) -> bool {
        self.leader.is_some_and(|leader| leader.peer == peer)
    }

    /// Returns the peers to ask now, and those that took too long; `expected` is how many headers
    /// there may be that are not known.
    pub fn poll(&mut self, now: Duration, expected: u32) -> (Vec<PeerId>, Vec<Dropped>) {
        let silent =
            |peer: &Peer, limit| peer.waiting_since.is_some_and(|since| now >= since + limit);
        let mut drops: Vec<Dropped> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.outbound && silent(peer, RESPONSE_TIME))
            .map(|(id, _)| Dropped { peer: *id, reason: "no answer to getheaders" })
            .collect();
        drops.extend(self.overdue_leader(now));
        for drop in &drops {
            self.peer_gone(drop.peer);
        }
        let mut ask = Vec::new();
        if self.caught_up {
            ask.extend(self.peers.iter().filter(|(_, peer)| !peer.asked).map(|(id, _)| *id));
        } else {
            let leader = self.leader.and_then(|leader| self.peers.get(&leader.peer));
            if leader.is_none_or(|peer| silent(peer, PATIENCE))
                && let Some(peer) = self.next_leader()
            {
                let deadline = now + DOWNLOAD_TIME + DOWNLOAD_TIME_A_HEADER * expected;
                self.leader = Some(Leader { peer, deadline });
                ask.push(peer);
            }
        }
        for peer in &ask {
            self.asked(*peer, now);
        }
        (ask, drops)
    }

    /// Takes the part from a leader that keeps everyone waiting, if there is a peer that we chose to
    /// take its place; returns it if we chose it too.
    fn overdue_leader(&mut self, now: Duration) -> Option<Dropped> {
        let leader = self.leader.filter(|leader| !self.caught_up && now > leader.deadline)?;
        let mut others = self.peers.iter().filter(|(id, _)| **id != leader.peer);
        if !others.any(|(_, peer)| peer.outbound) {
            return None;
        }
        self.leader = None;
        // Who was asked before, and came to nothing, is asked again.
        for peer in self.peers.values_mut() {
            peer.asked &= peer.waiting_since.is_some();
        }
        let outbound = self.peers.get(&leader.peer).is_some_and(|peer| peer.outbound);
        outbound.then_some(Dropped { peer: leader.peer, reason: "timeout downloading headers" })
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
        assert_eq!(sync.poll(at(0), 0).0, [2], "outbound first");
        assert!(sync.poll(at(1), 0).0.is_empty());
        sync.headers_received(2, true, at(2));
        assert!(sync.poll(at(3), 0).0.is_empty());
        sync.headers_received(2, false, at(4));
        assert_eq!(sync.poll(at(5), 0).0, [1, 3]);
        assert!(sync.poll(at(6), 0).0.is_empty(), "each is asked once");
        sync.peer_ready(4, false);
        assert_eq!(sync.poll(at(7), 0).0, [4]);
    }

    #[test]
    fn a_silent_leader_is_replaced_soon_and_dropped_later() {
        let mut sync = HeaderSync::default();
        sync.peer_ready(1, true);
        sync.peer_ready(2, true);
        assert_eq!(sync.poll(at(0), 0).0, [1]);
        assert!(sync.poll(at(4), 0).0.is_empty());
        assert_eq!(sync.poll(at(5), 0).0, [2]);
        sync.headers_received(2, false, at(6));
        let (_, drops) = sync.poll(at(120), 0);
        assert_eq!(drops, [Dropped { peer: 1, reason: "no answer to getheaders" }]);
    }

    #[test]
    fn a_leader_that_leaves_is_replaced_at_once() {
        let mut sync = HeaderSync::default();
        sync.peer_ready(1, true);
        sync.peer_ready(2, false);
        assert_eq!(sync.poll(at(0), 0).0, [1]);
        sync.peer_gone(1);
        assert_eq!(sync.poll(at(1), 0).0, [2]);
        assert!(
            sync.poll(at(500), 0).1.is_empty(),
            "a peer that came to us is not dropped for silence"
        );
    }

    #[test]
    fn with_recent_headers_nobody_waits_for_a_leader() {
        let mut sync = HeaderSync::default();
        sync.set_caught_up();
        sync.peer_ready(1, false);
        sync.peer_ready(2, false);
        assert_eq!(sync.poll(at(0), 0).0, [1, 2]);
    }

    #[test]
    fn a_leader_that_never_ends_gives_way_to_another() {
        let mut sync = HeaderSync::default();
        sync.peer_ready(1, true);
        assert_eq!(sync.poll(at(0), 100_000).0, [1]);
        // 15 minutes, and 100 seconds for the headers.
        for second in 1..1000 {
            sync.headers_received(1, true, at(second));
            assert_eq!(sync.poll(at(second), 0), (vec![], vec![]), "after {second} seconds");
        }
        sync.headers_received(1, true, at(1001));
        assert!(sync.poll(at(1001), 0).1.is_empty(), "there is no other");
        sync.peer_ready(2, false);
        assert!(sync.poll(at(1001), 0).1.is_empty(), "one that came may be the same attacker");
        sync.peer_ready(3, true);
        let (ask, drops) = sync.poll(at(1001), 0);
        assert_eq!(ask, [3]);
        assert_eq!(drops, [Dropped { peer: 1, reason: "timeout downloading headers" }]);
    }

    #[test]
    fn an_inbound_leader_that_never_ends_loses_the_part_only() {
        let mut sync = HeaderSync::default();
        sync.peer_ready(1, false);
        assert_eq!(sync.poll(at(0), 0).0, [1]);
        sync.peer_ready(2, true);
        sync.headers_received(1, true, at(901));
        assert_eq!(sync.poll(at(901), 0), (vec![2], vec![]));
        // The messages of the former leader end nobody else's part.
        sync.headers_received(1, false, at(902));
        assert!(sync.poll(at(903), 0).0.is_empty());
        sync.headers_received(2, false, at(904));
        assert!(sync.poll(at(905), 0).1.is_empty());
    }
}
