//! What others ask of us, and what we tell them unasked: headers, blocks, announcements.

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, BlockHash};
use cofferdam_ibd::sync::HEADERS_MAX;
use cofferdam_ibd::{Chainstate, HeaderRef, HeaderTree};

use super::manager::PeerManager;
use super::message::{Message, no_stop};
use super::peer::Peer;
use super::permissions::Permissions;
use super::upload::HISTORICAL_AGE_SECONDS;
use crate::chain::{ChainEvent, Stopped};

/// Most blocks announced by headers; of more only the last is named (Bitcoin Core's
/// `MAX_BLOCKS_TO_ANNOUNCE`).
const ANNOUNCED_HEADERS_MAX: u32 = 8;

impl PeerManager {
    /// Answers `getheaders`.
    pub(super) fn serve_headers(
        &self,
        peer: &Arc<Peer>,
        locator: Vec<BlockHash>,
        stop: BlockHash,
    ) -> Result<(), Stopped> {
        let (headers, last) =
            self.chain.query(move |chain| headers_after(chain, &locator, stop))?;
        if last.is_some() {
            peer.state().best_sent = last;
        }
        peer.send(Message::Headers(headers), self.clock.now());
        Ok(())
    }

    /// Answers `getdata`, one block at a time, as fast as the peer reads.
    pub(super) fn serve_data(
        &self,
        peer: &Arc<Peer>,
        items: Vec<Inventory>,
    ) -> Result<(), Stopped> {
        let mut missing = Vec::new();
        for item in items {
            let (hash, with_witness) = match item {
                Inventory::Block(hash) => (hash, false),
                Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => (hash, true),
                _ => {
                    missing.push(item);
                    continue;
                }
            };
            if !peer.wait_for_room() {
                return Ok(());
            }
            if self.is_beyond_target(peer, hash)? {
                peer.disconnect("historical block serving limit reached");
                return Ok(());
            }
            let read = self.chain.query(move |chain| chain.read_block(&hash))?;
            let raw = read.unwrap_or_else(|error| {
                tracing::error!(
                    "reading block {hash} for a peer failed: {}",
                    crate::chain::describe(&error)
                );
                None
            });
            let raw = if with_witness { raw } else { raw.and_then(|raw| without_witness(&raw)) };
            match raw {
                Some(raw) => peer.send(Message::Block(raw), self.clock.now()),
                None => missing.push(item),
            }
        }
        if !missing.is_empty() {
            peer.send(Message::NotFound(missing), self.clock.now());
        }
        Ok(())
    }

    /// Returns whether a block is an old one and too much was sent today.
    fn is_beyond_target(&self, peer: &Peer, hash: BlockHash) -> Result<bool, Stopped> {
        let upload = &self.totals.upload;
        if !upload.is_reached_for_history(self.clock.now()) || peer.may(Permissions::DOWNLOAD) {
            return Ok(false);
        }
        self.chain.query(move |chain| {
            let headers = chain.headers();
            let time = |at| headers.entry(at).header.time;
            let age = |at| time(headers.best()).saturating_sub(time(at));
            headers.get(&hash).is_some_and(|at| age(at) > HISTORICAL_AGE_SECONDS)
        })
    }

    /// Hears of a change of the chain, on the chain's thread.
    pub(super) fn chain_event(&self, event: &ChainEvent<'_>) {
        match event {
            ChainEvent::Tip { chainstate, from, initial_download: false } => {
                self.announce(chainstate, *from);
            }
            ChainEvent::Tip { .. } => {}
            ChainEvent::Invalid { hash, rejection, .. } => {
                let source = self.sync().sources.get(hash).copied();
                if let Some(peer) = source.and_then(|id| self.peer(id)) {
                    self.misbehaved(&peer, &format!("invalid block received: {rejection}"));
                }
            }
        }
    }

    fn announce(&self, chain: &Chainstate, from: HeaderRef) {
        let headers = chain.headers();
        let tip = chain.tip_ref();
        let new = new_blocks(headers, from, tip);
        for peer in self.peers() {
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
            let by_headers = prefers_headers && parent.is_some_and(has);
            let message = if by_headers {
                Message::Headers(missing.iter().map(|at| headers.entry(*at).header).collect())
            } else {
                Message::Inv(vec![Inventory::Block(headers.entry(tip).hash)])
            };
            if by_headers {
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

/// Lists the headers of the connected chain behind the first hash of the locator that is part of
/// it. An empty locator asks for the one header `stop`.
fn headers_after(
    chain: &Chainstate,
    locator: &[BlockHash],
    stop: BlockHash,
) -> (Vec<Header>, Option<HeaderRef>) {
    let headers = chain.headers();
    let tip = chain.tip_ref();
    if headers.entry(tip).chain_work < chain.params().minimum_chain_work {
        // Too little to be of use to anyone; Bitcoin Core answers so as well.
        return (Vec::new(), None);
    }
    if locator.is_empty() {
        let at = headers.get(&stop).filter(|at| chain.is_connected(*at));
        return (at.map(|at| headers.entry(at).header).into_iter().collect(), at);
    }
    let known = locator.iter().filter_map(|hash| headers.get(hash));
    let fork =
        known.into_iter().find(|at| chain.is_connected(*at)).unwrap_or_else(|| headers.genesis());
    let first = headers.entry(fork).height + 1;
    let last = headers.entry(tip).height;
    let mut found = Vec::new();
    for at in (first..=last).take(HEADERS_MAX).filter_map(|height| headers.ancestor(tip, height)) {
        found.push(at);
        if stop != no_stop() && headers.entry(at).hash == stop {
            break;
        }
    }
    // With nothing new the peer has our tip.
    let best_sent = found.last().copied().or(Some(fork));
    (found.into_iter().map(|at| headers.entry(at).header).collect(), best_sent)
}

/// Returns a block as nodes from before witnesses know it.
fn without_witness(raw: &[u8]) -> Option<Vec<u8>> {
    let mut block: Block = bitcoin::consensus::deserialize(raw).ok()?;
    for transaction in &mut block.txdata {
        for input in &mut transaction.input {
            input.witness.clear();
        }
    }
    Some(bitcoin::consensus::serialize(&block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stripped_block_has_the_same_transactions_and_no_witness() {
        let mut block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let plain = bitcoin::consensus::serialize(&block);
        assert_eq!(without_witness(&plain), Some(plain.clone()));
        block.txdata[0].input[0].witness = bitcoin::Witness::from_slice(&[[0_u8; 32]]);
        let full = bitcoin::consensus::serialize(&block);
        assert!(full.len() > plain.len());
        assert_eq!(without_witness(&full), Some(plain));
        assert_eq!(without_witness(&full[1..]), None);
    }
}
