//! `pruneblockchain`, and what other methods say about pruned blocks.

use cofferdam_ibd::Chainstate;
use serde_json::{Map, Value, json};

use super::call::{Args, json as required};
use super::{Context, Method, RpcError, RpcResult, code};
use crate::config::PruneMode;
use crate::prune::BLOCKS_KEPT;

/// How far a block's time may be off (`TIMESTAMP_WINDOW`).
const TIMESTAMP_WINDOW_SECONDS: i64 = 2 * 60 * 60;
/// From this number on a height is a time (`LOCKTIME_THRESHOLD` is half of it; so is Core's test).
const TIME_MIN: i64 = 1_000_000_000;

pub(super) const METHODS: &[Method] =
    &[Method { name: "pruneblockchain", params: &[required("height")], run: prune_blockchain }];

fn prune_blockchain(context: &Context, args: &Args) -> RpcResult {
    if context.chain.prune_mode() == PruneMode::Off {
        let message = "Cannot prune blocks because node is not in prune mode.";
        return Err(RpcError::new(code::MISC_ERROR, message));
    }
    let asked = i64::from(args.integer::<i32>(0)?);
    if asked < 0 {
        return Err(RpcError::new(code::INVALID_PARAMETER, "Negative block height."));
    }
    let least = context.chain.change(|worker| Ok(worker.pruner.after_height()))?;
    let last = context.chain.query(move |chain| {
        let height = if asked > TIME_MIN { height_at(chain, asked)? } else { asked };
        let tip = i64::from(chain.tip().height);
        if chain.tip().height < least {
            let message = "Blockchain is too short for pruning.";
            return Err(RpcError::new(code::MISC_ERROR, message));
        }
        if height > tip {
            let message = "Blockchain is shorter than the attempted prune height.";
            return Err(RpcError::new(code::INVALID_PARAMETER, message));
        }
        Ok(u32::try_from(height.min(tip - i64::from(BLOCKS_KEPT))).unwrap_or(0))
    })??;
    context.indexes.wait_for_flush();
    let pruned = context.chain.change(move |worker| {
        if last > 0 {
            worker.pruner.prune_to(&mut worker.chainstate, last)?;
        }
        Ok(worker.chainstate.prune_height())
    })?;
    Ok(pruned.map_or(json!(-1), |height| json!(height)))
}

/// The first block at or after a time, less the window in which a block's time may lie.
fn height_at(chain: &Chainstate, time: i64) -> Result<i64, RpcError> {
    let wanted = time - TIMESTAMP_WINDOW_SECONDS;
    let headers = chain.headers();
    // As `FindEarliestAtLeast`: the greatest time up to a block is what counts.
    let tip = chain.tip().height;
    let mut greatest = 0;
    for height in 0..=tip {
        if let Some(at) = headers.ancestor(chain.tip_ref(), height) {
            greatest = greatest.max(headers.entry(at).header.time);
            if i64::from(greatest) >= wanted {
                return Ok(i64::from(height));
            }
        }
    }
    let message = "Could not find block with at least the specified timestamp.";
    Err(RpcError::new(code::INVALID_PARAMETER, message))
}

/// Adds the fields of `getblockchaininfo`; `pruned` is the last block that was pruned.
pub(super) fn add_fields(mode: PruneMode, pruned: Option<u32>, fields: &mut Map<String, Value>) {
    fields.insert("pruned".into(), json!(mode != PruneMode::Off));
    if mode == PruneMode::Off {
        return;
    }
    fields.insert("pruneheight".into(), json!(pruned.map_or(0, |height| height + 1)));
    fields.insert("automatic_pruning".into(), json!(mode != PruneMode::Manual));
    if let PruneMode::Target(bytes) = mode {
        fields.insert("prune_target_size".into(), json!(bytes));
    }
}
