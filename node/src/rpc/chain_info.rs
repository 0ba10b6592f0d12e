//! Methods that describe the chain as a whole.

use std::collections::HashSet;

use cofferdam_ibd::headers::HeaderStatus;
use cofferdam_ibd::{ChainVerification, Chainstate, HeaderRef, Network};
use serde_json::{Value, json};

use super::blockchain::find;
use super::call::{Args, optional, optional_text};
use super::{Context, Method, RpcError, RpcResult, code, prune, tx_json, utxo_set};

/// Seconds of the window of `getchaintxstats` unless the caller says: a month.
const WINDOW_SECONDS: u32 = 30 * 24 * 60 * 60;
/// How thorough `verifychain` is unless the caller says, and how many blocks it takes.
const CHECK_LEVEL: i32 = 3;
const CHECK_BLOCKS: i32 = 6;

pub(super) const METHODS: &[Method] = &[
    Method { name: "getblockchaininfo", params: &[], run: get_blockchain_info },
    Method { name: "getchainstates", params: &[], run: get_chainstates },
    Method { name: "getchaintips", params: &[], run: get_chain_tips },
    Method {
        name: "getchaintxstats",
        params: &[optional("nblocks"), optional_text("blockhash")],
        run: get_chain_tx_stats,
    },
    Method {
        name: "getdifficulty",
        params: &[],
        run: |context, _| {
            let bits = context
                .chain
                .query(|chain| chain.headers().entry(chain.tip_ref()).header.bits.to_consensus())?;
            Ok(tx_json::float(tx_json::difficulty(bits)))
        },
    },
    Method {
        name: "verifychain",
        params: &[optional("checklevel"), optional("nblocks")],
        run: verify_chain,
    },
];

fn progress(context: &Context) -> Result<Value, RpcError> {
    let now = context.clock.seconds();
    let part =
        context.chain.query(move |chain| chain.verification_progress(chain.tip_ref(), now))?;
    Ok(tx_json::float(part))
}

fn get_blockchain_info(context: &Context, _: &Args) -> RpcResult {
    let view = context.chain.view();
    let params = context.chain.params();
    let mut tip = context.chain.query(|chain| tx_json::header(chain, chain.tip_ref()))?;
    let mut take = |name: &str| tip.remove(name).unwrap_or_default();
    let blocks = take("height");
    let mut info = json!({
        "chain": params.network.to_string(),
        "blocks": blocks,
        "headers": view.best_header.height,
        "bestblockhash": take("hash"),
        "bits": take("bits"),
        "target": take("target"),
        "difficulty": take("difficulty"),
        "time": take("time"),
        "mediantime": take("mediantime"),
        "verificationprogress": progress(context)?,
        "initialblockdownload": view.initial_download,
        "chainwork": take("chainwork"),
        "size_on_disk": utxo_set::directory_bytes(&context.blocks_dir),
    });
    if let Some(fields) = info.as_object_mut() {
        prune::add_fields(context, fields)?;
        if params.network == Network::Signet {
            let challenge = params.signet_challenge.as_ref().map(|script| script.to_hex_string());
            fields.insert("signet_challenge".into(), json!(challenge));
        }
        fields.insert("warnings".into(), json!(context.warnings.texts()));
    }
    Ok(info)
}

fn get_chainstates(context: &Context, _: &Args) -> RpcResult {
    let headers = context.chain.view().best_header.height;
    let (mut tip, buffered) = context.chain.query(|chain| {
        let stats = chain.store().stats();
        let buffered = stats.active_bytes.saturating_add(stats.frozen_bytes);
        (tx_json::header(chain, chain.tip_ref()), buffered)
    })?;
    let mut take = |name: &str| tip.remove(name).unwrap_or_default();
    let chainstate = json!({
        "blocks": take("height"),
        "bestblockhash": take("hash"),
        "bits": take("bits"),
        "target": take("target"),
        "difficulty": take("difficulty"),
        "verificationprogress": progress(context)?,
        // The engine's cache has no size of its own to tell: what is buffered is all there is.
        "coins_db_cache_bytes": 0,
        "coins_tip_cache_bytes": buffered,
        "validated": true,
    });
    Ok(json!({"headers": headers, "chainstates": [chainstate]}))
}

fn get_chain_tips(context: &Context, _: &Args) -> RpcResult {
    context.chain.query(|chain| {
        let headers = chain.headers();
        let parents: HashSet<HeaderRef> =
            headers.iter().filter_map(|at| headers.entry(at).parent).collect();
        let mut tips: Vec<HeaderRef> =
            headers.iter().filter(|at| !parents.contains(at) || *at == chain.tip_ref()).collect();
        tips.sort_by_key(|at| std::cmp::Reverse(headers.entry(*at).height));
        let describe = |at: &HeaderRef| {
            let entry = headers.entry(*at);
            let fork = headers.entry(headers.fork_point(*at, chain.tip_ref())).height;
            let status = if chain.is_connected(*at) {
                "active"
            } else if entry.status.has(HeaderStatus::FAILED) {
                "invalid"
            } else if entry.chain_tx_count == 0 {
                // It or an ancestor is not stored.
                "headers-only"
            } else if entry.status.has(HeaderStatus::VALID) {
                "valid-fork"
            } else {
                "valid-headers"
            };
            json!({"height": entry.height, "hash": entry.hash.to_string(), "branchlen": entry.height - fork, "status": status})
        };
        Ok(tips.iter().map(describe).collect())
    })?
}

fn get_chain_tx_stats(context: &Context, args: &Args) -> RpcResult {
    let invalid = |text: &str| RpcError::new(code::INVALID_PARAMETER, text);
    let window = args.optional_integer::<i32>(0)?;
    let hash = args.get(1).map(|_| args.hash(1)).transpose()?;
    context.chain.query(move |chain| {
        let last = match hash {
            None => chain.tip_ref(),
            Some(hash) => {
                let at = find(chain, &hash)?;
                if !chain.is_connected(at) {
                    return Err(invalid("Block is not in main chain"));
                }
                at
            }
        };
        let entry = chain.headers().entry(last);
        let month = WINDOW_SECONDS / chain.params().pow_target_spacing;
        let window = match window {
            None => Some(month.min(entry.height.saturating_sub(1))),
            Some(window) => {
                u32::try_from(window).ok().filter(|window| *window == 0 || *window < entry.height)
            }
        };
        let window = window.ok_or_else(|| {
            invalid("Invalid block count: should be between 0 and the block's height - 1")
        })?;
        Ok(describe_window(chain, last, window))
    })?
}

fn describe_window(chain: &Chainstate, last: HeaderRef, window: u32) -> Value {
    let headers = chain.headers();
    let entry = headers.entry(last);
    let mut fields = json!({"time": entry.header.time});
    let first = headers.ancestor(last, entry.height - window);
    let Some((fields_map, first)) = fields.as_object_mut().zip(first) else {
        return fields;
    };
    let mut put = |name: &str, value: Value| fields_map.insert(name.to_owned(), value);
    if entry.chain_tx_count > 0 {
        put("txcount", json!(entry.chain_tx_count));
    }
    put("window_final_block_hash", json!(entry.hash.to_string()));
    put("window_final_block_height", json!(entry.height));
    put("window_block_count", json!(window));
    if window > 0 {
        let interval =
            i64::from(headers.median_time_past(last)) - i64::from(headers.median_time_past(first));
        put("window_interval", json!(interval));
        let before = headers.entry(first).chain_tx_count;
        if entry.chain_tx_count > 0 && before > 0 {
            let count = entry.chain_tx_count - before;
            put("window_tx_count", json!(count));
            if let (Ok(count), Ok(seconds)) = (u32::try_from(count), u32::try_from(interval))
                && seconds > 0
            {
                put("txrate", tx_json::float(f64::from(count) / f64::from(seconds)));
            }
        }
    }
    fields
}

fn verify_chain(context: &Context, args: &Args) -> RpcResult {
    let level = args.optional_integer(0)?.unwrap_or(CHECK_LEVEL);
    let blocks = args.optional_integer(1)?.unwrap_or(CHECK_BLOCKS);
    // Below zero is all, as none is.
    let level = u32::try_from(level).unwrap_or(0);
    let blocks = u32::try_from(blocks).unwrap_or(0);
    let verified = context.chain.query(move |chain| chain.verify_chain(level, blocks))??;
    Ok(json!(verified == ChainVerification::Passed))
}
