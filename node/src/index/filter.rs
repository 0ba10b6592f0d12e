//! `BlockFilters`: the basic filter of each block (BIP-0158), its hash and header (BIP-0157).
//!
//! ```text
//! key   height u32 BE | block hash 32
//! value filter hash 32 | filter header 32 | filter
//! ```
//!
//! Rows of disconnected blocks stay: a peer may ask for them.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use bitcoin::bip158::{self, BlockFilter, FilterHash, FilterHeader};
use bitcoin::hashes::Hash as _;
use bitcoin::{OutPoint, Script};
use cofferdam_ibd::BlockRef;
use cofferdam_storage::{Batch, Database};

use super::follower::{BlockIndex, IndexedBlock, ROWS};
use crate::chain::describe;

/// The filters that are kept.
pub(crate) struct BlockFilters {
    database: Arc<dyn Database>,
}

/// What is kept of a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FilterRow {
    /// Hash of the filter.
    pub(crate) hash: FilterHash,
    /// Hash of that and the header before.
    pub(crate) header: FilterHeader,
    /// The filter.
    pub(crate) filter: Vec<u8>,
}

impl FilterRow {
    fn encode(&self) -> Vec<u8> {
        let mut row = self.hash.to_byte_array().to_vec();
        row.extend_from_slice(&self.header.to_byte_array());
        row.extend_from_slice(&self.filter);
        row
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (hash, rest) = row.split_first_chunk::<32>()?;
        let (header, filter) = rest.split_first_chunk::<32>()?;
        Some(Self {
            hash: FilterHash::from_byte_array(*hash),
            header: FilterHeader::from_byte_array(*header),
            filter: filter.to_vec(),
        })
    }
}

fn key(at: BlockRef) -> Vec<u8> {
    [at.height.to_be_bytes().as_slice(), at.hash.as_byte_array()].concat()
}

impl BlockFilters {
    pub(super) const fn new(database: Arc<dyn Database>) -> Self {
        Self { database }
    }

    /// Returns what is kept of a block.
    ///
    /// # Errors
    ///
    /// Returns an error if the index cannot be read.
    pub(crate) fn row(&self, at: BlockRef) -> Result<Option<FilterRow>> {
        let row = self.database.get(ROWS, &key(at)).map_err(|error| anyhow!(describe(&error)))?;
        let corrupt = || anyhow!("a row of the filter index that nobody wrote");
        row.map(|row| FilterRow::decode(&row).ok_or_else(corrupt)).transpose()
    }
}

/// Makes the filter of a block.
fn make(block: &IndexedBlock) -> Result<BlockFilter> {
    let payments = block.block.txdata.iter().skip(1).zip(&block.undo.0);
    let spent: HashMap<OutPoint, &Script> = payments
        .flat_map(|(transaction, undo)| {
            let inputs = transaction.input.iter().map(|input| input.previous_output);
            inputs.zip(undo.0.iter().map(|coin| coin.output.script_pubkey.as_script()))
        })
        .collect();
    let script = |outpoint: &OutPoint| {
        spent.get(outpoint).copied().ok_or(bip158::Error::UtxoMissing(*outpoint))
    };
    Ok(BlockFilter::new_script_filter(&block.block, script)?)
}

impl BlockIndex for BlockFilters {
    const NAME: &'static str = "basic block filter index";
    const NEEDS_UNDO: bool = true;

    fn append(&self, block: &IndexedBlock, batch: &mut Batch) -> Result<()> {
        let before = match block.at.height.checked_sub(1) {
            None => FilterHeader::all_zeros(),
            Some(height) => {
                let parent = BlockRef { height, hash: block.block.header.prev_blockhash };
                let row = self.row(parent)?;
                row.ok_or_else(|| anyhow!("there is no filter of block {}", parent.hash))?.header
            }
        };
        let filter = make(block)?;
        let header = filter.filter_header(&before);
        let hash = FilterHash::hash(&filter.content);
        let row = FilterRow { hash, header, filter: filter.content };
        batch.put(ROWS, &key(block.at), &row.encode());
        Ok(())
    }

    fn remove(&self, _: BlockRef, _: Option<&IndexedBlock>, _: &mut Batch) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_genesis_block_s_filter_is_that_of_bip_158() {
        let block = bitcoin::constants::genesis_block(bitcoin::Network::Testnet);
        let at = BlockRef { height: 0, hash: block.block_hash() };
        let raw = bitcoin::consensus::serialize(&block);
        let filter = make(&IndexedBlock { at, raw, block, undo: Default::default() }).unwrap();
        // The first vector of the BIP.
        assert_eq!(filter.content, [0x01, 0x9d, 0xfc, 0xa8]);
        let header = filter.filter_header(&FilterHeader::all_zeros());
        let expected = "21584579b7eb08997773e5aeff3a7f932700042d0ed2a6129012b7d7ae81b750";
        assert_eq!(header.to_string(), expected);
        let hash = FilterHash::hash(&filter.content);
        let row = FilterRow { hash, header, filter: filter.content };
        assert_eq!(FilterRow::decode(&row.encode()), Some(row.clone()));
        assert_eq!(FilterRow::decode(&row.encode()[..63]), None);
    }
}
