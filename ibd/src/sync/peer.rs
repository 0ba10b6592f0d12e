//! `Peer`: what a peer owes, what it lost, and whether it is sending.

use std::time::Duration;

use bitcoin::BlockHash;

use super::flow::Flow;

/// Most blocks asked of one peer at a time (Core's `MAX_BLOCKS_IN_TRANSIT_PER_PEER`).
pub const BLOCKS_IN_FLIGHT_MAX: usize = 16;

/// Blocks that a peer lost and may still send that are remembered.
const LOST_MAX: usize = 2 * BLOCKS_IN_FLIGHT_MAX;

/// How long a peer is asked for nothing that lost a block to another.
const PAUSE_OF_SLOW: Duration = Duration::from_secs(60);

/// A block that a peer owed, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    pub(super) hash: BlockHash,
    pub(super) since: Duration,
    /// Whether another has sent it meanwhile, and it was stored.
    pub(super) is_stored: bool,
}

impl Lost {
    /// A block that is wanted still.
    pub(super) const fn new(hash: BlockHash, since: Duration) -> Self {
        Self { hash, since, is_stored: false }
    }
}

/// A peer that blocks are asked of.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// What it owes, in the order of asking; at most [`BLOCKS_IN_FLIGHT_MAX`] and what a user asks for.
    pub(super) owed: Vec<BlockHash>,
    /// Since when it owes the first of them.
    pub(super) downloading_since: Duration,
    pub(super) stalling_since: Option<Duration>,
    /// When it last sent a block that it owed; none yet, or since it lost one to another peer.
    pub(super) delivered: Option<Duration>,
    /// Until when it is asked for nothing, since it did not have what it announced, or was too slow.
    pub(super) paused_until: Duration,
    /// How many blocks less than others it may owe: once it lost one to another peer it starts again
    /// with one at a time, and one more for each it sends (the slow start of RFC 5681).
    pub(super) held_back: usize,
    /// Blocks that it lost to other peers and may still send, and how often in a row it lost any.
    pub(super) lost: Vec<Lost>,
    pub(super) losses: u32,
    pub(super) flow: Flow,
}

impl Peer {
    /// Returns how many blocks it may owe.
    pub(super) const fn blocks_max(&self) -> usize {
        BLOCKS_IN_FLIGHT_MAX - self.held_back
    }

    /// Returns how many blocks are to come from it: what it lost as well, as long as it is sending.
    pub(super) fn to_come(&self, now: Duration) -> usize {
        let lost = if self.flow.is_sending(now) { self.lost.len() } else { 0 };
        self.owed.len() + lost
    }

    /// Whether it lost a block to another peer, and may be sending it.
    pub(super) fn may_send_late(&self, hash: &BlockHash, now: Duration) -> bool {
        self.lost.iter().any(|lost| lost.hash == *hash) && self.flow.is_sending(now)
    }

    /// Notes that it lost a block to another peer.
    pub(super) fn lose(&mut self, lost: Lost, now: Duration) {
        // What is lost at the same time counts once.
        self.losses += u32::from(now >= self.paused_until);
        self.delivered = None;
        self.paused_until = now + PAUSE_OF_SLOW;
        self.held_back = BLOCKS_IN_FLIGHT_MAX - 1;
        self.still_sends(lost);
    }

    /// Notes that a block came that it owed since then. What it was asked for before is not to come: it
    /// answers in order.
    pub(super) fn delivers(&mut self, since: Duration, bytes: usize, now: Duration) {
        self.lost.retain(|lost| lost.since >= since);
        self.delivered = Some(now);
        self.held_back = self.held_back.saturating_sub(1);
        self.losses = 0;
        self.flow.block_came(bytes);
    }

    /// Notes that a block came, if it is one that it lost to another peer; returns whether it is, and
    /// is wanted still.
    pub(super) fn may_deliver_late(&mut self, hash: &BlockHash, bytes: usize) -> bool {
        let Some(at) = self.lost.iter().position(|lost| lost.hash == *hash) else { return false };
        let lost = self.lost.remove(at);
        self.losses = 0;
        self.flow.block_came(bytes);
        !lost.is_stored
    }

    /// Notes that a block was stored: a copy that comes late is of no use.
    pub(super) fn block_stored(&mut self, hash: &BlockHash) {
        if let Some(lost) = self.lost.iter_mut().find(|lost| lost.hash == *hash) {
            lost.is_stored = true;
        }
    }

    /// Notes that a block was asked of another peer as well.
    pub(super) fn still_sends(&mut self, lost: Lost) {
        if self.lost.len() == LOST_MAX {
            self.lost.remove(0);
        }
        self.lost.push(lost);
    }
}
