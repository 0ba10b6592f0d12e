//! `gettxoutsetinfo`: by a scan of the set, or from the statistics kept with `-coinstatsindex`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bitcoin::{Amount, BlockHash};
use cofferdam_ibd::{BlockRef, Chainstate, CoinStats, HeaderRef, UtxoHash, UtxoStats};
use serde_json::{Map, Value, json};

use super::blockchain::find;
use super::call::{Args, not_of_type, parse_hash, whole};
use super::{Context, RpcError, RpcResult, code, tx_json};
use crate::coin_scan::PinnedCoins;

/// Bytes of a coin's key in the set.
const COIN_KEY_BYTES: u64 = 36;

/// How long a call waits for statistics that are being made.
const CATCH_UP_WAIT: Duration = Duration::from_secs(60);

/// A block by height or hash, as several methods take it (`ParseHashOrHeight`).
#[derive(Clone, Copy, Debug)]
pub(super) enum HashOrHeight {
    Height(i32),
    Hash(BlockHash),
}

impl HashOrHeight {
    /// Reads an argument.
    pub(super) fn read(args: &Args, index: usize) -> Result<Option<Self>, RpcError> {
        args.get(index).map(|value| Self::from_value("hash_or_height", value)).transpose()
    }

    /// Reads a value that is called `name`.
    pub(super) fn from_value(name: &str, value: &Value) -> Result<Self, RpcError> {
        if value.is_number() {
            return whole(value).map(Self::Height);
        }
        let text = value.as_str().ok_or_else(|| not_of_type(value, "string"))?;
        parse_hash(name, text).map(Self::Hash)
    }

    /// Finds the block; a height is one of the connected chain.
    pub(super) fn find(self, chain: &Chainstate) -> Result<HeaderRef, RpcError> {
        let tip = chain.tip().height;
        match self {
            Self::Hash(hash) => find(chain, &hash),
            Self::Height(height) if height < 0 => {
                Err(invalid(format!("Target block height {height} is negative")))
            }
            Self::Height(height) => {
                let at = u32::try_from(height).ok().filter(|height| *height <= tip);
                let at = at.and_then(|height| chain.headers().ancestor(chain.tip_ref(), height));
                at.ok_or_else(|| {
                    invalid(format!("Target block height {height} after current tip {tip}"))
                })
            }
        }
    }
}

/// The method.
pub(super) fn get_tx_out_set_info(context: &Context, args: &Args) -> RpcResult {
    let hash = match args.optional_text(0)? {
        None | Some("hash_serialized_3") => UtxoHash::Serialized3,
        Some("muhash") => UtxoHash::Muhash,
        Some("none") => UtxoHash::None,
        Some(other) => {
            return Err(invalid(format!("'{other}' is not a valid hash_type")));
        }
    };
    let at = HashOrHeight::read(args, 1)?;
    let use_index = args.optional_flag(2)?.unwrap_or(true);
    let is_kept = context.chain.query(|chain| chain.coin_stats_reached().is_some())?;
    if at.is_some() {
        if !is_kept {
            return Err(invalid("Querying specific block heights requires coinstatsindex"));
        }
        if hash == UtxoHash::Serialized3 {
            let message = "hash_serialized_3 hash type cannot be queried for a specific block";
            return Err(invalid(message));
        }
        if !use_index {
            let message = "Cannot set use_index to false when querying for a specific block";
            return Err(invalid(message));
        }
    }
    if is_kept && use_index && hash != UtxoHash::Serialized3 {
        return kept(context, at, hash).map(Value::Object);
    }
    let (pinned, tip) = PinnedCoins::take(&context.chain, Chainstate::tip)?;
    let shutdown = context.shutdown.clone();
    let (mut disk_bytes, mut row) = (0, Vec::new());
    let stats = pinned.read(|coins| {
        // Of a node that stops the rest is not read.
        let coins = coins.take_while(|_| !shutdown.is_requested()).inspect(|entry| {
            if let Ok((_, coin)) = entry {
                row.clear();
                coin.encode_into(&mut row);
                disk_bytes += COIN_KEY_BYTES + row.len() as u64;
            }
        });
        UtxoStats::compute(coins, hash)
    })??;
    if context.shutdown.is_requested() {
        return Err(RpcError::new(code::INTERNAL_ERROR, "Unable to read UTXO set"));
    }
    Ok(Value::Object(scanned_fields(tip, &stats, disk_bytes)))
}

fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(code::INVALID_PARAMETER, message)
}

/// The statistics kept for a block, the tip if none is asked for.
fn kept(
    context: &Context,
    at: Option<HashOrHeight>,
    hash: UtxoHash,
) -> Result<Map<String, Value>, RpcError> {
    let end = Instant::now() + CATCH_UP_WAIT;
    loop {
        let found = context.chain.query(move |chain| -> Result<_, RpcError> {
            let block = at.map_or(Ok(chain.tip_ref()), |at| at.find(chain))?;
            let entry = chain.headers().entry(block);
            let block = BlockRef { height: entry.height, hash: entry.hash };
            let reached = chain.coin_stats_reached().map_or(0, |block| block.height);
            // Those of a block that they went past, or that is not connected, will not come.
            let may_come = !chain.has_coin_stats() && block.height > reached;
            Ok((block, chain.coin_stats(&block.hash)?, may_come.then_some(reached)))
        })??;
        match found {
            (block, Some(stats), _) => return Ok(kept_fields(block, &stats, hash)),
            (_, None, None) => {
                return Err(RpcError::new(code::INTERNAL_ERROR, "Unable to read UTXO set"));
            }
            (_, None, Some(reached))
                if Instant::now() >= end || context.shutdown.is_requested() =>
            {
                let message = format!(
                    "Unable to get data because coinstatsindex is still syncing. Current height: {reached}"
                );
                return Err(RpcError::new(code::INTERNAL_ERROR, message));
            }
            // They are being made, between jobs: as long as that goes on, this waits for a second.
            _ => context.chain.wait_until_connected()?,
        }
    }
}

fn kept_fields(block: BlockRef, stats: &CoinStats, hash: UtxoHash) -> Map<String, Value> {
    let mut fields = common(block, stats.txouts, stats.bogosize);
    if hash == UtxoHash::Muhash {
        fields.insert("muhash".into(), json!(stats.muhash.to_string()));
    }
    let amount = |satoshis: u64| tx_json::amount(Amount::from_sat(satoshis));
    fields.insert("total_amount".into(), amount(stats.total_amount));
    fields.insert("total_unspendable_amount".into(), amount(stats.unspendable));
    let of = stats.block;
    // All that cannot be spent after the genesis block is its subsidy.
    let genesis = if block.height == 0 { stats.unspendable } else { 0 };
    let info = json!({
        "prevout_spent": amount(of.prevouts_spent),
        "coinbase": amount(of.coinbase),
        "new_outputs_ex_coinbase": amount(of.new_outputs),
        "unspendable": amount(genesis + of.unspendable()),
        "unspendables": {
            "genesis_block": amount(genesis),
            "bip30": amount(of.bip30),
            "scripts": amount(of.scripts),
            "unclaimed_rewards": amount(of.unclaimed),
        },
    });
    fields.insert("block_info".into(), info);
    fields
}

fn scanned_fields(block: BlockRef, stats: &UtxoStats, disk_bytes: u64) -> Map<String, Value> {
    let mut fields = common(block, stats.txouts, stats.bogosize);
    if let Some(hash) = stats.hash_serialized_3 {
        fields.insert("hash_serialized_3".into(), json!(hash.to_string()));
    }
    if let Some(hash) = stats.muhash {
        fields.insert("muhash".into(), json!(hash.to_string()));
    }
    fields.insert("total_amount".into(), tx_json::amount(Amount::from_sat(stats.total_amount)));
    fields.insert("transactions".into(), json!(stats.transactions));
    fields.insert("disk_size".into(), json!(disk_bytes));
    fields
}

fn common(block: BlockRef, txouts: u64, bogosize: u64) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("height".into(), json!(block.height));
    fields.insert("bestblock".into(), json!(block.hash.to_string()));
    fields.insert("txouts".into(), json!(txouts));
    fields.insert("bogosize".into(), json!(bogosize));
    fields
}

/// Returns the size of the files in a directory and below.
pub(super) fn directory_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
