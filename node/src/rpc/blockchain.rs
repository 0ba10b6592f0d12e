//! Methods that read the chain.

use bitcoin::BlockHash;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hex::DisplayHex as _;
use cofferdam_ibd::{Chainstate, HeaderRef};
use serde_json::{Value, json};

use super::call::{Args, json as required, optional, optional_text, parse_hash, text};
use super::stored_block::StoredBlock;
use super::tx_json::Spent;
use super::{Context, Method, RpcError, RpcResult, code, deployments, tx_json, utxo_set};

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "getbestblockhash",
        params: &[],
        run: |context, _| Ok(json!(context.chain.view().tip.hash.to_string())),
    },
    Method {
        name: "getblock",
        params: &[text("blockhash"), optional("verbosity|verbose")],
        run: get_block,
    },
    Method {
        name: "getblockcount",
        params: &[],
        run: |context, _| Ok(json!(context.chain.view().tip.height)),
    },
    Method { name: "getblockhash", params: &[required("height")], run: get_block_hash },
    Method {
        name: "getblockheader",
        params: &[text("blockhash"), optional("verbose")],
        run: get_block_header,
    },
    Method {
        name: "getdeploymentinfo",
        params: &[optional_text("blockhash")],
        run: deployments::get_deployment_info,
    },
    Method {
        name: "gettxoutsetinfo",
        params: &[optional_text("hash_type"), optional("hash_or_height"), optional("use_index")],
        run: utxo_set::get_tx_out_set_info,
    },
];

pub(super) fn find(chain: &Chainstate, hash: &BlockHash) -> Result<HeaderRef, RpcError> {
    let found = chain.headers().get(hash);
    found.ok_or_else(|| RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Block not found"))
}

fn get_block(context: &Context, args: &Args) -> RpcResult {
    let hash: BlockHash = args.hash(0)?;
    let verbosity = args.verbosity(1, 1)?;
    let network = context.chain.params().network.to_bitcoin();
    let (stored, mut fields) = context.chain.query(move |chain| {
        let at = find(chain, &hash)?;
        Ok::<_, RpcError>((StoredBlock::new(chain, at), tx_json::header(chain, at)))
    })??;
    if verbosity <= 0 {
        return Ok(json!(stored.raw()?.to_lower_hex_string()));
    }
    let block = stored.block()?;
    let has_undo = verbosity >= 2 && stored.entry.undo.is_some();
    let undo = has_undo.then(|| stored.undo()).transpose()?;
    let transactions: Vec<Value> = if verbosity == 1 {
        block
            .txdata
            .iter()
            .map(|transaction| json!(transaction.compute_txid().to_string()))
            .collect()
    } else {
        let spent = |index: usize| {
            // The coinbase has no undo data.
            let undo = undo.as_ref().zip(index.checked_sub(1)).and_then(|(all, at)| all.0.get(at));
            match undo {
                Some(undo) if verbosity >= 3 => Spent::Coins(undo),
                Some(undo) => Spent::Fee(undo),
                None => Spent::Unknown,
            }
        };
        let transactions = block.txdata.iter().enumerate();
        transactions.map(|(at, tx)| tx_json::transaction(tx, spent(at), network)).collect()
    };
    // BIP-0141: weight is three times the size without witness, and the whole size.
    let weight = block.weight().to_wu();
    let size = block.total_size();
    let stripped = (weight - u64::try_from(size).unwrap_or(0)) / 3;
    fields.insert("strippedsize".into(), json!(stripped));
    fields.insert("size".into(), json!(size));
    fields.insert("weight".into(), json!(weight));
    fields.insert(
        "coinbase_tx".into(),
        block.txdata.first().map(tx_json::coinbase).unwrap_or_default(),
    );
    fields.insert("tx".into(), Value::Array(transactions));
    Ok(Value::Object(fields))
}

fn get_block_hash(context: &Context, args: &Args) -> RpcResult {
    let height = u32::try_from(args.integer::<i32>(0)?).ok();
    let block =
        context.chain.query(move |chain| height.and_then(|height| chain.block_at(height)))?;
    match block {
        Some(block) => Ok(json!(block.hash.to_string())),
        None => Err(RpcError::new(code::INVALID_PARAMETER, "Block height out of range")),
    }
}

fn get_block_header(context: &Context, args: &Args) -> RpcResult {
    // Core calls it so in this text alone.
    let hash: BlockHash = parse_hash("hash", args.text(0)?)?;
    let verbose = args.optional_flag(1)?.unwrap_or(true);
    if verbose {
        return Ok(Value::Object(context.headers.fields(&context.chain, hash)?));
    }
    let header = context.headers.header(&context.chain, hash)?;
    Ok(json!(serialize_hex(&header)))
}
