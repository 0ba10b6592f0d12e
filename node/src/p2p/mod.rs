//! Peers: connections, their messages, and the sync with them.

mod address_checks;
mod addresses;
mod addrman;
mod anchors;
mod announce;
mod asmap;
mod bans;
mod budget;
mod chain_sync;
mod compact;
mod connect;
mod connection;
mod dial;
mod dispatch;
mod eviction;
mod extra_peers;
mod fetch;
mod filters;
mod fixed_seeds;
pub(crate) mod fuzz;
mod gossip_message;
mod handshake;
mod headers;
mod link;
mod listen;
mod manager;
mod message;
mod net_addr;
mod net_group;
mod outbound;
mod own_address;
mod partial_block;
mod payload;
mod peer;
mod peers_file;
mod permissions;
mod ping;
mod rate;
mod recent;
mod relay;
mod relay_message;
mod seeds;
mod serve;
mod session;
mod socks5;
mod subnet;
mod sync;
mod time_offsets;
mod transactions;
mod transport;
mod upkeep;
mod upload;

pub(crate) use addrman::{Counts as AddressCounts, Entry as AddressEntry};
pub(crate) use manager::{PeerManager, seconds};
pub(crate) use message::PROTOCOL_VERSION;
pub(crate) use net_addr::{Host, NodeAddr};
pub(crate) use peer::{Kind, Peer, PeerState};
pub(crate) use permissions::{Permissions, Whitebind, Whitelist};
pub(crate) use subnet::{Subnet, is_routable, unmapped};
pub(crate) use upload::TIMEFRAME;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use bitcoin::BlockHash;
use cofferdam_ibd::sync::{BlockRequest, DownloadScheduler, HeaderSync, Missing, PeerId};

use crate::busy::Busy;

/// Blocks whose sender is remembered until their scripts have run.
const SOURCES_MAX: usize = 4096;

/// What is asked of whom, and what came from whom.
#[derive(Debug, Default)]
pub(crate) struct SyncState {
    headers: HeaderSync,
    presync: headers::PresyncStats,
    /// Its times are those of [`Self::line_time`].
    pub(crate) download: DownloadScheduler,
    busy: Busy,
    /// Peers that announce new blocks by compact blocks, the one least lately of use first.
    announcers: Vec<PeerId>,
    /// Blocks that came as they were asked for, and are not stored yet: nobody else is asked for them
    /// meanwhile. Others may well be left out.
    arrived: HashSet<BlockHash>,
    sources: HashMap<BlockHash, Source>,
    sources_by_age: VecDeque<BlockHash>,
}

/// Whether a peer is asked for blocks that it did not just announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Supply {
    /// It has not what we miss.
    Never,
    /// It is spared while others can be asked: it may be somebody at home who chose us, and not we him.
    IfNeeded,
    /// It is.
    Always,
}

/// Whom a block came from.
#[derive(Clone, Copy, Debug)]
struct Source {
    peer: PeerId,
    /// Whether the block's faults are the peer's.
    is_to_blame: bool,
}

impl SyncState {
    /// Begins with nothing; `busy` is the thread's that stores blocks.
    fn new(busy: Busy) -> Self {
        Self { busy, ..Self::default() }
    }

    /// Returns the time as it counts for what comes from peers: it stands still while nothing is read.
    fn line_time(&self, now: Duration) -> Duration {
        now.saturating_sub(self.busy.away())
    }

    /// Forgets a peer.
    fn peer_gone(&mut self, peer: PeerId) {
        self.headers.peer_gone(peer);
        self.presync.remove(peer);
        self.download.peer_gone(peer);
        self.announcers.retain(|announcer| *announcer != peer);
    }

    /// Decides which of the missing blocks to ask a peer for: none if its connection is closed.
    /// It is closed before the peer is forgotten here, and what was asked of it afterwards would be
    /// owed by nobody who ever comes back.
    fn request(
        &mut self,
        peer: &Peer,
        supply: Supply,
        missing: &Missing,
        now: Duration,
    ) -> BlockRequest {
        if peer.is_closing() || supply == Supply::Never {
            return BlockRequest::default();
        }
        let now = self.line_time(now);
        let request = if supply == Supply::IfNeeded && self.has_willing() {
            self.download.request_if_needed(peer.id, missing, now)
        } else {
            self.download.request(peer.id, missing, now)
        };
        if !request.blocks.is_empty() {
            // What came so far is not what it is asked for.
            self.download.heard([(peer.id, peer.bytes_received())], now);
        }
        request
    }

    /// Returns whether peers that are asked only if needed are asked for nothing now.
    fn spares(&self, now: Duration) -> bool {
        let download = &self.download;
        let is_late = || download.has_late(self.line_time(now));
        self.has_willing() && download.in_flight() > 0 && !is_late()
    }

    /// Returns whether there is a peer to ask first: one that we chose, and that did not keep back lately
    /// what it was asked for.
    fn has_willing(&self) -> bool {
        self.headers.preferred().any(|peer| !self.download.is_held_back(peer))
    }

    fn came_from(&mut self, hash: BlockHash, peer: PeerId, is_to_blame: bool) {
        if self.sources.insert(hash, Source { peer, is_to_blame }).is_none() {
            self.sources_by_age.push_back(hash);
        }
        while self.sources_by_age.len() > SOURCES_MAX {
            if let Some(oldest) = self.sources_by_age.pop_front() {
                self.sources.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;
    use cofferdam_ibd::BlockRef;
    use cofferdam_ibd::sync::Role;

    use super::*;

    #[test]
    fn nobody_is_spared_for_a_peer_that_keeps_blocks_back() {
        let block = |number| BlockRef {
            height: u32::from(number),
            hash: BlockHash::from_byte_array([number; 32]),
        };
        let missing = Missing { blocks: (1..=20).map(block).collect(), window_end: 1024 };
        let mut sync = SyncState::default();
        let role = Role { preferred: true, protected: false, serves: true };
        sync.headers.peer_ready(9, role);
        let other = peer::tests::connected();
        let asked = |sync: &mut SyncState, seconds| {
            let now = Duration::from_secs(seconds);
            sync.request(&other, Supply::IfNeeded, &missing, now).blocks.len()
        };
        assert_eq!(sync.download.request(9, &missing, Duration::ZERO).blocks.len(), 16);
        assert_eq!(asked(&mut sync, 1), 0, "it is spared");
        assert_eq!(asked(&mut sync, 20), 16, "what is late");
        for block in &missing.blocks[..16] {
            assert!(sync.download.received(other.id, &block.hash, 100, Duration::from_secs(21)));
        }
        // The other is asked again, for one, and nobody waits for that.
        let now = Duration::from_secs(80);
        let late = Missing { blocks: missing.blocks[16..].to_vec(), window_end: 1024 };
        assert_eq!(sync.download.request(9, &late, now).blocks.len(), 1);
        assert!(!sync.spares(now));
        assert_eq!(asked(&mut sync, 80), 16);
    }

    #[test]
    fn a_peer_that_has_gone_is_asked_for_nothing() {
        let block = BlockRef { height: 1, hash: BlockHash::from_byte_array([1; 32]) };
        let missing = Missing { blocks: vec![block], window_end: 1024 };
        let peer = peer::tests::connected();
        let mut sync = SyncState::default();
        let request = |sync: &mut SyncState| {
            sync.request(&peer, Supply::Always, &missing, Duration::ZERO).blocks
        };
        assert_eq!(request(&mut sync), [block.hash]);
        // Its thread ends while the chain's thread has yet to decide what to ask it for.
        peer.close();
        sync.peer_gone(peer.id);
        assert!(request(&mut sync).is_empty());
        assert_eq!(sync.download.in_flight(), 0);
    }
}
