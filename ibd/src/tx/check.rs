//! What a transaction has to fulfil by itself (`consensus/tx_check.cpp` of Bitcoin Core).

use bitcoin::{OutPoint, Transaction};

use super::{MONEY_MAX, WITNESS_SCALE};
use crate::block::WEIGHT_MAX;
use crate::rejection::Rejection;

/// Lengths a coinbase's script may have.
const COINBASE_SCRIPT_LEN: std::ops::RangeInclusive<usize> = 2..=100;

/// Checks what needs neither the chain nor coins.
///
/// # Errors
///
/// Returns `bad-txns-vin-empty`, `bad-txns-vout-empty`, `bad-txns-oversize`,
/// `bad-txns-vout-negative`, `bad-txns-vout-toolarge`, `bad-txns-txouttotal-toolarge`,
/// `bad-txns-inputs-duplicate`, `bad-cb-length` or `bad-txns-prevout-null`.
pub fn check_transaction(tx: &Transaction) -> Result<(), Rejection> {
    check_sized_transaction(tx, tx.base_size() as u64)
}

/// Checks as [`check_transaction`] does, for a caller that knows the size without witness.
pub(crate) fn check_sized_transaction(tx: &Transaction, base_size: u64) -> Result<(), Rejection> {
    if tx.input.is_empty() {
        return Err(Rejection::consensus("bad-txns-vin-empty"));
    }
    if tx.output.is_empty() {
        return Err(Rejection::consensus("bad-txns-vout-empty"));
    }
    if base_size * WITNESS_SCALE > WEIGHT_MAX {
        return Err(Rejection::consensus("bad-txns-oversize"));
    }
    check_outputs(tx)?;
    if has_duplicate_inputs(tx) {
        return Err(Rejection::consensus("bad-txns-inputs-duplicate"));
    }
    if tx.is_coinbase() {
        let script_len = tx.input.first().map_or(0, |input| input.script_sig.len());
        if !COINBASE_SCRIPT_LEN.contains(&script_len) {
            return Err(Rejection::consensus("bad-cb-length"));
        }
    } else if tx.input.iter().any(|input| input.previous_output.is_null()) {
        return Err(Rejection::consensus("bad-txns-prevout-null"));
    }
    Ok(())
}

/// Amounts are signed in Core: half of the unsigned ones are negative.
fn check_outputs(tx: &Transaction) -> Result<(), Rejection> {
    let mut total = 0_u64;
    for output in &tx.output {
        let value = output.value.to_sat();
        if value > i64::MAX.unsigned_abs() {
            return Err(Rejection::consensus("bad-txns-vout-negative"));
        }
        if value > MONEY_MAX {
            return Err(Rejection::consensus("bad-txns-vout-toolarge"));
        }
        // Neither addend is above MONEY_MAX: no overflow.
        total += value;
        if total > MONEY_MAX {
            return Err(Rejection::consensus("bad-txns-txouttotal-toolarge"));
        }
    }
    Ok(())
}

fn has_duplicate_inputs(tx: &Transaction) -> bool {
    match tx.input.as_slice() {
        [] | [_] => false,
        [first, second] => first.previous_output == second.previous_output,
        inputs => {
            let mut spent: Vec<OutPoint> = inputs.iter().map(|i| i.previous_output).collect();
            spent.sort_unstable();
            spent.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{coinbase, outpoint, payment};
    use bitcoin::{Amount, ScriptBuf};

    #[track_caller]
    fn check(change: impl FnOnce(&mut Transaction), code: &str) {
        let mut tx = payment(&[outpoint(1), outpoint(2), outpoint(3)], &[5, 6]);
        assert_eq!(check_transaction(&tx), Ok(()));
        change(&mut tx);
        assert_eq!(check_transaction(&tx).unwrap_err().code, code);
    }

    #[test]
    fn a_transaction_needs_inputs_and_outputs() {
        check(|tx| tx.input.clear(), "bad-txns-vin-empty");
        check(|tx| tx.output.clear(), "bad-txns-vout-empty");
    }

    #[test]
    fn a_transaction_fits_into_a_block() {
        let long = |tx: &mut Transaction, len| {
            tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0; len]);
        };
        let mut tx = payment(&[outpoint(1)], &[1]);
        long(&mut tx, 900_000);
        let rest = 1_000_000 - tx.base_size();
        long(&mut tx, 900_000 + rest);
        assert_eq!(check_transaction(&tx), Ok(()));
        long(&mut tx, 900_001 + rest);
        assert_eq!(check_transaction(&tx).unwrap_err().code, "bad-txns-oversize");
    }

    #[test]
    fn amounts_stay_in_range() {
        let set =
            |value: u64| move |tx: &mut Transaction| tx.output[1].value = Amount::from_sat(value);
        check(set(u64::MAX), "bad-txns-vout-negative");
        check(set(1 << 63), "bad-txns-vout-negative");
        check(set((1 << 63) - 1), "bad-txns-vout-toolarge");
        check(set(MONEY_MAX + 1), "bad-txns-vout-toolarge");
        check(set(MONEY_MAX), "bad-txns-txouttotal-toolarge");
        assert_eq!(check_transaction(&payment(&[outpoint(1)], &[MONEY_MAX - 1, 1])), Ok(()));
    }

    #[test]
    fn inputs_are_distinct() {
        let repeat = |tx: &mut Transaction| tx.input[2] = tx.input[0].clone();
        check(repeat, "bad-txns-inputs-duplicate");
        let tx = payment(&[outpoint(1), outpoint(1)], &[1]);
        assert_eq!(check_transaction(&tx).unwrap_err().code, "bad-txns-inputs-duplicate");
    }

    #[test]
    fn only_a_coinbase_spends_nothing() {
        check(|tx| tx.input[1].previous_output = OutPoint::null(), "bad-txns-prevout-null");
        for (len, ok) in [(0, false), (1, false), (2, true), (100, true), (101, false)] {
            let mut tx = coinbase(1, 50);
            tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0; len]);
            let code = check_transaction(&tx).err().map(|rejection| rejection.code);
            assert_eq!(code.as_deref(), (!ok).then_some("bad-cb-length"), "{len}");
        }
    }
}
