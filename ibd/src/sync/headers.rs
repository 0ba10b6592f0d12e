//! `HeaderSync`: which peer to ask for headers next.
//!
//! While the best header is old, one peer, the *leader*, sends the whole chain of headers, 2,000 at
//! a time; with each new block that peers announce, one more peer is asked. A leader has 15 minutes
//! and a millisecond for each expected header. Once the best header is recent every peer is asked.
//! So far Bitcoin Core's rules (`net_processing.cpp`); beyond them:
//!
//! - a leader that is silent for [`PATIENCE`], or that ended its chain with nothing new, gets a
//!   second beside it, so that one honest peer among many others is found in seconds each;
//! - a leader that had something and came to its end means that the rest may be asked, at most
//!   [`ASKED_AT_A_TIME`] at once: each says so which blocks it has.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::BlockHash;

use super::{DropReason, Dropped, PeerId};

/// Headers of one message: a full message means that there are more (Core's `MAX_HEADERS_RESULTS`).
pub const HEADERS_MAX: usize = 2000;

/// How long a leader with no answer, or with nothing to say, keeps the others waiting: several round
/// trips of the slowest links.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a request for headers is taken to be under way (Core's `HEADERS_RESPONSE_TIME`): no other
/// is sent to the same peer meanwhile.
const RESPONSE_TIME: Duration = Duration::from_secs(120);

/// How long a leader may take for all headers, and more for each expected one (Core's
/// `HEADERS_DOWNLOAD_TIMEOUT_BASE` and `HEADERS_DOWNLOAD_TIMEOUT_PER_HEADER`).
const DOWNLOAD_TIME: Duration = Duration::from_secs(15 * 60);
const DOWNLOAD_TIME_A_HEADER: Duration = Duration::from_millis(1);

/// Headers younger than this mean that there is little left to fetch.
const RECENT: Duration = Duration::from_secs(24 * 60 * 60);

/// Peers that may send long chains of headers at the same time.
const ASKED_AT_A_TIME: usize = 8;

/// What a peer is to the sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Role {
    /// Whether we chose it, or its operator is trusted: it goes first.
    pub preferred: bool,
    /// Whether it is never disconnected (`noban`).
    pub protected: bool,
    /// Whether it has blocks, all or the last ones.
    pub serves: bool,
}

#[derive(Debug)]
struct Peer {
    role: Role,
    /// When it became a leader that nobody has dismissed, and until when it has to be done.
    leads: Option<Leads>,
    /// When the request was sent that it has not answered.
    waiting_since: Option<Duration>,
    /// Whether it was asked since it announced a block before it led.
    asked_by_announcement: bool,
    /// Whether it announced a block while it was being asked: the answer may be from before.
    missed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Leads {
    /// None once the best header was recent: no hurry any more.
    deadline: Option<Duration>,
    /// When it said that there is no more.
    ended: Option<Duration>,
}

/// What to do about headers now.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeaderTurn {
    /// Peers to ask, from one before the best header on.
    pub ask: Vec<PeerId>,
    /// Peers that took too long.
    pub dropped: Vec<Dropped>,
    /// A peer that took too long and is never disconnected.
    pub spared: Option<PeerId>,
}

/// Which peer to ask for headers next. A "request" is `getheaders` with a locator of the best header.
#[derive(Debug, Default)]
pub struct HeaderSync {
    peers: BTreeMap<PeerId, Peer>,
    /// Whether a leader had something, and came to its end.
    one_ended: bool,
    /// The last block whose announcement had one more peer asked.
    last_announced: Option<BlockHash>,
}

impl HeaderSync {
    /// Adds a peer whose handshake is done; [`HeaderSync::poll`] says when to ask it.
    pub fn peer_ready(&mut self, peer: PeerId, role: Role) {
        let entry = Peer {
            role,
            leads: None,
            waiting_since: None,
            asked_by_announcement: false,
            missed: false,
        };
        self.peers.insert(peer, entry);
    }

    /// Removes a peer.
    pub fn peer_gone(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// Returns the peers that go first.
    pub fn preferred(&self) -> impl Iterator<Item = PeerId> {
        self.peers.iter().filter(|(_, peer)| peer.role.preferred).map(|(id, _)| *id)
    }

    /// Returns whether `getheaders` may be sent to the peer, and takes it as sent if so: none is
    /// while another is under way.
    pub fn ask(&mut self, peer: PeerId, now: Duration) -> bool {
        self.peers.get_mut(&peer).is_some_and(|peer| peer.ask(now))
    }

    /// Notes that a block was announced that is not known; returns whether to send `getheaders`, and
    /// takes it as sent if so.
    pub fn announced(&mut self, peer: PeerId, hash: BlockHash, now: Duration) -> bool {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return false;
        };
        if entry.leads.is_some() {
            let free = entry.ask(now);
            entry.missed = !free;
            return free;
        }
        // One more for each new block, so that a leader that does nothing is not alone for long.
        if entry.asked_by_announcement || self.last_announced == Some(hash) {
            return false;
        }
        entry.asked_by_announcement = true;
        self.last_announced = Some(hash);
        entry.ask(now)
    }

    /// Returns whether to send `getheaders` once more, and takes it as sent if so: a block was
    /// announced while another was under way, whose answer has come and may not have it. That
    /// is once for each announcement.
    pub fn ask_missed(&mut self, peer: PeerId, now: Duration) -> bool {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return false;
        };
        let ask = entry.missed && entry.waiting_since.is_none();
        if ask {
            entry.missed = false;
            entry.waiting_since = Some(now);
        }
        ask
    }

    /// Notes an answer to `getheaders`.
    pub fn answered(&mut self, peer: PeerId) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.waiting_since = None;
        }
    }

    /// Notes that a peer has no more headers; `had_some` says whether its last message had any.
    pub fn ended(&mut self, peer: PeerId, had_some: bool, now: Duration) {
        if let Some(leads) = self.peers.get_mut(&peer).and_then(|peer| peer.leads.as_mut()) {
            leads.ended.get_or_insert(now);
            self.one_ended |= had_some;
        }
    }

    /// Returns what to do now; `best` is the time of the best header, `spacing` the time between
    /// blocks.
    pub fn poll(&mut self, now: Duration, best: Duration, spacing: Duration) -> HeaderTurn {
        let recent = best + RECENT > now;
        let mut turn = HeaderTurn::default();
        self.check_deadlines(now, recent, &mut turn);
        let age = now.saturating_sub(best).as_secs();
        let expected = age / spacing.as_secs().max(1);
        let expected = u32::try_from(expected).unwrap_or(u32::MAX);
        let deadline = now + DOWNLOAD_TIME + DOWNLOAD_TIME_A_HEADER * expected;
        while let Some(id) = self.next(now, recent) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.leads = Some(Leads { deadline: Some(deadline), ended: None });
                if peer.ask(now) {
                    turn.ask.push(id);
                }
            }
        }
        turn
    }

    fn check_deadlines(&mut self, now: Duration, recent: bool, turn: &mut HeaderTurn) {
        let leaders = self.peers.values().filter(|peer| peer.leads.is_some()).count();
        let preferred = self.peers.values().filter(|peer| peer.role.preferred).count();
        for (id, peer) in &mut self.peers {
            let role = peer.role;
            let Some(leads) = &mut peer.leads else { continue };
            if recent {
                leads.deadline = None;
            }
            let late = leads.deadline.is_some_and(|deadline| now > deadline);
            // Without another that we chose there is nothing to gain: who came may be the same attacker.
            let others = preferred - usize::from(role.preferred);
            let silent = peer.waiting_since.is_some_and(|since| now >= since + RESPONSE_TIME);
            if !late || others == 0 || (leaders > 1 && !silent) {
                continue;
            }
            if role.protected {
                // It may be asked again, after the others.
                peer.leads = None;
                peer.role.preferred = false;
                turn.spared = Some(*id);
            } else {
                turn.dropped.push(Dropped { peer: *id, reason: DropReason::HeadersTimeout });
            }
        }
        for drop in &turn.dropped {
            self.peer_gone(drop.peer);
        }
    }

    /// Chooses the next leader, if there may be one more.
    fn next(&self, now: Duration, recent: bool) -> Option<PeerId> {
        let leaders = self.peers.values().filter(|peer| peer.leads.is_some());
        let busy = leaders.filter(|peer| peer.is_busy(now, self.one_ended)).count();
        let most = match (recent, self.one_ended) {
            (true, _) => usize::MAX,
            (false, true) => ASKED_AT_A_TIME,
            (false, false) => 1,
        };
        if busy >= most {
            return None;
        }
        let fresh = self.peers.iter().filter(|(_, peer)| peer.leads.is_none() && peer.role.serves);
        fresh.min_by_key(|(id, peer)| (!peer.role.preferred, **id)).map(|(id, _)| *id)
    }
}

impl Peer {
    fn ask(&mut self, now: Duration) -> bool {
        let free = self.waiting_since.is_none_or(|since| now > since + RESPONSE_TIME);
        if free {
            self.waiting_since = Some(now);
        }
        free
    }

    /// Whether a leader is worth waiting for; one that ended is for a while, unless another has
    /// brought something to an end before.
    fn is_busy(&self, now: Duration, one_ended: bool) -> bool {
        match self.leads.and_then(|leads| leads.ended) {
            Some(since) => !one_ended && now < since + PATIENCE,
            None => self.waiting_since.is_none_or(|since| now < since + PATIENCE),
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;

    use super::*;

    const CHOSEN: Role = Role { preferred: true, protected: false, serves: true };
    const CAME: Role = Role { preferred: false, protected: false, serves: true };
    const SPACING: Duration = Duration::from_secs(600);

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(100_000_000 + seconds)
    }

    /// With a best header of a year before.
    fn poll(sync: &mut HeaderSync, seconds: u64) -> HeaderTurn {
        let best = Duration::from_secs(70_000_000);
        sync.poll(at(seconds), best, SPACING)
    }

    fn asked(sync: &mut HeaderSync, seconds: u64) -> Vec<PeerId> {
        poll(sync, seconds).ask
    }

    fn block(number: u8) -> BlockHash {
        BlockHash::from_byte_array([number; 32])
    }

    #[test]
    fn one_leader_first_and_the_others_when_it_came_to_its_end() {
        let mut sync = HeaderSync::default();
        sync.peer_ready(1, CAME);
        sync.peer_ready(2, CHOSEN);
        sync.peer_ready(3, CHOSEN);
        assert_eq!(asked(&mut sync, 0), [2], "one that we chose first");
        sync.answered(2);
        assert!(sync.ask(2, at(1)), "answered: it may be asked for more");
        assert!(!sync.ask(2, at(2)), "one request at a time");
        assert!(asked(&mut sync, 3).is_empty());
        sync.answered(2);
        sync.ended(2, true, at(4));
        assert_eq!(asked(&mut sync, 5), [3, 1]);
        assert!(asked(&mut sync, 6).is_empty(), "each is asked once");
        sync.peer_ready(4, CAME);
        assert_eq!(asked(&mut sync, 7), [4]);
    }

    #[test]
    fn eight_at_most_send_long_chains_at_a_time() {
        let mut sync = HeaderSync::default();
        for peer in 0..20 {
            sync.peer_ready(peer, CHOSEN);
        }
        assert_eq!(asked(&mut sync, 0), [0]);
        sync.answered(0);
        sync.ended(0, true, at(1));
        assert_eq!(asked(&mut sync, 2), (1..=8).collect::<Vec<_>>());
        sync.answered(3);
        sync.ended(3, true, at(3));
        assert_eq!(asked(&mut sync, 3), [9]);
    }

    #[test]
    fn a_silent_leader_and_one_with_nothing_to_say_get_another_beside_them() {
        let mut sync = HeaderSync::default();
        for peer in [1, 2, 3] {
            sync.peer_ready(peer, CHOSEN);
        }
        assert_eq!(asked(&mut sync, 0), [1]);
        assert!(asked(&mut sync, 9).is_empty());
        assert_eq!(asked(&mut sync, 10), [2]);
        sync.answered(2);
        sync.ended(2, false, at(11));
        assert!(asked(&mut sync, 20).is_empty());
        assert_eq!(asked(&mut sync, 21), [3]);
    }

    #[test]
    fn a_leader_that_leaves_is_replaced_at_once() {
        let mut sync = HeaderSync::default();
        sync.peer_ready(1, CHOSEN);
        sync.peer_ready(2, CAME);
        assert_eq!(asked(&mut sync, 0), [1]);
        sync.peer_gone(1);
        assert_eq!(asked(&mut sync, 1), [2]);
    }

    #[test]
    fn with_recent_headers_nobody_waits_for_a_leader() {
        let mut sync = HeaderSync::default();
        for peer in 0..20 {
            sync.peer_ready(peer, CAME);
        }
        sync.peer_ready(99, Role { serves: false, ..CHOSEN });
        let turn = sync.poll(at(0), at(0).saturating_sub(Duration::from_secs(3600)), SPACING);
        assert_eq!(turn.ask, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_leader_announces_while_it_is_asked_is_asked_for_afterwards() {
        let mut sync = HeaderSync::default();
        sync.peer_ready(1, CHOSEN);
        assert_eq!(asked(&mut sync, 0), [1]);
        assert!(!sync.ask_missed(1, at(0)), "nothing was announced");
        assert!(!sync.announced(1, block(1), at(1)), "it is being asked");
        assert!(!sync.ask_missed(1, at(1)), "the answer is still to come");
        sync.answered(1);
        assert!(sync.ask_missed(1, at(2)));
        sync.answered(1);
        assert!(!sync.ask_missed(1, at(3)), "once for each");
    }

    #[test]
    fn each_new_block_that_is_announced_brings_one_more_peer_in() {
        let mut sync = HeaderSync::default();
        for peer in [1, 2, 3] {
            sync.peer_ready(peer, CHOSEN);
        }
        assert_eq!(asked(&mut sync, 0), [1]);
        sync.answered(1);
        assert!(sync.announced(1, block(1), at(1)), "the leader is asked each time");
        assert!(sync.announced(2, block(1), at(1)));
        assert!(!sync.announced(3, block(1), at(1)), "one for each block");
        sync.answered(2);
        assert!(!sync.announced(2, block(2), at(2)), "one block for each");
        assert!(sync.announced(3, block(2), at(2)));
    }

    #[test]
    fn a_leader_that_takes_too_long_gives_way_if_there_is_another_that_we_chose() {
        // 15 minutes, and a millisecond for each of 50,000 headers.
        let deadline = 15 * 60 + 50;
        let mut sync = HeaderSync::default();
        sync.peer_ready(1, CHOSEN);
        assert_eq!(asked(&mut sync, 0), [1]);
        let wait = |sync: &mut HeaderSync| {
            for second in (0..=deadline).step_by(10) {
                sync.answered(1);
                assert!(sync.ask(1, at(second)));
                assert_eq!(poll(sync, second), HeaderTurn::default(), "after {second} seconds");
            }
        };
        wait(&mut sync);
        sync.peer_ready(2, CAME);
        assert!(poll(&mut sync, deadline + 1).dropped.is_empty(), "it may be the same attacker");
        sync.peer_ready(3, CHOSEN);
        let turn = poll(&mut sync, deadline + 1);
        assert_eq!(turn.dropped, [Dropped { peer: 1, reason: DropReason::HeadersTimeout }]);
        assert_eq!(turn.ask, [3]);
    }

    #[test]
    fn a_trusted_leader_that_takes_too_long_loses_the_part_only() {
        let mut sync = HeaderSync::default();
        sync.peer_ready(1, Role { protected: true, ..CHOSEN });
        assert_eq!(asked(&mut sync, 0), [1]);
        sync.peer_ready(2, CHOSEN);
        let turn = poll(&mut sync, 1000);
        assert_eq!(turn, HeaderTurn { ask: vec![2], dropped: vec![], spared: Some(1) });
    }
}
