//! Compact blocks (BIP-0152): made, put together again, and who announces new blocks by them.
//!
//! A compact block names transactions by short hashes that collide easily: whatever is put
//! together is checked as any other block is, and a failure to do so is nobody's fault.

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds, ShortId};
use bitcoin::block::Header;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, BlockHash, Transaction};
use cofferdam_ibd::pow::{block_work, check_proof_of_work};
use cofferdam_ibd::sync::{BLOCKS_IN_FLIGHT_MAX, PeerId, work_threshold};
use cofferdam_ibd::{BlockRef, Chainstate, HeaderRef, Rejection, RejectionScope};

use super::dispatch::End;
use super::manager::{PeerManager, random_nonce};
use super::message::Message;
use super::peer::Peer;
use super::relay_message::RelayMessage;
use super::sync::{blame, can_direct_fetch};

/// The only version spoken: with witnesses (Bitcoin Core's `CMPCTBLOCKS_VERSION`).
pub(super) const COMPACT_VERSION: u64 = 2;

/// Peers that are asked to announce by compact blocks (BIP-0152).
const ANNOUNCERS_MAX: usize = 3;

/// Most transactions of a block: 4,000,000 weight units of 40 each, the smallest there can be.
const TRANSACTIONS_MAX: usize = 100_000;

/// How far above the tip a block may be that is put together.
const AHEAD_MAX: u32 = 2;

/// A block whose transactions are not all known.
#[derive(Debug)]
pub(super) struct PartialBlock {
    hash: BlockHash,
    header: Header,
    transactions: Vec<Option<Transaction>>,
}

/// Why a compact block cannot be put together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PartialError {
    /// It makes no sense: its sender broke a rule.
    Invalid,
    /// Short hashes collide: the whole block has to be fetched.
    Collision,
}

impl PartialBlock {
    /// Puts together what is known: what came with the block, and what of `pool` it names.
    pub(super) fn new(
        compact: HeaderAndShortIds,
        pool: impl IntoIterator<Item = Transaction>,
    ) -> Result<Self, PartialError> {
        let count = compact.short_ids.len() + compact.prefilled_txs.len();
        if count == 0 || count > TRANSACTIONS_MAX {
            return Err(PartialError::Invalid);
        }
        let mut transactions: Vec<Option<Transaction>> = vec![None; count];
        let mut next = 0_usize;
        for prefilled in compact.prefilled_txs {
            // Each index counts from behind the last one.
            let index = next + usize::from(prefilled.idx);
            next = index + 1;
            *transactions.get_mut(index).ok_or(PartialError::Invalid)? = Some(prefilled.tx);
        }
        let free = transactions.iter().enumerate().filter(|(_, at)| at.is_none());
        let free: Vec<usize> = free.map(|(index, _)| index).collect();
        let mut places = HashMap::with_capacity(free.len());
        for (short, index) in compact.short_ids.iter().zip(free) {
            if places.insert(*short, index).is_some() {
                return Err(PartialError::Collision);
            }
        }
        let keys = ShortId::calculate_siphash_keys(&compact.header, compact.nonce);
        for transaction in pool {
            let short = ShortId::with_siphash_keys(&transaction.compute_wtxid(), keys);
            let place = places.get(&short).and_then(|index| transactions.get_mut(*index));
            match place {
                // Two of the pool have the same short hash: which one is meant cannot be known.
                Some(place @ Some(_)) => *place = None,
                Some(place) => *place = Some(transaction),
                None => {}
            }
        }
        let header = compact.header;
        Ok(Self { hash: header.block_hash(), header, transactions })
    }

    /// Lists the places of the transactions that are not known.
    pub(super) fn missing(&self) -> Vec<u64> {
        let missing = self.transactions.iter().zip(0_u64..).filter(|(at, _)| at.is_none());
        missing.map(|(_, index)| index).collect()
    }

    /// Returns the block's bytes, given the transactions that were missing.
    pub(super) fn fill(self, missing: Vec<Transaction>) -> Result<Vec<u8>, PartialError> {
        let mut missing = missing.into_iter();
        let mut txdata = Vec::with_capacity(self.transactions.len());
        for transaction in self.transactions {
            txdata.push(transaction.or_else(|| missing.next()).ok_or(PartialError::Invalid)?);
        }
        if missing.next().is_some() {
            return Err(PartialError::Invalid);
        }
        let block = Block { header: self.header, txdata };
        Ok(bitcoin::consensus::serialize(&block))
    }
}

/// What a compact block is to the chain.
enum Announced {
    /// Its parent is not known.
    Unconnected { initial_download: bool },
    /// Its chain is not worth storing.
    LowWork,
    /// Its header breaks a rule.
    Rejected(Rejection),
    /// It is stored already.
    Stored(HeaderRef),
    /// It is missing.
    Missing(Place),
}

/// Where a missing block belongs.
struct Place {
    at: HeaderRef,
    block: BlockRef,
    is_new: bool,
    initial_download: bool,
    /// Whether it has more work than the tip.
    is_better: bool,
    /// Whether new blocks are fetched as they are announced.
    near: bool,
    /// Whether it is so near to the tip that what is known of transactions may help.
    next: bool,
}

impl PeerManager {
    pub(super) fn on_compact_block(
        &self,
        peer: &Arc<Peer>,
        compact: HeaderAndShortIds,
    ) -> Result<(), End> {
        if !peer.state().provides_compact {
            let text = "sent us a compact block despite never having sent us a SENDCMPCT!";
            tracing::debug!("peer={} {text}", peer.id);
            return Ok(());
        }
        let header = compact.header;
        let announced = self.chain.change(move |worker| {
            let now = worker.clock.now();
            take_header(&mut worker.chainstate, header, now)
        })?;
        match announced {
            Announced::Unconnected { initial_download } => {
                if !initial_download && self.sync().headers.ask(peer.id, self.clock.now()) {
                    self.send_getheaders(peer, None)?;
                }
                Ok(())
            }
            Announced::LowWork => {
                tracing::debug!("Ignoring low-work compact block from peer {}", peer.id);
                Ok(())
            }
            Announced::Rejected(rejection) => {
                let scope = rejection.scope;
                // A header is checked by whoever relays it, what is found of its block later is not.
                let via_compact = scope != RejectionScope::Header;
                blame(peer, &rejection, via_compact, "invalid header via cmpctblock")
            }
            Announced::Stored(at) => Ok(self.learn_best(peer, at)?),
            Announced::Missing(place) => {
                self.learn_best(peer, place.at)?;
                if place.is_new {
                    let BlockRef { height, hash } = place.block;
                    let line = format!("Saw new cmpctblock header hash={hash} height={height}");
                    if place.initial_download {
                        tracing::debug!("{line} peer={}", peer.id);
                    } else {
                        tracing::info!("{line} peer={}", peer.id);
                    }
                }
                self.on_missing_compact(peer, compact, &place)
            }
        }
    }

    fn on_missing_compact(
        &self,
        peer: &Arc<Peer>,
        compact: HeaderAndShortIds,
        place: &Place,
    ) -> Result<(), End> {
        let hash = place.block.hash;
        let (asked_of, owed) = {
            let sync = self.sync();
            (sync.download.asked_of(&hash), sync.download.owed_by(peer.id).len())
        };
        let is_owed = asked_of == Some(peer.id);
        if !is_owed && !peer.link().announces_compact {
            let text = "not marked as high-bandwidth, sent us an unsolicited compact block!";
            tracing::debug!("peer={}, {text}", peer.id);
            return Ok(());
        }
        if !place.is_better || !place.next {
            if is_owed {
                // What is known of transactions is of no use so far away.
                self.send_getdata(peer, hash);
                return Ok(());
            }
            return if place.is_better { Ok(self.ask_blocks(peer)?) } else { Ok(()) };
        }
        if asked_of.is_none() && !place.near {
            return Ok(());
        }
        if peer.link().partial.as_ref().is_some_and(|partial| partial.hash == hash) {
            tracing::debug!("Peer sent us compact block we were already syncing!");
            return Ok(());
        }
        let may_wait = is_owed || (asked_of.is_none() && owed < BLOCKS_IN_FLIGHT_MAX);
        let partial = match PartialBlock::new(compact, self.known_transactions()) {
            Ok(partial) => partial,
            Err(PartialError::Invalid) => {
                self.sync().download.not_found(peer.id, &hash, self.clock.now());
                return Err(String::from("invalid compact block").into());
            }
            Err(PartialError::Collision) => {
                if may_wait {
                    self.sync().download.request_from(peer.id, hash, self.clock.now());
                    self.send_getdata(peer, hash);
                }
                return Ok(());
            }
        };
        let missing = partial.missing();
        if missing.is_empty() {
            return self.finish(peer, partial, Vec::new(), may_wait);
        }
        if may_wait {
            self.sync().download.request_from(peer.id, hash, self.clock.now());
            peer.link().partial = Some(partial);
            let request = BlockTransactionsRequest { block_hash: hash, indexes: missing };
            peer.send(Message::Relay(RelayMessage::GetBlockTxn(request)), self.clock.now());
        }
        Ok(())
    }

    pub(super) fn on_block_txn(
        &self,
        peer: &Arc<Peer>,
        answer: BlockTransactions,
    ) -> Result<(), End> {
        let waiting = peer.link().partial.take();
        match waiting {
            Some(partial) if partial.hash == answer.block_hash => {
                self.finish(peer, partial, answer.transactions, true)
            }
            other => {
                peer.link().partial = other;
                let id = peer.id;
                tracing::debug!(
                    "Peer {id} sent us block transactions for block we weren't expecting"
                );
                Ok(())
            }
        }
    }

    /// Takes a block in whose transactions are all there; if it turns out to be another one, the
    /// whole block is asked for.
    fn finish(
        &self,
        peer: &Arc<Peer>,
        partial: PartialBlock,
        missing: Vec<Transaction>,
        may_wait: bool,
    ) -> Result<(), End> {
        let (hash, header) = (partial.hash, partial.header);
        let Ok(raw) = partial.fill(missing) else {
            self.sync().download.not_found(peer.id, &hash, self.clock.now());
            let text = "invalid compact block/non-matching block transactions";
            return Err(String::from(text).into());
        };
        if self.chain.is_mutated(&raw, &header)? {
            // A short hash meant another transaction.
            if may_wait {
                self.sync().download.request_from(peer.id, hash, self.clock.now());
                self.send_getdata(peer, hash);
            }
            return Ok(());
        }
        self.take_in_block(peer, hash, raw, true)
    }

    fn send_getdata(&self, peer: &Peer, hash: BlockHash) {
        peer.send(Message::GetData(vec![Inventory::WitnessBlock(hash)]), self.clock.now());
    }

    /// The transactions that may be part of the next block.
    fn known_transactions(&self) -> Vec<Transaction> {
        Vec::new()
    }

    /// Asks the peer that sent a block first to announce the next ones by compact blocks, and no
    /// longer the one that did so least lately; one that we chose stays (`MaybeSetPeerAsAnnouncingHeaderAndIDs`).
    pub(super) fn prefer_announcer(&self, id: PeerId) {
        let Some(peer) = self.peer(id).filter(|peer| peer.state().provides_compact) else {
            return;
        };
        let dismissed = {
            let inbound = |id: PeerId| self.peer(id).is_none_or(|peer| peer.is_inbound());
            let announcers = self.sync().announcers.clone();
            let (announcers, dismissed) = next_announcers(announcers, id, inbound);
            self.sync().announcers = announcers;
            dismissed
        };
        let say = |peer: &Peer, announce: bool| {
            let is_news =
                std::mem::replace(&mut peer.link().announces_compact, announce) != announce;
            if is_news {
                let message = Message::SendCmpct(u8::from(announce), COMPACT_VERSION);
                peer.send(message, self.clock.now());
            }
        };
        say(&peer, true);
        if let Some(peer) = dismissed.and_then(|id| self.peer(id)) {
            say(&peer, false);
        }
    }
}

/// Puts `id` last among those that announce; returns them, and who does no longer.
fn next_announcers(
    mut announcers: Vec<PeerId>,
    id: PeerId,
    inbound: impl Fn(PeerId) -> bool,
) -> (Vec<PeerId>, Option<PeerId>) {
    if let Some(at) = announcers.iter().position(|known| *known == id) {
        announcers.remove(at);
        announcers.push(id);
        return (announcers, None);
    }
    let outbound = announcers.iter().filter(|known| !inbound(**known)).count();
    if announcers.len() >= ANNOUNCERS_MAX
        && inbound(id)
        && outbound == 1
        && announcers.first().is_some_and(|first| !inbound(*first))
    {
        // The only one that we chose stays: those who come may all be the same.
        announcers.swap(0, 1);
    }
    announcers.push(id);
    let dismissed = (announcers.len() > ANNOUNCERS_MAX).then(|| announcers.remove(0));
    (announcers, dismissed)
}

/// Takes the header of a compact block in.
fn take_header(
    chain: &mut Chainstate,
    header: Header,
    now: std::time::Duration,
) -> cofferdam_ibd::Result<Announced> {
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let initial_download = chain.is_initial_block_download(seconds);
    let params = Arc::clone(chain.params());
    let tree = chain.headers();
    let Some(parent) = tree.get(&header.prev_blockhash) else {
        return Ok(Announced::Unconnected { initial_download });
    };
    // The work that a header claims counts only once it is done.
    let is_worked = check_proof_of_work(&header, &params).is_ok();
    let work = tree.entry(parent).chain_work;
    if is_worked && work + block_work(header.bits) < work_threshold(tree, chain.tip_ref(), &params)
    {
        return Ok(Announced::LowWork);
    }
    let is_new = tree.get(&header.block_hash()).is_none();
    let accepted = match chain.accept_headers(&[header], seconds)? {
        Ok(accepted) => accepted,
        Err(rejection) => return Ok(Announced::Rejected(rejection)),
    };
    let tree = chain.headers();
    let at = tree.get(&accepted.last.hash).unwrap_or_else(|| tree.genesis());
    let (entry, tip) = (tree.entry(at), tree.entry(chain.tip_ref()));
    if entry.block.is_some() {
        return Ok(Announced::Stored(at));
    }
    Ok(Announced::Missing(Place {
        at,
        block: accepted.last,
        is_new,
        initial_download,
        is_better: entry.chain_work > tip.chain_work && entry.tx_count == 0,
        near: can_direct_fetch(chain, now),
        next: entry.height <= tip.height.saturating_add(AHEAD_MAX),
    }))
}

/// Makes the compact block of a block's bytes, with its coinbase.
pub(super) fn make_compact(raw: &[u8]) -> Option<HeaderAndShortIds> {
    let block: Block = bitcoin::consensus::deserialize(raw).ok()?;
    HeaderAndShortIds::from_block(&block, random_nonce(), 2, &[]).ok()
}

#[cfg(test)]
mod tests {
    use bitcoin::bip152::PrefilledTransaction;
    use bitcoin::{Network, absolute, transaction};

    use super::*;

    fn block(transactions: u32) -> Block {
        let mut block = bitcoin::constants::genesis_block(Network::Regtest);
        for number in 1..transactions {
            block.txdata.push(Transaction {
                version: transaction::Version::TWO,
                lock_time: absolute::LockTime::from_consensus(number),
                input: block.txdata[0].input.clone(),
                output: Vec::new(),
            });
        }
        block
    }

    fn compact(block: &Block) -> HeaderAndShortIds {
        make_compact(&bitcoin::consensus::serialize(block)).expect("a block")
    }

    #[test]
    fn a_block_is_put_together_from_what_is_known_and_what_is_asked_for() {
        let block = block(5);
        let known = [block.txdata[3].clone(), block.txdata[1].clone()];
        let partial = PartialBlock::new(compact(&block), known).expect("sound");
        assert_eq!(partial.missing(), [2, 4]);
        let missing = vec![block.txdata[2].clone(), block.txdata[4].clone()];
        assert_eq!(partial.fill(missing), Ok(bitcoin::consensus::serialize(&block)));
    }

    #[test]
    fn an_empty_block_needs_nothing_but_its_coinbase() {
        let block = block(1);
        let partial = PartialBlock::new(compact(&block), []).expect("sound");
        assert!(partial.missing().is_empty());
        assert_eq!(partial.fill(Vec::new()), Ok(bitcoin::consensus::serialize(&block)));
    }

    #[test]
    fn too_few_and_too_many_transactions_are_the_senders_fault() {
        let block = block(3);
        let partial = || PartialBlock::new(compact(&block), []).expect("sound");
        let one = block.txdata[1].clone();
        assert_eq!(partial().fill(vec![one.clone()]), Err(PartialError::Invalid));
        assert_eq!(partial().fill(vec![one; 3]), Err(PartialError::Invalid));
    }

    #[test]
    fn a_place_beyond_the_block_and_a_block_of_nothing_are_refused() {
        let mut beyond = compact(&block(3));
        beyond.prefilled_txs[0].idx = 3;
        assert_eq!(PartialBlock::new(beyond, []).err(), Some(PartialError::Invalid));
        let mut last = compact(&block(3));
        let tx = last.prefilled_txs[0].tx.clone();
        last.prefilled_txs.push(PrefilledTransaction { idx: u16::MAX, tx });
        assert_eq!(PartialBlock::new(last, []).err(), Some(PartialError::Invalid));
        let mut nothing = compact(&block(1));
        nothing.prefilled_txs.clear();
        assert_eq!(PartialBlock::new(nothing, []).err(), Some(PartialError::Invalid));
    }

    #[test]
    fn equal_short_hashes_leave_the_whole_block_to_be_fetched() {
        let mut twice = compact(&block(3));
        twice.short_ids[1] = twice.short_ids[0];
        assert_eq!(PartialBlock::new(twice, []).err(), Some(PartialError::Collision));
        // Two of the pool that look the same are both left out.
        let block = block(2);
        let pool = [block.txdata[1].clone(), block.txdata[1].clone()];
        assert_eq!(PartialBlock::new(compact(&block), pool).expect("sound").missing(), [1]);
    }

    #[test]
    fn three_announce_the_last_to_send_a_block_and_one_that_we_chose() {
        let inbound = |id: PeerId| id >= 10;
        let (list, gone) = next_announcers(vec![1, 2, 3], 2, inbound);
        assert_eq!((list, gone), (vec![1, 3, 2], None));
        let (list, gone) = next_announcers(vec![1, 2, 3], 11, inbound);
        assert_eq!((list, gone), (vec![2, 3, 11], Some(1)));
        let (list, gone) = next_announcers(vec![1, 11, 12], 13, inbound);
        assert_eq!((list, gone), (vec![1, 12, 13], Some(11)));
        let (list, gone) = next_announcers(vec![1, 11, 12], 2, inbound);
        assert_eq!((list, gone), (vec![11, 12, 2], Some(1)));
    }
}
