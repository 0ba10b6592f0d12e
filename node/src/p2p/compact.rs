//! Compact blocks (BIP-0152): put together again, and who announces new blocks by them.
//!
//! A compact block names transactions by short hashes that collide easily: whatever is put
//! together is checked as any other block is, and a failure to do so is nobody's fault.

use std::sync::Arc;

use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds};
use bitcoin::block::Header;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Transaction};
use cofferdam_ibd::pow::{block_work, check_proof_of_work};
use cofferdam_ibd::sync::{BLOCKS_IN_FLIGHT_MAX, PeerId, work_threshold};
use cofferdam_ibd::{BlockRef, Chainstate, HeaderRef, RawBlock, Rejection, RejectionScope};

use super::dispatch::End;
use super::manager::PeerManager;
use super::message::Message;
use super::partial_block::{PartialBlock, PartialError};
use super::peer::Peer;
use super::relay_message::RelayMessage;
use super::sync::{blame, can_direct_fetch};

/// The only version spoken: with witnesses (Bitcoin Core's `CMPCTBLOCKS_VERSION`).
pub(super) const COMPACT_VERSION: u64 = 2;

/// Peers that are asked to announce by compact blocks (BIP-0152).
const ANNOUNCERS_MAX: usize = 3;

/// Peers that are asked for the transactions of one block at a time (Core's
/// `MAX_CMPCTBLOCKS_INFLIGHT_PER_BLOCK`): one that says nothing does not hold the block up.
const SOURCES_MAX: usize = 3;

/// How far above the tip a block may be that is put together.
const AHEAD_MAX: u32 = 2;

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

/// Which of those that a block is asked of a peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// The one to ask for the whole block if need be.
    First,
    /// One more, for the transactions alone.
    Further,
    /// One too many: the block is put together from what is known, or not at all.
    Never,
}

/// Who is asked for a block.
#[derive(Clone, Copy, Debug, Default)]
struct Sources {
    /// How many, the peer in question left out.
    others: usize,
    /// Whether we chose one of them.
    has_outbound: bool,
    /// Whether the whole block is another's to send.
    is_taken: bool,
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
        if !self.relays_transactions() {
            // There are no transactions here to put it together from.
            tracing::debug!(
                "peer={} sent us a compact block even though we are blocksonly!",
                peer.id
            );
            return Ok(());
        }
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
                if place.is_new && place.is_better {
                    peer.link().chain_sync.last_announcement = self.clock.now();
                }
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
        if peer.link().partials.contains(&hash) {
            tracing::debug!("Peer sent us compact block we were already syncing!");
            return Ok(());
        }
        let sources = self.sources(hash, asked_of, peer.id);
        let has_room = is_owed || owed < BLOCKS_IN_FLIGHT_MAX;
        let turn = turn(sources, peer.is_inbound(), has_room);
        self.put_together(peer, compact, turn)
    }

    /// Puts a block together as far as the transactions that wait here allow, and asks for the rest
    /// if it is the peer's turn.
    fn put_together(
        &self,
        peer: &Arc<Peer>,
        compact: HeaderAndShortIds,
        turn: Turn,
    ) -> Result<(), End> {
        let (hash, now) = (compact.header.block_hash(), self.clock.now());
        let partial = {
            let queue = self.chain.queue().read();
            PartialBlock::new(compact, queue.iter().map(|waiting| (waiting.wtxid, &waiting.tx)))
        };
        let partial = match partial {
            Ok(partial) => partial,
            Err(PartialError::Invalid) => {
                self.sync().download.not_found(peer.id, &hash, self.line_time());
                return Err(String::from("invalid compact block").into());
            }
            Err(PartialError::Collision) => {
                self.ask_for_all(peer, hash, turn);
                return Ok(());
            }
        };
        let missing = partial.missing();
        if missing.is_empty() {
            return self.finish(peer, partial, Vec::new(), turn);
        }
        if turn == Turn::Never {
            return Ok(());
        }
        if !peer.link().partials.has_room() {
            self.ask_for_all(peer, hash, turn);
            return Ok(());
        }
        if turn == Turn::First {
            self.sync().download.request_from(peer.id, hash, self.line_time());
        }
        peer.link().partials.push(partial);
        let request = BlockTransactionsRequest { block_hash: hash, indexes: missing };
        peer.send(Message::Relay(RelayMessage::GetBlockTxn(request)), now);
        Ok(())
    }

    /// Returns who but `peer` is asked for a block, all of it or its transactions.
    fn sources(&self, hash: BlockHash, asked_of: Option<PeerId>, peer: PeerId) -> Sources {
        let mut sources =
            Sources { is_taken: asked_of.is_some_and(|id| id != peer), ..Sources::default() };
        for other in self.peers().iter().filter(|other| other.id != peer) {
            if asked_of == Some(other.id) || other.link().partials.contains(&hash) {
                sources.others += 1;
                sources.has_outbound |= !other.is_inbound();
            }
        }
        sources
    }

    /// Lets go of what was put together of a block that has come.
    pub(super) fn forget_partials(&self, hash: &BlockHash) {
        for peer in self.peers() {
            peer.link().partials.take(hash);
        }
    }

    pub(super) fn on_block_txn(
        &self,
        peer: &Arc<Peer>,
        answer: BlockTransactions,
    ) -> Result<(), End> {
        let hash = answer.block_hash;
        let waiting = peer.link().partials.take(&hash);
        match waiting {
            Some(partial) => {
                let asked_of = self.sync().download.asked_of(&hash);
                let is_first = asked_of.is_none_or(|id| id == peer.id);
                let turn = if is_first { Turn::First } else { Turn::Further };
                self.finish(peer, partial, answer.transactions, turn)
            }
            None if peer.link().partials.is_spoiled(&hash) => {
                Err(String::from("previous compact block reconstruction attempt failed").into())
            }
            None => {
                let id = peer.id;
                tracing::debug!(
                    "Peer {id} sent us block transactions for block we weren't expecting"
                );
                Ok(())
            }
        }
    }

    /// Takes a block in whose transactions are all there; if it turns out to be another one, the
    /// whole block is asked for, once.
    fn finish(
        &self,
        peer: &Arc<Peer>,
        partial: PartialBlock,
        missing: Vec<Transaction>,
        turn: Turn,
    ) -> Result<(), End> {
        let hash = partial.hash;
        let Ok(raw) = partial.fill(missing) else {
            self.sync().download.not_found(peer.id, &hash, self.line_time());
            let text = "invalid compact block/non-matching block transactions";
            return Err(String::from(text).into());
        };
        match RawBlock::parse(raw) {
            Ok(block) if !self.chain.is_mutated(&block)? => self.take_in_block(peer, block, true),
            _ => {
                // A short hash meant another transaction.
                if turn == Turn::First {
                    peer.link().partials.spoil(hash);
                }
                self.ask_for_all(peer, hash, turn);
                Ok(())
            }
        }
    }

    /// Asks for a whole block that cannot be put together, if it is the peer's to send.
    fn ask_for_all(&self, peer: &Peer, hash: BlockHash, turn: Turn) {
        if turn == Turn::First {
            self.sync().download.request_from(peer.id, hash, self.line_time());
            self.send_getdata(peer, hash);
        }
    }

    fn send_getdata(&self, peer: &Peer, hash: BlockHash) {
        peer.send(Message::GetData(vec![Inventory::WitnessBlock(hash)]), self.clock.now());
    }

    /// Asks the peer that sent a block first to announce the next ones by compact blocks, and no
    /// longer the one that did so least lately; one that we chose stays (`MaybeSetPeerAsAnnouncingHeaderAndIDs`).
    pub(super) fn prefer_announcer(&self, id: PeerId) {
        if !self.relays_transactions() {
            // Who has no transactions to put a block together from gains nothing, and would fetch
            // all of it from each of several peers.
            return;
        }
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

/// Returns whether a peer is asked for the transactions of a block. The last place is for a peer that
/// we chose, if none of the others is: who comes may all be the same.
const fn turn(sources: Sources, inbound: bool, has_room: bool) -> Turn {
    let Sources { others, has_outbound, is_taken } = sources;
    if !has_room || others >= SOURCES_MAX {
        Turn::Never
    } else if !is_taken {
        Turn::First
    } else if !inbound || has_outbound || others < SOURCES_MAX - 1 {
        Turn::Further
    } else {
        Turn::Never
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_does_not_hold_a_block_up_and_the_last_place_is_for_one_that_we_chose() {
        let sources = |others, has_outbound| Sources { others, has_outbound, is_taken: others > 0 };
        assert_eq!(turn(sources(0, false), true, true), Turn::First);
        assert_eq!(turn(sources(1, false), true, true), Turn::Further);
        assert_eq!(turn(sources(2, false), true, true), Turn::Never);
        assert_eq!(turn(sources(2, false), false, true), Turn::Further);
        assert_eq!(turn(sources(2, true), true, true), Turn::Further);
        assert_eq!(turn(sources(3, true), false, true), Turn::Never);
        assert_eq!(turn(sources(0, false), false, false), Turn::Never);
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
