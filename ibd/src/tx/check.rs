//! What a transaction has to fulfil by itself (`consensus/tx_check.cpp` of Bitcoin Core).

use super::{MONEY_MAX, WITNESS_SCALE};
use crate::block::WEIGHT_MAX;
use crate::rejection::Rejection;
use crate::wire::{InputRef, TxRef};

/// Lengths a coinbase's script may have.
const COINBASE_SCRIPT_LEN: std::ops::RangeInclusive<usize> = 2..=100;

/// Up to that many inputs are compared each with each, which takes no memory.
const PAIRWISE_INPUTS_MAX: usize = 12;

/// Checks what needs neither the chain nor coins.
///
/// # Errors
///
/// Returns `bad-txns-vin-empty`, `bad-txns-vout-empty`, `bad-txns-oversize`,
/// `bad-txns-vout-negative`, `bad-txns-vout-toolarge`, `bad-txns-txouttotal-toolarge`,
/// `bad-txns-inputs-duplicate`, `bad-cb-length` or `bad-txns-prevout-null`.
pub fn check_transaction(tx: TxRef<'_>) -> Result<(), Rejection> {
    check_with(tx, has_duplicate_inputs)
}

/// Checks as [`check_transaction`] does, for a caller that can tell at less cost whether two inputs
/// spend the same.
pub(crate) fn check_with(
    tx: TxRef<'_>,
    has_duplicates: impl FnOnce(TxRef<'_>) -> bool,
) -> Result<(), Rejection> {
    if tx.input_count() == 0 {
        return Err(Rejection::consensus("bad-txns-vin-empty"));
    }
    if tx.output_count() == 0 {
        return Err(Rejection::consensus("bad-txns-vout-empty"));
    }
    if tx.base_size() as u64 * WITNESS_SCALE > WEIGHT_MAX {
        return Err(Rejection::consensus("bad-txns-oversize"));
    }
    check_outputs(tx)?;
    if has_duplicates(tx) {
        return Err(Rejection::consensus("bad-txns-inputs-duplicate"));
    }
    if tx.is_coinbase() {
        let script_len = tx.inputs().next().map_or(0, |input| input.script_sig().len());
        if !COINBASE_SCRIPT_LEN.contains(&script_len) {
            return Err(Rejection::consensus("bad-cb-length"));
        }
    } else if tx.inputs().any(InputRef::is_null) {
        return Err(Rejection::consensus("bad-txns-prevout-null"));
    }
    Ok(())
}

/// Amounts are signed in Core: half of the unsigned ones are negative.
fn check_outputs(tx: TxRef<'_>) -> Result<(), Rejection> {
    let mut total = 0_u64;
    for output in tx.outputs() {
        if output.value > i64::MAX.unsigned_abs() {
            return Err(Rejection::consensus("bad-txns-vout-negative"));
        }
        if output.value > MONEY_MAX {
            return Err(Rejection::consensus("bad-txns-vout-toolarge"));
        }
        // Neither addend is above MONEY_MAX: no overflow.
        total += output.value;
        if total > MONEY_MAX {
            return Err(Rejection::consensus("bad-txns-txouttotal-toolarge"));
        }
    }
    Ok(())
}

pub(crate) fn has_duplicate_inputs(tx: TxRef<'_>) -> bool {
    let outpoints = tx.inputs().map(InputRef::outpoint_bytes);
    if outpoints.len() > PAIRWISE_INPUTS_MAX {
        let mut spent: Vec<&[u8; 36]> = outpoints.collect();
        spent.sort_unstable();
        return spent.windows(2).any(|pair| matches!(pair, [a, b] if a == b));
    }
    let mut rest = outpoints;
    while let Some(outpoint) = rest.next() {
        if rest.clone().any(|other| other == outpoint) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{coinbase, outpoint, parsed, payment};
    use crate::wire::Transactions;
    use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction};

    fn check_transaction(tx: &Transaction) -> Result<(), Rejection> {
        super::check_transaction(parsed(tx).first().unwrap())
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Transaction), code: &str) {
        let mut tx = payment(&[outpoint(1), outpoint(2), outpoint(3)], &[5, 6]);
        assert_eq!(check_transaction(&tx), Ok(()));
        change(&mut tx);
        assert_eq!(check_transaction(&tx).unwrap_err().code, code);
    }

    #[test]
    fn a_transaction_needs_inputs_and_outputs() {
        check(|tx| tx.output.clear(), "bad-txns-vout-empty");
        // The one coding of a transaction without inputs has no outputs either.
        let empty = Transactions::of_transaction(vec![0; 10]).unwrap();
        let rejection = super::check_transaction(empty.first().unwrap()).unwrap_err();
        assert_eq!(rejection.code, "bad-txns-vin-empty");
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
        let mut many: Vec<OutPoint> = (0..40).map(outpoint).collect();
        assert_eq!(check_transaction(&payment(&many, &[1])), Ok(()));
        many[39] = many[3];
        let code = check_transaction(&payment(&many, &[1])).unwrap_err().code;
        assert_eq!(code, "bad-txns-inputs-duplicate");
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
