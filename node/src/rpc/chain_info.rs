//! Methods that describe the chain as a whole.

use std::collections::HashSet;

use cofferdam_ibd::headers::HeaderStatus;
use cofferdam_ibd::{ChainVerification, Chainstate, HeaderRef, Network};
use serde_json::{Map, Value, json};

use super::blockchain::find;
use super::call::{Args, optional, optional_text};
use super::{Context, Method, RpcError, RpcResult, code, prune, tx_json, utxo_set};
use crate::chain::{ChainHandle, Stopped};

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

/// The chain as it is at one moment: what is told together belongs together.
#[derive(Debug)]
struct Moment {
    /// The fields of the tip's header.
    tip: Map<String, Value>,
    best_header_height: u32,
    initial_download: bool,
    progress: f64,
    /// The last block that was pruned.
    prune_height: Option<u32>,
    /// What is not written yet.
    buffered_bytes: u64,
}

impl Moment {
    fn take(chain: &ChainHandle, now: u32) -> Result<Self, Stopped> {
        chain.query(move |chain| {
            let headers = chain.headers();
            let best_header_height = headers.entry(headers.best()).height;
            let stats = chain.store().stats();
            Self {
                tip: tx_json::header(chain, chain.tip_ref()),
                best_header_height,
                initial_download: chain.is_initial_block_download(now),
                progress: chain.verification_progress(chain.tip_ref(), now),
                prune_height: chain.prune_height(),
                buffered_bytes: stats.active_bytes.saturating_add(stats.frozen_bytes),
            }
        })
    }
}

fn get_blockchain_info(context: &Context, _: &Args) -> RpcResult {
    let params = context.chain.params();
    let mut moment = Moment::take(&context.chain, context.clock.seconds())?;
    let mut take = |name: &str| moment.tip.remove(name).unwrap_or_default();
    let mut info = json!({
        "chain": params.network.to_string(),
        "blocks": take("height"),
        "headers": moment.best_header_height,
        "bestblockhash": take("hash"),
        "bits": take("bits"),
        "target": take("target"),
        "difficulty": take("difficulty"),
        "time": take("time"),
        "mediantime": take("mediantime"),
        "verificationprogress": tx_json::float(moment.progress),
        "initialblockdownload": moment.initial_download,
        "chainwork": take("chainwork"),
        "size_on_disk": utxo_set::directory_bytes(&context.blocks_dir),
    });
    if let Some(fields) = info.as_object_mut() {
        prune::add_fields(context.chain.prune_mode(), moment.prune_height, fields);
        if params.network == Network::Signet {
            let challenge = params.signet_challenge.as_ref().map(|script| script.to_hex_string());
            fields.insert("signet_challenge".into(), json!(challenge));
        }
        fields.insert("warnings".into(), json!(context.warnings.texts()));
    }
    Ok(info)
}

fn get_chainstates(context: &Context, _: &Args) -> RpcResult {
    let mut moment = Moment::take(&context.chain, context.clock.seconds())?;
    let mut take = |name: &str| moment.tip.remove(name).unwrap_or_default();
    let chainstate = json!({
        "blocks": take("height"),
        "bestblockhash": take("hash"),
        "bits": take("bits"),
        "target": take("target"),
        "difficulty": take("difficulty"),
        "verificationprogress": tx_json::float(moment.progress),
        // The engine's cache has no size of its own to tell: what is buffered is all there is.
        "coins_db_cache_bytes": 0,
        "coins_tip_cache_bytes": moment.buffered_bytes,
        "validated": true,
    });
    Ok(json!({"headers": moment.best_header_height, "chainstates": [chainstate]}))
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_is_told_together_is_of_one_moment() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, thread, block) = crate::chain::start_for_tests(dir.path());
        let (go, gone) = sync_channel::<()>(1);
        // The chain's thread is busy, and then has a block to connect.
        chain
            .send(move |worker| {
                let _ = gone.recv();
                let now = worker.clock.seconds();
                let _ = worker.chainstate.accept_checked(block, now)?;
                worker.connect(Duration::from_secs(60)).map(|_| ())
            })
            .unwrap();
        let asked = chain.clone();
        let now = crate::clock::Clock::default().seconds();
        let asking = std::thread::Builder::new().spawn(move || Moment::take(&asked, now)).unwrap();
        let end = Instant::now() + Duration::from_millis(100);
        while Instant::now() < end && !asking.is_finished() {
            std::thread::yield_now();
        }
        go.send(()).unwrap();
        let moment = asking.join().unwrap().unwrap();
        assert_eq!((&moment.tip["height"], moment.best_header_height), (&json!(1), 1));
        assert!(!moment.initial_download && (moment.progress - 1.0).abs() < 1e-9, "{moment:?}");
        chain.stop();
        thread.join().unwrap();
    }
}
