//! `scantxoutset`: looking for descriptors' scripts in the UTXO set.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bitcoin::hashes::Hash as _;
use bitcoin::{Amount, Network, OutPoint, ScriptBuf};
use cofferdam_ibd::{BlockRef, Coin};
use serde_json::{Value, json};

use super::call::{Args, optional, text};
use super::descriptor::{Derived, Descriptor};
use super::{Context, Method, RpcError, RpcResult, code, tx_json};
use crate::coin_scan::PinnedCoins;

/// How many indexes of a ranged descriptor are looked at unless the caller says.
const RANGE_DEFAULT: u32 = 1000;
/// Most indexes at a time.
const RANGE_MAX: i64 = 1_000_000;
/// Coins between two looks at whether to stop.
const COINS_PER_LOOK: u64 = 8192;

pub(super) const METHODS: &[Method] = &[Method {
    name: "scantxoutset",
    params: &[text("action"), optional("scanobjects")],
    run: scan_tx_out_set,
}];

/// A scan that may be going on; one at a time.
#[derive(Debug, Default)]
pub(crate) struct ScanState {
    running: AtomicBool,
    abort: AtomicBool,
    /// In per cent.
    pub(super) progress: AtomicU32,
}

/// The right to scan.
#[derive(Debug)]
pub(super) struct ScanGuard<'a>(&'a ScanState);

impl ScanState {
    /// Takes the right to scan, if nobody has it.
    pub(super) fn reserve(&self) -> Option<ScanGuard<'_>> {
        if self.running.swap(true, Ordering::SeqCst) {
            return None;
        }
        self.abort.store(false, Ordering::SeqCst);
        self.progress.store(0, Ordering::SeqCst);
        Some(ScanGuard(self))
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    /// Asks the scan to end; returns whether there is one.
    pub(super) fn request_abort(&self) -> bool {
        let running = self.is_running();
        if running {
            self.abort.store(true, Ordering::SeqCst);
        }
        running
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.abort.load(Ordering::SeqCst)
    }
}

impl Drop for ScanGuard<'_> {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::SeqCst);
    }
}

/// The error of a second scan.
pub(super) fn in_progress() -> RpcError {
    let text = "Scan already in progress, use action \"abort\" or \"status\"";
    RpcError::new(code::INVALID_PARAMETER, text)
}

/// Returns the scripts of scan objects (`EvalDescriptorStringOrObject`).
pub(super) fn scripts(objects: Option<&Value>, network: Network) -> Result<Vec<Derived>, RpcError> {
    let objects = objects.and_then(Value::as_array).ok_or_else(|| {
        RpcError::new(code::MISC_ERROR, "scanobjects argument is required for the start action")
    })?;
    let mut all = Vec::new();
    for object in objects {
        all.extend(scripts_of(object, network)?);
    }
    Ok(all)
}

fn scripts_of(object: &Value, network: Network) -> Result<Vec<Derived>, RpcError> {
    let invalid = |text: &str| RpcError::new(code::INVALID_PARAMETER, text);
    let mut range = (0, RANGE_DEFAULT);
    let text = match object {
        Value::String(text) => text,
        Value::Object(fields) => {
            if let Some(given) = fields.get("range").filter(|given| !given.is_null()) {
                range = parse_range(given)?;
            }
            let text = fields.get("desc").filter(|text| !text.is_null());
            let text = text
                .ok_or_else(|| invalid("Descriptor needs to be provided in scan object"))?
                .as_str();
            text.ok_or_else(|| {
                RpcError::new(
                    code::TYPE_ERROR,
                    "JSON value of type number is not of expected type string",
                )
            })?
        }
        _ => return Err(invalid("Scan object needs to be either a string or an object")),
    };
    let wrong = |text: String| RpcError::new(code::INVALID_ADDRESS_OR_KEY, text);
    let descriptor = Descriptor::parse(text, network).map_err(wrong)?;
    if !descriptor.is_range() {
        range = (0, 0);
    }
    let mut all = Vec::new();
    for index in range.0..=range.1 {
        all.extend(descriptor.derive(index).ok_or_else(|| {
            wrong(format!("Cannot derive script without private keys: '{text}'"))
        })?);
    }
    Ok(all)
}

/// Reads a range of indexes, `end` or `[begin,end]` (`ParseDescriptorRange`).
pub(super) fn parse_range(value: &Value) -> Result<(u32, u32), RpcError> {
    let invalid = |text: &str| RpcError::new(code::INVALID_PARAMETER, text);
    let both = value.as_array().map(|pair| pair.iter().map(Value::as_i64).collect::<Vec<_>>());
    let (low, high) = match (value.as_i64(), both.as_deref()) {
        (Some(high), _) => (0, high),
        (None, Some(&[Some(low), Some(high)])) => {
            if low > high {
                let text = "Range specified as [begin,end] must not have begin after end";
                return Err(invalid(text));
            }
            (low, high)
        }
        _ => return Err(invalid("Range must be specified as end or as [begin,end]")),
    };
    if low < 0 {
        return Err(invalid("Range should be greater or equal than 0"));
    }
    if high >> 31 != 0 {
        return Err(invalid("End of range is too high"));
    }
    if high >= low + RANGE_MAX {
        return Err(invalid("Range is too large"));
    }
    let index =
        |number: i64| u32::try_from(number).map_err(|_| invalid("End of range is too high"));
    Ok((index(low)?, index(high)?))
}

fn scan_tx_out_set(context: &Context, args: &Args) -> RpcResult {
    let state = &context.scans.coins;
    match args.text(0)? {
        "status" if !state.is_running() => Ok(Value::Null),
        "status" => Ok(json!({"progress": state.progress.load(Ordering::SeqCst)})),
        "abort" => Ok(json!(state.request_abort())),
        "start" => {
            let _guard = state.reserve().ok_or_else(in_progress)?;
            scan(context, args)
        }
        other => Err(RpcError::new(code::INVALID_PARAMETER, format!("Invalid action '{other}'"))),
    }
}

/// What a scan has found.
struct Found {
    coins: BTreeMap<OutPoint, Coin>,
    count: u64,
    complete: bool,
}

fn scan(context: &Context, args: &Args) -> RpcResult {
    let network = context.chain.params().network.to_bitcoin();
    if args.get(1).is_some_and(|objects| !objects.is_array()) {
        return Err(args.wrong_type(1, "array"));
    }
    let mut wanted: HashMap<ScriptBuf, String> = HashMap::new();
    for Derived { script, descriptor } in scripts(args.get(1), network)? {
        wanted.entry(script).or_insert(descriptor);
    }
    let (pinned, tip) = PinnedCoins::take(&context.chain, |chain| chain.tip())?;
    let found = pinned.read(|coins| look(context, coins, &wanted))??;
    let heights: Vec<u32> = found.coins.values().map(|coin| coin.height).collect();
    let blocks = blocks_below(context, tip, heights)?;
    let mut total = Amount::ZERO;
    let mut unspents = Vec::new();
    for ((outpoint, coin), block) in found.coins.iter().zip(blocks) {
        total += coin.output.value;
        let script = &coin.output.script_pubkey;
        unspents.push(json!({
            "txid": outpoint.txid.to_string(),
            "vout": outpoint.vout,
            "scriptPubKey": script.to_hex_string(),
            "desc": wanted.get(script),
            "amount": tx_json::amount(coin.output.value),
            "coinbase": coin.coinbase,
            "height": coin.height,
            "blockhash": block,
            "confirmations": tip.height - coin.height + 1,
        }));
    }
    Ok(json!({
        "success": found.complete,
        "txouts": found.count,
        "height": tip.height,
        "bestblock": tip.hash.to_string(),
        "unspents": unspents,
        "total_amount": tx_json::amount(total),
    }))
}

fn look(
    context: &Context,
    coins: &mut dyn Iterator<Item = cofferdam_ibd::Result<(OutPoint, Coin)>>,
    wanted: &HashMap<ScriptBuf, String>,
) -> Result<Found, RpcError> {
    let state = &context.scans.coins;
    let mut found = Found { coins: BTreeMap::new(), count: 0, complete: true };
    for entry in coins {
        let (outpoint, coin) = entry?;
        found.count += 1;
        if found.count.is_multiple_of(COINS_PER_LOOK) {
            if state.is_aborted() || context.shutdown.is_requested() {
                found.complete = false;
                return Ok(found);
            }
            // Ids are spread evenly.
            let [first, second, ..] = outpoint.txid.to_byte_array();
            let part = u32::from(first) * 256 + u32::from(second);
            state.progress.store(part * 100 / 65536, Ordering::SeqCst);
        }
        if wanted.contains_key(&coin.output.script_pubkey) {
            found.coins.insert(outpoint, coin);
        }
    }
    Ok(found)
}

/// Returns the hashes of ancestors of `tip`.
fn blocks_below(
    context: &Context,
    tip: BlockRef,
    heights: Vec<u32>,
) -> Result<Vec<Option<String>>, RpcError> {
    Ok(context.chain.query(move |chain| {
        let headers = chain.headers();
        let tip = headers.get(&tip.hash);
        let hash = |height: u32| {
            let at = headers.ancestor(tip?, height)?;
            Some(headers.entry(at).hash.to_string())
        };
        heights.into_iter().map(hash).collect()
    })?)
}
