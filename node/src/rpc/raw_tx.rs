//! Methods that read and make raw transactions, without keys.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash as _;
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Txid, Witness,
};
use serde_json::{Map, Value, json};

use super::call::{Args, json as required, not_of_type, optional, optional_text, text, whole};
use super::tx_bytes::{Form, decode, encode_hex};
use super::tx_json::{self, Spent};
use super::{Context, Method, RpcError, RpcResult, amounts, code, decode_script, descriptor};

/// Versions that `createrawtransaction` makes (Bitcoin Core's `TX_MAX_STANDARD_VERSION`).
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=3;
const VERSION_DEFAULT: u32 = 2;

/// Sequence number of an input whose transaction may be replaced (`MAX_BIP125_RBF_SEQUENCE`).
const SEQUENCE_REPLACEABLE: u32 = 0xffff_fffd;

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "createrawtransaction",
        params: &[
            required("inputs"),
            required("outputs"),
            optional("locktime"),
            optional("replaceable"),
            optional("version"),
        ],
        run: |context, args| Ok(json!(encode_hex(&create(context, args)?))),
    },
    Method {
        name: "decoderawtransaction",
        params: &[text("hexstring"), optional("iswitness")],
        run: decode_raw_transaction,
    },
    Method {
        name: "decodescript",
        params: &[text("hexstring")],
        run: decode_script::decode_script,
    },
    Method {
        name: "getrawtransaction",
        params: &[text("txid"), optional("verbosity|verbose"), optional_text("blockhash")],
        run: get_raw_transaction,
    },
];

fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(code::INVALID_PARAMETER, message)
}

fn decode_raw_transaction(context: &Context, args: &Args) -> RpcResult {
    let form = match args.optional_flag(1)? {
        None => Form::Any,
        Some(true) => Form::Witness,
        Some(false) => Form::Legacy,
    };
    let tx = decode(args.text(0)?, form)
        .ok_or_else(|| RpcError::new(code::DESERIALIZATION_ERROR, "TX decode failed"))?;
    let network = context.chain.params().network.to_bitcoin();
    let mut fields = tx_json::transaction(&tx, Spent::Unknown, network);
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("hex");
    }
    Ok(fields)
}

/// The transaction that `createrawtransaction` and `createpsbt` make (`ConstructTransaction`).
pub(super) fn create(context: &Context, args: &Args) -> Result<Transaction, RpcError> {
    let lock_time = args.optional_integer::<i64>(2)?.unwrap_or(0);
    let lock_time = u32::try_from(lock_time)
        .map_err(|_| invalid("Invalid parameter, locktime out of range"))?;
    let replaceable = args.optional_flag(3)?;
    let version = args.optional_integer(4)?.unwrap_or(VERSION_DEFAULT);
    if !VERSIONS.contains(&version) {
        return Err(invalid("Invalid parameter, version out of range(1~3)"));
    }
    let sequence = match replaceable {
        None | Some(true) => SEQUENCE_REPLACEABLE,
        Some(false) if lock_time != 0 => Sequence::ENABLE_LOCKTIME_NO_RBF.0,
        Some(false) => Sequence::MAX.0,
    };
    let inputs = match args.get(0) {
        None => &[][..],
        Some(_) => args.array(0)?,
    };
    let input: Vec<TxIn> =
        inputs.iter().map(|value| input(value, sequence)).collect::<Result<_, _>>()?;
    let network = context.chain.params().network.to_bitcoin();
    let output = outputs(args, 1, network)?;
    let signals = input.iter().any(|input| input.sequence.0 <= SEQUENCE_REPLACEABLE);
    if replaceable == Some(true) && !input.is_empty() && !signals {
        return Err(invalid(
            "Invalid parameter combination: Sequence number(s) contradict replaceable option",
        ));
    }
    Ok(Transaction {
        version: Version(i32::try_from(version).unwrap_or_default()),
        lock_time: LockTime::from_consensus(lock_time),
        input,
        output,
    })
}

fn input(value: &Value, sequence: u32) -> Result<TxIn, RpcError> {
    if !value.is_object() {
        return Err(not_of_type(value, "object"));
    }
    let previous_output = tx_json::outpoint(value)?;
    let sequence = match value.get("sequence").filter(|sequence| sequence.is_number()) {
        None => sequence,
        Some(number) => u32::try_from(whole::<i64>(number)?)
            .map_err(|_| invalid("Invalid parameter, sequence number is out of range"))?,
    };
    let script_sig = ScriptBuf::new();
    Ok(TxIn { previous_output, script_sig, sequence: Sequence(sequence), witness: Witness::new() })
}

/// Outputs given as an object, or as an array of objects of one.
fn outputs(args: &Args, index: usize, network: Network) -> Result<Vec<TxOut>, RpcError> {
    let mut pairs: Vec<(&String, &Value)> = Vec::new();
    match args.get(index) {
        Some(Value::Object(outputs)) => pairs.extend(outputs),
        Some(Value::Array(outputs)) => {
            for output in outputs {
                let Value::Object(output) = output else {
                    return Err(invalid(
                        "Invalid parameter, key-value pair not an object as expected",
                    ));
                };
                if output.len() != 1 {
                    return Err(invalid(
                        "Invalid parameter, key-value pair must contain exactly one key",
                    ));
                }
                pairs.extend(output);
            }
        }
        None => return Err(invalid("Invalid parameter, output argument must be non-null")),
        Some(other) => return Err(not_of_type(other, "array")),
    }
    let mut made: Vec<TxOut> = Vec::new();
    let mut has_data = false;
    for (name, value) in pairs {
        if name == "data" {
            if std::mem::replace(&mut has_data, true) {
                return Err(invalid("Invalid parameter, duplicate key: data"));
            }
            made.push(TxOut { value: Amount::ZERO, script_pubkey: data_script(value)? });
            continue;
        }
        let value = Amount::from_sat(amounts::amount(value)?.unsigned_abs());
        let script_pubkey = descriptor::address(name, network).ok_or_else(|| {
            let message = format!("Invalid Bitcoin address: {name}");
            RpcError::new(code::INVALID_ADDRESS_OR_KEY, message)
        })?;
        if made.iter().any(|output| output.script_pubkey == script_pubkey) {
            return Err(invalid(format!("Invalid parameter, duplicated address: {name}")));
        }
        made.push(TxOut { value, script_pubkey });
    }
    Ok(made)
}

fn data_script(value: &Value) -> Result<ScriptBuf, RpcError> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let wrong = || invalid(format!("Data must be hexadecimal string (not '{text}')"));
    let data = tx_json::bytes(&text).filter(|data| !data.is_empty()).ok_or_else(wrong)?;
    let data = bitcoin::script::PushBytesBuf::try_from(data).map_err(|_| wrong())?;
    Ok(ScriptBuf::new_op_return(data))
}

fn get_raw_transaction(context: &Context, args: &Args) -> RpcResult {
    let txid: Txid = args.hash_as(0, "parameter 1")?;
    if txid.to_byte_array() == context.chain.params().genesis.header.merkle_root.to_byte_array() {
        return Err(RpcError::new(
            code::INVALID_ADDRESS_OR_KEY,
            "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved",
        ));
    }
    let verbosity = args.verbosity(1, 0)?;
    let block = args.get(2).map(|_| args.hash_as(2, "parameter 3")).transpose()?;
    let network = context.chain.params().network.to_bitcoin();
    if let Some(block) = block {
        return from_block(context, txid, block, verbosity);
    }
    let queued = context.chain.queue().read().get(&txid).cloned();
    match queued {
        Some(queued) if verbosity <= 0 => Ok(json!(encode_hex(&queued.tx))),
        Some(queued) => Ok(tx_json::transaction(&queued.tx, Spent::Unknown, network)),
        None => from_index(context, txid, verbosity),
    }
}

/// The error for a transaction that is not found, by whether the index of transactions has the whole
/// chain; `None`: it is not kept.
fn no_such_transaction(synced: Option<bool>) -> RpcError {
    let what = match synced {
        None => {
            "No such mempool transaction. Use -txindex or provide a block hash to enable blockchain transaction queries"
        }
        Some(false) => {
            "No such mempool transaction. Blockchain transactions are still in the process of being indexed"
        }
        Some(true) => "No such mempool or blockchain transaction",
    };
    let message = format!("{what}. Use gettransaction for wallet transactions.");
    RpcError::new(code::INVALID_ADDRESS_OR_KEY, message)
}

/// A transaction of the chain, if `-txindex` knows it.
fn from_index(context: &Context, txid: Txid, verbosity: i32) -> RpcResult {
    let Some((index, synced)) = context.indexes.transactions() else {
        return Err(no_such_transaction(None));
    };
    let found = index.find(&txid).map_err(|problem| {
        tracing::warn!("txindex: {problem:#}");
        RpcError::new(code::MISC_ERROR, "Block not found on disk")
    })?;
    let (block, _) = found.ok_or_else(|| no_such_transaction(Some(synced)))?;
    let mut shown = from_block(context, txid, block, verbosity)?;
    if let Some(fields) = shown.as_object_mut() {
        // Said only of a block that was named.
        fields.shift_remove("in_active_chain");
    }
    Ok(shown)
}

/// A transaction of a stored block, with what the chain says of it.
fn from_block(context: &Context, txid: Txid, hash: BlockHash, verbosity: i32) -> RpcResult {
    let network = context.chain.params().network.to_bitcoin();
    context.chain.query(move |chain| {
        let error = |message: &str| RpcError::new(code::INVALID_ADDRESS_OR_KEY, message);
        let at = chain.headers().get(&hash).ok_or_else(|| error("Block hash not found"))?;
        let bytes = chain.read_block(&hash)?;
        let bytes =
            bytes.ok_or_else(|| RpcError::new(code::MISC_ERROR, "Block not available"))?;
        let block: bitcoin::Block = bitcoin::consensus::deserialize(&bytes)
            .map_err(|_| RpcError::new(code::INTERNAL_ERROR, "Block unreadable"))?;
        let found = block.txdata.iter().position(|tx| tx.compute_txid() == txid);
        let (index, tx) = found.and_then(|index| Some((index, block.txdata.get(index)?))).ok_or_else(
            || error("No such transaction found in the provided block. Use gettransaction for wallet transactions."),
        )?;
        if verbosity <= 0 {
            return Ok(json!(encode_hex(tx)));
        }
        let undo = if verbosity > 1 { chain.read_undo(&hash)? } else { None };
        let spent = undo.as_ref().and_then(|undo| undo.0.get(index.checked_sub(1)?));
        let spent = spent.map_or(Spent::Unknown, Spent::Coins);
        let mut fields = Map::new();
        fields.insert("in_active_chain".into(), json!(chain.is_connected(at)));
        if let Value::Object(more) = tx_json::transaction(tx, spent, network) {
            fields.extend(more);
        }
        fields.insert("blockhash".into(), json!(hash.to_string()));
        let entry = chain.headers().entry(at);
        if chain.is_connected(at) {
            let confirmations = i64::from(chain.tip().height) - i64::from(entry.height) + 1;
            fields.insert("confirmations".into(), json!(confirmations));
            fields.insert("time".into(), json!(entry.header.time));
            fields.insert("blocktime".into(), json!(entry.header.time));
        } else {
            fields.insert("confirmations".into(), json!(0));
        }
        Ok(Value::Object(fields))
    })?
}

/// The output that each input of a transaction spends, as far as chain or queue have it.
pub(super) fn coins(context: &Context, tx: &Transaction) -> Result<Vec<Option<TxOut>>, RpcError> {
    let outpoints: Vec<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
    let queue = context.chain.queue().clone();
    context.chain.query(move |chain| {
        let find = |outpoint: &OutPoint| {
            let queue = queue.read();
            if queue.spender(outpoint).is_some() {
                return Ok(None);
            }
            if let Some(queued) = queue.get(&outpoint.txid) {
                return Ok(queued.tx.output.get(outpoint.vout as usize).cloned());
            }
            Ok(chain.coin(outpoint)?.map(|coin| coin.output))
        };
        outpoints.iter().map(find).collect()
    })?
}

/// The address of a script, if it has one.
pub(super) fn address_of(script: &bitcoin::Script, network: Network) -> Option<String> {
    Address::from_script(script, network).ok().map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_an_unfinished_index_lacks_may_yet_be_there() {
        for (synced, words) in [
            (None, "transaction. Use -txindex or provide a block hash to enable"),
            (Some(false), "transaction. Blockchain transactions are still in the process of being"),
            (Some(true), "or blockchain transaction. Use gettransaction for wallet transactions."),
        ] {
            let error = no_such_transaction(synced);
            assert!(error.message.starts_with(&format!("No such mempool {words}")), "{error:?}");
            assert!(error.message.ends_with(". Use gettransaction for wallet transactions."));
        }
    }
}
