//! Methods that make blocks, for tests: the same bytes as Bitcoin Core's.

use std::sync::Arc;

use bitcoin::consensus::serialize;
use bitcoin::hex::DisplayHex as _;
use bitcoin::{Block, ScriptBuf, Transaction, Txid};
use cofferdam_ibd::mining::{self, BlockParts};
use cofferdam_ibd::{BlockAccepted, ChainParams, CheckedBlock, QueuedTx, Rejection};
use serde_json::{Value, json};

use super::call::{Args, json as required, optional, text};
use super::tx_bytes::{Form, decode};
use super::{Context, Method, RpcError, RpcResult, code, descriptor, tx_json};
use crate::chain::{BlockSource, Submitted, Worker};
use crate::config::MiningConfig;

/// Hashes tried for a block if the caller does not say (Bitcoin Core's `DEFAULT_MAX_TRIES`).
const MAX_TRIES_DEFAULT: u64 = 1_000_000;

/// Hashes tried on the chain's thread: enough on regtest, and less than a millisecond.
const TRIES_AT_ONCE: u64 = 1_000;

/// Hashes between two looks at the wish to stop.
const TRIES_A_ROUND: u64 = 100_000;

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "generate",
        params: &[],
        run: |_, _| {
            let message = "generate\n\nhas been replaced by the -generate cli option. Refer to -help for more information.\n";
            Err(RpcError::new(code::METHOD_NOT_FOUND, message))
        },
    },
    Method {
        name: "generatetoaddress",
        params: &[required("nblocks"), text("address"), optional("maxtries")],
        run: |context, args| {
            let count = args.integer(0)?;
            // As in Core a number of 32 bits, and one below zero is no limit.
            let tries = args.optional_integer::<i32>(2)?;
            let tries = tries.map(|tries| u64::try_from(tries).unwrap_or(u64::MAX));
            let network = context.chain.params().network.to_bitcoin();
            let script = descriptor::address(args.text(1)?, network).ok_or_else(|| {
                RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Error: Invalid address")
            })?;
            generate(context, count, &script, tries)
        },
    },
    Method {
        name: "generatetodescriptor",
        params: &[required("num_blocks"), text("descriptor"), optional("maxtries")],
        run: |context, args| {
            let (count, tries) = (args.integer(0)?, args.optional_integer(2)?);
            let network = context.chain.params().network.to_bitcoin();
            let script = descriptor::parse(args.text(1)?, network)?;
            generate(context, count, &script, tries)
        },
    },
    Method {
        name: "generateblock",
        params: &[text("output"), required("transactions"), optional("submit")],
        run: generate_block,
    },
];

/// Builds a block on the tip of what waits; says what it has beside the coinbase.
pub(super) fn assemble(
    worker: &Worker,
    config: &MiningConfig,
    script: &ScriptBuf,
) -> (Block, Vec<Arc<QueuedTx>>) {
    let height = worker.chainstate.tip().height + 1;
    let witnesses = height >= worker.chainstate.params().segwit_height;
    let chosen = worker.queue().read().select(&config.block, witnesses);
    let parts = BlockParts {
        transactions: chosen.iter().map(|queued| queued.tx.clone()).collect(),
        fees: chosen.iter().map(|queued| queued.fee).sum(),
        version: config.version,
    };
    let now = worker.clock.seconds();
    (mining::assemble_block_of(&worker.chainstate, script, now, parts), chosen)
}

fn generate(context: &Context, count: i32, script: &ScriptBuf, tries: Option<u64>) -> RpcResult {
    let (mut tries, config) = (tries.unwrap_or(MAX_TRIES_DEFAULT), context.mining.config);
    let (count, mut hashes) = (usize::try_from(count).unwrap_or(0), Vec::new());
    while hashes.len() < count && tries > 0 && !context.shutdown.is_requested() {
        let script = script.clone();
        let (mut block, submitted, left, chosen) = context.chain.change(move |worker| {
            let (mut block, chosen) = assemble(worker, &config, &script);
            let params = Arc::clone(worker.chainstate.params());
            let found = try_some(&mut block, &params, &mut tries, TRIES_AT_ONCE);
            let submitted = found.then(|| submit(worker, &block)).transpose()?;
            Ok((block, submitted, tries, chosen))
        })?;
        context.mining.assembled(&chosen);
        tries = left;
        let hash = match submitted {
            Some(submitted) => finish(context, &block, submitted)?,
            None if solve(context, &mut block, &mut tries) => submit_solved(context, block)?,
            // Where no nonce will do another block may.
            None => continue,
        };
        hashes.push(json!(hash));
    }
    Ok(Value::Array(hashes))
}

fn not_accepted(rejection: &Rejection) -> RpcError {
    tracing::error!("a block that was just mined is not valid: {rejection}");
    RpcError::new(code::INTERNAL_ERROR, "ProcessNewBlock, block not accepted")
}

/// Tries at most `most` hashes, and takes them off `tries`; returns whether the block has its proof of
/// work.
fn try_some(block: &mut Block, params: &ChainParams, tries: &mut u64, most: u64) -> bool {
    let granted = most.min(*tries);
    let mut left = granted;
    let found = mining::solve(block, params, &mut left);
    *tries -= granted - left;
    found
}

/// Looks for a block's proof of work on the caller's thread: the chain goes on meanwhile. Returns false
/// if tries or nonces were used up, or the node stops.
fn solve(context: &Context, block: &mut Block, tries: &mut u64) -> bool {
    let params = context.chain.params();
    loop {
        if try_some(block, params, tries, TRIES_A_ROUND) {
            return true;
        }
        let is_used_up = *tries == 0 || block.header.nonce == u32::MAX;
        if is_used_up || context.shutdown.is_requested() {
            return false;
        }
    }
}

/// Gives a block that was just made to the chain.
fn submit(worker: &mut Worker, block: &Block) -> cofferdam_ibd::Result<Submitted> {
    match CheckedBlock::parse(serialize(block), worker.chainstate.params()) {
        Ok(checked) => worker.submit(checked, BlockSource::User),
        Err(rejection) => Ok(Submitted::rejected(rejection)),
    }
}

/// Waits for what becomes of it; returns its hash.
fn finish(context: &Context, block: &Block, submitted: Submitted) -> Result<String, RpcError> {
    let submitted = context.chain.finish(submitted)?;
    match (submitted.accepted, submitted.invalid) {
        (Some(BlockAccepted::Rejected(rejection)), _) | (_, Some(rejection)) => {
            Err(not_accepted(&rejection))
        }
        _ => Ok(block.block_hash().to_string()),
    }
}

fn submit_solved(context: &Context, block: Block) -> Result<String, RpcError> {
    let (block, submitted) = context.chain.change(move |worker| {
        let submitted = submit(worker, &block)?;
        Ok((block, submitted))
    })?;
    finish(context, &block, submitted)
}

fn generate_block(context: &Context, args: &Args) -> RpcResult {
    let script = output_script(context, args.text(0)?)?;
    let transactions = transactions(context, args.array(1)?)?;
    let is_submitted = args.optional_flag(2)?.unwrap_or(true);
    let version = context.mining.config.version;
    let made = context.chain.change(move |worker| {
        let now = worker.clock.seconds();
        let parts = BlockParts { transactions, fees: 0, version };
        let block = mining::assemble_block_of(&worker.chainstate, &script, now, parts);
        let tried = worker.chainstate.try_block(serialize(&block), now, false)?;
        Ok(tried.map(|()| block))
    })?;
    let mut block = made.map_err(|rejection| {
        let message = format!("TestBlockValidity failed: {rejection}");
        RpcError::new(code::VERIFY_ERROR, message)
    })?;
    let mut tries = MAX_TRIES_DEFAULT;
    if !solve(context, &mut block, &mut tries) {
        return Err(RpcError::new(code::MISC_ERROR, "Failed to make block."));
    }
    if !is_submitted {
        let hex = serialize(&block).to_lower_hex_string();
        return Ok(json!({"hash": block.block_hash().to_string(), "hex": hex}));
    }
    Ok(json!({"hash": submit_solved(context, block)?}))
}

fn output_script(context: &Context, text: &str) -> Result<ScriptBuf, RpcError> {
    let network = context.chain.params().network.to_bitcoin();
    if descriptor::Descriptor::parse(text, network).is_ok() {
        return descriptor::parse(text, network);
    }
    descriptor::address(text, network).ok_or_else(|| {
        RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Error: Invalid address or descriptor")
    })
}

/// Transactions given as hexadecimal digits, or by their ids in the queue.
fn transactions(context: &Context, texts: &[Value]) -> Result<Vec<Transaction>, RpcError> {
    let queue = context.chain.queue().read();
    let find = |text: &Value| {
        let text = tx_json::string(text)?;
        if let Ok(txid) = text.parse::<Txid>() {
            return queue.get(&txid).map(|queued| queued.tx.clone()).ok_or_else(|| {
                let message = format!("Transaction {text} not in mempool.");
                RpcError::new(code::INVALID_ADDRESS_OR_KEY, message)
            });
        }
        decode(text, Form::Any).ok_or_else(|| {
            let message = format!(
                "Transaction decode failed for {text}. Make sure the tx has at least one input."
            );
            RpcError::new(code::DESERIALIZATION_ERROR, message)
        })
    };
    texts.iter().map(find).collect()
}
