//! What others are told unasked: new blocks, and who sent a block that breaks a rule.

use bitcoin::p2p::message_blockdata::Inventory;
use cofferdam_ibd::{Chainstate, HeaderRef, HeaderTree};

use super::manager::PeerManager;
use super::message::Message;
use super::sync::learn_unknown;
use crate::chain::ChainEvent;

/// Most blocks announced by headers; of more only the last is named (Bitcoin Core's
/// `MAX_BLOCKS_TO_ANNOUNCE`).
const ANNOUNCED_HEADERS_MAX: u32 = 8;

impl PeerManager {
    /// Hears of a change of the chain, on the chain's thread.
    pub(super) fn chain_event(&self, event: &ChainEvent<'_>) {
        match event {
            ChainEvent::Tip { chainstate, from, initial_download } => {
                self.count_connected(chainstate, *from);
                if !*initial_download {
                    self.announce(chainstate, *from);
                    self.choose_announcer(chainstate);
                }
            }
            ChainEvent::Invalid { hash, rejection, .. } => {
                let source = self.sync().sources.get(hash).copied();
                let source = source.filter(|source| source.is_to_blame);
                if let Some(peer) = source.and_then(|source| self.peer(source.peer)) {
                    self.misbehaved(&peer, &format!("invalid block received: {rejection}"));
                }
            }
            ChainEvent::Invalidated { .. } => {}
        }
    }

    /// Gives stallers less time again, since blocks come.
    fn count_connected(&self, chain: &Chainstate, from: HeaderRef) {
        let headers = chain.headers();
        let fork = headers.entry(headers.fork_point(from, chain.tip_ref())).height;
        let blocks = chain.tip().height.saturating_sub(fork);
        let timeout = self.sync().download.connected(blocks);
        if let Some(timeout) = timeout {
            tracing::debug!("Decreased stalling timeout to {} seconds", timeout.as_secs());
        }
    }

    /// Has the sender of the new tip announce the next ones by compact blocks, if no other block
    /// is waited for.
    fn choose_announcer(&self, chain: &Chainstate) {
        let source = {
            let (sync, tip) = (self.sync(), chain.tip().hash);
            // One who was asked for it may owe it until it is known to be stored.
            let owed = usize::from(sync.download.asked_of(&tip).is_some());
            let source = sync.sources.get(&tip).copied();
            source.filter(|_| sync.download.in_flight() == owed)
        };
        if let Some(source) = source {
            self.prefer_announcer(source.peer);
        }
    }

    fn announce(&self, chain: &Chainstate, from: HeaderRef) {
        let headers = chain.headers();
        let tip = chain.tip_ref();
        let new = new_blocks(headers, from, tip);
        // Made once, for whoever wants it first.
        let mut compact = None;
        for peer in self.peers() {
            learn_unknown(chain, &peer);
            let (prefers_headers, best_known, best_sent) = {
                let state = peer.state();
                if !state.ready {
                    continue;
                }
                (state.prefers_headers, state.best_known, state.best_sent)
            };
            let has = |at: HeaderRef| {
                let known = best_known.into_iter().chain(best_sent);
                known.into_iter().any(|known| headers.is_ancestor(at, known))
            };
            if has(tip) {
                continue;
            }
            let missing: Vec<HeaderRef> = new.iter().copied().skip_while(|at| has(*at)).collect();
            let parent = missing.first().and_then(|first| headers.entry(*first).parent);
            let joins = parent.is_some_and(has);
            let wants_compact = joins && missing.len() == 1 && peer.state().wants_compact_unasked;
            let hash = headers.entry(tip).hash;
            if wants_compact
                && let Some(block) = compact.get_or_insert_with(|| self.read_tip(chain))
                && let Some(content) = block.compact()
            {
                tracing::debug!("sending header-and-ids {hash} to peer={}", peer.id);
                peer.state().best_sent = Some(tip);
                peer.send_bytes("cmpctblock".into(), content.to_vec());
                continue;
            }
            let message = if joins && prefers_headers {
                Message::Headers(missing.iter().map(|at| headers.entry(*at).header).collect())
            } else {
                Message::Inv(vec![Inventory::Block(hash)])
            };
            if !matches!(message, Message::Inv(_)) {
                peer.state().best_sent = Some(tip);
            }
            peer.send(message, self.clock.now());
        }
    }
}

/// Lists the blocks of the chain that ends in `tip` and not of the one that ends in `from`; none
/// if there are too many to announce one by one.
fn new_blocks(headers: &HeaderTree, from: HeaderRef, tip: HeaderRef) -> Vec<HeaderRef> {
    let fork = headers.entry(headers.fork_point(from, tip)).height;
    let height = headers.entry(tip).height;
    if height - fork > ANNOUNCED_HEADERS_MAX {
        return Vec::new();
    }
    (fork + 1..=height).filter_map(|height| headers.ancestor(tip, height)).collect()
}
