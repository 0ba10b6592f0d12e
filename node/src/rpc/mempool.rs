//! Methods that look at the transaction queue, under the names that Bitcoin Core has for its memory
//! pool.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use bitcoin::{Amount, OutPoint, Txid};
use cofferdam_ibd::tx_queue::{CLUSTER_MAX, Chunk};
use cofferdam_ibd::{BlockRef, Coin, QueuedTx, TxQueue};
use serde_json::{Map, Value, json};

use super::call::{Args, check_types, json as required, not_of_type, optional, text};
use super::{Context, Method, RpcError, RpcResult, code, tx_bytes, tx_json};
use crate::queue_file::{self, Import};

/// The fee rate that Bitcoin Core asks for by default, in satoshis per 1000 virtual bytes: told to
/// those who ask, though the queue takes any.
const RELAY_FEE_RATE: Amount = Amount::from_sat(100);

/// Height of coins that are in no block yet (Bitcoin Core's name).
const MEMPOOL_HEIGHT: u32 = 0x7fff_ffff;

pub(super) const METHODS: &[Method] = &[
    Method { name: "getmempoolinfo", params: &[], run: get_mempool_info },
    Method {
        name: "getrawmempool",
        params: &[optional("verbose"), optional("mempool_sequence")],
        run: get_raw_mempool,
    },
    Method {
        name: "getmempoolentry",
        params: &[text("txid")],
        run: |context, args| {
            let txid: Txid = args.hash(0)?;
            let queue = context.chain.queue().read();
            Ok(entry(&queue, queue.get(&txid).ok_or_else(not_queued)?))
        },
    },
    Method { name: "getmempoolcluster", params: &[text("txid")], run: get_mempool_cluster },
    Method {
        name: "getmempoolfeeratediagram",
        params: &[],
        run: |context, _| Ok(fee_rate_diagram(&context.chain.queue().read())),
    },
    Method {
        name: "getmempoolancestors",
        params: &[text("txid"), optional("verbose")],
        run: |context, args| relatives(context, args, TxQueue::ancestors),
    },
    Method {
        name: "getmempooldescendants",
        params: &[text("txid"), optional("verbose")],
        run: |context, args| relatives(context, args, TxQueue::descendants),
    },
    Method {
        name: "gettxspendingprevout",
        params: &[required("outputs"), optional("options")],
        run: get_tx_spending_prevout,
    },
    Method {
        name: "gettxout",
        params: &[text("txid"), required("n"), optional("include_mempool")],
        run: get_tx_out,
    },
    Method {
        name: "prioritisetransaction",
        params: &[text("txid"), optional("dummy"), required("fee_delta")],
        run: prioritise_transaction,
    },
    Method { name: "getprioritisedtransactions", params: &[], run: get_prioritised_transactions },
    Method {
        name: "savemempool",
        params: &[],
        run: |context, _| {
            if !context.chain.is_queue_loaded() {
                let message = "The mempool was not loaded yet";
                return Err(RpcError::new(code::MISC_ERROR, message));
            }
            let path = context.mining.queue_file.lock().unwrap_or_else(PoisonError::into_inner);
            match queue_file::save(&context.chain, &path) {
                Ok(()) => Ok(json!({"filename": path.display().to_string()})),
                Err(error) => {
                    tracing::warn!("Failed to dump mempool: {error:#}");
                    Err(RpcError::new(code::MISC_ERROR, "Unable to dump mempool to disk"))
                }
            }
        },
    },
    Method {
        name: "importmempool",
        params: &[text("filepath"), optional("options")],
        run: import_mempool,
    },
    Method { name: "getorphantxs", params: &[optional("verbosity")], run: get_orphan_txs },
];

fn not_queued() -> RpcError {
    RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Transaction not in mempool")
}

fn satoshis(value: u64) -> Value {
    tx_json::amount(Amount::from_sat(value))
}

fn get_mempool_info(context: &Context, _: &Args) -> RpcResult {
    let queue = context.chain.queue().read();
    let fee_rate = tx_json::amount(RELAY_FEE_RATE);
    Ok(json!({
        "loaded": context.chain.is_queue_loaded(),
        "size": queue.len(),
        "bytes": queue.vsize(),
        "usage": queue.memory_bytes(),
        "total_fee": satoshis(queue.fees()),
        "maxmempool": queue.limits().bytes,
        "mempoolminfee": fee_rate,
        "minrelaytxfee": fee_rate,
        "incrementalrelayfee": fee_rate,
        "unbroadcastcount": 0,
        "permitbaremultisig": true,
        "maxdatacarriersize": 100_000,
        "limitclustercount": CLUSTER_MAX,
        "limitclustersize": 101_000,
        "optimal": true,
    }))
}

fn get_raw_mempool(context: &Context, args: &Args) -> RpcResult {
    let verbose = args.optional_flag(0)?.unwrap_or(false);
    let sequence = args.optional_flag(1)?.unwrap_or(false);
    let queue = context.chain.queue().read();
    if verbose {
        if sequence {
            let message = "Verbose results cannot contain mempool sequence values.";
            return Err(RpcError::new(code::INVALID_PARAMETER, message));
        }
        let entries = queue.iter().map(|tx| (tx.txid.to_string(), entry(&queue, tx)));
        return Ok(Value::Object(entries.collect()));
    }
    let txids: Value = queue.iter().map(|tx| json!(tx.txid.to_string())).collect();
    Ok(if sequence { json!({"txids": txids, "mempool_sequence": queue.sequence()}) } else { txids })
}

fn relatives(context: &Context, args: &Args, find: fn(&TxQueue, &Txid) -> Vec<Txid>) -> RpcResult {
    let txid: Txid = args.hash(0)?;
    let verbose = args.optional_flag(1)?.unwrap_or(false);
    let queue = context.chain.queue().read();
    queue.get(&txid).ok_or_else(not_queued)?;
    let found = find(&queue, &txid);
    if !verbose {
        return Ok(txids(&found));
    }
    let entries = found.iter().filter_map(|txid| queue.get(txid));
    Ok(Value::Object(entries.map(|tx| (tx.txid.to_string(), entry(&queue, tx))).collect()))
}

fn txids(txids: &[Txid]) -> Value {
    txids.iter().map(|txid| json!(txid.to_string())).collect()
}

/// The fields of an entry (`entryToJSON`).
fn entry(queue: &TxQueue, tx: &QueuedTx) -> Value {
    let sum = |relatives: Vec<Txid>| {
        let relatives: Vec<&Arc<QueuedTx>> =
            relatives.iter().filter_map(|txid| queue.get(txid)).collect();
        let size: u64 = relatives.iter().map(|tx| tx.vsize()).sum();
        // What a user adds to fees (`prioritisetransaction`) has no bound.
        let fees = relatives
            .iter()
            .fold(queue.modified_fee(tx), |fees, tx| fees.saturating_add(queue.modified_fee(tx)));
        (relatives.len() + 1, size + tx.vsize(), fees)
    };
    let (ancestors, ancestor_size, ancestor_fees) = sum(queue.ancestors(&tx.txid));
    let (descendants, descendant_size, descendant_fees) = sum(queue.descendants(&tx.txid));
    let chunk = queue.chunk(&tx.txid);
    let mut depends: Vec<String> =
        queue.parents(&tx.txid).iter().map(ToString::to_string).collect();
    depends.sort_unstable();
    json!({
        "vsize": tx.vsize(),
        "weight": tx.weight,
        "time": tx.time,
        "height": tx.height,
        "descendantcount": descendants,
        "descendantsize": descendant_size,
        "ancestorcount": ancestors,
        "ancestorsize": ancestor_size,
        "wtxid": tx.wtxid.to_string(),
        "chunkweight": chunk.weight,
        "fees": {
            "base": satoshis(tx.fee),
            "modified": tx_json::signed_amount(queue.modified_fee(tx)),
            "ancestor": tx_json::signed_amount(ancestor_fees),
            "descendant": tx_json::signed_amount(descendant_fees),
            "chunk": tx_json::signed_amount(chunk.fee),
        },
        "depends": depends,
        "spentby": txids(&queue.children(&tx.txid)),
        "unbroadcast": false,
    })
}

/// What hangs together with an entry (`clusterToJSON`).
fn get_mempool_cluster(context: &Context, args: &Args) -> RpcResult {
    let txid: Txid = args.hash_as(0, "txid")?;
    let queue = context.chain.queue().read();
    queue.get(&txid).ok_or_else(not_queued)?;
    let chunks = queue.cluster_chunks(&txid);
    let weight: u64 = chunks.iter().map(|chunk| chunk.package.weight).sum();
    let count: usize = chunks.iter().map(|chunk| chunk.txids.len()).sum();
    let describe = |chunk: &Chunk| {
        json!({
            "chunkfee": tx_json::signed_amount(chunk.package.fee),
            "chunkweight": chunk.package.weight,
            "txs": txids(&chunk.txids),
        })
    };
    let chunks: Vec<Value> = chunks.iter().map(describe).collect();
    Ok(json!({"clusterweight": weight, "txcount": count, "chunks": chunks}))
}

/// What the best entries pay in all, by their weight (`GetFeerateDiagram`).
fn fee_rate_diagram(queue: &TxQueue) -> Value {
    let (mut weight, mut fee) = (0, 0);
    let sums = queue.chunks().into_iter().map(|chunk| {
        weight += chunk.package.weight;
        fee = i64::saturating_add(fee, chunk.package.fee);
        (weight, fee)
    });
    let points = std::iter::once((0, 0)).chain(sums);
    points
        .map(|(weight, fee)| json!({"weight": weight, "fee": tx_json::signed_amount(fee)}))
        .collect()
}

fn get_tx_spending_prevout(context: &Context, args: &Args) -> RpcResult {
    let outputs = args.array(0)?;
    if outputs.is_empty() {
        let message = "Invalid parameter, outputs are missing";
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    if let Some(options) = args.get(1) {
        check_fields(options, &[("mempool_only", "bool"), ("return_spending_tx", "bool")], true)?;
    }
    let fields = [("txid", "string"), ("vout", "number")];
    for output in outputs {
        check_fields(output, &fields, false)?;
    }
    let option = |name: &str| args.get(1).and_then(|options| options.get(name)?.as_bool());
    let outpoints: Vec<OutPoint> =
        outputs.iter().map(tx_json::outpoint).collect::<Result<_, _>>()?;
    let queue = context.chain.queue().read();
    let describe = |outpoint: &OutPoint| {
        let mut fields = Map::new();
        fields.insert("txid".into(), json!(outpoint.txid.to_string()));
        fields.insert("vout".into(), json!(outpoint.vout));
        let spender = queue.spender(outpoint).and_then(|txid| queue.get(&txid));
        if let Some(tx) = spender {
            fields.insert("spendingtxid".into(), json!(tx.txid.to_string()));
            if option("return_spending_tx").unwrap_or(false) {
                fields.insert("spendingtx".into(), json!(tx_bytes::encode_hex(&tx.tx)));
            }
        } else if option("mempool_only") == Some(false) {
            let message = "Mempool lacks a relevant spend, and txospenderindex is unavailable.";
            return Err(RpcError::new(code::MISC_ERROR, message));
        }
        Ok(Value::Object(fields))
    };
    outpoints.iter().map(describe).collect()
}

/// Looks at the fields of an object: there are these and no others (`RPCTypeCheckObj`).
fn check_fields(value: &Value, fields: &[(&str, &str)], may_miss: bool) -> Result<(), RpcError> {
    let object = value.as_object().ok_or_else(|| not_of_type(value, "object"))?;
    check_types(object, fields, may_miss)?;
    let is_known = |key: &&String| fields.iter().any(|(name, _)| name == key);
    match object.keys().find(|key| !is_known(key)) {
        Some(key) => Err(RpcError::new(code::TYPE_ERROR, format!("Unexpected key {key}"))),
        None => Ok(()),
    }
}

fn get_orphan_txs(_: &Context, args: &Args) -> RpcResult {
    let verbosity = match args.get(0) {
        Some(Value::Bool(_)) => {
            let message = "Verbosity was boolean but only integer allowed";
            return Err(RpcError::new(code::TYPE_ERROR, message));
        }
        _ => args.verbosity(0, 0)?,
    };
    if !(0..=2).contains(&verbosity) {
        let message = format!("Invalid verbosity value {verbosity}");
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    Ok(json!([]))
}

/// Returns which of these outputs are unspent, and the tip of that moment.
pub(super) fn unspent(
    context: &Context,
    outpoints: Vec<OutPoint>,
    with_queue: bool,
) -> Result<(Vec<Option<Coin>>, BlockRef), RpcError> {
    let queue = context.chain.queue().clone();
    context.chain.query(move |chain| {
        let queue = queue.read();
        let find = |outpoint: &OutPoint| {
            if with_queue && queue.spender(outpoint).is_some() {
                return Ok(None);
            }
            let queued = queue.get(&outpoint.txid).filter(|_| with_queue);
            let output = queued
                .and_then(|queued| queued.tx.output.get(usize::try_from(outpoint.vout).ok()?));
            match output {
                Some(output) => {
                    let output = output.clone();
                    Ok(Some(Coin { height: MEMPOOL_HEIGHT, coinbase: false, output }))
                }
                None => Ok(chain.coin(outpoint)?),
            }
        };
        let coins: Result<Vec<_>, RpcError> = outpoints.iter().map(find).collect();
        Ok((coins?, chain.tip()))
    })?
}

fn get_tx_out(context: &Context, args: &Args) -> RpcResult {
    let txid: Txid = args.hash(0)?;
    let vout = args.integer(1)?;
    let with_queue = args.optional_flag(2)?.unwrap_or(true);
    let outpoint = OutPoint { txid, vout };
    let (coins, tip) = unspent(context, vec![outpoint], with_queue)?;
    let Some(coin) = coins.into_iter().next().flatten() else {
        return Ok(Value::Null);
    };
    let confirmations = if coin.height == MEMPOOL_HEIGHT {
        0
    } else {
        i64::from(tip.height) - i64::from(coin.height) + 1
    };
    let network = context.chain.params().network.to_bitcoin();
    Ok(json!({
        "bestblock": tip.hash.to_string(),
        "confirmations": confirmations,
        "value": tx_json::amount(coin.output.value),
        "scriptPubKey": tx_json::script(&coin.output.script_pubkey, network),
        "coinbase": coin.coinbase,
    }))
}

fn import_mempool(context: &Context, args: &Args) -> RpcResult {
    if context.chain.view().initial_download {
        let message = "Can only import the mempool after the block download and sync is done.";
        return Err(RpcError::new(code::CLIENT_IN_INITIAL_DOWNLOAD, message));
    }
    let option = |name: &str, default| {
        let value = args.get(1).and_then(|options| options.get(name)?.as_bool());
        value.unwrap_or(default)
    };
    let import = Import {
        use_current_time: option("use_current_time", true),
        apply_deltas: option("apply_fee_delta_priority", false),
    };
    let path = Path::new(args.text(0)?);
    if let Err(error) = queue_file::load(&context.chain, path, import, &context.shutdown) {
        tracing::warn!("Failed to import the mempool: {error:#}");
        let message = "Unable to import mempool file, see debug log for details.";
        return Err(RpcError::new(code::MISC_ERROR, message));
    }
    Ok(json!({}))
}

fn prioritise_transaction(context: &Context, args: &Args) -> RpcResult {
    let txid: Txid = args.hash(0)?;
    if args.get(1).is_some_and(|dummy| !dummy.is_number()) {
        return Err(args.wrong_type(1, "number"));
    }
    if args.get(1).is_some_and(|dummy| dummy.as_f64() != Some(0.0)) {
        let message =
            "Priority is no longer supported, dummy argument to prioritisetransaction must be 0.";
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    let delta = args.integer(2)?;
    if context.chain.change(move |worker| Ok(worker.prioritise(txid, delta)))? {
        Ok(json!(true))
    } else {
        Err(RpcError::new(code::MISC_ERROR, "Too many prioritised transactions"))
    }
}

fn get_prioritised_transactions(context: &Context, _: &Args) -> RpcResult {
    let queue = context.chain.queue().read();
    let fields = queue.deltas().map(|(txid, delta)| {
        let mut fields = json!({"fee_delta": delta, "in_mempool": queue.get(&txid).is_some()});
        if let (Some(tx), Some(fields)) = (queue.get(&txid), fields.as_object_mut()) {
            fields.insert("modified_fee".into(), json!(queue.modified_fee(tx)));
        }
        (txid.to_string(), fields)
    });
    Ok(Value::Object(fields.collect()))
}
