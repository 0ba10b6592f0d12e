//! Methods that add blocks: those of others, and new ones for tests.

use bitcoin::ScriptBuf;
use bitcoin::consensus::{deserialize, serialize};
use cofferdam_ibd::{
    BlockAccepted, CheckedBlock, DECODE_FAILED, Rejection, RejectionScope, mining,
};
use serde_json::{Value, json};

use super::call::{Args, json as required, optional, optional_text, text};
use super::{Context, Method, RpcError, RpcResult, code, descriptor, tx_json};
use crate::chain::{BlockSource, Worker};

/// Hashes tried for a block if the caller does not say (Bitcoin Core's `DEFAULT_MAX_TRIES`).
const MAX_TRIES_DEFAULT: i64 = 1_000_000;

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "generatetoaddress",
        params: &[required("nblocks"), text("address"), optional("maxtries")],
        help: "Mines blocks to a specified address and returns the block hashes.",
        run: |context, args| {
            let network = context.chain.params().network.to_bitcoin();
            let script = descriptor::address(args.text(1)?, network).ok_or_else(|| {
                RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Error: Invalid address")
            })?;
            generate(context, args, &script)
        },
    },
    Method {
        name: "generatetodescriptor",
        params: &[required("num_blocks"), text("descriptor"), optional("maxtries")],
        help: "Mines to a specified descriptor, raw(HEX) or addr(ADDRESS), and returns the block hashes.",
        run: |context, args| {
            let network = context.chain.params().network.to_bitcoin();
            let script = descriptor::parse(args.text(1)?, network)?;
            generate(context, args, &script)
        },
    },
    Method {
        name: "submitblock",
        params: &[text("hexdata"), optional_text("dummy")],
        help: "Attempts to submit new block to network; returns null, \"duplicate\", \"inconclusive\" or why it is not valid.",
        run: submit_block,
    },
    Method {
        name: "submitheader",
        params: &[text("hexdata")],
        help: "Decodes the given hexdata as a header and submits it as a candidate chain tip if valid.",
        run: submit_header,
    },
];

fn generate(context: &Context, args: &Args, script: &ScriptBuf) -> RpcResult {
    let count = args.integer(0)?;
    let tries = args.optional_integer(2)?.unwrap_or(MAX_TRIES_DEFAULT);
    let mut tries = u64::try_from(tries).unwrap_or(0);
    let mut hashes = Vec::new();
    for _ in 0..count {
        if context.shutdown.is_requested() {
            break;
        }
        let script = script.clone();
        let (mined, left) = context.chain.change(move |worker| {
            let mined = mine(worker, &script, &mut tries)?;
            Ok((mined, tries))
        })?;
        tries = left;
        match mined {
            Some(Ok(hash)) => hashes.push(json!(hash)),
            Some(Err(rejection)) => {
                tracing::error!("a block that was just mined is not valid: {rejection}");
                let message = "ProcessNewBlock, block not accepted";
                return Err(RpcError::new(code::INTERNAL_ERROR, message));
            }
            None => break,
        }
    }
    Ok(Value::Array(hashes))
}

/// Mines one block on the tip and connects it; `None` if the tries were used up.
fn mine(
    worker: &mut Worker,
    script: &ScriptBuf,
    tries: &mut u64,
) -> cofferdam_ibd::Result<Option<Result<String, Rejection>>> {
    let params = std::sync::Arc::clone(worker.chainstate.params());
    let now = worker.clock.seconds();
    let mut block = mining::assemble_block(&worker.chainstate, script, now);
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

fn submit_block(context: &Context, args: &Args) -> RpcResult {
    let undecodable = || RpcError::new(code::DESERIALIZATION_ERROR, "Block decode failed");
    let raw = tx_json::bytes(args.text(0)?).ok_or_else(undecodable)?;
    let submitted = context.chain.submit(raw, BlockSource::User)?;
    Ok(match (submitted.accepted, submitted.invalid) {
        (Some(BlockAccepted::Duplicate(_)), _) => json!("duplicate"),
        // What cannot be read is this method's own error, not a block's.
        (Some(BlockAccepted::Rejected(rejection)), _) if rejection.code == DECODE_FAILED => {
            return Err(undecodable());
        }
        (Some(BlockAccepted::Rejected(rejection)), _) | (_, Some(rejection)) => {
            json!(rejection.code)
        }
        _ if submitted.connected => Value::Null,
        _ => json!("inconclusive"),
    })
}

fn submit_header(context: &Context, args: &Args) -> RpcResult {
    let undecodable = || RpcError::new(code::DESERIALIZATION_ERROR, "Block header decode failed");
    let raw = tx_json::bytes(args.text(0)?).ok_or_else(undecodable)?;
    // As in Bitcoin Core a whole block will do.
    let header = raw.get(..bitcoin::block::Header::SIZE).ok_or_else(undecodable)?;
    let header: bitcoin::block::Header = deserialize(header).map_err(|_| undecodable())?;
    let accepted = context.chain.change(move |worker| {
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
