//! Stage: the coins a block spends that are older than it, read in one probe of the store.
//!
//! They are read ahead on the pool while blocks before are connected, as far as they are not in
//! memory, and gathered right before the block is connected, on the thread that stages blocks. What
//! has changed in between is the store's care ([`ReadAhead`]): no stale value is ever used.

use bitcoin::{OutPoint, Txid};
use cofferdam_storage::{Database, ReadAhead, ReadHandle};

use super::READ_AHEAD_BYTES_MAX;
use crate::Store;
use crate::block::CheckedBlock;
use crate::coin::{OUTPOINT_KEY_LEN, is_unspendable, outpoint_key, write_coin};
use crate::error::Result;
use crate::tables::COINS;

/// Reads ahead for the chain's store.
pub(crate) type CoinReader = ReadHandle<Box<dyn Database>>;

/// Coins as bytes, side by side; an empty one is not there.
#[derive(Debug, Default)]
pub(crate) struct CoinArena {
    bytes: Vec<u8>,
    spans: Vec<[u32; 2]>,
}

/// Bytes of a usual coin, for a first guess.
const COIN_LEN: usize = 32;

impl CoinArena {
    /// Forgets the coins, and makes room for so many.
    fn begin(&mut self, coins: usize) {
        self.bytes.clear();
        self.spans.clear();
        self.bytes.reserve(coins * COIN_LEN);
        self.spans.reserve(coins);
    }

    /// Gives memory back if there is more than `bytes_max` of it.
    pub(crate) fn shrink(&mut self, bytes_max: usize) {
        self.bytes.shrink_to(bytes_max);
    }

    /// Where the next coin begins. A block's coins have a few times its own bytes: scripts of
    /// 10,000 bytes that spend as many in 41 bytes each make 1 GB of it at most.
    fn end(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// Returns the number of bytes of all coins.
    pub(crate) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the bytes of a coin; `None` if it is not there.
    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        let &[start, end] = self.spans.get(index)?;
        self.bytes.get(start as usize..end as usize).filter(|coin| !coin.is_empty())
    }
}

/// Reads ahead the coins that `block` spends and does not create, as far as
/// [`READ_AHEAD_BYTES_MAX`] goes.
pub(crate) fn read_ahead(reader: &CoinReader, block: &CheckedBlock) -> Result<ReadAhead> {
    Ok(reader.read_ahead(COINS, block.spends.external_keys(), READ_AHEAD_BYTES_MAX)?)
}

/// Reads the coins that `block` spends and does not create, in the order of the inputs.
pub(crate) fn read_external_coins(
    store: &Store,
    block: &CheckedBlock,
    ahead: &ReadAhead,
    coins: &mut CoinArena,
) -> Result<()> {
    let keys = block.spends.external_keys();
    coins.begin(keys.len());
    coins.spans.resize(keys.len(), [0, 0]);
    store.read_many(COINS, keys, ahead, |index, value| {
        let start = coins.end();
        coins.bytes.extend_from_slice(value.unwrap_or_default());
        let end = coins.end();
        if let Some(span) = coins.spans.get_mut(index) {
            *span = [start, end];
        }
    })?;
    Ok(())
}

/// Makes the coins of the block's outputs, in their order; one that can never be spent is empty.
pub(crate) fn make_created_coins(block: &CheckedBlock, height: u32, coins: &mut CoinArena) {
    let txs = block.txs();
    coins.begin(txs.output_count());
    for (index, tx) in txs.iter().enumerate() {
        for output in tx.outputs() {
            let start = coins.end();
            if !is_unspendable(output.script) {
                write_coin(height, index == 0, output, &mut coins.bytes);
            }
            coins.spans.push([start, coins.end()]);
        }
    }
}

/// Returns whether an output of the block would overwrite an unspent one (BIP-0030).
pub(crate) fn overwrites_a_coin(store: &Store, block: &CheckedBlock) -> Result<bool> {
    let keys: Vec<_> = block
        .txs()
        .iter()
        .zip(block.txids())
        .flat_map(|(tx, txid)| output_keys(*txid, tx.output_count()))
        .collect();
    let mut found = false;
    store.read_many(COINS, &keys, &ReadAhead::default(), |_, value| found |= value.is_some())?;
    Ok(found)
}

/// Returns the keys of a transaction's outputs.
pub(crate) fn output_keys(
    txid: Txid,
    count: usize,
) -> impl Iterator<Item = [u8; OUTPOINT_KEY_LEN]> {
    // A block has room for fewer than 2^32 outputs.
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    (0..count).map(move |vout| outpoint_key(&OutPoint::new(txid, vout)))
}
