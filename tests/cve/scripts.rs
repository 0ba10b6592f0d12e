//! Scripts that run on many threads while something else goes wrong.

use bitcoin::Transaction;
use bitcoin::{OutPoint, TxOut};
use cofferdam_ibd::Network;
use cofferdam_ibd::testing::{ModelChain, transfer};
use cofferdam_storage::BackendKind;
use cofferdam_storage::testing::effort;
use cofferdam_tests::chain;

use super::{anyones, give, invalid};

/// Bitcoin Core left scripts running that pointed into what an early return had freed. Here a block
/// is found invalid at each of its transactions in turn, by its coins and by its script, while all
/// threads are busy with it and with the one before it.
#[test]
fn cve_2024_52911_a_fault_at_any_index_while_all_threads_are_busy() {
    const TXS: usize = 96;
    let (mut model, base) = ModelChain::funded(24);
    let coin = model.spendable(true).swap_remove(0);
    let many = model.block(1, vec![transfer(&[coin], vec![anyones(5000); 2 * TXS])]);
    model.connect(&many);
    let txid = many.txdata[1].compute_txid();
    let simple = |vout: usize| {
        let vout = u32::try_from(vout).expect("small");
        transfer(&[(OutPoint::new(txid, vout), anyones(5000))], vec![anyones(4000)])
    };
    // The block before: its scripts may still run when the fault is found.
    let busy = model.block(2, (0..TXS).map(simple).collect());
    let mut after = model.clone();
    after.connect(&busy);
    let nobodys = after.spendable(false).swap_remove(0);
    let faults: [(fn(&mut Transaction, &(OutPoint, TxOut)), &str); 3] = [
        (|tx, _| tx.input[0].previous_output.vout = 9_999_999, "bad-txns-inputs-missingorspent"),
        (|tx, _| tx.output[0] = anyones(5001), "bad-txns-in-belowout"),
        (|tx, nobodys| tx.input[0].previous_output = nobodys.0, "block-script-verify-flag-failed"),
    ];
    let dir = tempfile::tempdir().expect("temporary");
    let blocks = [&base[..], &[many]].concat();
    let stride = effort().pick(12, 2, 1);
    let mut count = 0;
    for index in (0..TXS).step_by(stride) {
        for (fault, code) in faults {
            let mut options = chain::options(Network::Regtest, &dir.path().join(count.to_string()));
            options.threads = 8;
            let mut chainstate = chain::open_with(options, BackendKind::Memory);
            give(&mut chainstate, &blocks);
            chain::store(&mut chainstate, &[bitcoin::consensus::serialize(&busy)]);
            let mut txs: Vec<_> = (TXS..2 * TXS).map(simple).collect();
            fault(&mut txs[index], &nobodys);
            let block = after.block(3, txs);
            assert_eq!(invalid(&mut chainstate, &block), code, "at {index}");
            assert_eq!(chainstate.tip().hash, after.tip().hash);
            assert!(chain::coin_bytes(&chainstate) == after.rows(), "{code} at {index}");
            let fine = after.block(3, (TXS..2 * TXS).map(simple).collect());
            give(&mut chainstate, &[fine]);
            count += 1;
        }
    }
    println!("{count} invalid blocks");
}
