//! Methods that make blocks, for tests: the same bytes as Bitcoin Core's.

use std::sync::Arc;

use bitcoin::consensus::serialize;
use bitcoin::hex::DisplayHex as _;
use bitcoin::{Block, ScriptBuf, Transaction, Txid};
use cofferdam_ibd::mining::{self, BlockParts};
use cofferdam_ibd::{BlockAccepted, CheckedBlock, QueuedTx, Rejection};
use serde_json::{Value, json};

use super::call::{Args, json as required, optional, text};
use super::tx_bytes::{Form, decode};
use super::{Context, Method, RpcError, RpcResult, code, descriptor, tx_json};
use crate::chain::{BlockSource, Worker};
use crate::config::MiningConfig;

/// Hashes tried for a block if the caller does not say (Bitcoin Core's `DEFAULT_MAX_TRIES`).
const MAX_TRIES_DEFAULT: u64 = 1_000_000;

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
    let mut hashes = Vec::new();
    for _ in 0..count {
        if context.shutdown.is_requested() {
            break;
        }
        let script = script.clone();
        let (mined, left, chosen) = context.chain.change(move |worker| {
            let (block, chosen) = assemble(worker, &config, &script);
            let mined = solve_and_submit(worker, block, &mut tries)?;
            Ok((mined, tries, chosen))
        })?;
        context.mining.assembled(&chosen);
        tries = left;
        match mined {
            Some(Ok(hash)) => hashes.push(json!(hash)),
            Some(Err(rejection)) => return Err(not_accepted(&rejection)),
            None => break,
        }
    }
    Ok(Value::Array(hashes))
}

fn not_accepted(rejection: &Rejection) -> RpcError {
    tracing::error!("a block that was just mined is not valid: {rejection}");
    RpcError::new(code::INTERNAL_ERROR, "ProcessNewBlock, block not accepted")
}

/// Finds a block's proof of work and connects it; `None` if the tries were used up.
fn solve_and_submit(
    worker: &mut Worker,
    mut block: Block,
    tries: &mut u64,
) -> cofferdam_ibd::Result<Option<Result<String, Rejection>>> {
    let params = Arc::clone(worker.chainstate.params());
    if !mining::solve(&mut block, &params, tries) {
        return Ok(None);
    }
    let hash = block.block_hash().to_string();
    let checked = match CheckedBlock::parse(serialize(&block), &params) {
        Ok(checked) => checked,
        Err(rejection) => return Ok(Some(Err(rejection))),
    };
    let submitted = worker.submit(checked, BlockSource::User)?;
    Ok(Some(match (submitted.accepted, submitted.invalid) {
        (Some(BlockAccepted::Rejected(rejection)), _) | (_, Some(rejection)) => Err(rejection),
        _ => Ok(hash),
    }))
}

/// What became of the block of `generateblock`.
enum Made {
    Connected(String),
    Solved(Box<Block>),
    Untested(Rejection),
    NotAccepted(Rejection),
    NotSolved,
}

fn generate_block(context: &Context, args: &Args) -> RpcResult {
    let script = output_script(context, args.text(0)?)?;
    let transactions = transactions(context, args.array(1)?)?;
    let submit = args.optional_flag(2)?.unwrap_or(true);
    let version = context.mining.config.version;
    let made = context.chain.change(move |worker| {
        let now = worker.clock.seconds();
        let parts = BlockParts { transactions, fees: 0, version };
        let mut block = mining::assemble_block_of(&worker.chainstate, &script, now, parts);
        if let Err(rejection) = worker.chainstate.try_block(serialize(&block), now, false)? {
            return Ok(Made::Untested(rejection));
        }
        let mut tries = MAX_TRIES_DEFAULT;
        if submit {
            return Ok(match solve_and_submit(worker, block, &mut tries)? {
                Some(Ok(hash)) => Made::Connected(hash),
                Some(Err(rejection)) => Made::NotAccepted(rejection),
                None => Made::NotSolved,
            });
        }
        let solved = mining::solve(&mut block, worker.chainstate.params(), &mut tries);
        Ok(if solved { Made::Solved(Box::new(block)) } else { Made::NotSolved })
    })?;
    match made {
        Made::Connected(hash) => Ok(json!({"hash": hash})),
        Made::Solved(block) => {
            let hex = serialize(&*block).to_lower_hex_string();
            Ok(json!({"hash": block.block_hash().to_string(), "hex": hex}))
        }
        Made::Untested(rejection) => {
            let message = format!("TestBlockValidity failed: {rejection}");
            Err(RpcError::new(code::VERIFY_ERROR, message))
        }
        Made::NotAccepted(rejection) => Err(not_accepted(&rejection)),
        Made::NotSolved => Err(RpcError::new(code::MISC_ERROR, "Failed to make block.")),
    }
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
