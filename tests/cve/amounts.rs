//! Sums of amounts.

use bitcoin::{Amount, OutPoint};
use cofferdam_ibd::coin::CoinRef;
use cofferdam_ibd::compress::CompressedScript;
use cofferdam_ibd::testing::{ModelChain, transfer};
use cofferdam_ibd::tx::{check_transaction, check_tx_inputs};
use cofferdam_storage::BackendKind;
use cofferdam_tests::scripts::with_tx;

use super::{anyones, refused, with};

const MAX_MONEY: u64 = 21_000_000 * 100_000_000;

/// The block of 2010 had two outputs whose sum is negative as a signed number. Each amount and each
/// partial sum is compared with the limit, of outputs and of inputs.
#[test]
fn cve_2010_5139_no_partial_sum_is_above_the_limit() {
    // What block 74638 had.
    const HUGE: u64 = 0x7fff_ffff_fff8_5ee0;
    let dir = tempfile::tempdir().expect("temporary");
    let (model, base) = ModelChain::funded(24);
    let mut chainstate = with(BackendKind::Memory, dir.path(), &base);
    let coin = model.spendable(true).swap_remove(0);
    let (toolarge, total) = ("bad-txns-vout-toolarge", "bad-txns-txouttotal-toolarge");
    let negative = "bad-txns-vout-negative";
    let cases: [(&[u64], &str); 9] = [
        (&[HUGE, HUGE], toolarge),
        (&[MAX_MONEY + 1], toolarge),
        (&[1, MAX_MONEY + 1], toolarge),
        (&[MAX_MONEY, 1], total),
        (&[1, MAX_MONEY], total),
        (&[MAX_MONEY / 2 + 1, MAX_MONEY / 2, 0], total),
        // The sum of the first two is too large, and that of all would be small again.
        (&[MAX_MONEY, MAX_MONEY, u64::MAX - 2 * MAX_MONEY + 2], total),
        (&[1 << 63], negative),
        (&[u64::MAX, 2], negative),
    ];
    for (amounts, code) in cases {
        let outputs = |amounts: &[u64]| amounts.iter().map(|amount| anyones(*amount)).collect();
        let tx = transfer(std::slice::from_ref(&coin), outputs(amounts));
        assert_eq!(
            with_tx(&tx, check_transaction).expect_err("too much").code,
            code,
            "{amounts:?}"
        );
        // In a payment, and in the coinbase.
        let mut block = model.block(1, Vec::new());
        block.txdata.push(tx);
        model.seal(&mut block);
        assert_eq!(refused(&mut chainstate, &block), code, "{amounts:?}");
        let mut block = model.block(1, Vec::new());
        block.txdata[0].output = outputs(amounts);
        model.seal(&mut block);
        assert_eq!(refused(&mut chainstate, &block), code, "{amounts:?}");
    }
    let fine = transfer(std::slice::from_ref(&coin), vec![anyones(MAX_MONEY - 1), anyones(1)]);
    assert!(with_tx(&fine, check_transaction).is_ok());
    check_inputs();
}

fn check_inputs() {
    let out_of_range = "bad-txns-inputvalues-outofrange";
    let cases: [(&[u64], Result<u64, &str>); 7] = [
        (&[MAX_MONEY], Ok(MAX_MONEY - 1)),
        (&[MAX_MONEY - 1, 1], Ok(MAX_MONEY - 1)),
        (&[MAX_MONEY, 1], Err(out_of_range)),
        (&[1, MAX_MONEY], Err(out_of_range)),
        (&[MAX_MONEY + 1], Err(out_of_range)),
        (&[u64::MAX, 2], Err(out_of_range)),
        (&[0], Err("bad-txns-in-belowout")),
    ];
    for (amounts, expected) in cases {
        let from: Vec<_> =
            amounts.iter().map(|amount| (OutPoint::null(), anyones(*amount))).collect();
        let tx = transfer(&from, vec![anyones(1)]);
        let coin = |&value: &u64| {
            let script = CompressedScript::Other(&[0x51]);
            CoinRef { height: 1, coinbase: false, value, script, output: &[] }
        };
        let coins: Vec<_> = amounts.iter().map(coin).collect();
        let fee = with_tx(&tx, |tx| check_tx_inputs(tx, &coins, 500));
        assert_eq!(fee.as_ref().map_err(|why| &*why.code), expected.as_ref().map_err(|why| *why));
    }
    assert_eq!(Amount::MAX_MONEY.to_sat(), MAX_MONEY);
}
