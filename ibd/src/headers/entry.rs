//! One header in memory: as callers see it, and packed as the tree keeps it.

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode, Work};

use super::row::{Extent, HeaderRow, HeaderStatus};

/// Index of an entry of a [`HeaderTree`](super::HeaderTree); never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HeaderRef(pub(super) u32);

/// One header and what is known of its block; a copy of what the tree keeps.
#[derive(Clone, Debug)]
pub struct HeaderEntry {
    /// The header.
    pub header: Header,
    /// Its hash.
    pub hash: BlockHash,
    /// Number of ancestors.
    pub height: u32,
    /// The parent; `None` for the genesis block.
    pub parent: Option<HeaderRef>,
    /// Work of this header and all its ancestors.
    pub chain_work: Work,
    /// What is known of the block.
    pub status: HeaderStatus,
    /// Number of transactions; 0 while the block is not stored.
    pub tx_count: u32,
    /// Number of transactions of this block and all its ancestors; 0 while one is not stored.
    pub chain_tx_count: u64,
    /// Place among candidates of equal work: the smallest goes first (Bitcoin Core's
    /// `nSequenceId`). Means nothing while `chain_tx_count` is 0.
    pub(crate) sequence: i32,
    /// The block's bytes.
    pub block: Option<Extent>,
    /// The block's undo bytes.
    pub undo: Option<Extent>,
}

impl HeaderEntry {
    /// Returns the row of the `headers` table.
    #[must_use]
    pub fn row(&self) -> HeaderRow {
        HeaderRow {
            height: self.height,
            header: self.header,
            status: self.status,
            tx_count: self.tx_count,
            block: self.block,
            undo: self.undo,
        }
    }
}

/// What changes after a header was inserted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockState {
    pub(crate) status: HeaderStatus,
    pub(crate) tx_count: u32,
    pub(crate) sequence: i32,
    pub(crate) block: Option<Extent>,
    pub(crate) undo: Option<Extent>,
}

/// A header as the tree keeps it: the parent's hash is the parent's to give.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) hash: BlockHash,
    merkle_root: TxMerkleNode,
    version: i32,
    pub(super) time: u32,
    bits: u32,
    nonce: u32,
    pub(super) height: u32,
    /// The genesis block is its own parent.
    pub(super) parent: HeaderRef,
    /// An ancestor further back, so that looking up an ancestor takes O(log n) steps.
    pub(super) skip: HeaderRef,
    /// 2^128 hashes are out of reach: at the rate of 2026 they take ten thousand years.
    pub(super) chain_work: u128,
    pub(super) chain_tx_count: u64,
    pub(super) state: BlockState,
}

const _: () = assert!(size_of::<Record>() == 160, "the tree's size is documented");

/// Where a new record is in the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) height: u32,
    pub(super) parent: HeaderRef,
    pub(super) skip: HeaderRef,
    pub(super) chain_work: u128,
    pub(super) status: HeaderStatus,
}

impl Record {
    pub(super) fn new(header: &Header, hash: BlockHash, place: Place) -> Self {
        Self {
            hash,
            merkle_root: header.merkle_root,
            version: header.version.to_consensus(),
            time: header.time,
            bits: header.bits.to_consensus(),
            nonce: header.nonce,
            height: place.height,
            parent: place.parent,
            skip: place.skip,
            chain_work: place.chain_work,
            chain_tx_count: 0,
            state: BlockState {
                status: place.status,
                tx_count: 0,
                sequence: 0,
                block: None,
                undo: None,
            },
        }
    }

    /// Returns the parent; `None` for the genesis block.
    pub(super) fn parent(&self) -> Option<HeaderRef> {
        (self.height > 0).then_some(self.parent)
    }

    /// Returns the header, given the record of its parent.
    pub(super) fn header(&self, parent: &Self) -> Header {
        let genesis = self.height == 0;
        Header {
            version: Version::from_consensus(self.version),
            prev_blockhash: if genesis { BlockHash::all_zeros() } else { parent.hash },
            merkle_root: self.merkle_root,
            time: self.time,
            bits: CompactTarget::from_consensus(self.bits),
            nonce: self.nonce,
        }
    }

    /// Returns what callers see, given the record of its parent.
    #[inline]
    pub(super) fn entry(&self, parent: &Self) -> HeaderEntry {
        HeaderEntry {
            header: self.header(parent),
            hash: self.hash,
            height: self.height,
            parent: self.parent(),
            chain_work: wide(self.chain_work),
            status: self.state.status,
            tx_count: self.state.tx_count,
            chain_tx_count: self.chain_tx_count,
            sequence: self.state.sequence,
            block: self.state.block,
            undo: self.state.undo,
        }
    }
}

/// Returns a number as work.
pub(super) fn wide(work: u128) -> Work {
    let mut bytes = [0; 32];
    let (_, low) = bytes.split_at_mut(16);
    low.copy_from_slice(&work.to_be_bytes());
    Work::from_be_bytes(bytes)
}

/// Returns work as a number; the largest one for what no miner can do.
pub(super) fn narrow(work: Work) -> u128 {
    let bytes = work.to_be_bytes();
    let (high, low) = bytes.split_first_chunk::<16>().unwrap_or((&[0xff; 16], &[]));
    match low.try_into() {
        Ok(low) if *high == [0; 16] => u128::from_be_bytes(low),
        _ => u128::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{ChainParams, Network};

    #[test]
    fn a_packed_header_is_the_same_header() {
        let genesis = ChainParams::new(Network::Mainnet).genesis.header;
        let place = Place {
            height: 0,
            parent: HeaderRef(0),
            skip: HeaderRef(0),
            chain_work: 1,
            status: HeaderStatus::NONE,
        };
        let first = Record::new(&genesis, genesis.block_hash(), place);
        assert_eq!(first.entry(&first).header, genesis);
        assert_eq!(first.entry(&first).parent, None);
        let child = Header {
            prev_blockhash: genesis.block_hash(),
            version: Version::from_consensus(-2),
            nonce: 7,
            ..genesis
        };
        let place = Place { height: 1, chain_work: u128::MAX - 1, ..place };
        let second = Record::new(&child, child.block_hash(), place).entry(&first);
        assert_eq!((second.header, second.parent), (child, Some(HeaderRef(0))));
        assert_eq!(narrow(second.chain_work), u128::MAX - 1);
    }

    #[test]
    fn work_out_of_reach_is_the_most_there_is() {
        let mut bytes = [0; 32];
        bytes[15] = 1;
        assert_eq!(narrow(Work::from_be_bytes(bytes)), u128::MAX);
        bytes[15] = 0;
        bytes[16] = 0x80;
        assert_eq!(narrow(Work::from_be_bytes(bytes)), 1 << 127);
        assert_eq!(wide(1 << 127), Work::from_be_bytes(bytes));
    }
}
