//! Limits of engines and buffers are no rules.

use std::time::{Duration, Instant};

use bitcoin::consensus::serialize;
use bitcoin::{Amount, Block, OutPoint, TxOut};
use cofferdam_ibd::Network;
use cofferdam_ibd::testing::{ModelChain, transfer};
use cofferdam_storage::BackendKind;
use cofferdam_storage::testing::{Effort, effort};
use cofferdam_tests::chain::{self, NOW};

use super::{BACKENDS, anyones, give};

const WEIGHT_MAX: u64 = 4_000_000;
/// A payment to anybody: amount, length, script.
const OUTPUT_BYTES: u64 = 10;
/// A spend of that: outpoint, length, sequence.
const INPUT_BYTES: u64 = 41;

/// A block that makes as many coins as fit, one that spends as many as fit, and one byte too many.
fn largest(model: &ModelChain) -> [Block; 3] {
    let mut model = model.clone();
    let coins = model.spendable(true);
    let coin = coins.iter().find(|(_, output)| !output.script_pubkey.is_p2wsh()).expect("coins");
    let room = |block: &Block, bytes: u64| (WEIGHT_MAX - block.weight().to_wu()) / 4 / bytes;
    let make = |count: u64| {
        let to = vec![anyones(2); usize::try_from(count).expect("fits")];
        model.block(1, vec![transfer(std::slice::from_ref(coin), to)])
    };
    // The number of outputs takes four bytes more than that of one.
    let makes = make(room(&make(1), OUTPUT_BYTES));
    assert!(WEIGHT_MAX - makes.weight().to_wu() < 4 * OUTPUT_BYTES);
    model.connect(&makes);
    let txid = makes.txdata[1].compute_txid();
    let spend = |count: u64, script: Vec<u8>| {
        let vouts = 0..u32::try_from(count).expect("fits");
        let from: Vec<_> = vouts.map(|vout| (OutPoint::new(txid, vout), anyones(2))).collect();
        let mut to = anyones(1);
        to.script_pubkey = script.into();
        model.block(1, vec![transfer(&from, vec![to])])
    };
    let inputs = room(&spend(300, vec![0x51]), INPUT_BYTES) + 300;
    let left = (WEIGHT_MAX - spend(inputs, vec![0x51]).weight().to_wu()) / 4;
    let script = |len: u64| vec![0x51; usize::try_from(len).expect("fits")];
    let full = spend(inputs, script(1 + left));
    assert_eq!(full.weight().to_wu(), WEIGHT_MAX);
    [makes, full, spend(inputs, script(2 + left))]
}

/// The chain of 2013 split at a number of locks of a database. Here the largest block that there
/// can be has one verdict, and leaves the same coins, whatever holds them.
#[test]
fn cve_2013_3220_no_limit_of_an_engine_or_a_buffer_decides() {
    let (mut model, base) = ModelChain::funded(24);
    let [makes, spends, too_large] = largest(&model);
    let inputs = spends.txdata[1].input.len();
    println!("{} outputs, {inputs} inputs", makes.txdata[1].output.len());
    assert!(inputs > 24_000);
    let before = model.rows();
    model.connect(&makes);
    let between = model.rows();
    model.connect(&spends);
    for (number, backend) in BACKENDS.into_iter().enumerate() {
        for (size, memtable_bytes) in [1, 256 << 10, 256 << 20].into_iter().enumerate() {
            if effort() == Effort::Quick && size != number {
                continue;
            }
            let dir = tempfile::tempdir().expect("temporary");
            let mut options = chain::options(Network::Regtest, dir.path());
            options.wal.memtable_bytes = memtable_bytes;
            let mut chainstate = chain::open_with(options, backend);
            give(&mut chainstate, &base);
            assert!(chain::coin_bytes(&chainstate) == before);
            give(&mut chainstate, std::slice::from_ref(&makes));
            assert!(chain::coin_bytes(&chainstate) == between, "{backend} {memtable_bytes}");
            let refused = chainstate.accept_block(serialize(&too_large), NOW).expect("works");
            let code = format!("{refused:?}");
            assert!(code.contains("bad-blk-length"), "{code}");
            give(&mut chainstate, std::slice::from_ref(&spends));
            assert!(chain::coin_bytes(&chainstate) == model.rows(), "{backend} {memtable_bytes}");
            chainstate.shutdown().expect("closes");
        }
    }
}

/// The longest script that can be spent, without a signature: pushes as long as they may be, and true.
fn longest() -> TxOut {
    let push = [&[0x4d, 0x08, 0x02][..], &[0; 520]].concat();
    let script = [push.repeat(19), vec![61], vec![0; 61], vec![0x51]].concat();
    assert_eq!(script.len(), 10_000);
    TxOut { value: Amount::from_sat(1), script_pubkey: script.into() }
}

/// Full blocks that make so many coins of the longest script, and a small one that spends them all.
fn swelling(model: &mut ModelChain, coins: usize) -> (Vec<Block>, Block) {
    // With a hundred a block would be too large.
    const PER_BLOCK: u32 = 99;
    let spendable = model.spendable(true);
    let coin = spendable.iter().find(|(_, output)| !output.script_pubkey.is_p2wsh());
    let (mut coin, mut made, mut blocks) = (coin.expect("coins").clone(), Vec::new(), Vec::new());
    while made.len() < coins {
        let change = anyones(coin.1.value.to_sat() - u64::from(PER_BLOCK));
        let to = [vec![longest(); PER_BLOCK as usize], vec![change.clone()]].concat();
        let tx = transfer(std::slice::from_ref(&coin), to);
        let txid = tx.compute_txid();
        coin = (OutPoint::new(txid, PER_BLOCK), change);
        made.extend((0..PER_BLOCK).map(|vout| (OutPoint::new(txid, vout), longest())));
        let block = model.block(2, vec![tx]);
        model.connect(&block);
        blocks.push(block);
    }
    let spends = model.block(2, vec![transfer(&made, vec![anyones(2)])]);
    (blocks, spends)
}

/// The opposite of a large block: a small one, to take which back restores hundreds of times its
/// bytes, more than any block has. It is connected, taken back, also after a crash, and connected again.
#[test]
fn cve_2013_3220_nor_does_one_decide_what_can_be_taken_back() {
    let (mut model, base) = ModelChain::funded(24);
    // A full block of such inputs restores 234 MiB.
    let (makes, spends) = swelling(&mut model, (66 << 20) / 10_000);
    let before = model.rows();
    model.connect(&spends);
    let after = model.rows();
    let raw: Vec<_> = base.iter().chain(&makes).chain([&spends]).map(serialize).collect();
    for backend in BACKENDS {
        if effort() == Effort::Quick && backend != BackendKind::Lsm {
            continue;
        }
        let dir = tempfile::tempdir().expect("temporary");
        let mut chainstate = chain::open(Network::Regtest, backend, dir.path());
        chain::store(&mut chainstate, &raw);
        chain::settle(&mut chainstate);
        assert!(chain::coin_bytes(&chainstate) == after, "{backend}");
        let at = chainstate.headers().get(&spends.block_hash()).expect("known");
        let hour = Instant::now() + Duration::from_secs(3600);
        let done = chainstate.invalidate_block(at, hour).expect("works");
        assert!(done.done && done.disconnected == 1, "{backend}: {done:?}");
        assert!(chain::coin_bytes(&chainstate) == before, "{backend}");
        if backend != BackendKind::Memory {
            drop(chainstate);
            chainstate = chain::open(Network::Regtest, backend, dir.path());
            assert!(chain::coin_bytes(&chainstate) == before, "{backend}: replayed");
        }
        let at = chainstate.headers().get(&spends.block_hash()).expect("known");
        chainstate.reconsider_block(at).expect("works");
        chain::settle(&mut chainstate);
        assert!(chain::coin_bytes(&chainstate) == after, "{backend}: again");
        chainstate.shutdown().expect("closes");
    }
}
