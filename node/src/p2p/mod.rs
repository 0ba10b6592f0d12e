//! Peers: connections, their messages, and the sync with them.

mod bans;
mod budget;
mod connection;
mod dial;
mod dispatch;
mod eviction;
mod filters;
mod handshake;
mod headers;
mod listen;
mod manager;
mod message;
mod peer;
mod permissions;
mod ping;
mod rate;
mod serve;
mod session;
mod subnet;
mod sync;
mod transport;
mod upkeep;
mod upload;

pub(crate) use manager::{PeerManager, seconds};
pub(crate) use message::PROTOCOL_VERSION;
pub(crate) use peer::{Kind, Peer, PeerState};
pub(crate) use permissions::{Whitebind, Whitelist};
pub(crate) use subnet::{Subnet, is_routable, unmapped};
pub(crate) use upload::TIMEFRAME;

use std::collections::{HashMap, HashSet, VecDeque};

use bitcoin::BlockHash;
use cofferdam_ibd::sync::{DownloadScheduler, HeaderSync, PeerId};

/// Blocks whose sender is remembered until their scripts have run.
const SOURCES_MAX: usize = 4096;

/// What is asked of whom, and what came from whom.
#[derive(Debug, Default)]
pub(crate) struct SyncState {
    headers: HeaderSync,
    presync: headers::PresyncStats,
    pub(crate) download: DownloadScheduler,
    /// Blocks that came and are not stored yet.
    arrived: HashSet<BlockHash>,
    sources: HashMap<BlockHash, PeerId>,
    sources_by_age: VecDeque<BlockHash>,
}

impl SyncState {
    fn came_from(&mut self, hash: BlockHash, peer: PeerId) {
        self.arrived.insert(hash);
        if self.sources.insert(hash, peer).is_none() {
            self.sources_by_age.push_back(hash);
        }
        while self.sources_by_age.len() > SOURCES_MAX {
            if let Some(oldest) = self.sources_by_age.pop_front() {
                self.sources.remove(&oldest);
            }
        }
    }
}
