//! `getblocktemplate` (BIP-0022, BIP-0023, BIP-0009, BIP-0145).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::consensus::deserialize;
use bitcoin::hex::DisplayHex as _;
use bitcoin::{Block, BlockHash, ScriptBuf, Txid};
use cofferdam_ibd::block::{SIGOPS_COST_MAX, WEIGHT_MAX};
use cofferdam_ibd::headers::HeaderStatus;
use cofferdam_ibd::mining::minimum_time;
use cofferdam_ibd::versionbits::{Deployment, ThresholdState};
use cofferdam_ibd::{ChainParams, Network, QueuedTx};
use serde_json::{Map, Value, json};

use super::call::{Args, json as required};
use super::generate::assemble;
use super::{Context, Method, RpcError, RpcResult, code, tx_bytes, tx_json};
use crate::chain::Worker;

pub(super) const METHODS: &[Method] = &[Method {
    name: "getblocktemplate",
    params: &[required("template_request")],
    run: get_block_template,
}];

/// How long a call with a `longpollid` waits for a new tip before it looks at transactions, and
/// between two such looks.
const LONG_POLL_FIRST: Duration = Duration::from_secs(60);
const LONG_POLL_NEXT: Duration = Duration::from_secs(10);

/// Cost of an operation or a byte outside of the witness.
const WITNESS_SCALE: u64 = 4;

fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(code::INVALID_PARAMETER, message)
}

fn get_block_template(context: &Context, args: &Args) -> RpcResult {
    let Some(Value::Object(request)) = args.get(0) else {
        return Err(args.wrong_type(0, "object"));
    };
    match request.get("mode") {
        None | Some(Value::Null) => {}
        Some(Value::String(mode)) if mode == "template" => {}
        Some(Value::String(mode)) if mode == "proposal" => return propose(context, request),
        Some(_) => return Err(invalid("Invalid mode")),
    }
    let mut rules = HashSet::new();
    if let Some(Value::Array(names)) = request.get("rules") {
        for name in names {
            rules.insert(tx_json::string(name)?.to_owned());
        }
    }
    check_connected(context)?;
    if let Some(id) = request.get("longpollid").filter(|id| !id.is_null()) {
        long_poll(context, id)?;
    }
    let signet = context.chain.params().network == Network::Signet;
    if signet && !rules.contains("signet") {
        return Err(invalid(
            "getblocktemplate must be called with the signet rule set (call with {\"rules\": [\"segwit\", \"signet\"]})",
        ));
    }
    if !rules.contains("segwit") {
        return Err(invalid(
            "getblocktemplate must be called with the segwit rule set (call with {\"rules\": [\"segwit\"]})",
        ));
    }
    let config = context.mining.config;
    let (fields, chosen) = context.chain.change(move |worker| {
        let (block, chosen) = assemble(worker, &config, &ScriptBuf::new());
        Ok((template(worker, block, &chosen, &rules), chosen))
    })?;
    context.mining.assembled(&chosen);
    Ok(Value::Object(fields?))
}

/// Outside of tests nobody mines on a chain that is not there yet.
fn check_connected(context: &Context) -> Result<(), RpcError> {
    // As in Core: signet counts as a test here, public testnets too.
    if context.chain.params().network != Network::Mainnet {
        return Ok(());
    }
    if context.peers.peers().is_empty() {
        let message = "Bitcoin Core is not connected!";
        return Err(RpcError::new(code::CLIENT_NOT_CONNECTED, message));
    }
    if context.chain.view().initial_download {
        let message = "Bitcoin Core is in initial sync and waiting for blocks...";
        return Err(RpcError::new(code::CLIENT_IN_INITIAL_DOWNLOAD, message));
    }
    Ok(())
}

/// Waits until the tip is not the one of the id, or other transactions wait.
fn long_poll(context: &Context, id: &Value) -> Result<(), RpcError> {
    let (tip, sequence) = match id.as_str() {
        Some(text) => {
            let (hash, sequence) = text.split_at_checked(64).unwrap_or((text, ""));
            let hash: BlockHash = hash.parse().map_err(|_| {
                invalid(if hash.len() == 64 {
                    format!("longpollid must be hexadecimal string (not '{hash}')")
                } else {
                    format!("longpollid must be of length 64 (not {}, for '{hash}')", hash.len())
                })
            })?;
            (hash, sequence.parse().unwrap_or(0))
        }
        None => (context.chain.view().tip.hash, context.chain.queue().read().sequence()),
    };
    let mut time = LONG_POLL_FIRST;
    while !context.shutdown.is_requested() {
        let now = context.chain.wait_for_tip(Some(time), |now| now.hash != tip);
        if now.hash != tip || context.chain.queue().read().sequence() != sequence {
            return Ok(());
        }
        time = LONG_POLL_NEXT;
    }
    Err(RpcError::new(code::CLIENT_NOT_CONNECTED, "Shutting down"))
}

/// Says whether a block would be valid but for its proof of work.
fn propose(context: &Context, request: &Map<String, Value>) -> RpcResult {
    let Some(Value::String(hex)) = request.get("data") else {
        return Err(RpcError::new(code::TYPE_ERROR, "Missing data String key for proposal"));
    };
    let undecodable = || RpcError::new(code::DESERIALIZATION_ERROR, "Block decode failed");
    let bytes = tx_json::bytes(hex).ok_or_else(undecodable)?;
    let block: Block = deserialize(&bytes).map_err(|_| undecodable())?;
    let hash = block.block_hash();
    let verdict: Result<(), String> = context.chain.change(move |worker| {
        let headers = worker.chainstate.headers();
        if let Some(at) = headers.get(&hash) {
            let status = headers.entry(at).status;
            let known = if status.has(HeaderStatus::FAILED) {
                "duplicate-invalid"
            } else if status.has(HeaderStatus::VALID) {
                "duplicate"
            } else {
                "duplicate-inconclusive"
            };
            return Ok(Err(known.to_owned()));
        }
        let now = worker.clock.seconds();
        let tested = worker.chainstate.try_block(bytes, now, false)?;
        Ok(tested.map_err(|rejection| rejection.full_code()))
    })?;
    Ok(verdict.map_or_else(Value::String, |()| Value::Null))
}

fn template(
    worker: &Worker,
    block: Block,
    chosen: &[Arc<QueuedTx>],
    rules: &HashSet<String>,
) -> Result<Map<String, Value>, RpcError> {
    let chain = &worker.chainstate;
    let params = chain.params();
    let parent = chain.headers().chain(chain.tip_ref());
    let height = chain.tip().height + 1;
    let segwit = height >= params.segwit_height;
    // Before BIP-0141 neither operations nor bytes were scaled.
    let scale = if segwit { 1 } else { WITNESS_SCALE };
    let bits = worker.deployments(rules, block.header.version.to_consensus())?;
    let mut names = vec!["csv".to_owned()];
    if segwit {
        names.extend(["!segwit".to_owned(), "taproot".to_owned()]);
    }
    if params.network == Network::Signet {
        names.push("!signet".to_owned());
    }
    names.extend(bits.active);
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("capabilities", json!(["proposal"]));
    put("version", json!(bits.version));
    put("rules", json!(names));
    put("vbavailable", Value::Object(bits.available));
    put("vbrequired", json!(0));
    put("previousblockhash", json!(block.header.prev_blockhash.to_string()));
    put("transactions", transactions(chosen, scale));
    put("coinbaseaux", json!({}));
    let outputs = block.txdata.first().map(|coinbase| coinbase.output.as_slice());
    let [reward, commitment, ..] = outputs.unwrap_or_default() else {
        return Err(RpcError::new(code::INTERNAL_ERROR, "a block without a coinbase"));
    };
    put("coinbasevalue", json!(reward.value.to_sat()));
    let sequence = worker.queue().read().sequence();
    put("longpollid", json!(format!("{}{sequence}", chain.tip().hash)));
    put("target", json!(block.header.target().to_be_bytes().to_lower_hex_string()));
    put("mintime", json!(minimum_time(params, &parent)));
    put("mutable", json!(["time", "transactions", "prevblock"]));
    put("noncerange", json!("00000000ffffffff"));
    put("sigoplimit", json!(SIGOPS_COST_MAX / scale));
    put("sizelimit", json!(WEIGHT_MAX / scale));
    if segwit {
        put("weightlimit", json!(WEIGHT_MAX));
    }
    put("curtime", json!(block.header.time));
    put("bits", json!(format!("{:08x}", block.header.bits.to_consensus())));
    put("height", json!(height));
    if let Some(challenge) = signet_challenge(params) {
        put("signet_challenge", json!(challenge));
    }
    put("default_witness_commitment", json!(commitment.script_pubkey.to_hex_string()));
    Ok(fields)
}

/// The script that a signet's blocks satisfy.
pub(super) fn signet_challenge(params: &ChainParams) -> Option<String> {
    params.signet_challenge.as_ref().map(|script| script.to_hex_string())
}

fn transactions(chosen: &[Arc<QueuedTx>], scale: u64) -> Value {
    // The coinbase is number 0.
    let places: HashMap<Txid, usize> =
        chosen.iter().enumerate().map(|(index, queued)| (queued.txid, index + 1)).collect();
    let describe = |queued: &Arc<QueuedTx>| {
        let inputs = queued.tx.input.iter();
        let depends: Vec<usize> =
            inputs.filter_map(|input| places.get(&input.previous_output.txid).copied()).collect();
        json!({
            "data": tx_bytes::encode_hex(&queued.tx),
            "txid": queued.txid.to_string(),
            "hash": queued.wtxid.to_string(),
            "depends": depends,
            "fee": queued.fee,
            "sigops": queued.sigops_cost / scale,
            "weight": queued.weight,
        })
    };
    chosen.iter().map(describe).collect()
}

/// What a template says of deployments.
struct Bits {
    version: i32,
    available: Map<String, Value>,
    active: Vec<String>,
}

impl Worker {
    /// `gbtstatus`: the client has to know what it signals for, and what holds.
    fn deployments(&self, rules: &HashSet<String>, version: i32) -> Result<Bits, RpcError> {
        let mut bits = Bits { version, available: Map::new(), active: Vec::new() };
        let chain = &self.chainstate;
        for deployment in &chain.params().deployments {
            let info = chain.deployment_info(deployment, chain.tip_ref());
            // Taproot and testdummy need nothing of a miner (`gbt_optional_rule`).
            let optional = matches!(deployment.name, "taproot" | "testdummy");
            let name =
                if optional { deployment.name.to_owned() } else { format!("!{}", deployment.name) };
            let mask = 1 << deployment.bit;
            let known = optional || rules.contains(deployment.name);
            match info.next_state {
                ThresholdState::Started | ThresholdState::LockedIn => {
                    bits.available.insert(name, json!(deployment.bit));
                    if !known {
                        bits.version &= !mask;
                    }
                }
                ThresholdState::Active if deployment.start_time != Deployment::NEVER_ACTIVE => {
                    if !known {
                        let name = deployment.name;
                        return Err(invalid(format!(
                            "Support for '{name}' rule requires explicit client support"
                        )));
                    }
                    bits.active.push(name);
                }
                _ => {}
            }
        }
        Ok(bits)
    }
}
