//! Methods that take in blocks and headers, and what is said about mining.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hex::DisplayHex as _;
use bitcoin::{Block, CompactTarget};
use cofferdam_ibd::mining::minimum_time;
use cofferdam_ibd::pow::next_work_required;
use cofferdam_ibd::{
    BlockAccepted, Chainstate, DECODE_FAILED, HeaderChain as _, QueuedTx, Rejection, RejectionScope,
};
use serde_json::{Map, Value, json};

use super::call::{Args, optional, optional_text, text};
use super::template::signet_challenge;
use super::{Context, Method, RpcError, RpcResult, code, tx_json};
use crate::chain::BlockSource;
use crate::config::MiningConfig;

/// Blocks that the hash rate is estimated from if the caller does not say.
const HASH_RATE_BLOCKS: i32 = 120;

pub(super) const METHODS: &[Method] = &[
    Method { name: "getmininginfo", params: &[], run: get_mining_info },
    Method {
        name: "getnetworkhashps",
        params: &[optional("nblocks"), optional("height")],
        run: |context, args| {
            let blocks = args.optional_integer(0)?.unwrap_or(HASH_RATE_BLOCKS);
            let height = args.optional_integer(1)?.unwrap_or(-1);
            context.chain.query(move |chain| network_hashes(chain, blocks, height))?
        },
    },
    Method {
        name: "submitblock",
        params: &[text("hexdata"), optional_text("dummy")],
        run: submit_block,
    },
    Method { name: "submitheader", params: &[text("hexdata")], run: submit_header },
];

/// How blocks are built, and what was built last.
#[derive(Debug)]
pub(crate) struct MiningState {
    /// The options.
    pub(crate) config: MiningConfig,
    /// Where the queue is kept over a restart; who has it writes the file.
    pub(crate) queue_file: Mutex<PathBuf>,
    /// Weight and number of transactions of the last block that was built.
    last: Mutex<Option<(u64, usize)>>,
}

impl MiningState {
    /// Returns the state of a node that has built nothing.
    pub(crate) fn new(config: MiningConfig, queue_file: PathBuf) -> Self {
        Self { config, queue_file: Mutex::new(queue_file), last: Mutex::new(None) }
    }

    /// Remembers what a block was built of.
    pub(super) fn assembled(&self, chosen: &[Arc<QueuedTx>]) {
        let weight: u64 = chosen.iter().map(|queued| queued.weight).sum();
        let weight = self.config.block.reserved_weight + weight;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((weight, chosen.len()));
    }
}

fn get_mining_info(context: &Context, _: &Args) -> RpcResult {
    let last = *context.mining.last.lock().unwrap_or_else(PoisonError::into_inner);
    let queued = context.chain.queue().read().len();
    let fee_rate = bitcoin::Amount::from_sat(context.mining.config.block.fee_rate_min);
    let (now, warnings) = (context.clock.seconds(), context.warnings.texts());
    context.chain.query(move |chain| {
        let params = chain.params();
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        let tip = chain.headers().entry(chain.tip_ref());
        put("blocks", json!(tip.height));
        if let Some((weight, txs)) = last {
            put("currentblockweight", json!(weight));
            put("currentblocktx", json!(txs));
        }
        let [bits, difficulty, target] = difficulty(tip.header.bits);
        put("bits", bits);
        put("difficulty", difficulty);
        put("target", target);
        put("networkhashps", network_hashes(chain, HASH_RATE_BLOCKS, -1)?);
        put("pooledtx", json!(queued));
        put("blockmintxfee", tx_json::amount(fee_rate));
        put("chain", json!(params.network.to_string()));
        put("next", next_block(chain, now));
        if let Some(challenge) = signet_challenge(params) {
            put("signet_challenge", json!(challenge));
        }
        put("warnings", json!(warnings));
        Ok(Value::Object(fields))
    })?
}

fn difficulty(bits: CompactTarget) -> [Value; 3] {
    let target = bitcoin::Target::from_compact(bits).to_be_bytes().to_lower_hex_string();
    let bits = bits.to_consensus();
    [json!(format!("{bits:08x}")), tx_json::float(tx_json::difficulty(bits)), json!(target)]
}

fn next_block(chain: &Chainstate, now: u32) -> Value {
    let parent = chain.headers().chain(chain.tip_ref());
    let time = now.max(minimum_time(chain.params(), &parent));
    let bits = next_work_required(chain.params(), &parent, time);
    let [bits, difficulty, target] = difficulty(bits);
    json!({
        "height": parent.height() + 1,
        "bits": bits,
        "difficulty": difficulty,
        "target": target,
    })
}

/// `GetNetworkHashPS`: the work of some blocks over the time between the first and the last.
fn network_hashes(chain: &Chainstate, blocks: i32, height: i32) -> RpcResult {
    let invalid = |message: &str| Err(RpcError::new(code::INVALID_PARAMETER, message));
    if blocks < -1 || blocks == 0 {
        return invalid("Invalid nblocks. Must be a positive number or -1.");
    }
    let tip = chain.tip().height;
    if height < -1 || i64::from(height) > i64::from(tip) {
        return invalid("Block does not exist at specified height");
    }
    let last = u32::try_from(height).unwrap_or(tip);
    let since_change = last % chain.params().difficulty_adjustment_interval() + 1;
    let count = u32::try_from(blocks).unwrap_or(since_change).min(last);
    let headers = chain.headers();
    let entry = |height| headers.ancestor(chain.tip_ref(), height).map(|at| headers.entry(at));
    let (Some(from), Some(to)) = (entry(last - count), entry(last)) else {
        return Ok(json!(0));
    };
    let times = (last - count..=last).filter_map(entry).map(|entry| entry.header.time);
    let (least, most) =
        times.fold((u32::MAX, 0), |(least, most), time| (least.min(time), most.max(time)));
    if count == 0 || least == most {
        return Ok(json!(0));
    }
    let work = to.chain_work - from.chain_work;
    Ok(tx_json::float(as_float(work.to_be_bytes()) / f64::from(most - least)))
}

/// `arith_uint256::getdouble`.
fn as_float(bytes: [u8; 32]) -> f64 {
    bytes.iter().fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte))
}

fn submit_block(context: &Context, args: &Args) -> RpcResult {
    let undecodable = || RpcError::new(code::DESERIALIZATION_ERROR, "Block decode failed");
    let raw = tx_json::bytes(args.text(0)?).ok_or_else(undecodable)?;
    let submitted = context.chain.submit(with_reserved_value(context, raw)?, BlockSource::User)?;
    Ok(match (submitted.accepted, submitted.invalid) {
        (Some(BlockAccepted::Duplicate(_)), _) => json!("duplicate"),
        // What cannot be read is this method's own error, not a block's.
        (Some(BlockAccepted::Rejected(rejection)), _) if rejection.code == DECODE_FAILED => {
            return Err(undecodable());
        }
        (Some(BlockAccepted::Rejected(rejection)), _) | (_, Some(rejection)) => {
            json!(rejection.full_code())
        }
        _ if submitted.connected => Value::Null,
        _ => json!("inconclusive"),
    })
}

/// Puts the reserved value into the coinbase's witness of a block that commits to witnesses and has
/// none (`UpdateUncommittedBlockStructures`): not all miners send what is the same in every block.
fn with_reserved_value(context: &Context, raw: Vec<u8>) -> Result<Vec<u8>, RpcError> {
    /// `OP_RETURN`, a push of 36 bytes, and the commitment's header (BIP-0141).
    const COMMITMENT: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
    const COMMITMENT_BYTES: usize = 38;
    let Ok(mut block) = deserialize::<Block>(&raw) else { return Ok(raw) };
    let parent = block.header.prev_blockhash;
    let Some(coinbase) = block.txdata.first_mut() else { return Ok(raw) };
    let commits = coinbase.output.iter().any(|output| {
        let script = output.script_pubkey.as_bytes();
        script.len() >= COMMITMENT_BYTES && script.starts_with(&COMMITMENT)
    });
    let Some(input) = coinbase.input.first_mut().filter(|input| input.witness.is_empty()) else {
        return Ok(raw);
    };
    let segwit_height = context.chain.params().segwit_height;
    let has_segwit = context.chain.query(move |chain| {
        let headers = chain.headers();
        headers.get(&parent).is_some_and(|at| headers.entry(at).height + 1 >= segwit_height)
    })?;
    if !commits || !has_segwit {
        return Ok(raw);
    }
    input.witness.push([0; 32]);
    Ok(serialize(&block))
}

fn submit_header(context: &Context, args: &Args) -> RpcResult {
    let undecodable = || RpcError::new(code::DESERIALIZATION_ERROR, "Block header decode failed");
    let raw = tx_json::bytes(args.text(0)?).ok_or_else(undecodable)?;
    // As in Bitcoin Core a whole block will do.
    let header = raw.get(..bitcoin::block::Header::SIZE).ok_or_else(undecodable)?;
    let header: bitcoin::block::Header = deserialize(header).map_err(|_| undecodable())?;
    let accepted = context.chain.change(move |worker| {
        if worker.chainstate.headers().get(&header.prev_blockhash).is_none() {
            // Whatever else is wrong with it.
            let rejection = Rejection::new("prev-blk-not-found", RejectionScope::MissingPrev);
            return Ok(Err(rejection));
        }
        let now = worker.clock.seconds();
        worker.chainstate.accept_headers(&[header], now)
    })?;
    match accepted {
        Ok(_) => Ok(Value::Null),
        Err(rejection) if rejection.scope == RejectionScope::MissingPrev => {
            let message = format!("Must submit previous header ({}) first", header.prev_blockhash);
            Err(RpcError::new(code::VERIFY_ERROR, message))
        }
        Err(rejection) => Err(RpcError::new(code::VERIFY_ERROR, rejection.code)),
    }
}
