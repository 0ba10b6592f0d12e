//! Blocks: asked for, taken in, and what their senders are known to have.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::p2p::message_blockdata::Inventory;
use cofferdam_ibd::sync::{Missing, PeerId, missing_blocks};
use cofferdam_ibd::{
    BlockAccepted, BlockRef, ChainParams, Chainstate, HeaderRef, RawBlock, Rejection,
    RejectionScope,
};

use super::dispatch::{End, tell_unreadable};
use super::manager::PeerManager;
use super::message::Message;
use super::payload::of_block;
use super::peer::Peer;
use super::{Supply, SyncState};
use crate::chain::{BlockSource, Stopped, Submitted};

/// A peer that owes fewer blocks is asked for more.
const ASK_BELOW: usize = 8;

/// A tip at most so many blocks old by its time means that new blocks are fetched as they are
/// announced (Bitcoin Core's `CanDirectFetch`).
const DIRECT_FETCH_BLOCKS: u32 = 20;

/// Blocks of one `inv` that are looked at, the last ones: as many as an answer to `getblocks` names.
/// The chain's thread looks each of them up, and must not be kept from its work by 50,000.
const ANNOUNCED_MAX: usize = 500;

/// What blocks to ask a peer for.
struct Wanted {
    missing: Missing,
    /// Whether the tip is recent.
    near: bool,
    /// The parent of the first missing block, if all up to it is stored.
    joins_stored: bool,
}

/// What to ask a peer for.
#[derive(Debug, Default)]
pub(super) struct Order {
    blocks: Vec<BlockRef>,
    /// A peer that holds it up from now on.
    stall_started: Option<PeerId>,
    /// Whether to ask for a compact block.
    compact: bool,
}

impl PeerManager {
    pub(super) fn on_inventory(&self, peer: &Arc<Peer>, items: &[Inventory]) -> Result<(), End> {
        if self.refuses_announcement(peer, items) {
            return Ok(());
        }
        let blocks = items.iter().rev().filter_map(announced_block).take(ANNOUNCED_MAX);
        let blocks: Vec<BlockHash> = blocks.collect();
        if blocks.is_empty() {
            return Ok(());
        }
        // Of several blocks the last is the best; its ancestors come with the headers.
        let (known, unknown, best_height) = self.chain.query(move |chain| {
            let headers = chain.headers();
            let find = |hash: &&BlockHash| headers.get(hash).is_none();
            let unknown = blocks.iter().find(find).copied();
            let known = blocks.iter().find_map(|hash| headers.get(hash));
            (known, unknown, headers.entry(headers.best()).height)
        })?;
        if let Some(at) = known {
            self.learn_best(peer, at)?;
        }
        if let Some(hash) = unknown {
            peer.link().unknown = Some(hash);
            let ask = {
                let mut sync = self.sync();
                sync.download.asked_of(&hash).is_none()
                    && sync.headers.announced(peer.id, hash, self.clock.now())
            };
            if ask {
                tracing::debug!("getheaders ({best_height}) {hash} to peer={}", peer.id);
                self.send_getheaders(peer, None)?;
            }
        }
        Ok(self.ask_blocks(peer)?)
    }

    pub(super) fn on_block(&self, peer: &Arc<Peer>, raw: Vec<u8>) -> Result<(), End> {
        let bytes = raw.len();
        let block = match RawBlock::parse(raw) {
            Ok(block) => block,
            Err(error) => {
                tell_unreadable("block", bytes, of_block(error));
                return Ok(());
            }
        };
        let hash = block.hash();
        tracing::debug!("received block {hash} peer={}", peer.id);
        // A block that is not what its header commits to may change nothing but its sender's state,
        // so this is asked before anything is noted (CVE-2024-52921).
        if self.chain.is_mutated(&block)? {
            tracing::debug!("Received mutated block from peer={}", peer.id);
            self.sync().download.not_found(peer.id, &hash, self.line_time());
            return Err(String::from("mutated block").into());
        }
        self.take_in_block(peer, block, false)
    }

    /// Stores a block, connects it if it is time, and asks for more. What comes of a compact block
    /// may be wrong without its sender's fault.
    pub(super) fn take_in_block(
        &self,
        peer: &Arc<Peer>,
        block: RawBlock,
        via_compact: bool,
    ) -> Result<(), End> {
        let (hash, bytes, now) = (block.hash(), block.bytes().len(), self.clock.now());
        let is_wanted = {
            let mut sync = self.sync();
            // Whoever sends it: one who was asked before, or fast, may be first.
            let came = sync.download.received(peer.id, &hash, bytes, self.line_time());
            let is_wanted = came || via_compact;
            sync.came_from(hash, peer.id, !via_compact);
            if is_wanted {
                sync.arrived.insert(hash);
            }
            is_wanted
        };
        let source = if is_wanted { BlockSource::Requested } else { BlockSource::Unrequested };
        let submitted = self.chain.submit_parsed(block, source);
        let is_stored = |done: &Submitted| matches!(done.accepted, Some(BlockAccepted::Stored(_)));
        {
            let mut sync = self.sync();
            if is_wanted {
                sync.arrived.remove(&hash);
            }
            if submitted.as_ref().is_ok_and(is_stored) {
                sync.download.stored(&hash, bytes, self.line_time());
            }
        }
        match submitted?.accepted {
            Some(BlockAccepted::Stored(_)) => {
                peer.state().last_block = now;
                self.forget_partials(&hash);
            }
            Some(BlockAccepted::Rejected(rejection)) => {
                tracing::debug!("block {hash} of peer={} was refused: {rejection}", peer.id);
                blame(peer, &rejection, via_compact, "invalid block received")?;
            }
            Some(BlockAccepted::Duplicate(_)) | None => {}
        }
        let owed = self.sync().download.owed_by(peer.id).len();
        if owed < ASK_BELOW { Ok(self.ask_blocks(peer)?) } else { Ok(()) }
    }

    /// Notes that a peer announced a block, whether its header is known or not.
    pub(super) fn learn_announced(
        &self,
        peer: &Arc<Peer>,
        hash: Option<BlockHash>,
    ) -> Result<(), Stopped> {
        let Some(hash) = hash else { return Ok(()) };
        match self.chain.query(move |chain| chain.headers().get(&hash))? {
            Some(at) => self.learn_best(peer, at),
            None => {
                peer.link().unknown = Some(hash);
                Ok(())
            }
        }
    }

    /// Notes that a peer has a header, and with it all its ancestors.
    pub(super) fn learn_best(&self, peer: &Arc<Peer>, at: HeaderRef) -> Result<(), Stopped> {
        let peer = Arc::clone(peer);
        self.chain.query(move |chain| learn(chain, &peer, at))
    }

    /// Asks a peer for blocks that it has and we miss, as many as it may owe.
    pub(super) fn ask_blocks(&self, peer: &Arc<Peer>) -> Result<(), Stopped> {
        // What is missing is known when block files are imported (Core's `LoadingBlocks`).
        let supply = self.supply(peer);
        if self.chain.is_loading() || supply == Supply::Never || !may_be_asked(peer) {
            return Ok(());
        }
        let (asked, sync, clock) = (Arc::clone(peer), Arc::clone(&self.sync), self.clock.clone());
        // A hundred of them would each wait for the chain's thread, to be asked for nothing.
        if supply == Supply::IfNeeded && self.sync().spares(clock.now()) {
            return Ok(());
        }
        // The time when it is asked, and not when it began to wait for the thread.
        let order =
            move |chain: &mut Chainstate| order_blocks(chain, &sync, &asked, supply, clock.now());
        let order = self.chain.query(order)?;
        self.send_order(peer, order);
        Ok(())
    }

    /// Returns whether a peer is asked for blocks that it did not just announce.
    pub(super) fn supply(&self, peer: &Peer) -> Supply {
        if !self.chain.view().initial_download {
            return if peer.serves_blocks() { Supply::Always } else { Supply::Never };
        }
        let role = peer.role();
        if !role.serves || peer.is_limited() {
            Supply::Never
        } else if role.preferred {
            Supply::Always
        } else {
            Supply::IfNeeded
        }
    }

    /// Asks a peer for what was decided on.
    pub(super) fn send_order(&self, peer: &Peer, order: Order) {
        if let Some(staller) = order.stall_started {
            tracing::debug!("Stall started peer={staller}");
        }
        if order.blocks.is_empty() {
            return;
        }
        for BlockRef { height, hash } in &order.blocks {
            tracing::debug!("Requesting block {hash} ({height}) peer={}", peer.id);
        }
        let compact = order.compact && self.relays_transactions();
        let kind = if compact { Inventory::CompactBlock } else { Inventory::WitnessBlock };
        let items = order.blocks.into_iter().map(|block| kind(block.hash)).collect();
        peer.send(Message::GetData(items), self.clock.now());
    }

    /// Returns the heights of the blocks that a peer owes, in the order of asking.
    pub(crate) fn in_flight(&self, peer: PeerId) -> Result<Vec<u32>, Stopped> {
        let owed = self.sync().download.owed_by(peer).to_vec();
        if owed.is_empty() {
            return Ok(Vec::new());
        }
        self.chain.query(move |chain| {
            let headers = chain.headers();
            let known = owed.iter().filter_map(|hash| headers.get(hash));
            known.map(|at| headers.entry(at).height).collect()
        })
    }

    /// Looks after what time brings: peers to ask, stallers, blocks to ask for since the tip moved.
    pub(super) fn tick_sync(&self) {
        if self.poll_sync().is_err() {
            return;
        }
        let view = self.chain.view();
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

    /// Does for one peer what time brings, so that all is sent before what is sent next.
    pub(super) fn tick_peer(&self, peer: &Arc<Peer>) -> Result<(), Stopped> {
        self.poll_sync()?;
        self.consider_eviction(peer)?;
        self.ask_blocks(peer)
    }

    fn poll_sync(&self) -> Result<(), Stopped> {
        let (now, line_time) = (self.clock.now(), self.line_time());
        let best = Duration::from_secs(u64::from(self.chain.view().best_header_time));
        let spacing = Duration::from_secs(u64::from(self.chain.params().pow_target_spacing));
        let (turn, stallers, stall_timeout) = {
            let peers = self.peers();
            let heard: Vec<_> = peers.iter().map(|peer| (peer.id, peer.bytes_received())).collect();
            let mut sync = self.sync();
            sync.download.heard(heard, line_time);
            let turn = sync.headers.poll(now, best, spacing);
            let before = sync.download.stall_timeout();
            let stallers = sync.download.poll(line_time, spacing);
            let after = sync.download.stall_timeout();
            (turn, stallers, (after != before).then_some(after))
        };
        if let Some(timeout) = stall_timeout {
            let seconds = timeout.as_secs();
            tracing::debug!("Increased stalling timeout temporarily to {seconds} seconds");
        }
        for drop in turn.dropped.iter().chain(&stallers) {
            if let Some(peer) = self.peer(drop.peer) {
                peer.disconnect(&drop.reason.to_string());
            }
        }
        if let Some(id) = turn.spared {
            let text = "Timeout downloading headers from noban peer, not disconnecting";
            tracing::info!("{text} peer={id}");
        }
        for peer in turn.ask.into_iter().filter_map(|id| self.peer(id)) {
            self.send_first_getheaders(&peer)?;
        }
        Ok(())
    }
}

/// Returns whether a peer can be asked for blocks at all.
fn may_be_asked(peer: &Peer) -> bool {
    peer.serves_witnesses() && !peer.is_closing()
}

/// Decides what to ask a peer for that has just announced a chain up to `last`, on the chain's
/// thread: if new blocks are fetched as they are announced, whether it is asked for others or not.
pub(super) fn order_announced(
    chain: &Chainstate,
    sync: &Mutex<SyncState>,
    peer: &Peer,
    (last, supply): (HeaderRef, Supply),
    now: Duration,
) -> Order {
    let direct = can_direct_fetch(chain, now);
    let work = |at| chain.headers().entry(at).chain_work;
    if direct && may_be_asked(peer) && work(last) >= work(chain.tip_ref()) {
        // What is announced, even if the peer has a chain of more work whose blocks it keeps back
        // (`HeadersDirectFetchBlocks`).
        let order = order_towards(chain, sync, peer, (last, Supply::Always), now);
        if !order.blocks.is_empty() {
            return order;
        }
    }
    let supply = if direct { Supply::Always } else { supply };
    if may_be_asked(peer) && supply != Supply::Never {
        order_blocks(chain, sync, peer, supply, now)
    } else {
        Order::default()
    }
}

/// Decides what to ask a peer for, on the chain's thread: nobody else gets in between what is known
/// of the chain and what is asked of whom.
fn order_blocks(
    chain: &Chainstate,
    sync: &Mutex<SyncState>,
    peer: &Peer,
    supply: Supply,
    now: Duration,
) -> Order {
    learn_unknown(chain, peer);
    let best = peer.state().best_known;
    best.map_or_else(Order::default, |best| order_towards(chain, sync, peer, (best, supply), now))
}

/// Decides what to ask a peer for on the way to a header that it has.
fn order_towards(
    chain: &Chainstate,
    sync: &Mutex<SyncState>,
    peer: &Peer,
    (best, supply): (HeaderRef, Supply),
    now: Duration,
) -> Order {
    let Wanted { mut missing, near, joins_stored } =
        wanted_from(chain, best, peer.is_limited(), now);
    if missing.blocks.is_empty() {
        return Order::default();
    }
    let mut sync = sync.lock().unwrap_or_else(PoisonError::into_inner);
    let first = missing.blocks.first().copied();
    if first.is_some_and(|first| sync.arrived.contains(&first.hash)) {
        // The window is about to move: nobody holds it up.
        missing.blocks.retain(|block| block.height <= missing.window_end);
    }
    missing.blocks.retain(|block| !sync.arrived.contains(&block.hash));
    let request = sync.request(peer, supply, &missing, now);
    let in_flight = sync.download.in_flight();
    drop(sync);
    // A block alone that joins the chain: most of it may be known.
    let compact = near
        && joins_stored
        && request.blocks.len() == 1
        && in_flight == 1
        && peer.state().provides_compact;
    missing.blocks.retain(|block| request.blocks.contains(&block.hash));
    Order { blocks: missing.blocks, stall_started: request.stall_started, compact }
}

/// Notes that a peer has a header, on the chain's thread.
pub(super) fn learn(chain: &Chainstate, peer: &Peer, at: HeaderRef) {
    let mut state = peer.state();
    let (best, common) = better_known(chain, state.best_known, at);
    state.best_known = Some(best);
    state.common_height = Some(common);
}

/// Learns of the block that a peer announced before its header was known, on the chain's thread.
pub(super) fn learn_unknown(chain: &Chainstate, peer: &Peer) {
    let unknown = peer.link().unknown;
    if let Some(at) = unknown.and_then(|hash| chain.headers().get(&hash)) {
        peer.link().unknown = None;
        learn(chain, peer, at);
    }
}

/// Returns the better of two headers that a peer has, and the height of the last block of its chain
/// that is also in ours.
fn better_known(chain: &Chainstate, known: Option<HeaderRef>, at: HeaderRef) -> (HeaderRef, u32) {
    let headers = chain.headers();
    let work = |at| headers.entry(at).chain_work;
    let best = known.filter(|known| work(*known) > work(at)).unwrap_or(at);
    let common = headers.fork_point(best, chain.tip_ref());
    (best, headers.entry(common).height)
}

/// Lists what is missing on the way to a peer's best header. A chain with too little work is not
/// worth a download: it may be made up.
fn wanted_from(chain: &Chainstate, best: HeaderRef, limited: bool, now: Duration) -> Wanted {
    let tree = chain.headers();
    let is_low = tree.entry(best).chain_work < chain.params().minimum_chain_work;
    let missing = if is_low {
        Missing::default()
    } else {
        missing_blocks(tree, chain.tip_ref(), best, limited)
    };
    let first = missing.blocks.first().and_then(|first| tree.get(&first.hash));
    let parent = first.and_then(|first| tree.entry(first).parent);
    let joins_stored = parent.is_some_and(|parent| tree.entry(parent).chain_tx_count > 0);
    Wanted { missing, near: can_direct_fetch(chain, now), joins_stored }
}

/// Returns whether the tip is recent enough for new blocks to be fetched as they are announced.
pub(super) fn can_direct_fetch(chain: &Chainstate, now: Duration) -> bool {
    let tip = chain.headers().entry(chain.tip_ref()).header.time;
    is_recent(tip, chain.params(), now)
}

/// Returns whether a tip of that time is.
pub(super) fn is_recent(time: u32, params: &ChainParams, now: Duration) -> bool {
    let age = DIRECT_FETCH_BLOCKS.saturating_mul(params.pow_target_spacing);
    u64::from(time).saturating_add(u64::from(age)) > now.as_secs()
}

/// Disconnects the sender of something that breaks a rule, unless the fault may be ours, or, of a
/// compact block, another's (`MaybePunishNodeForBlock`).
pub(super) fn blame(
    peer: &Peer,
    rejection: &Rejection,
    via_compact: bool,
    what: &str,
) -> Result<(), End> {
    let is_fault = match rejection.scope {
        RejectionScope::MissingPrev | RejectionScope::InvalidPrev => true,
        RejectionScope::Header | RejectionScope::Bytes => !via_compact,
        // An outbound peer that follows a chain we know as bad is of no use.
        RejectionScope::Cached => !via_compact && !peer.is_inbound(),
        // Clocks differ, and work is counted by each for itself.
        _ => false,
    };
    if is_fault { Err(format!("{what}: {rejection}").into()) } else { Ok(()) }
}

fn announced_block(item: &Inventory) -> Option<BlockHash> {
    match item {
        Inventory::Block(hash) => Some(*hash),
        _ => None,
    }
}

pub(super) fn block_hash(item: &Inventory) -> Option<BlockHash> {
    match item {
        Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => {
            Some(*hash)
        }
        _ => None,
    }
}
