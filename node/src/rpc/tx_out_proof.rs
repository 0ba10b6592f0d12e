//! `gettxoutproof` and `verifytxoutproof`: that a transaction is in a block (`rpc/txoutproof.cpp`).

use std::collections::BTreeSet;

use bitcoin::consensus::{deserialize_partial, serialize};
use bitcoin::hex::DisplayHex as _;
use bitcoin::{BlockHash, MerkleBlock, OutPoint, Txid};
use serde_json::{Value, json};

use super::call::{Args, json as required, optional_text, text};
use super::stored_block::StoredBlock;
use super::{Context, Method, RpcError, RpcResult, code, tx_json};

/// Outputs of a transaction that are looked up to find its block (Core: as many as fit in one).
const OUTPUTS_MAX: u32 = 4_000_000 / (4 * 9);

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "gettxoutproof",
        params: &[required("txids"), optional_text("blockhash")],
        run: get_tx_out_proof,
    },
    Method { name: "verifytxoutproof", params: &[text("proof")], run: verify_tx_out_proof },
];

fn key_error(text: &str) -> RpcError {
    RpcError::new(code::INVALID_ADDRESS_OR_KEY, text)
}

fn get_tx_out_proof(context: &Context, args: &Args) -> RpcResult {
    let invalid = |text: String| RpcError::new(code::INVALID_PARAMETER, text);
    let given = args.get(0).and_then(Value::as_array).ok_or_else(|| args.wrong_type(0, "array"))?;
    if given.is_empty() {
        return Err(invalid("Parameter 'txids' cannot be empty".into()));
    }
    let mut txids = BTreeSet::new();
    for value in given {
        let text = tx_json::string(value)?;
        let txid: Txid = super::call::parse_hash("txid", text)?;
        if !txids.insert(txid) {
            return Err(invalid(format!("Invalid parameter, duplicated txid: {text}")));
        }
    }
    let stored = match args.get(1) {
        Some(_) => StoredBlock::find(context, args.hash(1)?)?,
        None => find_block(context, &txids)?,
    };
    let block = stored.block()?;
    let ids: Vec<Txid> = block.txdata.iter().map(bitcoin::Transaction::compute_txid).collect();
    if ids.iter().filter(|txid| txids.contains(*txid)).count() != txids.len() {
        return Err(key_error("Not all transactions found in specified or retrieved block"));
    }
    let proof = MerkleBlock::from_header_txids_with_predicate(&block.header, &ids, |txid| {
        txids.contains(txid)
    });
    Ok(json!(serialize(&proof).to_lower_hex_string()))
}

/// Finds the block of one of the transactions, by an output that is not spent or the index.
fn find_block(context: &Context, txids: &BTreeSet<Txid>) -> Result<StoredBlock, RpcError> {
    let wanted: Vec<Txid> = txids.iter().copied().collect();
    let unspent = context.chain.query(move |chain| -> Result<_, RpcError> {
        for txid in wanted {
            for vout in 0..OUTPUTS_MAX {
                if let Some(coin) = chain.coin(&OutPoint { txid, vout })? {
                    let at = chain.headers().ancestor(chain.tip_ref(), coin.height);
                    return Ok(at.map(|at| StoredBlock::new(chain, at)));
                }
            }
        }
        Ok(None)
    })??;
    if let Some(stored) = unspent {
        return Ok(stored);
    }
    let indexed = match (context.indexes.transactions(), txids.first()) {
        (Some((index, _)), Some(txid)) => index
            .find(txid)
            .map_err(|error| RpcError::new(code::INTERNAL_ERROR, format!("{error:#}")))?,
        _ => None,
    };
    let (hash, _) = indexed.ok_or_else(|| key_error("Transaction not yet in block"))?;
    StoredBlock::find(context, hash)
}

fn verify_tx_out_proof(context: &Context, args: &Args) -> RpcResult {
    let hex = args.text(0)?;
    let bytes = tx_json::bytes(hex).filter(|bytes| !bytes.is_empty()).ok_or_else(|| {
        let text = format!("proof must be hexadecimal string (not '{hex}')");
        RpcError::new(code::INVALID_PARAMETER, text)
    })?;
    // As in Core, what follows the proof is not looked at.
    let (proof, _) = deserialize_partial::<MerkleBlock>(&bytes).map_err(|_| {
        let text = "SpanReader::read(): end of data: iostream error";
        RpcError::new(code::MISC_ERROR, text)
    })?;
    let (mut found, mut places) = (Vec::new(), Vec::new());
    if proof.extract_matches(&mut found, &mut places).is_err() {
        return Ok(json!([]));
    }
    let hash: BlockHash = proof.header.block_hash();
    let tx_count = context.chain.query(move |chain| {
        let at = chain.headers().get(&hash).filter(|at| chain.is_connected(*at))?;
        Some(chain.headers().entry(at).tx_count).filter(|count| *count > 0)
    })?;
    let tx_count = tx_count.ok_or_else(|| key_error("Block not found in chain"))?;
    if tx_count != proof.txn.num_transactions() {
        return Ok(json!([]));
    }
    Ok(found.iter().map(|txid| json!(txid.to_string())).collect())
}
