//! Methods that bring transactions into the queue, or ask whether it would take them.

use bitcoin::{Amount, OutPoint, Transaction, Txid, Wtxid};
use cofferdam_ibd::coin::is_unspendable;
use cofferdam_ibd::{Chainstate, QueuedTx, TxQueue, TxRejection};
use serde_json::{Map, Value, json};

use super::call::{Args, json as required, optional, text};
use super::tx_bytes::{Form, decode, has_valid_ops};
use super::{Context, Method, RpcError, RpcResult, amounts, code, tx_json};

/// Transactions of one call (Bitcoin Core's `MAX_PACKAGE_COUNT`).
const PACKAGE_MAX: usize = 25;

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "sendrawtransaction",
        params: &[text("hexstring"), optional("maxfeerate"), optional("maxburnamount")],
        run: send_raw_transaction,
    },
    Method {
        name: "testmempoolaccept",
        params: &[required("rawtxs"), optional("maxfeerate")],
        run: test_mempool_accept,
    },
    Method {
        name: "submitpackage",
        params: &[required("package"), optional("maxfeerate"), optional("maxburnamount")],
        run: submit_package,
    },
];

/// The fee that a rate allows for so many virtual bytes, rounded up (`CFeeRate::GetFee`).
fn fee_at(rate: i64, vsize: u64) -> u64 {
    let rate = u128::from(rate.unsigned_abs());
    u64::try_from((rate * u128::from(vsize)).div_ceil(1000)).unwrap_or(u64::MAX)
}

fn max_fee_exceeded() -> TxRejection {
    TxRejection { code: "max-fee-exceeded".into(), detail: None }
}

fn within_fee(tx: &QueuedTx, rate_max: i64) -> Result<(), TxRejection> {
    // Without signature operations, as Core does here.
    let vsize = cofferdam_ibd::tx_queue::vsize(tx.weight);
    if rate_max > 0 && tx.fee > fee_at(rate_max, vsize) {
        return Err(max_fee_exceeded());
    }
    Ok(())
}

/// Refuses what pays more than a rate, with what is pretended of its fee (`m_client_maxfeerate`).
fn within_rate(tx: &QueuedTx, queue: &TxQueue, rate_max: i64) -> Result<(), TxRejection> {
    let (fee, rate) = (i128::from(queue.modified_fee(tx)), i128::from(rate_max));
    if rate > 0 && fee * 1000 > rate * i128::from(tx.vsize()) {
        return Err(TxRejection { code: "max feerate exceeded".into(), detail: None });
    }
    Ok(())
}

/// Refuses outputs that nobody can spend and that are worth more than allowed.
fn check_burn(tx: &Transaction, max: i64) -> Result<(), RpcError> {
    let max = Amount::from_sat(max.unsigned_abs());
    let burns = tx.output.iter().any(|output| {
        let script = &output.script_pubkey;
        (is_unspendable(script) || !has_valid_ops(script)) && output.value > max
    });
    if burns {
        let message = "Unspendable output exceeds maximum configured by user (maxburnamount)";
        return Err(RpcError::new(code::VERIFY_ERROR, message));
    }
    Ok(())
}

fn burn_max(args: &Args, index: usize) -> Result<i64, RpcError> {
    args.get(index).map_or(Ok(0), amounts::amount)
}

fn send_raw_transaction(context: &Context, args: &Args) -> RpcResult {
    let hex = args.text(0)?;
    let burn_max = burn_max(args, 2)?;
    let tx = decode(hex, Form::Any).ok_or_else(|| {
        let message = "TX decode failed. Make sure the tx has at least one input.";
        RpcError::new(code::DESERIALIZATION_ERROR, message)
    })?;
    check_burn(&tx, burn_max)?;
    let rate_max = amounts::fee_rate_max(args.get(1))?;
    let txid = tx.compute_txid();
    let rejected = context.chain.change(move |worker| {
        for (vout, _) in (0..).zip(&tx.output) {
            if worker.chainstate.coin(&OutPoint::new(txid, vout))?.is_some() {
                return Ok(Some(Refusal::InChain));
            }
        }
        if worker.queue().read().get(&txid).is_some() {
            return Ok(None);
        }
        let accepted = worker.accept_transaction(tx, |tx| within_fee(tx, rate_max))?;
        Ok(accepted.err().map(Refusal::Rejected))
    })?;
    match rejected {
        None => Ok(json!(txid.to_string())),
        Some(refusal) => Err(refusal.into()),
    }
}

/// Why a transaction was not taken.
enum Refusal {
    InChain,
    Rejected(TxRejection),
}

impl From<Refusal> for RpcError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InChain => {
                let message = "Transaction outputs already in utxo set";
                Self::new(code::VERIFY_ALREADY_IN_UTXO_SET, message)
            }
            Refusal::Rejected(rejection) if rejection == max_fee_exceeded() => {
                let message = "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)";
                Self::new(code::VERIFY_ERROR, message)
            }
            Refusal::Rejected(rejection) if rejection.is_missing_inputs() => {
                Self::new(code::VERIFY_ERROR, rejection.to_string())
            }
            Refusal::Rejected(rejection) => Self::new(code::VERIFY_REJECTED, rejection.to_string()),
        }
    }
}

/// The transactions of an array of texts.
fn package(args: &Args) -> Result<Vec<Transaction>, RpcError> {
    let texts = args.array(0)?;
    if !(1..=PACKAGE_MAX).contains(&texts.len()) {
        let message = format!("Array must contain between 1 and {PACKAGE_MAX} transactions.");
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    let parse = |text: &Value| {
        let hex = tx_json::string(text)?;
        decode(hex, Form::Any).ok_or_else(|| {
            let message =
                format!("TX decode failed: {hex} Make sure the tx has at least one input.");
            RpcError::new(code::DESERIALIZATION_ERROR, message)
        })
    };
    texts.iter().map(parse).collect()
}

/// A transaction that the queue would take, and its fee with what is pretended.
#[derive(Clone, Debug)]
struct Welcome {
    tx: QueuedTx,
    modified_fee: i64,
}

/// What the queue says of a transaction; `None` if it was not asked, or says nothing yet.
type Answer = Option<Result<Welcome, TxRejection>>;

/// Asks a queue about transactions that may spend each other's outputs
/// (`AcceptMultipleTransactionsInternal`). As there, scripts are run when all else is fine with all:
/// before that, the first fault is all that is told.
fn test_together(
    mut queue: TxQueue,
    chain: &Chainstate,
    txs: Vec<Transaction>,
    now: u32,
    rate_max: i64,
) -> cofferdam_ibd::Result<Vec<Answer>> {
    let mut tested: Vec<Answer> = vec![None; txs.len()];
    let mut sound = Vec::with_capacity(txs.len());
    for (place, tx) in tested.iter_mut().zip(txs) {
        match queue.test_without_scripts(chain, tx, now)? {
            Ok(tx) => {
                queue.add(tx.clone());
                sound.push(tx);
            }
            Err(rejection) => {
                *place = Some(Err(rejection));
                return Ok(tested);
            }
        }
    }
    for (place, tx) in tested.iter_mut().zip(sound) {
        let passed = queue.test_scripts(chain, &tx.tx)?.and_then(|()| within_fee(&tx, rate_max));
        let modified_fee = queue.modified_fee(&tx);
        let result = place.insert(passed.map(|()| Welcome { tx, modified_fee }));
        if result.is_err() {
            break;
        }
    }
    Ok(tested)
}

fn test_mempool_accept(context: &Context, args: &Args) -> RpcResult {
    args.array(0)?;
    let rate_max = amounts::fee_rate_max(args.get(1))?;
    let txs = package(args)?;
    if let Some(error) = package_fault(&txs) {
        let fields = txs.iter().map(|tx| {
            json!({
                "txid": tx.compute_txid().to_string(),
                "wtxid": tx.compute_wtxid().to_string(),
                "package-error": error,
            })
        });
        return Ok(fields.collect());
    }
    let ids: Vec<(Txid, Wtxid)> =
        txs.iter().map(|tx| (tx.compute_txid(), tx.compute_wtxid())).collect();
    let tested = context.chain.change(move |worker| {
        // Later ones may spend what earlier ones make: a queue of its own takes them.
        let queue = worker.queue().read().clone();
        test_together(queue, &worker.chainstate, txs, worker.clock.seconds(), rate_max)
    })?;
    Ok(ids.into_iter().zip(tested).map(|(ids, answer)| describe_test(ids, answer)).collect())
}

fn describe_test((txid, wtxid): (Txid, Wtxid), answer: Answer) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("txid", json!(txid.to_string()));
    put("wtxid", json!(wtxid.to_string()));
    match answer {
        None => {}
        Some(Ok(Welcome { tx, modified_fee })) => {
            put("allowed", json!(true));
            put("vsize", json!(tx.vsize()));
            put("fees", fees(&tx, modified_fee));
        }
        Some(Err(rejection)) => {
            put("allowed", json!(false));
            if rejection.is_missing_inputs() {
                put("reject-reason", json!("missing-inputs"));
            } else {
                put("reject-reason", json!(rejection.code));
                if rejection != max_fee_exceeded() {
                    put("reject-details", json!(rejection.to_string()));
                }
            }
        }
    }
    Value::Object(fields)
}

/// What a transaction pays; its rate counts what is pretended (`CFeeRate::GetFeePerK`).
fn fees(tx: &QueuedTx, modified_fee: i64) -> Value {
    let vsize = i128::from(tx.vsize().max(1));
    let rate = (i128::from(modified_fee) * 1000).div_euclid(vsize);
    let bound = if rate < 0 { i64::MIN } else { i64::MAX };
    json!({
        "base": tx_json::amount(Amount::from_sat(tx.fee)),
        "effective-feerate": tx_json::signed_amount(i64::try_from(rate).unwrap_or(bound)),
        "effective-includes": [tx.wtxid.to_string()],
    })
}

/// What is wrong with several transactions together (`IsWellFormedPackage`).
fn package_fault(txs: &[Transaction]) -> Option<&'static str> {
    let txids: Vec<Txid> = txs.iter().map(Transaction::compute_txid).collect();
    let mut spent = std::collections::HashSet::new();
    for (index, tx) in txs.iter().enumerate() {
        let later = txids.get(index..).unwrap_or_default();
        let earlier = txids.get(..index).unwrap_or_default();
        if txids.get(index).is_some_and(|txid| earlier.contains(txid)) {
            return Some("package-contains-duplicates");
        }
        if tx.input.iter().any(|input| later.contains(&input.previous_output.txid)) {
            return Some("package-not-sorted");
        }
    }
    for tx in txs {
        let distinct: std::collections::HashSet<OutPoint> =
            tx.input.iter().map(|input| input.previous_output).collect();
        // Twice in one transaction is that one's own fault.
        if !distinct.into_iter().all(|outpoint| spent.insert(outpoint)) {
            return Some("conflict-in-package");
        }
    }
    None
}

fn submit_package(context: &Context, args: &Args) -> RpcResult {
    let rate_max = amounts::fee_rate_max(args.get(1))?;
    let burn_max = burn_max(args, 2)?;
    let txs = package(args)?;
    for tx in &txs {
        check_burn(tx, burn_max)?;
    }
    if txs.len() > 1 && !is_child_with_parents(&txs) {
        let message =
            "package topology disallowed. not child-with-parents or parents depend on each other.";
        return Err(RpcError::new(code::VERIFY_ERROR, message));
    }
    let (message, results) = context.chain.change(move |worker| {
        let mut results = Map::new();
        let mut failed = false;
        for tx in txs {
            let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
            let queued = worker.queue().read().get(&txid).cloned();
            let mut fields = json!({"txid": txid.to_string()});
            let more = match queued {
                Some(tx) if tx.wtxid == wtxid => {
                    let base = tx_json::amount(Amount::from_sat(tx.fee));
                    json!({"vsize": tx.vsize(), "fees": {"base": base}})
                }
                Some(tx) => json!({"other-wtxid": tx.wtxid.to_string()}),
                None => {
                    let queue = worker.queue().clone();
                    let is_welcome = |tx: &QueuedTx| within_rate(tx, &queue.read(), rate_max);
                    match worker.accept_transaction(tx, is_welcome)? {
                        Ok(tx) => {
                            let modified_fee = queue.read().modified_fee(&tx);
                            json!({"vsize": tx.vsize(), "fees": fees(&tx, modified_fee)})
                        }
                        Err(rejection) => {
                            failed = true;
                            json!({"error": rejection.to_string()})
                        }
                    }
                }
            };
            if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
                fields.extend(more);
            }
            results.insert(wtxid.to_string(), fields);
        }
        Ok((if failed { "transaction failed" } else { "success" }, results))
    })?;
    Ok(json!({
        "package_msg": message,
        "tx-results": results,
        "replaced-transactions": [],
    }))
}

/// Whether the last spends outputs of all others, and no other does (`IsChildWithParentsTree`).
fn is_child_with_parents(txs: &[Transaction]) -> bool {
    let Some((child, parents)) = txs.split_last() else { return false };
    let ids: Vec<Txid> = parents.iter().map(Transaction::compute_txid).collect();
    let spends = |tx: &Transaction, txid: &Txid| {
        tx.input.iter().any(|input| input.previous_output.txid == *txid)
    };
    ids.iter().all(|txid| spends(child, txid))
        && !parents.iter().any(|parent| ids.iter().any(|txid| spends(parent, txid)))
}
