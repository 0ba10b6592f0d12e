//! Stage: read the coins a block spends, in one sorted probe of the store.

use std::collections::{HashMap, HashSet};

use bitcoin::{OutPoint, Txid};
use cofferdam_storage::Database as _;

use crate::Store;
use crate::block::CheckedBlock;
use crate::coin::{Coin, outpoint_key};
use crate::error::Result;
use crate::tables::COINS;

/// Returns those coins that `block` spends and does not create itself.
///
/// Called right before the block is connected, on the thread that stages blocks: no value can grow
/// stale between this read and its use.
pub(crate) fn external_coins(
    store: &Store,
    block: &CheckedBlock,
) -> Result<HashMap<OutPoint, Coin>> {
    let own: HashSet<&Txid> = block.txids.iter().collect();
    let mut outpoints: Vec<OutPoint> = block
        .block
        .txdata
        .iter()
        .skip(1)
        .flat_map(|tx| tx.input.iter().map(|input| input.previous_output))
        .filter(|outpoint| !own.contains(&outpoint.txid))
        .collect();
    outpoints.sort_unstable_by_key(outpoint_key);
    outpoints.dedup();
    let keys: Vec<_> = outpoints.iter().map(outpoint_key).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_ref()).collect();
    let values = store.multi_get(COINS, &keys)?;
    let mut coins = HashMap::with_capacity(outpoints.len());
    for (outpoint, value) in outpoints.into_iter().zip(values) {
        if let Some(value) = value {
            coins.insert(outpoint, Coin::decode(&value)?);
        }
    }
    Ok(coins)
}
