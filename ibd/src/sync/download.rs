//! `DownloadScheduler`: which blocks to ask which peer for, and who holds the others up.
//!
//! Blocks are asked for within a moving window of [`DOWNLOAD_WINDOW`] blocks beyond the last one
//! that the peer's chain shares with the connected chain. When the window cannot move because of
//! one block, the peer that owes it is stalling and has [`STALL_TIMEOUT`] to deliver; the timeout
//! doubles with each peer dropped (our own line may be the slow one) and decays with each block.
//! Shape and constants are those of Bitcoin Core's `net_processing.cpp`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bitcoin::BlockHash;

use super::{Dropped, PeerId};
use crate::BlockRef;
use crate::headers::{HeaderRef, HeaderStatus, HeaderTree};

/// How far beyond the connected chain blocks are asked for (Core's `BLOCK_DOWNLOAD_WINDOW`).
pub const DOWNLOAD_WINDOW: u32 = 1024;

/// Most blocks asked of one peer at a time (Core's `MAX_BLOCKS_IN_TRANSIT_PER_PEER`).
pub const BLOCKS_IN_FLIGHT_MAX: usize = 16;

/// Most bytes asked of all peers at a time, by the mean size of the last blocks.
const IN_FLIGHT_BYTES_MAX: u64 = 64 << 20;

/// What a staller has to deliver within (Core's `BLOCK_STALLING_TIMEOUT_DEFAULT` and `_MAX`).
const STALL_TIMEOUT: Duration = Duration::from_secs(2);
const STALL_TIMEOUT_MAX: Duration = Duration::from_secs(64);

/// A peer that delivered nothing for this long loses its first block to a peer with nothing to do.
const REASSIGN_AFTER: Duration = Duration::from_secs(10);

/// A peer that delivered nothing for this long, and half as much again for each other peer that
/// blocks are asked of, is dropped (Core's `BLOCK_DOWNLOAD_TIMEOUT_BASE` and `_PER_PEER`).
const BLOCK_TIMEOUT: Duration = Duration::from_secs(600);

/// The blocks of a peer's chain that are not stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Missing {
    /// In order of height, up to the first one beyond the window.
    pub blocks: Vec<BlockRef>,
    /// Height of the window's last block.
    pub window_end: u32,
}

/// Lists the blocks to ask a peer for whose best header is `best_known`: none if its chain is no
/// better than the connected one, which ends in `tip`.
#[must_use]
pub fn missing_blocks(tree: &HeaderTree, tip: HeaderRef, best_known: HeaderRef) -> Missing {
    let best = tree.entry(best_known);
    let is_better = best.chain_work > tree.entry(tip).chain_work;
    if !is_better || best.status.has(HeaderStatus::FAILED) {
        return Missing::default();
    }
    let base = tree.entry(tree.fork_point(tip, best_known)).height;
    let window_end = base.saturating_add(DOWNLOAD_WINDOW);
    let mut blocks = Vec::new();
    let mut walk = tree.ancestor(best_known, best.height.min(window_end.saturating_add(1)));
    while let Some(at) = walk {
        let entry = tree.entry(at);
        if entry.height <= base {
            break;
        }
        if entry.block.is_none() {
            blocks.push(BlockRef { height: entry.height, hash: entry.hash });
        }
        walk = entry.parent;
    }
    blocks.reverse();
    Missing { blocks, window_end }
}

#[derive(Debug, Default)]
struct Peer {
    in_flight: usize,
    /// When it last delivered a block, or was asked for one while it owed none.
    progress: Duration,
    stalling_since: Option<Duration>,
}

/// Which blocks are asked of whom.
#[derive(Debug)]
pub struct DownloadScheduler {
    peers: BTreeMap<PeerId, Peer>,
    in_flight: HashMap<BlockHash, PeerId>,
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
    pub fn request(&mut self, peer: PeerId, missing: &Missing, now: Duration) -> Vec<BlockHash> {
        let mut room = BLOCKS_IN_FLIGHT_MAX.saturating_sub(self.owed_by(peer).len());
        let mut asked = Vec::new();
        let mut first_owner = None;
        for block in &missing.blocks {
            if room == 0 || !self.has_room_for_bytes() {
                break;
            }
            if let Some(owner) = self.in_flight.get(&block.hash) {
                first_owner = first_owner.or(Some((*owner, block.hash)));
            } else if block.height > missing.window_end {
                if let (true, Some((staller, _))) = (asked.is_empty(), first_owner) {
                    self.stalls(staller, peer, now);
                }
                break;
            } else {
                self.assign(peer, block.hash, now);
                asked.push(block.hash);
                room -= 1;
            }
        }
        if let (true, true, Some((owner, hash))) = (asked.is_empty(), room > 0, first_owner)
            && owner != peer
            && self.is_slow(owner, now)
        {
            self.unassign(&hash);
            self.assign(peer, hash, now);
            asked.push(hash);
        }
        asked
    }

    /// Notes that a peer sent a block; returns whether it was asked of that peer.
    pub fn received(
        &mut self,
        peer: PeerId,
        hash: &BlockHash,
        bytes: usize,
        now: Duration,
    ) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.mean_bytes = (self.mean_bytes.saturating_mul(15).saturating_add(bytes)) / 16;
        self.stall_timeout = self.stall_timeout.mul_f64(0.85).max(STALL_TIMEOUT);
        let owner = self.in_flight.get(hash).copied();
        if owner.is_some() {
            self.unassign(hash);
        }
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.progress = now;
            entry.stalling_since = None;
        }
        owner == Some(peer)
    }

    /// Notes that a peer does not have the blocks it was asked for (`notfound`).
    pub fn not_found(&mut self, peer: PeerId, hash: &BlockHash) {
        if self.in_flight.get(hash) == Some(&peer) {
            self.unassign(hash);
        }
    }

    /// Removes a peer; what it owed may be asked of others.
    pub fn peer_gone(&mut self, peer: PeerId) {
        self.in_flight.retain(|_, owner| *owner != peer);
        self.peers.remove(&peer);
    }

    /// Returns whether the block was asked of anyone.
    #[must_use]
    pub fn is_in_flight(&self, hash: &BlockHash) -> bool {
        self.in_flight.contains_key(hash)
    }

    /// Returns the blocks that a peer owes.
    #[must_use]
    pub fn owed_by(&self, peer: PeerId) -> Vec<BlockHash> {
        match self.peers.get(&peer) {
            Some(entry) if entry.in_flight > 0 => {
                let owed = self.in_flight.iter().filter(|(_, owner)| **owner == peer);
                owed.map(|(hash, _)| *hash).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the peers that hold the others up.
    pub fn poll(&mut self, now: Duration) -> Vec<Dropped> {
        let owing = self.peers.values().filter(|peer| peer.in_flight > 0).count();
        let others = u32::try_from(owing.saturating_sub(1)).unwrap_or(u32::MAX);
        let block_timeout =
            BLOCK_TIMEOUT.saturating_add((BLOCK_TIMEOUT / 2).saturating_mul(others));
        let mut drops = Vec::new();
        for (id, peer) in &self.peers {
            let stalls = peer.stalling_since.is_some_and(|since| now > since + self.stall_timeout);
            if stalls {
                drops.push(Dropped { peer: *id, reason: "stalls block download" });
            } else if peer.in_flight > 0 && now > peer.progress + block_timeout {
                drops.push(Dropped { peer: *id, reason: "timeout downloading a block" });
            }
        }
        for drop in &drops {
            self.peer_gone(drop.peer);
            self.stall_timeout = (self.stall_timeout * 2).min(STALL_TIMEOUT_MAX);
        }
        drops
    }

    fn has_room_for_bytes(&self) -> bool {
        let count = u64::try_from(self.in_flight.len()).unwrap_or(u64::MAX);
        count.saturating_add(1).saturating_mul(self.mean_bytes) <= IN_FLIGHT_BYTES_MAX
    }

    fn assign(&mut self, peer: PeerId, hash: BlockHash, now: Duration) {
        self.in_flight.insert(hash, peer);
        let entry = self.peers.entry(peer).or_default();
        if entry.in_flight == 0 {
            entry.progress = now;
        }
        entry.in_flight += 1;
    }

    fn unassign(&mut self, hash: &BlockHash) {
        let owner = self.in_flight.remove(hash);
        if let Some(entry) = owner.and_then(|owner| self.peers.get_mut(&owner)) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
            entry.stalling_since = None;
        }
    }

    fn stalls(&mut self, staller: PeerId, waiting: PeerId, now: Duration) {
        if staller != waiting
            && let Some(entry) = self.peers.get_mut(&staller)
        {
            entry.stalling_since.get_or_insert(now);
        }
    }

    fn is_slow(&self, peer: PeerId, now: Duration) -> bool {
        self.peers.get(&peer).is_some_and(|entry| now >= entry.progress + REASSIGN_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::headers::Extent;
    use crate::params::{ChainParams, Network};
    use bitcoin::hashes::Hash as _;
    use cofferdam_storage::FilePosition;

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

    #[test]
    fn peers_share_the_window_without_overlap() {
        let mut scheduler = DownloadScheduler::default();
        let all = missing(1..=1025, 1024);
        assert_eq!(scheduler.request(1, &all, at(0)), hashes(1..=16));
        assert!(scheduler.request(1, &all, at(0)).is_empty(), "sixteen at most");
        assert_eq!(scheduler.request(2, &all, at(0)), hashes(17..=32));
        assert!(scheduler.received(1, &hash(1), 100, at(1)));
        assert!(!scheduler.received(1, &hash(17), 100, at(1)), "asked of the other");
        assert_eq!(scheduler.request(1, &missing(2..=1025, 1024), at(1)), [hash(17)]);
    }

    #[test]
    fn big_blocks_bound_what_is_in_flight() {
        let mut scheduler = DownloadScheduler::default();
        for _ in 0..200 {
            scheduler.received(9, &hash(0), 16 << 20, at(0));
        }
        let asked = scheduler.request(1, &missing(1..=100, 1024), at(0)).len();
        assert!((3..=4).contains(&asked), "{asked} blocks of 16 MiB");
    }

    #[test]
    fn who_blocks_the_window_is_dropped_and_replaced() {
        let mut scheduler = DownloadScheduler::default();
        scheduler.request(1, &missing(1..=1, 1024), at(0));
        // All others of the window arrived: only block 1 and those beyond are missing.
        let stuck = missing([1, 1025].into_iter(), 1024);
        assert!(scheduler.request(2, &stuck, at(1)).is_empty());
        assert!(scheduler.poll(at(3)).is_empty());
        assert_eq!(scheduler.poll(at(4)), [Dropped { peer: 1, reason: "stalls block download" }]);
        assert_eq!(scheduler.request(2, &stuck, at(4)), [hash(1)]);
        // The timeout has doubled.
        scheduler.request(3, &stuck, at(4));
        assert!(scheduler.poll(at(7)).is_empty());
        assert_eq!(scheduler.poll(at(9)).len(), 1);
    }

    #[test]
    fn a_silent_peer_loses_its_block_to_an_idle_one() {
        let mut scheduler = DownloadScheduler::default();
        let tip = missing(5..=5, 1024);
        assert_eq!(scheduler.request(1, &tip, at(0)), [hash(5)]);
        assert!(scheduler.request(2, &tip, at(9)).is_empty());
        assert_eq!(scheduler.request(2, &tip, at(10)), [hash(5)]);
        assert_eq!(scheduler.owed_by(1), []);
    }

    #[test]
    fn a_block_that_never_comes_costs_the_connection() {
        let mut scheduler = DownloadScheduler::default();
        scheduler.request(1, &missing(1..=3, 1024), at(0));
        scheduler.received(1, &hash(1), 100, at(100));
        assert!(scheduler.poll(at(700)).is_empty());
        assert_eq!(scheduler.poll(at(701)).len(), 1);
        assert!(!scheduler.is_in_flight(&hash(2)));
    }

    #[test]
    fn notfound_frees_the_block() {
        let mut scheduler = DownloadScheduler::default();
        scheduler.request(1, &missing(1..=1, 1024), at(0));
        scheduler.not_found(2, &hash(1));
        assert!(scheduler.is_in_flight(&hash(1)));
        scheduler.not_found(1, &hash(1));
        assert!(!scheduler.is_in_flight(&hash(1)));
    }

    #[test]
    fn stored_blocks_and_worse_chains_are_not_missing() {
        let genesis = ChainParams::new(Network::Regtest).genesis.header;
        let mut tree = HeaderTree::new(genesis);
        let mut chain = vec![tree.genesis()];
        let mut header = genesis;
        for nonce in 1..=5 {
            header.prev_blockhash = header.block_hash();
            header.nonce = nonce;
            let at = tree
                .insert(&header, header.block_hash(), *chain.last().expect("genesis"))
                .expect("room");
            chain.push(at);
        }
        let position = FilePosition { file: 0, offset: 8 };
        tree.entry_mut(chain[3]).block =
            Some(Extent { position, length: NonZeroU32::MIN, crc32: 0 });
        let heights =
            |missing: Missing| missing.blocks.iter().map(|b| b.height).collect::<Vec<_>>();
        assert_eq!(heights(missing_blocks(&tree, chain[1], chain[5])), [2, 4, 5]);
        assert_eq!(missing_blocks(&tree, chain[5], chain[4]), Missing::default());
        assert_eq!(missing_blocks(&tree, chain[0], chain[5]).window_end, DOWNLOAD_WINDOW);
    }
}
