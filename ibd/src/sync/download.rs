//! `DownloadScheduler`: which blocks to ask which peer for, and who holds the others up.
//!
//! Blocks are asked for within a moving window beyond the last one that the peer's chain shares with
//! the connected chain ([`missing_blocks`](super::missing_blocks)). When the window cannot move because
//! of one block, the peer that owes it is stalling and has [`STALL_TIMEOUT`] to deliver; the timeout
//! doubles with each peer dropped (our own line may be the slow one) and decays with each block.
//! Shape and constants are those of Bitcoin Core's `net_processing.cpp`; beyond them, what is in
//! flight is bounded in bytes too ([`IN_FLIGHT_BYTES_MAX`]). Each peer has a part of these bytes, and
//! what is late changes hands: whoever is silent holds only his part, and not for long. Whoever lost
//! a block so starts again with one at a time: slow peers do not pass the same blocks on for ever.
//!
//! What does not change, so that a slow line of ours is not taken for slow peers:
//!
//! - Bytes are a sign of life ([`Flow`](super::flow::Flow)). Who is sending keeps what it owes, unless a
//!   peer with nothing to do has shown to be much faster; Core's timeouts end what goes on for too long.
//! - At most [`COPIES_MAX`] peers send the same block, and none is asked again for a block that it may
//!   still be sending. What it may still send counts as owed.
//! - Who is silent loses its blocks, is paused, is no longer one of those for which others are spared,
//!   and after [`LOSSES_MAX`] times in a row it is dropped.
//!
//! All times given are those of one clock. It should stand still while nothing is read from anybody:
//! who sends then looks silent.
//!
//! In the first download, peers that we did not choose may be spared while one that we chose is there
//! and anything is in flight, as in Core ([`DownloadScheduler::request_if_needed`]). Unlike there, they
//! still get what silent ones owe: if all that we chose are silent, Core waits ten minutes and more.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bitcoin::BlockHash;

use super::flow::{STRETCH, enough};
use super::peer::{BLOCKS_IN_FLIGHT_MAX, Lost, Peer};
use super::{DropReason, Dropped, Missing, PeerId};

/// Most bytes asked of all peers at a time, by the mean size of the last blocks; peers that have sent
/// no block yet have half of it at most.
const IN_FLIGHT_BYTES_MAX: u64 = 64 << 20;

/// What a staller has to deliver within (Core's `BLOCK_STALLING_TIMEOUT_DEFAULT` and `_MAX`).
const STALL_TIMEOUT: Duration = Duration::from_secs(2);
const STALL_TIMEOUT_MAX: Duration = Duration::from_secs(64);

/// What the timeout shrinks by with each connected block.
const STALL_TIMEOUT_DECAY: f64 = 0.85;

/// A block that a silent peer has owed for this long is asked of a peer with nothing to do instead
/// that has sent blocks; one that has sent none yet gets it only later, and last one that failed
/// before, or a few silent ones would pass it on among themselves.
const TAKE_OVER_AFTER: Duration = STRETCH;
const TAKE_OVER_UNPROVEN_AFTER: Duration = Duration::from_secs(20);
const TAKE_OVER_ONCE_MORE_AFTER: Duration = Duration::from_secs(25);

/// The same for a peer that sends a block now and then, and for one that is sending when the other has
/// shown to be much faster.
const TAKE_OVER_FROM_SLOW_AFTER: Duration = Duration::from_secs(30);

/// Peers that may be sending the same block (Core's `MAX_CMPCTBLOCKS_INFLIGHT_PER_BLOCK`).
const COPIES_MAX: usize = 3;

/// How many times in a row a peer may lose what it owes: with the pauses more than Core's ten minutes.
const LOSSES_MAX: u32 = 10;

/// How long a peer is asked for nothing that did not have what it was asked for.
const PAUSE: Duration = Duration::from_secs(15);

/// What to do for a peer now.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BlockRequest {
    /// The blocks to ask it for.
    pub blocks: Vec<BlockHash>,
    /// A peer that holds it up from now on.
    pub stall_started: Option<PeerId>,
}

/// What a peer may be asked for.
#[derive(Clone, Copy, Debug)]
struct Room {
    blocks: usize,
    /// Whether it would be more if others held no more than their part.
    is_tight: bool,
}

#[derive(Clone, Debug)]
struct Asked {
    peer: PeerId,
    since: Duration,
    /// Who was asked before and lost it.
    before: Vec<PeerId>,
}

/// Which blocks are asked of whom.
#[derive(Debug)]
pub struct DownloadScheduler {
    peers: BTreeMap<PeerId, Peer>,
    in_flight: HashMap<BlockHash, Asked>,
    stall_timeout: Duration,
    mean_bytes: u64,
}

impl Default for DownloadScheduler {
    fn default() -> Self {
        Self {
            peers: BTreeMap::new(),
            in_flight: HashMap::new(),
            stall_timeout: STALL_TIMEOUT,
            mean_bytes: 0,
        }
    }
}

impl DownloadScheduler {
    /// Returns what to ask `peer` for now.
    pub fn request(&mut self, peer: PeerId, missing: &Missing, now: Duration) -> BlockRequest {
        let entry = self.peers.entry(peer).or_default();
        if now < entry.paused_until {
            return BlockRequest::default();
        }
        let (is_idle, blocks_max) = (entry.to_come(now) == 0, entry.blocks_max());
        let Room { mut blocks, is_tight } = self.room(peer, now);
        let (has_room, mut has_left_out) = (blocks > 0, false);
        let mut done = BlockRequest::default();
        let mut first = None;
        let mut late = Vec::new();
        for block in &missing.blocks {
            if blocks == 0 && (has_room || !is_idle) {
                break;
            }
            if let Some(asked) = self.in_flight.get(&block.hash) {
                first = first.or(Some(asked.peer));
                if late.len() < blocks_max && self.may_take_over(peer, block.hash, asked, now) {
                    late.push(block.hash);
                }
            } else if block.height > missing.window_end {
                let is_stuck = is_idle && !has_left_out && done.blocks.is_empty();
                if let (true, Some(owner)) = (is_stuck, first) {
                    done.stall_started = self.stalls(owner, peer, now);
                }
                break;
            } else if has_room && !self.may_send_late(peer, &block.hash, now) {
                self.assign(peer, block.hash, now);
                done.blocks.push(block.hash);
                blocks -= 1;
            } else {
                // Without room for more bytes, what is late may still change hands.
                has_left_out = true;
            }
        }
        if is_idle && (done.blocks.is_empty() || is_tight) {
            late.truncate(blocks_max.saturating_sub(done.blocks.len()));
            self.take_over(peer, late, now, &mut done);
        }
        done
    }

    /// Returns what to ask `peer` for now, if it is to be spared while others are asked: anything only
    /// if nothing is in flight, and else only what silent ones owe for too long.
    pub fn request_if_needed(
        &mut self,
        peer: PeerId,
        missing: &Missing,
        now: Duration,
    ) -> BlockRequest {
        if self.in_flight.is_empty() {
            return self.request(peer, missing, now);
        }
        let entry = self.peers.entry(peer).or_default();
        let mut done = BlockRequest::default();
        if now < entry.paused_until || entry.to_come(now) > 0 {
            return done;
        }
        let blocks_max = entry.blocks_max();
        let is_late = |hash: &BlockHash| {
            let asked = self.in_flight.get(hash).filter(|asked| !self.is_sending(asked.peer, now));
            asked.is_some_and(|asked| self.may_take_over(peer, *hash, asked, now))
        };
        let late = missing.blocks.iter().map(|block| block.hash).filter(is_late);
        let late = late.take(blocks_max).collect();
        self.take_over(peer, late, now, &mut done);
        done
    }

    /// Returns how many blocks more a peer may be asked for now. If their bytes are what binds, each
    /// peer has an equal part of them, and those that have sent none yet have half of them together
    /// at most: silent ones, however many, leave the rest to who sends.
    fn room(&self, peer: PeerId, now: Duration) -> Room {
        let owed = self.peers.get(&peer).map_or(0, |entry| entry.to_come(now));
        let blocks_max = self.peers.get(&peer).map_or(BLOCKS_IN_FLIGHT_MAX, Peer::blocks_max);
        let Some(most) = IN_FLIGHT_BYTES_MAX.checked_div(self.mean_bytes) else {
            let blocks = blocks_max.saturating_sub(owed);
            return Room { blocks, is_tight: false };
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
        let half = (most / 2).max(1);
        let is_proven = |peer: &Peer| peer.delivered.is_some();
        let (mut all, mut proven, mut held_by_unproven) = (0_usize, 0_usize, 0_usize);
        for other in self.peers.values() {
            all += usize::from(now >= other.paused_until || !other.owed.is_empty());
            if is_proven(other) {
                proven += 1;
            } else {
                held_by_unproven += other.owed.len();
            }
        }
        let (mut part, mut free) = (most / all.max(1), most.saturating_sub(self.in_flight.len()));
        if self.peers.get(&peer).is_some_and(is_proven) {
            part = part.max(half / proven.max(1));
        } else {
            free = free.min(half.saturating_sub(held_by_unproven));
        }
        let wanted = part.clamp(1, blocks_max).saturating_sub(owed);
        Room { blocks: wanted.min(free), is_tight: free < wanted }
    }

    /// Asks a peer with nothing to do for blocks that others owe for too long; those are asked for
    /// nothing for a while.
    fn take_over(
        &mut self,
        peer: PeerId,
        late: Vec<BlockHash>,
        now: Duration,
        done: &mut BlockRequest,
    ) {
        for hash in late {
            let asked = self.unassign(&hash, now);
            if let Some(asked) = &asked
                && let Some(owner) = self.peers.get_mut(&asked.peer)
            {
                owner.lose(Lost::new(hash, asked.since), now);
            }
            self.assign_after(asked, peer, hash, now);
            done.blocks.push(hash);
        }
    }

    /// Whether a peer with nothing to do may get a block that another owes.
    fn may_take_over(&self, peer: PeerId, hash: BlockHash, asked: &Asked, now: Duration) -> bool {
        let held = now.saturating_sub(asked.since);
        if held < TAKE_OVER_AFTER
            || asked.peer == peer
            || self.may_send_late(peer, &hash, now)
            || self.copies(&hash, asked, now) >= COPIES_MAX
        {
            return false;
        }
        let (Some(taker), Some(owner)) = (self.peers.get(&peer), self.peers.get(&asked.peer))
        else {
            return false;
        };
        if owner.flow.is_sending(now) {
            // If the line is slow, one more copy makes it slower yet.
            return taker.delivered.is_some()
                && owner.flow.is_outpaced_by(&taker.flow)
                && held >= TAKE_OVER_FROM_SLOW_AFTER;
        }
        let patience = if taker.delivered.is_some() {
            TAKE_OVER_AFTER
        } else if taker.paused_until.is_zero() {
            TAKE_OVER_UNPROVEN_AFTER
        } else {
            TAKE_OVER_ONCE_MORE_AFTER
        };
        let is_silent = owner.delivered.is_none_or(|last| now >= last + patience);
        held >= patience && (is_silent || held >= TAKE_OVER_FROM_SLOW_AFTER)
    }

    /// Returns how many peers may be sending a block.
    fn copies(&self, hash: &BlockHash, asked: &Asked, now: Duration) -> usize {
        let late = asked.before.iter().filter(|peer| self.may_send_late(**peer, hash, now));
        late.count() + usize::from(self.is_sending(asked.peer, now))
    }

    fn may_send_late(&self, peer: PeerId, hash: &BlockHash, now: Duration) -> bool {
        self.peers.get(&peer).is_some_and(|entry| entry.may_send_late(hash, now))
    }

    fn is_sending(&self, peer: PeerId, now: Duration) -> bool {
        self.peers.get(&peer).is_some_and(|entry| entry.flow.is_sending(now))
    }

    /// Notes how many bytes, of whatever, have come from peers by now.
    pub fn heard(&mut self, totals: impl IntoIterator<Item = (PeerId, u64)>, now: Duration) {
        let owing = self.peers.values().filter(|peer| !peer.owed.is_empty()).count();
        for (peer, total) in totals {
            if let Some(entry) = self.peers.get_mut(&peer) {
                entry.flow.heard(total, enough(owing), now);
            }
        }
    }

    /// Asks `peer` for a block, whoever was asked before; if that was the same peer, nothing changes.
    pub fn request_from(&mut self, peer: PeerId, hash: BlockHash, now: Duration) {
        if self.asked_of(&hash) == Some(peer) {
            return;
        }
        let asked = self.unassign(&hash, now);
        if let Some(asked) = &asked
            && let Some(owner) = self.peers.get_mut(&asked.peer)
        {
            owner.still_sends(Lost::new(hash, asked.since));
        }
        self.assign_after(asked, peer, hash, now);
    }

    /// Notes that a peer sent a block; returns whether it is asked of anyone, when it is wanted from
    /// whoever sends it, or was asked of this peer, which lost it to another, and nobody has sent it.
    /// Only what the sender itself owed is settled by that, whatever becomes of the block; another's
    /// request stands until the block is [stored](Self::stored).
    pub fn received(
        &mut self,
        peer: PeerId,
        hash: &BlockHash,
        bytes: usize,
        now: Duration,
    ) -> bool {
        let entry = self.peers.get_mut(&peer);
        let is_late = entry.is_some_and(|entry| entry.may_deliver_late(hash, bytes));
        let Some(asked) = self.in_flight.get(hash) else { return is_late };
        if asked.peer == peer {
            let since = asked.since;
            self.settle(hash, bytes, now);
            if let Some(entry) = self.peers.get_mut(&peer) {
                entry.delivers(since, bytes, now);
            }
        }
        true
    }

    /// Notes that a block was stored, whoever sent it: nobody owes it any more.
    pub fn stored(&mut self, hash: &BlockHash, bytes: usize, now: Duration) {
        self.peers.values_mut().for_each(|peer| peer.block_stored(hash));
        if self.in_flight.contains_key(hash) {
            self.settle(hash, bytes, now);
        }
    }

    /// Ends a request whose block has come.
    fn settle(&mut self, hash: &BlockHash, bytes: usize, now: Duration) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.mean_bytes = (self.mean_bytes.saturating_mul(15).saturating_add(bytes)) / 16;
        self.unassign(hash, now);
    }

    /// Notes that so many blocks were connected; returns the time that a staller has from now on, if
    /// it is another than before.
    pub fn connected(&mut self, blocks: u32) -> Option<Duration> {
        let before = self.stall_timeout;
        for _ in 0..blocks {
            if self.stall_timeout == STALL_TIMEOUT {
                break;
            }
            let less = self.stall_timeout.mul_f64(STALL_TIMEOUT_DECAY);
            self.stall_timeout = less.max(STALL_TIMEOUT);
        }
        (self.stall_timeout != before).then_some(self.stall_timeout)
    }

    /// Returns how long a staller has.
    #[must_use]
    pub const fn stall_timeout(&self) -> Duration {
        self.stall_timeout
    }

    /// Notes that a peer does not have the blocks it was asked for (`notfound`), or sent something
    /// else: they may be asked of others, and it is asked for nothing for a while.
    pub fn not_found(&mut self, peer: PeerId, hash: &BlockHash, now: Duration) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.lost.retain(|lost| lost.hash != *hash);
        if self.in_flight.get(hash).is_some_and(|asked| asked.peer == peer) {
            entry.paused_until = now + PAUSE;
            self.unassign(hash, now);
        }
    }

    /// Removes a peer; what it owed may be asked of others.
    pub fn peer_gone(&mut self, peer: PeerId) {
        self.in_flight.retain(|_, asked| asked.peer != peer);
        self.peers.remove(&peer);
    }

    /// Returns the peer that a block was asked of.
    #[must_use]
    pub fn asked_of(&self, hash: &BlockHash) -> Option<PeerId> {
        self.in_flight.get(hash).map(|asked| asked.peer)
    }

    /// Returns whether silent peers owe anything for so long that it may be asked of another.
    #[must_use]
    pub fn has_late(&self, now: Duration) -> bool {
        let is_old = |asked: &Asked| now >= asked.since + TAKE_OVER_AFTER;
        self.in_flight.values().any(|asked| is_old(asked) && !self.is_sending(asked.peer, now))
    }

    /// Returns whether a peer lost a block to another, and has not sent as many since as it may owe.
    #[must_use]
    pub fn is_held_back(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|entry| entry.held_back > 0)
    }

    /// Returns how many blocks are asked of anyone.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the blocks that a peer owes, in the order of asking.
    #[must_use]
    pub fn owed_by(&self, peer: PeerId) -> &[BlockHash] {
        self.peers.get(&peer).map_or(&[], |entry| &entry.owed)
    }

    /// Returns the peers that hold the others up; `spacing` is the time between blocks, which a block
    /// may take, and half as much again for each other peer that blocks are asked of.
    pub fn poll(&mut self, now: Duration, spacing: Duration) -> Vec<Dropped> {
        let owing = self.peers.values().filter(|peer| !peer.owed.is_empty()).count();
        let others = u32::try_from(owing.saturating_sub(1)).unwrap_or(u32::MAX);
        let block_timeout = spacing.saturating_add((spacing / 2).saturating_mul(others));
        let mut drops = Vec::new();
        for (id, peer) in &self.peers {
            let stalls = peer.stalling_since.is_some_and(|since| now > since + self.stall_timeout);
            if stalls {
                drops.push(Dropped { peer: *id, reason: DropReason::Stalling });
                self.stall_timeout = (self.stall_timeout * 2).min(STALL_TIMEOUT_MAX);
            } else if let Some(hash) = peer.owed.first()
                && now > peer.downloading_since + block_timeout
            {
                drops.push(Dropped { peer: *id, reason: DropReason::BlockTimeout(*hash) });
            } else if let Some(lost) = peer.lost.last()
                && peer.losses >= LOSSES_MAX
            {
                drops.push(Dropped { peer: *id, reason: DropReason::BlockTimeout(lost.hash) });
            }
        }
        for drop in &drops {
            self.peer_gone(drop.peer);
        }
        drops
    }

    fn assign(&mut self, peer: PeerId, hash: BlockHash, now: Duration) {
        self.assign_after(None, peer, hash, now);
    }

    /// Notes that a peer is asked for a block, and whom it was asked of before.
    fn assign_after(&mut self, asked: Option<Asked>, peer: PeerId, hash: BlockHash, now: Duration) {
        let mut before = asked.map_or_else(Vec::new, |Asked { peer, mut before, .. }| {
            before.push(peer);
            before
        });
        before.retain(|other| *other != peer && self.peers.contains_key(other));
        self.in_flight.insert(hash, Asked { peer, since: now, before });
        let entry = self.peers.entry(peer).or_default();
        if entry.owed.is_empty() {
            entry.downloading_since = now;
            entry.flow.begin(now);
        }
        // If it was silent for so long that it is asked again, it is the first copy that may come.
        entry.lost.retain(|lost| lost.hash != hash);
        entry.owed.push(hash);
    }

    fn unassign(&mut self, hash: &BlockHash, now: Duration) -> Option<Asked> {
        let asked = self.in_flight.remove(hash)?;
        if let Some(entry) = self.peers.get_mut(&asked.peer) {
            if entry.owed.first() == Some(hash) {
                entry.downloading_since = entry.downloading_since.max(now);
            }
            entry.owed.retain(|owed| owed != hash);
            entry.stalling_since = None;
        }
        Some(asked)
    }

    /// Returns the staller if it is one from now on.
    fn stalls(&mut self, staller: PeerId, waiting: PeerId, now: Duration) -> Option<PeerId> {
        let entry = self.peers.get_mut(&staller).filter(|_| staller != waiting)?;
        if entry.stalling_since.is_some() {
            return None;
        }
        entry.stalling_since = Some(now);
        Some(staller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlockRef;
    use bitcoin::hashes::Hash as _;

    fn hash(height: u32) -> BlockHash {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&height.to_le_bytes());
        BlockHash::from_byte_array(bytes)
    }

    fn missing(heights: impl Iterator<Item = u32>, window_end: u32) -> Missing {
        Missing {
            blocks: heights.map(|height| BlockRef { height, hash: hash(height) }).collect(),
            window_end,
        }
    }

    fn hashes(heights: impl Iterator<Item = u32>) -> Vec<BlockHash> {
        heights.map(hash).collect()
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The time between blocks.
    const SPACING: Duration = at(600);

    fn ask(
        scheduler: &mut DownloadScheduler,
        peer: PeerId,
        missing: &Missing,
        seconds: u64,
    ) -> Vec<BlockHash> {
        scheduler.request(peer, missing, at(seconds)).blocks
    }

    #[test]
    fn peers_share_the_window_without_overlap() {
        let mut scheduler = DownloadScheduler::default();
        let all = missing(1..=1025, 1024);
        assert_eq!(ask(&mut scheduler, 1, &all, 0), hashes(1..=16));
        assert!(ask(&mut scheduler, 1, &all, 0).is_empty(), "sixteen at most");
        assert_eq!(ask(&mut scheduler, 2, &all, 0), hashes(17..=32));
        assert!(scheduler.received(1, &hash(1), 100, at(1)));
        assert_eq!(ask(&mut scheduler, 1, &missing(2..=1025, 1024), 1), [hash(33)]);
    }

    #[test]
    fn a_block_is_taken_from_whoever_sends_it_and_owed_until_it_is_stored() {
        let mut scheduler = DownloadScheduler::default();
        ask(&mut scheduler, 1, &missing(1..=2, 1024), 0);
        // What comes from another may turn out to be no block at all.
        assert!(scheduler.received(2, &hash(1), 16 << 20, at(1)), "asked of the other");
        assert_eq!(scheduler.owed_by(1), hashes(1..=2));
        assert_eq!(scheduler.mean_bytes, 0);
        assert!(scheduler.received(2, &hash(1), 100, at(2)));
        scheduler.stored(&hash(1), 16 * 100, at(2));
        assert_eq!(scheduler.owed_by(1), [hash(2)]);
        assert_eq!(scheduler.mean_bytes, 100);
        assert!(!scheduler.received(1, &hash(1), 100, at(3)), "it is there");
        scheduler.stored(&hash(1), 16 << 20, at(3));
        assert_eq!(scheduler.mean_bytes, 100);
    }

    #[test]
    fn a_slow_peers_late_copy_is_taken_after_its_block_changed_hands() {
        let mut scheduler = DownloadScheduler::default();
        ask(&mut scheduler, 1, &missing(1..=1, 1024), 0);
        assert_eq!(ask(&mut scheduler, 2, &missing(1..=1, 1024), 20), [hash(1)]);
        assert!(scheduler.received(1, &hash(1), 100, at(21)));
        assert_eq!(scheduler.asked_of(&hash(1)), Some(2), "it may not be the block");
        scheduler.stored(&hash(1), 100, at(21));
        assert_eq!(scheduler.in_flight(), 0);
    }

    /// With a peer that has sent many blocks of this size.
    fn with_blocks_of(bytes: usize, sender: PeerId) -> DownloadScheduler {
        let mut scheduler = DownloadScheduler::default();
        for height in 2000..2200 {
            scheduler.request_from(sender, hash(height), at(0));
            assert!(scheduler.received(sender, &hash(height), bytes, at(0)));
        }
        scheduler
    }

    #[test]
    fn big_blocks_bound_what_is_in_flight() {
        let mut scheduler = with_blocks_of(16 << 20, 1);
        let asked = ask(&mut scheduler, 1, &missing(1..=100, 1024), 0).len();
        assert!((3..=4).contains(&asked), "{asked} blocks of 16 MiB");
    }

    #[test]
    fn blocks_that_nobody_asked_for_say_nothing_of_what_comes() {
        let mut scheduler = DownloadScheduler::default();
        for _ in 0..200 {
            assert!(!scheduler.received(2, &hash(0), 16 << 20, at(0)));
        }
        assert_eq!(ask(&mut scheduler, 1, &missing(1..=100, 1024), 0), hashes(1..=16));
    }

    #[test]
    fn silent_peers_do_not_take_all_the_bytes_in_flight() {
        let all = missing(1..=1025, 1024);
        // What they may hold together; one that has sent blocks has the rest.
        let mut scheduler = with_blocks_of(1_600_000, 9);
        let held: usize = (1..=3).map(|peer| ask(&mut scheduler, peer, &all, 0).len()).sum();
        assert!((4..=20).contains(&held), "{held} of 41");
        assert_eq!(ask(&mut scheduler, 9, &all, 0).len(), 16);
        // And if they have sent blocks as well, each has an equal part.
        let mut scheduler = with_blocks_of(1_600_000, 9);
        for peer in 1..=3 {
            scheduler.request_from(peer, hash(3000), at(0));
            assert!(scheduler.received(peer, &hash(3000), 1_600_000, at(0)));
        }
        let held = [1, 2, 3, 9].map(|peer| ask(&mut scheduler, peer, &all, 0).len());
        assert_eq!(held, [10; 4]);
    }

    #[test]
    fn late_blocks_change_hands_though_no_more_bytes_may_be_in_flight() {
        let all = missing(1..=1025, 1024);
        let mut scheduler = with_blocks_of(16 << 20, 9);
        let held: Vec<_> = (1..=3).flat_map(|peer| ask(&mut scheduler, peer, &all, 0)).collect();
        assert_eq!(held, hashes(1..=2), "half of it is for those that have sent blocks");
        assert!(ask(&mut scheduler, 3, &all, 19).is_empty());
        assert_eq!(ask(&mut scheduler, 3, &all, 20), hashes(1..=2));
        assert!(ask(&mut scheduler, 1, &all, 20).is_empty(), "it was too slow");
        // Whoever has sent blocks gets what is left.
        assert_eq!(ask(&mut scheduler, 9, &all, 29), hashes(3..=4));
    }

    #[test]
    fn a_peer_to_be_spared_is_asked_if_nothing_is_in_flight_or_something_is_late() {
        let mut scheduler = DownloadScheduler::default();
        let all = missing(1..=20, 1024);
        let spared = |scheduler: &mut DownloadScheduler, missing: &Missing, seconds| {
            scheduler.request_if_needed(2, missing, at(seconds)).blocks
        };
        assert_eq!(ask(&mut scheduler, 1, &all, 0), hashes(1..=16));
        assert!(!scheduler.has_late(at(9)) && scheduler.has_late(at(10)));
        assert!(spared(&mut scheduler, &all, 19).is_empty());
        assert_eq!(spared(&mut scheduler, &all, 20), hashes(1..=16));
        for height in 1..=16 {
            assert!(spared(&mut scheduler, &all, 21).is_empty(), "it owes {height}");
            assert!(scheduler.received(2, &hash(height), 100, at(21)));
        }
        assert_eq!(spared(&mut scheduler, &missing(17..=20, 1024), 21), hashes(17..=20));
    }

    #[test]
    fn who_blocks_the_window_is_dropped_and_replaced() {
        let mut scheduler = DownloadScheduler::default();
        ask(&mut scheduler, 1, &missing(1..=1, 1024), 0);
        // All others of the window arrived: only block 1 and those beyond are missing.
        let stuck = missing([1, 1025].into_iter(), 1024);
        let first = scheduler.request(2, &stuck, at(1));
        assert_eq!(first, BlockRequest { blocks: vec![], stall_started: Some(1) });
        assert_eq!(scheduler.request(3, &stuck, at(1)), BlockRequest::default(), "told once");
        assert!(scheduler.poll(at(3), SPACING).is_empty());
        assert_eq!(
            scheduler.poll(at(4), SPACING),
            [Dropped { peer: 1, reason: DropReason::Stalling }]
        );
        assert_eq!(ask(&mut scheduler, 2, &stuck, 4), [hash(1)]);
        // The timeout has doubled.
        assert_eq!(scheduler.request(3, &stuck, at(4)).stall_started, Some(2));
        assert!(scheduler.poll(at(7), SPACING).is_empty());
        assert_eq!(scheduler.poll(at(9), SPACING).len(), 1);
        // And blocks that are connected take it back.
        assert_eq!(scheduler.stall_timeout(), at(8));
        assert_eq!(scheduler.connected(500), Some(at(2)));
        assert_eq!(scheduler.connected(1), None);
    }

    #[test]
    fn within_the_window_nobody_stalls() {
        let mut scheduler = DownloadScheduler::default();
        ask(&mut scheduler, 1, &missing(1..=1, 1024), 0);
        let waiting = missing([1].into_iter(), 1024);
        assert_eq!(scheduler.request(2, &waiting, at(1)), BlockRequest::default());
        assert!(scheduler.poll(at(10), SPACING).is_empty());
    }

    #[test]
    fn a_peer_with_other_blocks_to_wait_for_is_not_held_up() {
        let mut scheduler = DownloadScheduler::default();
        ask(&mut scheduler, 1, &missing(1..=1, 1024), 0);
        ask(&mut scheduler, 2, &missing(2..=2, 1024), 0);
        let stuck = missing([1, 2, 1025].into_iter(), 1024);
        assert_eq!(scheduler.request(2, &stuck, at(1)), BlockRequest::default());
    }

    #[test]
    fn a_silent_peer_loses_its_block_to_an_idle_one() {
        let mut scheduler = DownloadScheduler::default();
        let tip = missing(5..=5, 1024);
        assert_eq!(ask(&mut scheduler, 1, &tip, 0), [hash(5)]);
        assert!(ask(&mut scheduler, 2, &tip, 19).is_empty());
        assert_eq!(ask(&mut scheduler, 2, &tip, 20), [hash(5)]);
        assert!(scheduler.owed_by(1).is_empty());
        assert!(ask(&mut scheduler, 1, &missing(6..=6, 1024), 79).is_empty(), "it was too slow");
        // One that has sent a block before gets it sooner.
        ask(&mut scheduler, 3, &missing(6..=6, 1024), 20);
        assert!(scheduler.received(3, &hash(6), 100, at(21)));
        assert!(ask(&mut scheduler, 3, &tip, 29).is_empty());
        assert_eq!(ask(&mut scheduler, 3, &tip, 30), [hash(5)]);
    }

    #[test]
    fn a_late_block_is_wanted_though_who_was_asked_instead_has_gone() {
        let mut scheduler = DownloadScheduler::default();
        let tip = missing(5..=5, 1024);
        assert_eq!(ask(&mut scheduler, 1, &tip, 0), [hash(5)]);
        assert_eq!(ask(&mut scheduler, 2, &tip, 20), [hash(5)]);
        scheduler.peer_gone(2);
        assert_eq!(scheduler.in_flight(), 0);
        assert!(!scheduler.received(3, &hash(5), 100, at(21)), "nobody asked for it");
        assert!(scheduler.received(1, &hash(5), 100, at(21)));
        assert!(!scheduler.received(1, &hash(5), 100, at(22)), "once");
        // It may be pruned by then: nobody wants it again.
        assert_eq!(ask(&mut scheduler, 4, &missing(6..=6, 1024), 30), [hash(6)]);
        assert_eq!(ask(&mut scheduler, 5, &missing(6..=6, 1024), 50), [hash(6)]);
        assert!(scheduler.received(5, &hash(6), 100, at(51)));
        scheduler.stored(&hash(6), 100, at(51));
        assert!(!scheduler.received(4, &hash(6), 100, at(52)));
    }

    #[test]
    fn who_lost_a_block_to_another_starts_again_with_one_at_a_time() {
        let mut scheduler = DownloadScheduler::default();
        assert_eq!(ask(&mut scheduler, 1, &missing(1..=16, 1024), 0).len(), 16);
        assert_eq!(ask(&mut scheduler, 2, &missing(1..=16, 1024), 20), hashes(1..=16));
        let more = missing(17..=99, 1024);
        assert_eq!(ask(&mut scheduler, 1, &more, 80), [hash(17)]);
        // Each that it sends is one more it may owe, and others' that are late count alike.
        assert!(scheduler.received(1, &hash(17), 100, at(81)));
        assert_eq!(ask(&mut scheduler, 1, &missing(1..=16, 1024), 81), [hash(1), hash(2)]);
        for (sent, second) in (1..=2).zip(82..) {
            assert!(scheduler.received(1, &hash(sent), 100, at(second)));
        }
        assert_eq!(ask(&mut scheduler, 1, &more, 84), hashes(17..=20));
    }

    #[test]
    fn who_is_sending_keeps_its_block_unless_another_is_much_faster() {
        let tip = missing(5..=5, 1024);
        for (pace, since) in [(0, None), (70_000, None), (90_000, Some(30))] {
            let mut scheduler = with_blocks_of(1_800_000, 9);
            assert_eq!(ask(&mut scheduler, 1, &tip, 0), [hash(5)]);
            let taken = (0..=60).find(|second| {
                // The other one has sent blocks, and has nothing to do.
                let totals = [(1, 20_000 * second), (9, pace * second.min(&10))];
                scheduler.heard(totals, at(*second));
                !ask(&mut scheduler, 9, &tip, *second).is_empty()
            });
            assert_eq!(taken, since, "{pace} bytes a second");
        }
    }

    #[test]
    fn three_at_most_send_a_block_and_none_is_asked_for_it_while_it_may_send_it() {
        let tip = missing(5..=5, 1024);
        let mut scheduler = DownloadScheduler::default();
        let mut asked = Vec::new();
        for second in 0..200_u64 {
            // Each begins to send a second after it lost the block, and the first one stops.
            let sent = |peer: u64| 30_000 * second.min(110).saturating_sub(20 * peer);
            scheduler.heard((1..=3).map(|peer| (peer, sent(peer))), at(second));
            for peer in 1..=5 {
                if !ask(&mut scheduler, peer, &tip, second).is_empty() {
                    asked.push((second, peer));
                }
            }
        }
        assert_eq!(asked[..4], [(0, 1), (20, 2), (40, 3), (60, 4)]);
        assert!(asked[4].0 > 110, "{asked:?}");
    }

    #[test]
    fn who_loses_what_it_owes_ten_times_in_a_row_is_dropped() {
        let mut scheduler = with_blocks_of(100, 9);
        for (height, second) in (1..=10).zip((0..).step_by(100)) {
            let next = missing(height..=height, 1024);
            assert_eq!(ask(&mut scheduler, 1, &next, second), [hash(height)]);
            assert!(scheduler.poll(at(second), SPACING).is_empty());
            assert_eq!(ask(&mut scheduler, 9, &next, second + 10), [hash(height)]);
            assert!(scheduler.received(9, &hash(height), 100, at(second + 11)));
        }
        let reason = DropReason::BlockTimeout(hash(10));
        assert_eq!(scheduler.poll(at(911), SPACING), [Dropped { peer: 1, reason }]);
    }

    #[test]
    fn a_block_that_never_comes_costs_the_connection() {
        let mut scheduler = DownloadScheduler::default();
        ask(&mut scheduler, 1, &missing(1..=3, 1024), 0);
        scheduler.received(1, &hash(1), 100, at(100));
        assert!(scheduler.poll(at(700), SPACING).is_empty());
        let reason = DropReason::BlockTimeout(hash(2));
        assert_eq!(scheduler.poll(at(701), SPACING), [Dropped { peer: 1, reason }]);
        assert_eq!(scheduler.asked_of(&hash(2)), None);
        assert_eq!(scheduler.in_flight(), 0);
    }

    #[test]
    fn a_user_may_have_a_block_asked_of_another_peer() {
        let mut scheduler = DownloadScheduler::default();
        ask(&mut scheduler, 1, &missing(1..=3, 1024), 0);
        scheduler.request_from(1, hash(2), at(1));
        assert_eq!(scheduler.owed_by(1), hashes(1..=3));
        scheduler.request_from(2, hash(2), at(1));
        assert_eq!(scheduler.owed_by(1), [hash(1), hash(3)]);
        assert_eq!(scheduler.owed_by(2), [hash(2)]);
    }

    #[test]
    fn notfound_frees_the_block() {
        let mut scheduler = DownloadScheduler::default();
        ask(&mut scheduler, 1, &missing(1..=1, 1024), 0);
        scheduler.not_found(2, &hash(1), at(1));
        assert_eq!(scheduler.asked_of(&hash(1)), Some(1));
        scheduler.not_found(1, &hash(1), at(1));
        assert_eq!(scheduler.asked_of(&hash(1)), None);
        // Who did not have it is not asked for it at once again.
        assert!(ask(&mut scheduler, 1, &missing(1..=1, 1024), 15).is_empty());
        assert_eq!(ask(&mut scheduler, 1, &missing(1..=1, 1024), 16), [hash(1)]);
    }
}
