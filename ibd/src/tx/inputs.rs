//! What a transaction owes to the coins it spends (`CheckTxInputs` in Bitcoin Core's
//! `consensus/tx_verify.cpp`).

use super::MONEY_MAX;
use crate::coin::CoinRef;
use crate::rejection::Rejection;
use crate::wire::TxRef;

/// Blocks until a coinbase's output can be spent (`COINBASE_MATURITY`).
const COINBASE_MATURITY: u32 = 100;

/// Satoshis of a bitcoin.
const COIN: u64 = 100_000_000;

/// Checks maturity and amounts of a transaction in the block at `height`; returns the fee in
/// satoshis.
///
/// `spent` has the coins of all inputs, in their order. The transaction has passed
/// [`check_transaction`](super::check_transaction).
///
/// # Errors
///
/// Returns `bad-txns-inputs-missingorspent` if there are fewer coins than inputs,
/// `bad-txns-premature-spend-of-coinbase`, `bad-txns-inputvalues-outofrange` or
/// `bad-txns-in-belowout`.
pub fn check_tx_inputs(
    tx: TxRef<'_>,
    spent: &[CoinRef<'_>],
    height: u32,
) -> Result<u64, Rejection> {
    if spent.len() < tx.input_count() {
        return Err(missing_inputs());
    }
    let mut value_in = 0_u64;
    for coin in spent {
        let depth = height.saturating_sub(coin.height);
        if coin.coinbase && depth < COINBASE_MATURITY {
            let detail = format!("tried to spend coinbase at depth {depth}");
            let code = "bad-txns-premature-spend-of-coinbase";
            return Err(Rejection::consensus(code).with_detail(detail));
        }
        let sum = value_in.checked_add(coin.value).filter(|&sum| sum <= MONEY_MAX);
        value_in = sum.ok_or_else(|| Rejection::consensus("bad-txns-inputvalues-outofrange"))?;
    }
    // check_transaction() bounded the sum.
    let value_out: u64 = tx.outputs().map(|output| output.value).sum();
    value_in.checked_sub(value_out).ok_or_else(|| {
        let [value_in, value_out] = [value_in, value_out].map(in_coins);
        let detail = format!("value in ({value_in}) < value out ({value_out})");
        Rejection::consensus("bad-txns-in-belowout").with_detail(detail)
    })
}

/// Returns what is said of a transaction whose coins are not all there.
#[must_use]
pub fn missing_inputs() -> Rejection {
    Rejection::consensus("bad-txns-inputs-missingorspent")
        .with_detail("CheckTxInputs: inputs missing/spent")
}

/// Writes satoshis as bitcoins, with two digits behind the point at least (Core's `FormatMoney`).
fn in_coins(value: u64) -> String {
    let (whole, rest) = (value / COIN, value % COIN);
    let digits = format!("{rest:08}");
    let (kept, more) = digits.split_at(2);
    format!("{whole}.{kept}{}", more.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{coin, outpoint, parsed, payment};

    #[track_caller]
    fn check(spent: &[CoinRef<'_>], height: u32, expected: Result<u64, &str>) {
        let tx = payment(&[outpoint(1), outpoint(2)], &[30, 12]);
        let fee = check_tx_inputs(parsed(&tx).first().unwrap(), spent, height);
        assert_eq!(
            fee.as_ref().map_err(|rejection| &*rejection.code),
            expected.as_ref().map_err(|code| *code)
        );
    }

    #[test]
    fn the_fee_is_what_is_left() {
        check(&[coin(1, false, 40), coin(2, false, 5)], 3, Ok(3));
        check(&[coin(1, false, 40), coin(2, false, 2)], 3, Ok(0));
        check(&[coin(1, false, 40), coin(2, false, 1)], 3, Err("bad-txns-in-belowout"));
    }

    #[test]
    fn a_missing_coin_is_noticed() {
        check(&[coin(1, false, 40)], 3, Err("bad-txns-inputs-missingorspent"));
    }

    #[test]
    fn a_coinbase_matures_in_100_blocks() {
        let spent = [coin(1, true, 40), coin(2, false, 5)];
        check(&spent, 100, Err("bad-txns-premature-spend-of-coinbase"));
        check(&spent, 101, Ok(3));
    }

    #[test]
    fn amounts_in_stay_in_range() {
        let bad = "bad-txns-inputvalues-outofrange";
        check(&[coin(1, false, MONEY_MAX), coin(2, false, 1)], 3, Err(bad));
        check(&[coin(1, false, u64::MAX), coin(2, false, 5)], 3, Err(bad));
        check(&[coin(1, false, MONEY_MAX), coin(2, false, 0)], 3, Ok(MONEY_MAX - 42));
    }

    #[test]
    fn what_is_wrong_is_said_as_in_core() {
        assert_eq!(
            [0, 1, COIN, 123_456_000].map(in_coins),
            ["0.00", "0.00000001", "1.00", "1.23456"]
        );
        let tx = payment(&[outpoint(1)], &[2 * COIN]);
        let coin = coin(1, false, COIN);
        let short = check_tx_inputs(parsed(&tx).first().unwrap(), &[coin], 3).unwrap_err();
        let text = "bad-txns-in-belowout, value in (1.00) < value out (2.00)";
        assert_eq!(short.to_string(), text);
    }
}
