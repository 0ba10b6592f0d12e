//! `getdescriptoractivity`: what was received and spent by descriptors' scripts in some blocks.

use std::collections::{BTreeMap, HashSet};

use bitcoin::{Amount, BlockHash, Network, Script, ScriptBuf, Transaction, TxIn};
use cofferdam_ibd::Coin;
use cofferdam_ibd::undo::TxUndo;
use serde_json::{Value, json};

use super::blockchain::find;
use super::call::{Args, json as required, optional, parse_hash};
use super::scan::scripts;
use super::stored_block::StoredBlock;
use super::{Context, Method, RpcError, RpcResult, code, tx_json};

pub(super) const METHODS: &[Method] = &[Method {
    name: "getdescriptoractivity",
    params: &[required("blockhashes"), required("scanobjects"), optional("include_mempool")],
    run: get_descriptor_activity,
}];

fn get_descriptor_activity(context: &Context, args: &Args) -> RpcResult {
    let network = context.chain.params().network.to_bitcoin();
    let hashes =
        args.get(0).and_then(Value::as_array).ok_or_else(|| args.wrong_type(0, "array"))?;
    let hashes: Result<Vec<BlockHash>, RpcError> =
        hashes.iter().map(|hash| parse_hash("blockhash", tx_json::string(hash)?)).collect();
    let hashes = hashes?;
    let blocks = context.chain.query(move |chain| {
        let mut blocks = BTreeMap::new();
        for hash in hashes {
            let at = find(chain, &hash)?;
            if !chain.is_connected(at) {
                let text = "Block is not in main chain";
                return Err(RpcError::new(code::INVALID_PARAMETER, text));
            }
            blocks.insert(chain.headers().entry(at).height, StoredBlock::new(chain, at));
        }
        Ok(blocks)
    })??;
    if args.get(1).is_some_and(|objects| !objects.is_array()) {
        return Err(args.wrong_type(1, "array"));
    }
    let watched =
        scripts(args.get(1), network)?.into_iter().map(|derived| derived.script).collect();
    let with_queue = args.optional_flag(2)?.unwrap_or(true);
    let mut watcher = Watcher { network, watched, activity: Vec::new() };
    for stored in blocks.values() {
        let (block, undo) = (stored.block()?, stored.undo()?);
        let place = Some((stored.entry.hash, stored.entry.height));
        for (index, transaction) in block.txdata.iter().enumerate() {
            // The coinbase spends nothing.
            if let Some(undo) = index.checked_sub(1).and_then(|index| undo.0.get(index)) {
                watcher.spends(transaction, undo, place);
            }
            watcher.receives(transaction, place);
        }
    }
    if with_queue {
        for (transaction, spent) in queued(context)? {
            watcher.spends(&transaction, &spent, None);
            watcher.receives(&transaction, None);
        }
    }
    Ok(json!({"activity": watcher.activity}))
}

/// The transactions that wait for a block, with what they spend.
fn queued(context: &Context) -> Result<Vec<(Transaction, TxUndo)>, RpcError> {
    let queue = context.chain.queue().read().clone();
    context.chain.query(move |chain| {
        let mut found = Vec::new();
        for queued in queue.iter() {
            let mut spent = Vec::new();
            for input in &queued.tx.input {
                let outpoint = input.previous_output;
                let parent = queue.get(&outpoint.txid);
                let output = parent.and_then(|parent| {
                    parent.tx.output.get(usize::try_from(outpoint.vout).ok()?).cloned()
                });
                let coin = match output {
                    Some(output) => Some(Coin { height: 0, coinbase: false, output }),
                    None => chain.coin(&outpoint)?,
                };
                spent.extend(coin);
            }
            // Not all were found if a block came in between: then it does not wait any more.
            if spent.len() == queued.tx.input.len() {
                found.push((queued.tx.clone(), TxUndo(spent)));
            }
        }
        Ok(found)
    })?
}

/// A block that an event is in; none of what waits for one.
type Place = Option<(BlockHash, u32)>;

struct Watcher {
    network: Network,
    watched: HashSet<ScriptBuf>,
    activity: Vec<Value>,
}

impl Watcher {
    fn spends(&mut self, transaction: &Transaction, undo: &TxUndo, place: Place) {
        let txid = transaction.compute_txid();
        for (vin, (input, coin)) in transaction.input.iter().zip(&undo.0).enumerate() {
            let TxIn { previous_output, .. } = input;
            let script = &coin.output.script_pubkey;
            if !self.watched.contains(script) {
                continue;
            }
            let mut event = event("spend", coin.output.value, place);
            put(&mut event, "spend_txid", json!(txid.to_string()));
            put(&mut event, "spend_vin", json!(vin));
            put(&mut event, "prevout_txid", json!(previous_output.txid.to_string()));
            put(&mut event, "prevout_vout", json!(previous_output.vout));
            put(&mut event, "prevout_spk", self.script(script));
            self.activity.push(event);
        }
    }

    fn receives(&mut self, transaction: &Transaction, place: Place) {
        let txid = transaction.compute_txid();
        for (vout, output) in transaction.output.iter().enumerate() {
            if !self.watched.contains(&output.script_pubkey) {
                continue;
            }
            let mut event = event("receive", output.value, place);
            put(&mut event, "txid", json!(txid.to_string()));
            put(&mut event, "vout", json!(vout));
            put(&mut event, "output_spk", self.script(&output.script_pubkey));
            self.activity.push(event);
        }
    }

    fn script(&self, script: &Script) -> Value {
        tx_json::script(script, self.network)
    }
}

fn event(kind: &str, amount: Amount, place: Place) -> Value {
    let mut event = json!({"type": kind, "amount": tx_json::amount(amount)});
    if let Some((hash, height)) = place {
        put(&mut event, "blockhash", json!(hash.to_string()));
        put(&mut event, "height", json!(height));
    }
    event
}

fn put(event: &mut Value, name: &str, value: Value) {
    if let Some(fields) = event.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}
