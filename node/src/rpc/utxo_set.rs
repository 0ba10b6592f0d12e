//! `gettxoutsetinfo`: by a scan of the set, or from the statistics kept with `-coinstatsindex`.

use std::fs;
use std::path::Path;

use bitcoin::{Amount, BlockHash};
use cofferdam_ibd::{BlockRef, Chainstate, CoinStats, UtxoHash, UtxoStats};
use serde_json::{Map, Value, json};

use super::call::Args;
use super::{Context, RpcError, RpcResult, code, tx_json};

/// Which block is asked for.
enum At {
    Height(i64),
    Hash(BlockHash),
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
    let at = match args.get(1) {
        None => None,
        Some(Value::Number(_)) => Some(At::Height(args.integer(1)?)),
        Some(_) => Some(At::Hash(args.hash(1)?)),
    };
    let use_index = args.optional_flag(2)?.unwrap_or(true) && hash != UtxoHash::Serialized3;
    if at.is_some() && hash == UtxoHash::Serialized3 {
        let message = "hash_serialized_3 hash type cannot be queried for a specific block";
        return Err(invalid(message));
    }
    let found = context.chain.query(move |chain| -> Result<Found, RpcError> {
        let kept = if use_index { kept(chain, at.as_ref())? } else { None };
        match (kept, at) {
            (Some((block, stats)), _) => Ok(Found::Kept(block, stats)),
            (None, Some(_)) => {
                Err(invalid("Querying specific block heights requires coinstatsindex"))
            }
            (None, None) => Ok(Found::Scanned(chain.tip(), chain.utxo_stats(hash)?)),
        }
    })??;
    Ok(Value::Object(match found {
        Found::Kept(block, stats) => kept_fields(block, &stats, hash),
        Found::Scanned(block, stats) => {
            scanned_fields(block, &stats, directory_bytes(&context.chain_dir.join("chainstate")))
        }
    }))
}

enum Found {
    Kept(BlockRef, CoinStats),
    Scanned(BlockRef, UtxoStats),
}

fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(code::INVALID_PARAMETER, message)
}

/// The statistics kept for a block, the tip if none is asked for; `None` if they are not kept.
fn kept(chain: &Chainstate, at: Option<&At>) -> Result<Option<(BlockRef, CoinStats)>, RpcError> {
    let block = match at {
        None => chain.tip(),
        Some(At::Height(height)) => u32::try_from(*height)
            .ok()
            .and_then(|height| chain.block_at(height))
            .ok_or_else(|| invalid(format!("Target block height {height} after current tip")))?,
        Some(At::Hash(hash)) => {
            let found = chain.headers().get(hash);
            let not_found = || RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Block not found");
            let entry = chain.headers().entry(found.ok_or_else(not_found)?);
            BlockRef { height: entry.height, hash: entry.hash }
        }
    };
    Ok(chain.coin_stats(&block.hash)?.map(|stats| (block, stats)))
}

fn kept_fields(block: BlockRef, stats: &CoinStats, hash: UtxoHash) -> Map<String, Value> {
    let mut fields = common(block, stats.txouts, stats.bogosize);
    if hash == UtxoHash::Muhash {
        fields.insert("muhash".into(), json!(stats.muhash.to_string()));
    }
    fields.insert("total_amount".into(), tx_json::amount(Amount::from_sat(stats.total_amount)));
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
