//! Methods over the block filters and other indexes.

use std::sync::atomic::{AtomicU32, Ordering};

use bitcoin::bip158::BlockFilter;
use bitcoin::hex::DisplayHex as _;
use bitcoin::{BlockHash, ScriptBuf};
use cofferdam_ibd::headers::HeaderStatus;
use cofferdam_ibd::{BlockRef, Chainstate};
use serde_json::{Map, Value, json};

use super::call::{Args, not_of_type, optional, optional_text, text};
use super::scan::{in_progress, scripts};
use super::stored_block::StoredBlock;
use super::{Context, Method, RpcError, RpcResult, code};
use crate::index::BlockFilters;

/// Blocks that are looked up on the chain's thread at a time.
const BLOCKS_AT_A_TIME: u32 = 1000;

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "getblockfilter",
        params: &[text("blockhash"), optional_text("filtertype")],
        run: get_block_filter,
    },
    Method { name: "getindexinfo", params: &[optional_text("index_name")], run: get_index_info },
    Method {
        name: "scanblocks",
        params: &[
            text("action"),
            optional("scanobjects"),
            optional("start_height"),
            optional("stop_height"),
            optional_text("filtertype"),
            optional("options"),
        ],
        run: scan_blocks,
    },
];

fn misc(text: impl Into<String>) -> RpcError {
    RpcError::new(code::MISC_ERROR, text)
}

fn internal(error: &anyhow::Error) -> RpcError {
    RpcError::new(code::INTERNAL_ERROR, format!("{error:#}"))
}

/// Reads the type of filter; there is one.
fn check_filter_type(name: Option<&str>) -> Result<(), RpcError> {
    if name.is_none_or(|name| name == "basic") {
        return Ok(());
    }
    Err(RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Unknown filtertype"))
}

fn not_enabled() -> RpcError {
    misc("Index is not enabled for filtertype basic")
}

fn get_block_filter(context: &Context, args: &Args) -> RpcResult {
    let hash: BlockHash = args.hash(0)?;
    check_filter_type(args.optional_text(1)?)?;
    if context.indexes.filters_now().is_none() {
        return Err(not_enabled());
    }
    let entry = StoredBlock::find(context, hash)?.entry;
    let (filters, synced) = context.indexes.filters().ok_or_else(not_enabled)?;
    let row = filters.row(BlockRef { height: entry.height, hash });
    if let Some(row) = row.map_err(|error| internal(&error))? {
        let filter = row.filter.to_lower_hex_string();
        return Ok(json!({"filter": filter, "header": row.header.to_string()}));
    }
    Err(if !entry.status.has(HeaderStatus::VALID) {
        let text = "Filter not found. Block was not connected to active chain.";
        RpcError::new(code::INVALID_ADDRESS_OR_KEY, text)
    } else if !synced {
        misc("Filter not found. Block filters are still in the process of being indexed.")
    } else {
        let text = "Filter not found. This error is unexpected and indicates index corruption.";
        RpcError::new(code::INTERNAL_ERROR, text)
    })
}

fn get_index_info(context: &Context, args: &Args) -> RpcResult {
    let wanted = args.optional_text(0)?.filter(|name| !name.is_empty());
    let mut all = Map::new();
    let mut put = |name: &str, synced: bool, height: u32| {
        if wanted.is_none_or(|wanted| wanted == name) {
            let summary = json!({"synced": synced, "best_block_height": height});
            all.insert(name.to_owned(), summary);
        }
    };
    let kept = context
        .chain
        .query(|chain| chain.coin_stats_reached().map(|at| (chain.has_coin_stats(), at.height)))?;
    let summaries = context.indexes.summaries();
    let (transactions, filters): (Vec<_>, Vec<_>) =
        summaries.into_iter().partition(|summary| summary.name == "txindex");
    for summary in transactions {
        put(summary.name, summary.synced, summary.best.height);
    }
    if let Some((synced, height)) = kept {
        put("coinstatsindex", synced, height);
    }
    for summary in filters {
        put(summary.name, summary.synced, summary.best.height);
    }
    Ok(Value::Object(all))
}

fn scan_blocks(context: &Context, args: &Args) -> RpcResult {
    let (state, height) = &context.scans.blocks;
    match args.text(0)? {
        "status" if !state.is_running() => Ok(Value::Null),
        "status" => Ok(json!({
            "progress": state.progress.load(Ordering::SeqCst),
            "current_height": height.load(Ordering::SeqCst),
        })),
        "abort" => Ok(json!(state.request_abort())),
        "start" => {
            let _guard = state.reserve().ok_or_else(in_progress)?;
            scan(context, args, height)
        }
        other => Err(RpcError::new(code::INVALID_PARAMETER, format!("Invalid action '{other}'"))),
    }
}

/// The heights that the arguments ask for.
fn heights(context: &Context, args: &Args) -> Result<(u32, u32), RpcError> {
    let tip = context.chain.view().tip.height;
    let read = |index: usize, otherwise: u32| -> Result<Option<u32>, RpcError> {
        let Some(height) = args.optional_integer::<i32>(index)? else {
            return Ok(Some(otherwise));
        };
        Ok(u32::try_from(height).ok().filter(|height| *height <= tip))
    };
    let start = read(2, 0)?.ok_or_else(|| misc("Invalid start_height"))?;
    let stop = read(3, tip)?.filter(|stop| *stop >= start);
    Ok((start, stop.ok_or_else(|| misc("Invalid stop_height"))?))
}

fn scan(context: &Context, args: &Args, progress_height: &AtomicU32) -> RpcResult {
    check_filter_type(args.optional_text(4)?)?;
    let confirm = args.get(5).and_then(|options| options.get("filter_false_positives"));
    let confirm = match confirm {
        None => false,
        Some(value) => value.as_bool().ok_or_else(|| not_of_type(value, "bool"))?,
    };
    let filters = context.indexes.filters_now().ok_or_else(not_enabled)?;
    let (start, stop) = heights(context, args)?;
    let network = context.chain.params().network.to_bitcoin();
    if args.get(1).is_none() {
        return Err(not_of_type(&Value::Null, "array"));
    }
    let needles: Vec<ScriptBuf> =
        scripts(args.get(1), network)?.into_iter().map(|derived| derived.script).collect();
    let state = &context.scans.blocks.0;
    progress_height.store(start, Ordering::SeqCst);
    let (mut relevant, mut completed, mut last) = (Vec::new(), true, start);
    let mut first = start;
    while first <= stop {
        if state.is_aborted() || context.shutdown.is_requested() {
            completed = false;
            break;
        }
        last = stop.min(first + BLOCKS_AT_A_TIME - 1);
        let range = (first, last);
        let blocks = context.chain.query(move |chain| connected(chain, range))?;
        for block in blocks {
            if matches(context, &filters, block, &needles, confirm)? {
                relevant.push(block.hash.to_string());
            }
        }
        let part = (last - start).saturating_mul(100).checked_div(stop - start);
        state.progress.store(part.unwrap_or(100), Ordering::SeqCst);
        progress_height.store(last, Ordering::SeqCst);
        first = last + 1;
    }
    Ok(json!({
        "from_height": start,
        "to_height": last,
        "relevant_blocks": relevant,
        "completed": completed,
    }))
}

fn connected(chain: &Chainstate, (first, last): (u32, u32)) -> Vec<BlockRef> {
    (first..=last).filter_map(|height| chain.block_at(height)).collect()
}

fn matches(
    context: &Context,
    filters: &BlockFilters,
    block: BlockRef,
    needles: &[ScriptBuf],
    confirm: bool,
) -> Result<bool, RpcError> {
    let Some(row) = filters.row(block).map_err(|error| internal(&error))? else {
        return Ok(false);
    };
    if needles.is_empty() {
        return Ok(false);
    }
    let query = needles.iter().map(|script| script.as_bytes());
    let matched = BlockFilter::new(&row.filter).match_any(&block.hash, query);
    if !matched.map_err(|error| internal(&error.into()))? {
        return Ok(false);
    }
    if !confirm {
        return Ok(true);
    }
    let stored = StoredBlock::find(context, block.hash)?;
    let (full, undo) = (stored.block()?, stored.undo()?);
    let made = full.txdata.iter().flat_map(|tx| &tx.output).map(|output| &output.script_pubkey);
    let spent = undo.0.iter().flat_map(|tx| &tx.0).map(|coin| &coin.output.script_pubkey);
    Ok(made.chain(spent).any(|script| needles.contains(script)))
}
