//! What others ask of us: headers, blocks, lists of blocks, transactions of a compact block.

use std::sync::Arc;

use bitcoin::bip152::BlockTransactionsRequest;
use bitcoin::block::Header;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, BlockHash, Work};
use cofferdam_ibd::headers::HeaderStatus;
use cofferdam_ibd::pow::block_work;
use cofferdam_ibd::sync::HEADERS_MAX;
use cofferdam_ibd::{Chainstate, HeaderRef};

use super::dispatch::End;
use super::handshake::NETWORK;
use super::manager::PeerManager;
use super::message::{Message, no_stop};
use super::peer::Peer;
use super::permissions::Permissions;
use super::recent::RecentBlock;
use super::sync::{can_direct_fetch, is_recent};
use super::upload::HISTORICAL_AGE_SECONDS;
use crate::chain::{Stopped, describe};
use crate::config::PruneMode;
use crate::prune::BLOCKS_KEPT;

/// Blocks off the connected chain are served while they are younger (Bitcoin Core's
/// `STALE_RELAY_AGE_LIMIT`): an older one would tell which node this is.
const STALE_AGE_SECONDS: u64 = 30 * 24 * 60 * 60;

/// How deep a block may be to be sent as a compact block, and its transactions one by one (Core's
/// `MAX_CMPCTBLOCK_DEPTH` and `MAX_BLOCKTXN_DEPTH`).
const COMPACT_DEPTH: u32 = 5;
const TRANSACTIONS_DEPTH: u32 = 10;

/// How deep a block may be that is sent by a node which prunes: the last two days (BIP-0159, Core's
/// `NODE_NETWORK_LIMITED_MIN_BLOCKS`), and two more for races. Deeper ones would tell what is pruned.
const LIMITED_DEPTH: u32 = 288 + 2;

/// Blocks named in an answer to `getblocks`.
const NAMED_BLOCKS_MAX: u32 = 500;

/// How long a node that prunes should still have the blocks that it names.
const NAMED_FOR_SECONDS: u32 = 60 * 60;

/// What a block is to be sent as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    WithoutWitness,
    WithWitness,
    Compact,
}

/// A block that was asked for.
enum Found {
    Nothing,
    TooOld,
    BelowLimit,
    Unreadable,
    Bytes { raw: Vec<u8>, compact: bool, tip: BlockHash },
}

impl PeerManager {
    /// Answers `getheaders`.
    pub(super) fn serve_headers(
        &self,
        peer: &Arc<Peer>,
        locator: Vec<BlockHash>,
        stop: BlockHash,
    ) -> Result<(), Stopped> {
        let trusted = peer.may(Permissions::DOWNLOAD);
        let answer = self.chain.query(move |chain| {
            let tip = chain.headers().entry(chain.tip_ref());
            if tip.chain_work < chain.params().minimum_chain_work && !trusted {
                return None;
            }
            Some(headers_after(chain, &locator, stop))
        })?;
        let headers = match answer {
            // Too little to be of use to anyone; silence would look like a fault.
            None => {
                let text = "because active chain has too little work; sending empty response";
                tracing::debug!("Ignoring getheaders from peer={} {text}", peer.id);
                Vec::new()
            }
            Some(None) => return Ok(()),
            Some(Some((headers, last))) => {
                peer.state().best_sent = Some(last);
                headers
            }
        };
        peer.send(Message::Headers(headers), self.clock.now());
        Ok(())
    }

    /// Answers `getblocks`.
    pub(super) fn serve_block_list(
        &self,
        peer: &Arc<Peer>,
        locator: Vec<BlockHash>,
        stop: BlockHash,
    ) -> Result<(), Stopped> {
        let prunes = self.chain.prune_mode() != PruneMode::Off;
        let hashes = self.chain.query(move |chain| blocks_after(chain, &locator, stop, prunes))?;
        let is_full = hashes.len() == usize::try_from(NAMED_BLOCKS_MAX).unwrap_or(usize::MAX);
        peer.link().continuation = hashes.last().copied().filter(|_| is_full);
        if !hashes.is_empty() {
            let items = hashes.into_iter().map(Inventory::Block).collect();
            peer.send(Message::Inv(items), self.clock.now());
        }
        Ok(())
    }

    /// Answers `getdata`, one block at a time, as fast as the peer reads.
    pub(super) fn serve_data(
        &self,
        peer: &Arc<Peer>,
        items: Vec<Inventory>,
    ) -> Result<(), Stopped> {
        tracing::debug!("received getdata ({} invsz) peer={}", items.len(), peer.id);
        let mut missing = Vec::new();
        for item in items {
            let (hash, form) = match item {
                Inventory::Block(hash) => (hash, Form::WithoutWitness),
                Inventory::WitnessBlock(hash) => (hash, Form::WithWitness),
                Inventory::CompactBlock(hash) => (hash, Form::Compact),
                Inventory::Transaction(_)
                | Inventory::WTx(_)
                | Inventory::WitnessTransaction(_) => {
                    missing.push(item);
                    continue;
                }
                _ => continue,
            };
            if !peer.wait_for_room() {
                return Ok(());
            }
            self.serve_block(peer, hash, form)?;
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

    fn serve_block(&self, peer: &Arc<Peer>, hash: BlockHash, form: Form) -> Result<(), Stopped> {
        if self.is_beyond_target(peer, hash)? {
            peer.disconnect("historical block serving limit reached");
            return Ok(());
        }
        if let Some(block) = self.recent_tip(&hash) {
            self.send_recent(peer, &block, form);
            self.go_on(peer, hash, hash);
            return Ok(());
        }
        let now = self.clock.now();
        let is_limited = !peer.may(Permissions::NO_BAN) && self.services() & NETWORK == 0;
        let found = self.chain.query(move |chain| {
            let near = can_direct_fetch(chain, now);
            find_block(chain, hash, near, is_limited)
        })?;
        let (raw, compact, tip) = match found {
            Found::Nothing => return Ok(()),
            Found::TooOld => {
                let text = "ignoring request from peer";
                let why = "for old block that isn't in the main chain";
                tracing::debug!("ProcessGetBlockData: {text}={} {why}", peer.id);
                return Ok(());
            }
            Found::BelowLimit => {
                // It would wait for the block, and be no further.
                peer.disconnect("Ignore block request below NODE_NETWORK_LIMITED threshold");
                return Ok(());
            }
            Found::Unreadable => {
                peer.disconnect("Cannot load block from disk");
                return Ok(());
            }
            Found::Bytes { raw, compact, tip } => (raw, compact, tip),
        };
        match form {
            Form::Compact if compact => {
                if let Some(block) = self.look_through(raw, tip == hash) {
                    send_compact(peer, &block);
                }
            }
            Form::WithoutWitness | Form::WithWitness | Form::Compact => {
                self.send_block(peer, raw, form);
            }
        }
        self.go_on(peer, hash, tip);
        Ok(())
    }

    /// Sends the tip as it is kept.
    fn send_recent(&self, peer: &Peer, block: &RecentBlock, form: Form) {
        let is_near = is_recent(block.header().time, self.chain.params(), self.clock.now());
        if form == Form::Compact && is_near {
            send_compact(peer, block);
        } else {
            self.send_block(peer, block.bytes().to_vec(), form);
        }
    }

    fn send_block(&self, peer: &Peer, raw: Vec<u8>, form: Form) {
        let raw = if form == Form::WithoutWitness { without_witness(&raw) } else { Some(raw) };
        if let Some(raw) = raw {
            peer.send(Message::Block(raw), self.clock.now());
        }
    }

    /// Tells who has fetched the last block of a list of our tip: it asks for the next blocks when it
    /// hears of one that it does not have.
    fn go_on(&self, peer: &Peer, hash: BlockHash, tip: BlockHash) {
        let goes_on = peer.link().continuation.take_if(|last| *last == hash).is_some();
        if goes_on {
            peer.send(Message::Inv(vec![Inventory::Block(tip)]), self.clock.now());
        }
    }

    /// Looks a block through that was read, and keeps it if it is the tip.
    fn look_through(&self, raw: Vec<u8>, is_tip: bool) -> Option<Arc<RecentBlock>> {
        let block = RecentBlock::new(raw)?;
        if is_tip {
            self.recent.keep(&block);
        }
        Some(block)
    }

    /// Answers `getblocktxn`.
    pub(super) fn serve_transactions(
        &self,
        peer: &Arc<Peer>,
        request: &BlockTransactionsRequest,
    ) -> Result<(), End> {
        let block = match self.recent_tip(&request.block_hash) {
            Some(block) => Some(block),
            None => self.read_for_transactions(peer, request.block_hash)?,
        };
        let Some(block) = block else { return Ok(()) };
        let answer = block
            .transactions(request)
            .ok_or_else(|| String::from("getblocktxn with out-of-bounds tx indices"))?;
        peer.send_bytes("blocktxn".into(), answer);
        Ok(())
    }

    /// Reads a block whose transactions are asked for one by one; of one that is too deep all is sent.
    fn read_for_transactions(
        &self,
        peer: &Arc<Peer>,
        hash: BlockHash,
    ) -> Result<Option<Arc<RecentBlock>>, Stopped> {
        let found = self.chain.query(move |chain| {
            let headers = chain.headers();
            let entry = headers.get(&hash).map(|at| headers.entry(at));
            let entry = entry.filter(|entry| entry.block.is_some())?;
            let near = entry.height >= chain.tip().height.saturating_sub(TRANSACTIONS_DEPTH);
            let raw = if near { chain.read_block(&hash).ok().flatten() } else { None };
            Some(raw.map(|raw| (raw, chain.tip().hash == hash)))
        })?;
        match found {
            None => {
                let text = "sent us a getblocktxn for a block we don't have";
                tracing::debug!("Peer {} {text}", peer.id);
                Ok(None)
            }
            Some(None) => {
                // Reading costs us more than asking costs the peer, unless it gets all of it.
                let text = "sent us a getblocktxn for a block";
                tracing::debug!("Peer {} {text} > {TRANSACTIONS_DEPTH} deep", peer.id);
                self.serve_block(peer, hash, Form::WithWitness)?;
                Ok(None)
            }
            Some(Some((raw, is_tip))) => Ok(self.look_through(raw, is_tip)),
        }
    }
}

/// Lists the headers of the connected chain behind the first hash of the locator that is part of
/// it, and returns the last header that the peer then has. An empty locator asks for the chain from
/// `stop` on; nothing is returned if that is not to be told.
fn headers_after(
    chain: &Chainstate,
    locator: &[BlockHash],
    stop: BlockHash,
) -> Option<(Vec<Header>, HeaderRef)> {
    let headers = chain.headers();
    let tip = chain.tip_ref();
    if locator.is_empty() {
        let at = headers.get(&stop).filter(|at| may_be_told(chain, *at))?;
        return Some((vec![headers.entry(at).header], at));
    }
    let first = headers.entry(fork_of(chain, locator)).height + 1;
    let last = headers.entry(tip).height;
    let mut found = Vec::new();
    for at in (first..=last).take(HEADERS_MAX).filter_map(|height| headers.ancestor(tip, height)) {
        found.push(at);
        if stop != no_stop() && headers.entry(at).hash == stop {
            break;
        }
    }
    // With nothing new the peer has our tip.
    let best_sent = found.last().copied().unwrap_or(tip);
    Some((found.into_iter().map(|at| headers.entry(at).header).collect(), best_sent))
}

/// Lists the blocks of the connected chain behind the first hash of the locator that is part of it.
/// If it is pruned, the list ends at the first one that is gone or may soon be: whoever asked for
/// that would be hung up on.
fn blocks_after(
    chain: &Chainstate,
    locator: &[BlockHash],
    stop: BlockHash,
    prunes: bool,
) -> Vec<BlockHash> {
    let headers = chain.headers();
    let tip = chain.tip();
    let first = headers.entry(fork_of(chain, locator)).height + 1;
    let last = tip.height.min(first.saturating_add(NAMED_BLOCKS_MAX - 1));
    let spacing = chain.params().pow_target_spacing.max(1);
    let likely_kept = BLOCKS_KEPT.saturating_sub(NAMED_FOR_SECONDS / spacing);
    let too_old = tip.height.saturating_sub(likely_kept);
    let blocks = (first..=last).filter_map(|height| headers.ancestor(chain.tip_ref(), height));
    let mut named = Vec::new();
    for entry in blocks.map(|at| headers.entry(at)) {
        let (height, hash) = (entry.height, entry.hash);
        if hash == stop {
            break;
        }
        if prunes && (entry.block.is_none() || height <= too_old) {
            tracing::debug!(" getblocks stopping, pruned or too old block at {height} {hash}");
            break;
        }
        named.push(hash);
    }
    named
}

/// Returns the last block of the connected chain that a locator names.
fn fork_of(chain: &Chainstate, locator: &[BlockHash]) -> HeaderRef {
    let headers = chain.headers();
    let mut known = locator.iter().filter_map(|hash| headers.get(hash));
    let fork =
        known.find(|at| chain.is_connected(*at) || headers.is_ancestor(chain.tip_ref(), *at));
    match fork {
        // Who is ahead of us on our chain has all of it.
        Some(at) if !chain.is_connected(at) => chain.tip_ref(),
        Some(at) => at,
        None => headers.genesis(),
    }
}

fn find_block(chain: &Chainstate, hash: BlockHash, near: bool, is_limited: bool) -> Found {
    let headers = chain.headers();
    let Some(at) = headers.get(&hash) else { return Found::Nothing };
    if !may_be_told(chain, at) {
        return Found::TooOld;
    }
    let tip = chain.tip();
    let height = headers.entry(at).height;
    if is_limited && tip.height.saturating_sub(height) > LIMITED_DEPTH {
        return Found::BelowLimit;
    }
    let compact = near && height >= tip.height.saturating_sub(COMPACT_DEPTH);
    match chain.read_block(&hash) {
        Ok(Some(raw)) => Found::Bytes { raw, compact, tip: tip.hash },
        Ok(None) => Found::Nothing,
        Err(error) => {
            tracing::error!("reading block {hash} for a peer failed: {}", describe(&error));
            Found::Unreadable
        }
    }
}

/// Returns whether others may know that we have a block: it is part of the connected chain, or was
/// and is young (`BlockRequestAllowed`).
pub(super) fn may_be_told(chain: &Chainstate, at: HeaderRef) -> bool {
    if chain.is_connected(at) {
        return true;
    }
    let headers = chain.headers();
    let (entry, best) = (headers.entry(at), headers.entry(headers.best()));
    let age = u64::from(best.header.time.saturating_sub(entry.header.time));
    let ahead = low_bits(best.chain_work).saturating_sub(low_bits(entry.chain_work));
    let blocks = ahead / low_bits(block_work(best.header.bits)).max(1);
    let age_by_work = blocks.saturating_mul(u128::from(chain.params().pow_target_spacing));
    entry.status.has(HeaderStatus::VALID)
        && age < STALE_AGE_SECONDS
        && age_by_work < u128::from(STALE_AGE_SECONDS)
}

/// Returns work as a number; 2^128 hashes are out of reach.
fn low_bits(work: Work) -> u128 {
    let [.., a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = work.to_be_bytes();
    u128::from_be_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
}

/// Sends a compact block.
fn send_compact(peer: &Peer, block: &RecentBlock) {
    if let Some(content) = block.compact() {
        peer.send_bytes("cmpctblock".into(), content.to_vec());
    }
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
