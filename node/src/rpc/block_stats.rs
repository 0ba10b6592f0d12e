//! `getblockstats`: statistics of one block, from it and its undo data.

use std::collections::BTreeSet;

use bitcoin::{Block, Transaction, TxOut};
use cofferdam_ibd::block::bip30_repeat;
use cofferdam_ibd::block_subsidy;
use cofferdam_ibd::coin::is_unspendable;
use cofferdam_ibd::undo::{BlockUndo, TxUndo};
use serde_json::{Map, Value, json};

use super::call::{Args, json as required, not_of_type, optional};
use super::stored_block::StoredBlock;
use super::utxo_set::HashOrHeight;
use super::{Context, Method, RpcError, RpcResult, code, tx_json};

/// Outpoint, height and coinbase, which a set keeps with each output.
const PER_UTXO_OVERHEAD: i64 = 36 + 4;

pub(super) const METHODS: &[Method] = &[Method {
    name: "getblockstats",
    params: &[required("hash_or_height"), optional("stats")],
    run: get_block_stats,
}];

fn get_block_stats(context: &Context, args: &Args) -> RpcResult {
    let at = HashOrHeight::read(args, 0)?;
    let at = at.ok_or_else(|| not_of_type(&Value::Null, "string"))?;
    let names = args.get(1).map(|_| args.array(1)).transpose()?.unwrap_or_default();
    let names = names.iter().map(|name| tx_json::string(name).map(str::to_owned));
    // In the order of their names, as Core's set has them.
    let chosen: BTreeSet<String> = names.collect::<Result<_, _>>()?;
    let (stored, median_time) = context.chain.query(move |chain| {
        let at = at.find(chain)?;
        Ok::<_, RpcError>((StoredBlock::new(chain, at), chain.headers().median_time_past(at)))
    })??;
    let (block, undo) = (stored.block()?, stored.undo()?);
    let params = context.chain.params();
    let (height, hash) = (stored.entry.height, stored.entry.hash);
    let sums = Sums::of(&block, &undo, (height == 0, bip30_repeat(params, height, &hash)));
    let mut all = sums.fields();
    let rest = [
        ("blockhash", json!(hash.to_string())),
        ("height", json!(height)),
        ("mediantime", json!(median_time)),
        ("subsidy", json!(block_subsidy(height, params))),
        ("time", json!(block.header.time)),
        ("txs", json!(block.txdata.len())),
    ];
    all.extend(rest.map(|(name, value)| (name.to_owned(), value)));
    if chosen.is_empty() {
        return Ok(Value::Object(
            ORDER.iter().filter_map(|&name| all.remove_entry(name)).collect(),
        ));
    }
    let mut selected = Map::new();
    for name in chosen {
        let value = all.get(&name).ok_or_else(|| {
            let text = format!("Invalid selected statistic '{name}'");
            RpcError::new(code::INVALID_PARAMETER, text)
        })?;
        selected.insert(name, value.clone());
    }
    Ok(Value::Object(selected))
}

/// The statistics in the order in which Core shows them.
const ORDER: [&str; 31] = [
    "avgfee",
    "avgfeerate",
    "avgtxsize",
    "blockhash",
    "feerate_percentiles",
    "height",
    "ins",
    "maxfee",
    "maxfeerate",
    "maxtxsize",
    "medianfee",
    "mediantime",
    "mediantxsize",
    "minfee",
    "minfeerate",
    "mintxsize",
    "outs",
    "subsidy",
    "swtotal_size",
    "swtotal_weight",
    "swtxs",
    "time",
    "total_out",
    "total_size",
    "total_weight",
    "totalfee",
    "txs",
    "utxo_increase",
    "utxo_size_inc",
    "utxo_increase_actual",
    "utxo_size_inc_actual",
];

/// What is summed up over a block's transactions.
#[derive(Default)]
struct Sums {
    inputs: i64,
    outputs: i64,
    /// Outputs that the set keeps.
    kept_outputs: i64,
    total_out: i64,
    segwit: (i64, i64, i64),
    utxo_size: i64,
    kept_utxo_size: i64,
    sizes: Vec<i64>,
    fees: Vec<i64>,
    /// Fee rates in satoshis per virtual byte, with weights.
    rates: Vec<(i64, i64)>,
}

impl Sums {
    /// Sums up; of the genesis block and of a repeated coinbase no output is new to the set.
    fn of(block: &Block, undo: &BlockUndo, (is_genesis, is_repeat): (bool, bool)) -> Self {
        let mut sums = Self::default();
        for (index, transaction) in block.txdata.iter().enumerate() {
            let kept = !(is_genesis || (is_repeat && index == 0));
            let out = sums.add_outputs(transaction, kept);
            if let Some(undo) = index.checked_sub(1).and_then(|index| undo.0.get(index)) {
                sums.total_out += out;
                sums.add_payment(transaction, undo, out);
            }
        }
        sums
    }

    fn add_outputs(&mut self, transaction: &Transaction, kept: bool) -> i64 {
        let mut total = 0;
        for output in &transaction.output {
            self.outputs += 1;
            total += signed(output.value.to_sat());
            let size = utxo_size(output);
            self.utxo_size += size;
            if kept && !is_unspendable(&output.script_pubkey) {
                self.kept_outputs += 1;
                self.kept_utxo_size += size;
            }
        }
        total
    }

    fn add_payment(&mut self, transaction: &Transaction, undo: &TxUndo, out: i64) {
        self.inputs += length(transaction.input.len());
        let size = length(transaction.total_size());
        let weight = signed(transaction.weight().to_wu());
        self.sizes.push(size);
        if transaction.input.iter().any(|input| !input.witness.is_empty()) {
            self.segwit.0 += 1;
            self.segwit.1 += size;
            self.segwit.2 += weight;
        }
        let mut paid = 0;
        for coin in &undo.0 {
            paid += signed(coin.output.value.to_sat());
            let size = utxo_size(&coin.output);
            self.utxo_size -= size;
            self.kept_utxo_size -= size;
        }
        let fee = paid - out;
        self.fees.push(fee);
        self.rates.push(((fee * 4).checked_div(weight).unwrap_or(0), weight));
    }

    fn fields(self) -> Map<String, Value> {
        let payments = length(self.fees.len());
        let total_fee: i64 = self.fees.iter().sum();
        let total_size: i64 = self.sizes.iter().sum();
        let total_weight: i64 = self.rates.iter().map(|(_, weight)| weight).sum();
        let average = |sum: i64| sum.checked_div(payments).unwrap_or(0);
        let rates: Vec<i64> = self.rates.iter().map(|(rate, _)| *rate).collect();
        let least = |values: &[i64]| values.iter().min().copied().unwrap_or(0);
        let most = |values: &[i64]| values.iter().max().copied().unwrap_or(0);
        let fields = json!({
            "avgfee": average(total_fee),
            "avgfeerate": (total_fee * 4).checked_div(total_weight).unwrap_or(0),
            "avgtxsize": average(total_size),
            "feerate_percentiles": percentiles(self.rates.clone(), total_weight),
            "ins": self.inputs,
            "maxfee": most(&self.fees),
            "maxfeerate": most(&rates),
            "maxtxsize": most(&self.sizes),
            "minfee": least(&self.fees),
            "minfeerate": least(&rates),
            "mintxsize": least(&self.sizes),
            "outs": self.outputs,
            "swtotal_size": self.segwit.1,
            "swtotal_weight": self.segwit.2,
            "swtxs": self.segwit.0,
            "total_out": self.total_out,
            "total_size": total_size,
            "total_weight": total_weight,
            "totalfee": total_fee,
            "utxo_increase": self.outputs - self.inputs,
            "utxo_size_inc": self.utxo_size,
            "utxo_increase_actual": self.kept_outputs - self.inputs,
            "utxo_size_inc_actual": self.kept_utxo_size,
            "medianfee": median(self.fees),
            "mediantxsize": median(self.sizes),
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn length(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn utxo_size(output: &TxOut) -> i64 {
    length(output.size()) + PER_UTXO_OVERHEAD
}

/// The middle value, or the whole part of the mean of the two in the middle.
fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    let middle = values.len() / 2;
    let upper = values.get(middle).copied().unwrap_or(0);
    if values.len().is_multiple_of(2) {
        let lower = middle.checked_sub(1).and_then(|below| values.get(below)).copied();
        return lower.map_or(0, |lower| (lower + upper) / 2);
    }
    upper
}

/// The rates below which 10, 25, 50, 75 and 90 per cent of the weight are
/// (`CalculatePercentilesByWeight`).
fn percentiles(mut rates: Vec<(i64, i64)>, total_weight: i64) -> [i64; 5] {
    rates.sort_unstable();
    let last = rates.last().map_or(0, |(rate, _)| *rate);
    // In twentieths: no fractions are needed to compare.
    [2, 5, 10, 15, 18].map(|twentieths| {
        let mut weight = 0;
        let found = rates.iter().find(|(_, own)| {
            weight += own;
            weight * 20 >= total_weight * twentieths
        });
        found.map_or(last, |(rate, _)| *rate)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases of Core's `rpc_tests.cpp`.
    #[test]
    fn percentiles_are_by_weight() {
        let rates: Vec<(i64, i64)> =
            std::iter::repeat_n((1, 1), 100).chain(std::iter::repeat_n((2, 1), 100)).collect();
        assert_eq!(percentiles(rates, 200), [1, 1, 1, 2, 2]);
        assert_eq!(
            percentiles(vec![(1, 9), (2, 16), (4, 50), (5, 10), (9, 15)], 100),
            [2, 2, 4, 4, 9]
        );
        assert_eq!(
            percentiles(vec![(1, 9), (2, 16), (4, 50), (5, 10), (5, 10), (9, 5)], 100),
            [2, 2, 4, 4, 5]
        );
        assert_eq!(percentiles(Vec::new(), 0), [0; 5]);
    }

    #[test]
    fn the_median_of_an_even_number_is_cut_off() {
        assert_eq!(median(vec![]), 0);
        assert_eq!(median(vec![7, 1, 3]), 3);
        assert_eq!(median(vec![4, 1]), 2);
    }
}
