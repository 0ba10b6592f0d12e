//! Blocks: asked for, taken in, and what their senders are known to have.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::p2p::message_blockdata::Inventory;
use cofferdam_ibd::sync::{Missing, PeerId, missing_blocks};
use cofferdam_ibd::{BlockAccepted, Chainstate, HeaderRef, Rejection, RejectionScope};

use super::dispatch::End;
use super::manager::PeerManager;
use super::message::Message;
use super::peer::Peer;
use crate::chain::{BlockSource, Stopped};

/// A peer that owes fewer blocks is asked for more.
const ASK_BELOW: usize = 8;

/// Headers younger than this mean that there is little left to fetch.
const RECENT_SECONDS: u32 = 24 * 60 * 60;

impl PeerManager {
    pub(super) fn on_inventory(&self, peer: &Arc<Peer>, items: &[Inventory]) -> Result<(), End> {
        // Of several blocks the last is the best; its ancestors come with the headers.
        let Some(hash) = items.iter().filter_map(block_hash).next_back() else {
            return Ok(());
        };
        let known = self.chain.query(move |chain| chain.headers().get(&hash))?;
        if let Some(at) = known {
            self.learn_best(peer, at)?;
            return Ok(self.ask_blocks(peer)?);
        }
        self.sync().headers.asked(peer.id, self.clock.now());
        Ok(self.ask_headers_from(peer, None)?)
    }

    pub(super) fn on_block(&self, peer: &Arc<Peer>, raw: Vec<u8>) -> Result<(), End> {
        let header =
            raw.get(..80).and_then(|bytes| bitcoin::consensus::deserialize::<Header>(bytes).ok());
        let header = header.ok_or_else(|| String::from("block message is malformed: no header"))?;
        let (hash, now) = (header.block_hash(), self.clock.now());
        // A block that is not what its header commits to may change nothing but its sender's state,
        // so this is asked before anything is noted (CVE-2024-52921). What was asked of this very
        // peer is found to be mutated later, with the same end for it alone.
        let is_owed = self.sync().download.owed_by(peer.id).contains(&hash);
        if !is_owed && self.chain.is_mutated(&raw, &header)? {
            return Err(String::from("mutated block").into());
        }
        let requested = {
            let mut sync = self.sync();
            sync.came_from(hash, peer.id);
            sync.download.received(peer.id, &hash, raw.len(), now)
        };
        let source = if requested { BlockSource::Requested } else { BlockSource::Unrequested };
        let submitted = self.chain.submit(raw, source);
        self.sync().arrived.remove(&hash);
        let submitted = submitted?;
        match &submitted.accepted {
            Some(BlockAccepted::Stored(_)) => {
                peer.state().last_block = now;
                if let Some(at) = self.chain.query(move |chain| chain.headers().get(&hash))? {
                    self.learn_best(peer, at)?;
                }
            }
            Some(BlockAccepted::Rejected(rejection)) => {
                tracing::info!("AcceptBlock FAILED ({rejection}) block {hash} peer={}", peer.id);
                blame(peer, rejection, "invalid block received")?;
            }
            Some(BlockAccepted::Duplicate(_)) | None => {}
        }
        let owed = self.sync().download.owed_by(peer.id).len();
        if owed < ASK_BELOW { Ok(self.ask_blocks(peer)?) } else { Ok(()) }
    }

    /// Notes that a peer has a header, and with it all its ancestors.
    pub(super) fn learn_best(&self, peer: &Arc<Peer>, at: HeaderRef) -> Result<(), Stopped> {
        let known = peer.state().best_known;
        let (best, common) = self.chain.query(move |chain| {
            let headers = chain.headers();
            let work = |at| headers.entry(at).chain_work;
            let best = known.filter(|known| work(*known) >= work(at)).unwrap_or(at);
            let common = headers.fork_point(best, chain.tip_ref());
            (best, headers.entry(common).height)
        })?;
        let mut state = peer.state();
        state.best_known = Some(best);
        state.common_height = Some(common);
        Ok(())
    }

    /// Asks a peer for blocks that it has and we miss, as many as it may owe.
    pub(super) fn ask_blocks(&self, peer: &Peer) -> Result<(), Stopped> {
        let Some(best) = peer.state().best_known else {
            return Ok(());
        };
        let missing = self.chain.query(move |chain| missing_toward(chain, best))?;
        if missing.blocks.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let wanted = {
            let mut sync = self.sync();
            let mut missing = missing;
            missing.blocks.retain(|block| !sync.arrived.contains(&block.hash));
            sync.download.request(peer.id, &missing, now)
        };
        if !wanted.is_empty() {
            tracing::debug!("Requesting {} blocks peer={}", wanted.len(), peer.id);
            peer.send(
                Message::GetData(wanted.into_iter().map(Inventory::WitnessBlock).collect()),
                now,
            );
        }
        Ok(())
    }

    /// Returns the heights of the blocks that a peer owes.
    pub(crate) fn in_flight(&self, peer: PeerId) -> Result<Vec<u32>, Stopped> {
        let owed = self.sync().download.owed_by(peer);
        if owed.is_empty() {
            return Ok(Vec::new());
        }
        self.chain.query(move |chain| {
            let headers = chain.headers();
            let known = owed.iter().filter_map(|hash| headers.get(hash));
            let mut heights: Vec<u32> = known.map(|at| headers.entry(at).height).collect();
            heights.sort_unstable();
            heights
        })
    }

    /// Looks after what time brings: peers to ask, stallers, blocks to ask for since the tip moved.
    pub(super) fn tick_sync(&self) {
        let now = self.clock.now();
        let view = self.chain.view();
        let recent =
            Duration::from_secs(u64::from(view.best_header_time.saturating_add(RECENT_SECONDS)));
        let age = now.as_secs().saturating_sub(u64::from(view.best_header_time));
        let spacing = u64::from(self.chain.params().pow_target_spacing);
        let expected = u32::try_from(age / spacing).unwrap_or(u32::MAX);
        let (ask, drops) = {
            let mut sync = self.sync();
            if recent > now {
                sync.headers.set_caught_up();
            }
            let (ask, mut drops) = sync.headers.poll(now, expected);
            drops.extend(sync.download.poll(now));
            (ask, drops)
        };
        for drop in drops {
            if let Some(peer) = self.peer(drop.peer) {
                peer.disconnect(&format!("Peer {}", drop.reason));
            }
        }
        for peer in ask.into_iter().filter_map(|id| self.peer(id)) {
            if self.ask_headers_from_parent(&peer).is_err() {
                return;
            }
        }
        if view.tip == view.best_header {
            return;
        }
        for peer in self.peers().into_iter().filter(|peer| peer.is_ready()) {
            let owed = self.sync().download.owed_by(peer.id).len();
            if owed < ASK_BELOW && self.ask_blocks(&peer).is_err() {
                return;
            }
        }
    }
}

/// Lists what is missing on the way to a peer's best header. A chain with too little work is not
/// worth a download: it may be made up.
fn missing_toward(chain: &Chainstate, best: HeaderRef) -> Missing {
    let tree = chain.headers();
    if tree.entry(best).chain_work < chain.params().minimum_chain_work {
        return Missing::default();
    }
    missing_blocks(tree, chain.tip_ref(), best)
}

/// Disconnects the sender of something that breaks a rule, unless the fault may be ours.
pub(super) fn blame(peer: &Peer, rejection: &Rejection, what: &str) -> Result<(), End> {
    let is_fault = match rejection.scope {
        RejectionScope::Header
        | RejectionScope::Bytes
        | RejectionScope::MissingPrev
        | RejectionScope::InvalidPrev => true,
        // An outbound peer that follows a chain we know as bad is of no use.
        RejectionScope::Cached => !peer.is_inbound(),
        // Clocks differ, and work is counted by each for itself.
        _ => false,
    };
    if is_fault { Err(format!("{what}: {rejection}").into()) } else { Ok(()) }
}

pub(super) fn block_hash(item: &Inventory) -> Option<BlockHash> {
    match item {
        Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => {
            Some(*hash)
        }
        _ => None,
    }
}
