//! `TxIndex`: where each transaction is.
//!
//! ```text
//! key   txid 32
//! value height u32 BE | offset in the block u32 BE | length u32 BE
//!       | block hash 32, if the block was disconnected since
//! ```

use std::sync::Arc;

use anyhow::{Result, anyhow};
use bitcoin::consensus::{Encodable as _, deserialize};
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Transaction, Txid, VarInt};
use cofferdam_ibd::BlockRef;
use cofferdam_storage::{Batch, Database};

use super::follower::{BlockIndex, IndexedBlock, ROWS, hash_at};
use crate::chain::{ChainHandle, describe};

/// Bytes of a header, which begins a block.
const HEADER_LEN: usize = 80;

/// The index of transactions.
pub(crate) struct TxIndex {
    database: Arc<dyn Database>,
    chain: ChainHandle,
}

impl TxIndex {
    pub(super) const fn new(database: Arc<dyn Database>, chain: ChainHandle) -> Self {
        Self { database, chain }
    }

    /// Finds a transaction, with the block that it is or was in.
    ///
    /// # Errors
    ///
    /// Returns an error if the index or the block cannot be read.
    pub(crate) fn find(&self, txid: &Txid) -> Result<Option<(BlockHash, Transaction)>> {
        let row = self.database.get(ROWS, txid.as_byte_array());
        let Some(row) = row.map_err(|error| anyhow!(describe(&error)))? else {
            return Ok(None);
        };
        let corrupt = || anyhow!("a row of the transaction index that nobody wrote");
        let (numbers, stale) = row.split_first_chunk::<12>().ok_or_else(corrupt)?;
        let mut numbers = numbers.as_chunks::<4>().0.iter().map(|bytes| u32::from_be_bytes(*bytes));
        let mut next = || numbers.next().ok_or_else(corrupt);
        let (height, offset, length) = (next()?, next()?, next()?);
        let hash = if stale.is_empty() {
            hash_at(&*self.database, height)?
        } else {
            Some(BlockHash::from_slice(stale)?)
        };
        let Some(hash) = hash else { return Ok(None) };
        let raw = self.chain.query(move |chain| chain.read_block(&hash))?;
        let Some(raw) = raw.map_err(|error| anyhow!(describe(&error)))? else {
            return Ok(None);
        };
        let begin = usize::try_from(offset)?;
        let bytes = raw.get(begin..begin.saturating_add(usize::try_from(length)?));
        let transaction = bytes.and_then(|bytes| deserialize::<Transaction>(bytes).ok());
        // A block that is not the one of the row any more has another transaction there.
        let transaction = transaction.filter(|found| found.compute_txid() == *txid);
        Ok(transaction.map(|transaction| (hash, transaction)))
    }

    fn write(block: &IndexedBlock, stale: bool, batch: &mut Batch) -> Result<()> {
        let count = block.block.txdata.len() as u64;
        let mut offset = HEADER_LEN + VarInt(count).size();
        for transaction in &block.block.txdata {
            let length = transaction.consensus_encode(&mut bitcoin::io::sink())?;
            let mut row = Vec::with_capacity(44);
            for number in [block.at.height, u32::try_from(offset)?, u32::try_from(length)?] {
                row.extend_from_slice(&number.to_be_bytes());
            }
            if stale {
                row.extend_from_slice(block.at.hash.as_byte_array());
            }
            batch.put(ROWS, transaction.compute_txid().as_byte_array(), &row);
            offset += length;
        }
        anyhow::ensure!(offset == block.raw.len(), "block {} has another length", block.at.hash);
        Ok(())
    }
}

impl BlockIndex for TxIndex {
    const NAME: &'static str = "txindex";
    const NEEDS_UNDO: bool = false;

    fn append(&self, block: &IndexedBlock, batch: &mut Batch) -> Result<()> {
        if block.at.height == 0 {
            // Nobody can spend the genesis block's: Core leaves it out.
            return Ok(());
        }
        Self::write(block, false, batch)
    }

    /// The transactions are still found, in a block that says itself which one it is.
    fn remove(&self, _: BlockRef, block: Option<&IndexedBlock>, batch: &mut Batch) -> Result<()> {
        block.map_or(Ok(()), |block| Self::write(block, true, batch))
    }
}
