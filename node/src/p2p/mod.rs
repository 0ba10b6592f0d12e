//! Peers: connections, their messages, and the sync with them.

mod codec;
mod connection;
mod dispatch;
mod handshake;
mod headers;
mod manager;
mod message;
mod peer;
mod serve;
mod sync;

pub(crate) use manager::PeerManager;
pub(crate) use message::PROTOCOL_VERSION;
pub(crate) use peer::{Peer, PeerState};

use std::collections::{HashMap, HashSet, VecDeque};

use bitcoin::BlockHash;
use cofferdam_ibd::sync::{DownloadScheduler, HeaderSync, PeerId};

/// Services offered: NETWORK and WITNESS (BIP-0144).
pub(crate) const SERVICES: u64 = 1 | 8;

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
