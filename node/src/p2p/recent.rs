//! `RecentBlock`: the tip as others ask for it, read and looked through once for all of them.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bitcoin::bip152::{BlockTransactionsRequest, ShortId};
use bitcoin::block::Header;
use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Wtxid};
use cofferdam_ibd::{Chainstate, RawBlock};

use super::manager::{PeerManager, random_nonce};

/// Memory that a block may take to be kept, with the tables of what lies where in it. All valid ones
/// are kept: of four megabytes most are witnesses, and for those there are no tables. The compact form
/// comes on top, six bytes a transaction and the coinbase.
const BYTES_MAX: usize = 8 << 20;

/// A block, and what is asked of it.
#[derive(Debug)]
pub(super) struct RecentBlock {
    block: RawBlock,
    /// The content of its `cmpctblock`, once somebody wanted it.
    compact: OnceLock<Option<Vec<u8>>>,
}

impl RecentBlock {
    /// Looks a block's bytes through.
    pub(super) fn new(raw: Vec<u8>) -> Option<Arc<Self>> {
        let block = RawBlock::parse(raw).ok()?;
        Some(Arc::new(Self { block, compact: OnceLock::new() }))
    }

    /// Returns the header.
    pub(super) const fn header(&self) -> &Header {
        self.block.header()
    }

    /// Returns the whole block, with witnesses.
    pub(super) fn bytes(&self) -> &[u8] {
        self.block.bytes()
    }

    /// Returns the content of a `cmpctblock` that has the coinbase; none for a block of nothing.
    pub(super) fn compact(&self) -> Option<&[u8]> {
        self.compact.get_or_init(|| self.make_compact(random_nonce())).as_deref()
    }

    fn make_compact(&self, nonce: u64) -> Option<Vec<u8>> {
        let (header, txs) = (self.block.header(), self.block.txs());
        let coinbase = txs.first()?;
        let keys = ShortId::calculate_siphash_keys(header, nonce);
        let mut out = serialize(header);
        out.extend(nonce.to_le_bytes());
        out.extend(serialize(&VarInt::from(txs.len() - 1)));
        for tx in txs.iter().skip(1) {
            let wtxid = Wtxid::from_byte_array(tx.wtxid());
            out.extend(serialize(&ShortId::with_siphash_keys(&wtxid, keys)));
        }
        // One transaction comes with it, the first.
        out.extend([1, 0]);
        out.extend(coinbase.bytes());
        Some(out)
    }

    /// Returns the content of the `blocktxn` that answers a request; none if that names what is not
    /// there.
    pub(super) fn transactions(&self, request: &BlockTransactionsRequest) -> Option<Vec<u8>> {
        let txs = self.block.txs();
        let mut out = serialize(&request.block_hash);
        out.extend(serialize(&VarInt::from(request.indexes.len())));
        for index in &request.indexes {
            out.extend(txs.get(usize::try_from(*index).ok()?)?.bytes());
        }
        Some(out)
    }
}

/// The last block that was asked for or announced as a compact one while it was the tip; one alone.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Option<Arc<RecentBlock>>>);

impl Recent {
    /// Returns a block if it is the one that is kept.
    fn get(&self, hash: &BlockHash) -> Option<Arc<RecentBlock>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept.filter(|block| block.block.hash() == *hash)
    }

    /// Keeps a block in place of the one before, unless it takes too much memory.
    pub(super) fn keep(&self, block: &Arc<RecentBlock>) {
        if block.block.txs().memory_bytes() <= BYTES_MAX {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(block));
        }
    }
}

impl PeerManager {
    /// Returns a block if it is kept and still the tip: all may know of it, and the chain's thread has
    /// nothing to say to it.
    pub(super) fn recent_tip(&self, hash: &BlockHash) -> Option<Arc<RecentBlock>> {
        if self.chain.view().tip.hash == *hash { self.recent.get(hash) } else { None }
    }

    /// Returns the tip, on the chain's thread, and keeps it.
    pub(super) fn read_tip(&self, chain: &Chainstate) -> Option<Arc<RecentBlock>> {
        let hash = chain.tip().hash;
        let kept = self.recent.get(&hash);
        kept.or_else(|| {
            let block = RecentBlock::new(chain.read_block(&hash).ok()??)?;
            self.recent.keep(&block);
            Some(block)
        })
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::bip152::{BlockTransactions, HeaderAndShortIds};
    use bitcoin::{Block, Network, absolute};

    use super::*;

    fn block(transactions: u32) -> Block {
        let mut block = bitcoin::constants::genesis_block(Network::Regtest);
        for number in 1..transactions {
            let mut tx = block.txdata[0].clone();
            tx.lock_time = absolute::LockTime::from_consensus(number);
            tx.input[0].witness = bitcoin::Witness::from_slice(&[[7_u8; 32]]);
            block.txdata.push(tx);
        }
        block
    }

    fn recent(block: &Block) -> Arc<RecentBlock> {
        RecentBlock::new(serialize(block)).unwrap()
    }

    #[test]
    fn its_messages_are_those_that_the_library_makes_of_the_block() {
        for count in [1, 2, 300] {
            let block = block(count);
            let recent = recent(&block);
            let compact = HeaderAndShortIds::from_block(&block, 5, 2, &[]).unwrap();
            assert_eq!(recent.make_compact(5), Some(serialize(&compact)));
            assert_eq!(recent.compact(), recent.compact(), "it has one nonce");
            let last = u64::from(count) - 1;
            for indexes in [vec![], vec![last], (0..=last).collect()] {
                let request = BlockTransactionsRequest { block_hash: block.block_hash(), indexes };
                let answer = BlockTransactions::from_request(&request, &block).unwrap();
                assert_eq!(recent.transactions(&request), Some(serialize(&answer)));
            }
            let beyond = vec![0, last + 1];
            let request =
                BlockTransactionsRequest { block_hash: block.block_hash(), indexes: beyond };
            assert_eq!(recent.transactions(&request), None);
            assert_eq!(recent.bytes(), serialize(&block));
        }
    }

    #[test]
    fn one_block_is_kept() {
        let (first, mut second) = (block(2), block(2));
        second.header.nonce += 1;
        let kept = Recent::default();
        for block in [&first, &second] {
            assert!(kept.get(&block.block_hash()).is_none());
            kept.keep(&recent(block));
            assert!(kept.get(&block.block_hash()).is_some());
        }
        assert!(kept.get(&first.block_hash()).is_none());
    }

    #[test]
    fn a_block_of_nothing_has_no_compact_form() {
        let mut block = block(1);
        block.txdata.clear();
        assert_eq!(recent(&block).compact(), None);
        assert!(RecentBlock::new(serialize(&block)[..80].to_vec()).is_none());
    }
}
